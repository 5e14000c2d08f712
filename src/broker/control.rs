//! Control messages as they stand on the wire. Pure.
//!
//! Orders go through the default exchange to [`control_queue`](crate::api::control_queue) of the pod; the consumer
//! answers on `replyTo`. `migration`, `epoch` and `replyTo` extend the two plain messages, which have none of them.

use serde::{Deserialize, Serialize};

use crate::api::{Epoch, MigrationUid};

/// What an order wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderType {
    /// Park: cancel the subscription, apply and acknowledge what was delivered, consume the named queue instead.
    #[serde(rename = "START_REPLAY")]
    StartReplay,
    /// Resume: leave that queue and consume the primary again.
    #[serde(rename = "END_REPLAY")]
    EndReplay,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPayload {
    /// START: the parking queue. END: the primary queue.
    pub queue: String,
}

/// Which attempt of which migration orders it, and where it waits for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    pub migration: MigrationUid,
    pub epoch: Epoch,
    pub reply_to: String,
}

/// An order to a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    #[serde(rename = "type")]
    pub kind: OrderType,
    pub payload: OrderPayload,
    /// Missing in the plain messages.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AnswerType {
    #[serde(rename = "PARKED")]
    Parked,
    #[serde(rename = "RESUMED")]
    Resumed,
}

/// What a consumer says once it has obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    #[serde(rename = "type")]
    pub kind: AnswerType,
    pub migration: MigrationUid,
    pub epoch: Epoch,
    /// Name of the pod that answers, from its /etc/hostname.
    pub pod: String,
    /// How many messages it has applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Id of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_id: Option<String>,
}

/// The message is no control message.
#[derive(Debug, thiserror::Error)]
#[error("no control message: {0}; see broker::control")]
pub struct ControlError(#[from] serde_json::Error);

macro_rules! wire {
    ($name:ident) => {
        impl $name {
            pub fn from_slice(body: &[u8]) -> Result<Self, ControlError> {
                Ok(serde_json::from_slice(body)?)
            }

            pub fn to_vec(&self) -> Result<Vec<u8>, ControlError> {
                Ok(serde_json::to_vec(self)?)
            }
        }
    };
}

wire!(Order);
wire!(Answer);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_order_has_the_documented_form() {
        let order = Order {
            kind: OrderType::StartReplay,
            payload: OrderPayload { queue: "ms2m.park.u.2".into() },
            fence: Some(Fence { migration: "u".into(), epoch: Epoch(2), reply_to: "ms2m.reply.u.2".into() }),
        };
        let form = json!({
            "type": "START_REPLAY", "payload": { "queue": "ms2m.park.u.2" },
            "migration": "u", "epoch": 2, "replyTo": "ms2m.reply.u.2"
        });
        assert_eq!(serde_json::to_value(&order).unwrap(), form);
        assert_eq!(Order::from_slice(&order.to_vec().unwrap()).unwrap(), order);
    }

    #[test]
    fn the_plain_messages_are_understood() {
        for (text, kind) in [("START_REPLAY", OrderType::StartReplay), ("END_REPLAY", OrderType::EndReplay)] {
            let body = json!({ "type": text, "payload": { "queue": "q" } });
            let order = Order::from_slice(body.to_string().as_bytes()).unwrap();
            assert_eq!(order, Order { kind, payload: OrderPayload { queue: "q".into() }, fence: None });
            assert_eq!(serde_json::to_value(&order).unwrap(), body);
        }
    }

    #[test]
    fn an_answer_has_the_documented_form() {
        let body = json!({
            "type": "PARKED", "migration": "u", "epoch": 2, "pod": "web-0", "position": 120, "lastId": "120"
        });
        let answer = Answer::from_slice(body.to_string().as_bytes()).unwrap();
        assert_eq!(answer.kind, AnswerType::Parked);
        assert_eq!((answer.position, answer.last_id.as_deref()), (Some(120), Some("120")));
        assert_eq!(serde_json::to_value(&answer).unwrap(), body);
    }

    #[test]
    fn anything_else_is_refused() {
        for body in ["", "{}", "[]", r#"{"type":"STOP","payload":{"queue":"q"}}"#, r#"{"type":"END_REPLAY"}"#]
        {
            assert!(Order::from_slice(body.as_bytes()).is_err(), "{body}");
        }
    }
}
