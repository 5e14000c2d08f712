//! From the node to the ticket: the shadow's sandbox, network, volumes and image are made while the source works on. An
//! image may take minutes to come and is waited for until the deadline; whatever else stands still is given up sooner.
//! Network I/O, but for the judgement.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use tokio::time::{Instant, sleep};

use super::{EffectError, Performer};
use crate::api::{AwaitOrder, AwaitedTicket, NodeName, Reason, Role, TicketState};
use crate::operator::drive::subject::Journal;

/// Between looks at what the kubelet does.
const LOOK: Duration = Duration::from_secs(5);
/// Sandbox, network and volumes have come by then, and an agent that was restarted is back.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);
/// What the kubelet says of an image that it cannot have.
const NO_IMAGE: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// The same, where it does not even ask for it.
const NEVER: [&str; 2] = ["ErrImageNeverPull", "InvalidImageName"];

/// What keeps a shadow from its ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waits {
    /// For its image, which is on its way.
    Pulls,
    /// In vain: the kubelet's words, and whether that may pass. A registry is back after a while.
    NoImage { why: String, passes: bool },
    /// For something else; with the last warning, if there was one.
    Other(Option<String>),
}

impl Performer {
    /// Waits until the container's `create` asks for its ticket.
    pub(super) async fn at_its_ticket(
        &self,
        journal: &Journal,
        node: &NodeName,
        shadow: &str,
        uid: &str,
    ) -> Result<AwaitedTicket, EffectError> {
        let mut moved = Instant::now();
        loop {
            let asked = match self.ctx.agents.on(node) {
                Ok(agent) => {
                    let order = AwaitOrder::first(journal.state.epoch, TicketState::Waiting, LOOK);
                    agent.await_ticket(&self.uid, Role::Shadow, &order).await
                }
                Err(error) => Err(error),
            };
            let error = match asked {
                Ok(ticket) if ticket.state >= TicketState::Waiting => return Ok(ticket),
                Ok(_) => None,
                Err(error) if error.refusal().is_some() => return Err(error.into()),
                Err(error) => Some(error),
            };
            let silent = error.is_some();
            let why = match (error, self.waits(journal, shadow, uid).await?) {
                (None, Waits::Pulls) => {
                    moved = Instant::now();
                    continue;
                }
                (_, Waits::NoImage { why, passes }) => {
                    let message = format!("node {node} does not get the image: {why}");
                    let failed = EffectError::failed(Reason::ImageUnavailable, message);
                    return Err(if passes { failed } else { failed.final_if_again(journal) });
                }
                (Some(error), _) => EffectError::from(error),
                (None, Waits::Other(warning)) => {
                    let warning = warning.map(|warning| format!(": {warning}")).unwrap_or_default();
                    let message =
                        format!("shadow {shadow} on node {node} has not got to its container yet{warning}");
                    EffectError::failed(Reason::StepTimedOut, message)
                }
            };
            if moved.elapsed() > PATIENCE {
                return Err(why);
            }
            if silent {
                sleep(RETRY).await;
            }
        }
    }

    async fn waits(&self, journal: &Journal, shadow: &str, uid: &str) -> Result<Waits, EffectError> {
        let namespace = &journal.subject.source.namespace;
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), namespace);
        let pod = pods.get_opt(shadow).await.map_err(EffectError::api("get shadow pod"))?;
        let events: Api<Event> = Api::namespaced(self.ctx.client.clone(), namespace);
        let about = ListParams::default().fields(&format!("regarding.uid={uid}"));
        let events = events.list(&about).await.map_err(EffectError::api("list Events of the shadow"))?;
        Ok(judge(pod.as_ref(), &events.items))
    }
}

fn judge(pod: Option<&Pod>, events: &[Event]) -> Waits {
    let status = pod.and_then(|pod| pod.status.as_ref());
    let containers = status.into_iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let waiting = containers.filter_map(|status| status.state.as_ref()?.waiting.as_ref());
    let refused =
        |reason: &Option<String>| reason.as_deref().is_some_and(|reason| NO_IMAGE.contains(&reason));
    if let Some(state) = waiting.into_iter().find(|state| refused(&state.reason)) {
        let (reason, message) = (state.reason.clone().unwrap_or_default(), state.message.as_deref());
        let passes = !NEVER.contains(&reason.as_str());
        return Waits::NoImage { why: message.map_or(reason, ToOwned::to_owned), passes };
    }
    let times = |reason: &str| -> i32 {
        let of = events.iter().filter(|event| event.reason.as_deref() == Some(reason));
        of.map(|event| event.deprecated_count.unwrap_or(1).max(1)).sum()
    };
    if times("Pulling") > times("Pulled") {
        return Waits::Pulls;
    }
    let warned = |event: &&Event| event.type_.as_deref() == Some("Warning");
    let last = events
        .iter()
        .filter(warned)
        .max_by_key(|event| event.deprecated_last_timestamp.as_ref().map(|at| at.0));
    Waits::Other(last.and_then(|event| event.note.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(waiting: Value, events: Value) -> Waits {
        let pod = json!({ "status": { "containerStatuses": [
            { "name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": waiting } }] } });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let events: Vec<Event> = serde_json::from_value(events).unwrap();
        judge(Some(&pod), &events)
    }

    fn event(reason: &str, kind: &str) -> Value {
        json!({ "metadata": {}, "eventTime": null, "reason": reason, "type": kind, "note": format!("{reason}!") })
    }

    #[test]
    fn an_image_on_its_way_is_told_from_one_that_does_not_come_and_from_everything_else() {
        let creating = || json!({ "reason": "ContainerCreating" });
        let (pulling, pulled) = (event("Pulling", "Normal"), event("Pulled", "Normal"));
        assert_eq!(judged(creating(), json!([event("Scheduled", "Normal"), pulling])), Waits::Pulls);
        assert_eq!(judged(creating(), json!([pulling, pulled])), Waits::Other(None));
        assert_eq!(
            judged(creating(), json!([event("FailedMount", "Warning")])),
            Waits::Other(Some("FailedMount!".to_owned()))
        );
        for (reason, passes) in [("ErrImagePull", true), ("ErrImageNeverPull", false)] {
            let refused = json!({ "reason": reason, "message": "manifest unknown" });
            let why = "manifest unknown".to_owned();
            assert_eq!(judged(refused, json!([pulling])), Waits::NoImage { why, passes });
        }
        assert_eq!(judge(None, &[]), Waits::Other(None));
        let init = json!({ "status": { "initContainerStatuses": [{ "name": "fill", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": { "waiting": { "reason": "ErrImageNeverPull" } } }] } });
        let why = "ErrImageNeverPull".to_owned();
        let judged = judge(Some(&serde_json::from_value(init).unwrap()), &[]);
        assert_eq!(judged, Waits::NoImage { why, passes: false });
    }
}
