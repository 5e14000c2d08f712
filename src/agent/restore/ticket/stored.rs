//! A ticket as it lies on disk: of this agent, or of one that knew of one container only. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::part::{Part, PartFailure, PartState};
use super::{Filled, Holder, Opening, Ticket};
use crate::api::{ArchiveDigest, PodUid, Purpose, RestoreFault, TicketState};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "as it lies on disk")]
pub(super) struct Stored {
    #[serde(default)]
    opened: Option<StoredOpening>,
    #[serde(default)]
    holder: Option<StoredHolder>,
    #[serde(default)]
    parts: BTreeMap<String, Part>,
    #[serde(default)]
    completed: bool,
    #[serde(default)]
    filled: Filled,
    #[serde(default)]
    proven: bool,
    #[serde(default)]
    lived: bool,
    #[serde(default)]
    spent: bool,
    /// From here on of earlier agents: the state of the one container that its holder names.
    #[serde(default)]
    state: Option<TicketState>,
    #[serde(default)]
    failure: Option<String>,
    #[serde(default)]
    fault: Option<RestoreFault>,
    #[serde(default)]
    letting_go: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredOpening {
    #[serde(default)]
    containers: Vec<String>,
    digest: ArchiveDigest,
    #[serde(default)]
    purpose: Purpose,
    #[serde(default)]
    once: bool,
    /// Of earlier agents.
    #[serde(default)]
    container: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredHolder {
    pod: PodUid,
    pod_ip: Option<String>,
    /// Of earlier agents.
    #[serde(default)]
    container: Option<String>,
    #[serde(default)]
    container_id: String,
    #[serde(default)]
    init: bool,
}

impl From<Stored> for Ticket {
    fn from(stored: Stored) -> Self {
        let mut parts = stored.parts;
        if let Some(StoredHolder { container: Some(name), container_id, init: false, .. }) = &stored.holder {
            let failure =
                stored.failure.map(|reason| PartFailure { fault: stored.fault.unwrap_or_default(), reason });
            let (letting_go, container_id) = (stored.letting_go, container_id.clone());
            let state = stored.state.map_or(PartState::Unclaimed, part_state);
            parts.insert(name.clone(), Part { state, container_id, letting_go, at_once: false, failure });
        }
        let opened = stored.opened.map(|opened| {
            let containers = opened.containers.into_iter().chain(opened.container).collect();
            Opening { containers, digest: opened.digest, purpose: opened.purpose, once: opened.once }
        });
        Self {
            opened,
            holder: stored.holder.map(|holder| Holder { pod: holder.pod, pod_ip: holder.pod_ip }),
            parts,
            completed: stored.completed,
            filled: stored.filled,
            proven: stored.proven,
            lived: stored.lived,
            spent: stored.spent || stored.state == Some(TicketState::Closed),
        }
    }
}

fn part_state(state: TicketState) -> PartState {
    match state {
        TicketState::Unclaimed => PartState::Unclaimed,
        TicketState::Waiting | TicketState::Closed => PartState::Waiting,
        TicketState::Restoring => PartState::Restoring,
        TicketState::Held => PartState::Held,
        TicketState::Started => PartState::Started,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_of_an_agent_that_knew_of_one_container_means_what_it_meant() {
        let text = r#"{"state":"held","opened":{"container":"app","digest":"d"},"holder":{"pod":"p","container":"app",
            "podIp":"10.0.0.1","containerId":"c"},"failure":null,"fault":null,"lettingGo":true,"completed":true}"#;
        let ticket: Ticket = serde_json::from_str(text).unwrap();
        assert_eq!(ticket.state(), TicketState::Held);
        assert_eq!((ticket.parts["app"].letting_go, ticket.barred()), (true, Some(&"p".into())));
        assert_eq!(ticket.part_in("c").map(|(name, _)| name), Some("app"));
        assert_eq!(ticket.must_be_on_record("c"), ["c"]);
        let spent: Ticket = serde_json::from_str(r#"{"state":"closed"}"#).unwrap();
        assert_eq!(spent.state(), TicketState::Closed);
        let init: Ticket = serde_json::from_str(
            r#"{"state":"unclaimed","holder":{"pod":"p","container":"fill","podIp":null,"init":true},"completed":true}"#,
        )
        .unwrap();
        assert_eq!((init.state(), init.barred()), (TicketState::Unclaimed, Some(&"p".into())));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut ticket = Ticket::default();
        ticket
            .open(Opening {
                containers: vec!["a".into(), "b".into()],
                digest: "d".into(),
                purpose: Purpose::Rehearsal,
                once: true,
            })
            .unwrap();
        ticket.filled = Filled { volumes: true, shm: false };
        let read: Ticket = serde_json::from_str(&serde_json::to_string(&ticket).unwrap()).unwrap();
        assert_eq!(read, ticket);
        ticket.spend();
        let read: Ticket = serde_json::from_str(&serde_json::to_string(&ticket).unwrap()).unwrap();
        assert_eq!(read, ticket);
    }
}
