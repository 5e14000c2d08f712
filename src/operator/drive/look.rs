//! A look into the source before anything is stopped: asks its agent, and puts together what the pod's spec says beside.
//! An agent that does not answer is no objection: it looks once more itself before it dumps.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::subject::{Journal, Subject};
use crate::api::{AGENT_FORMAT, Findings, Objection, Reason, sentence};
use crate::judgement::{Circumstances, Judgement, Liveness, judge};
use crate::operator::agents::client::AgentError;
use crate::operator::context::Context;
use crate::operator::lead::admission::Orders;
use crate::protocol::{Event, Failure};

/// What was seen in a pod counts that long.
const LOOK_HOLDS: Duration = Duration::from_secs(10);
/// Fields of the downward API that are another pod's, or another node's, after a move.
const STALE_FIELDS: [&str; 5] =
    ["status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs", "spec.nodeName"];

/// What is in the source's container.
pub async fn look_into(ctx: &Context, subject: &Subject) -> Result<Findings, AgentError> {
    let found = match ctx.agents.on(&subject.node) {
        Ok(agent) => agent.look(&subject.source_container()).await,
        Err(error) => Err(error),
    };
    found.inspect_err(|error| tracing::warn!(pod = subject.source.name, %error, "not looked into"))
}

/// What to make of it. Where nothing was seen, only what the agent itself says stands against a move.
pub fn judged(looked: &Result<Findings, AgentError>, known: &Circumstances) -> Judgement {
    match looked {
        Ok(findings) => judge(findings, known),
        Err(error) => match error.objection() {
            Some(objection) => Judgement { refusals: vec![objection.clone()], warnings: Vec::new() },
            None => Judgement {
                refusals: Vec::new(),
                warnings: vec![sentence(&format!("not looked into: {error}"))],
            },
        },
    }
}

/// Whether the attempt may begin. A pod that waited is looked into once more before anything is made for it.
pub async fn admission(ctx: &Context, orders: &Orders, journal: &Journal, looked: Option<Instant>) -> Event {
    let event = orders.admission(&journal.state).await;
    if event == Event::Admitted
        && let Some(failure) = older_agent(ctx, &journal.subject)
    {
        return Event::Refused(failure);
    }
    if event != Event::Admitted || looked.is_some_and(|at| at.elapsed() < LOOK_HOLDS) {
        return event;
    }
    let looked = look_into(ctx, &journal.subject).await;
    first(&judged(&looked, &Circumstances::default())).map_or(event, Event::Refused)
}

/// Agents of an earlier version let init containers run again: such a pod waits until its own is newer. It is enough to ask for
/// that one, as nodes take nothing that comes from a newer agent than theirs.
pub fn older_agent(ctx: &Context, subject: &Subject) -> Option<Failure> {
    let view = ctx.views.newest();
    let node = view.snapshot.nodes.get(&subject.node)?;
    init_needs(subject, node.capacity.compatibility.agent_format)
}

fn init_needs(subject: &Subject, agent_format: u32) -> Option<Failure> {
    (subject.has_init && agent_format < AGENT_FORMAT).then(|| {
        let message = format!(
            "pod {}: it has init containers, and the agent on node {} is of an earlier version: roll out the DaemonSet",
            subject.source.name, subject.node
        );
        Failure::retryable(Reason::InitContainers, message)
    })
}

/// The objection that decides.
pub fn first(judgement: &Judgement) -> Option<Failure> {
    let Objection { reason, message, passes } = judgement.refusals.first()?.clone();
    Some(Failure { reason, message, retry: passes })
}

/// What somebody should be warned of, as far as the pod's spec says it.
pub fn circumstances(pod: &Pod, subject: &Subject) -> Circumstances {
    let Some(spec) = &pod.spec else { return Circumstances::default() };
    let container = spec.containers.iter().find(|container| container.name == subject.container);
    let token = |name: &str| name.starts_with("kube-api-access-");
    Circumstances {
        stale_variables: container.map(stale_variables).unwrap_or_default(),
        has_bound_token: spec.volumes.iter().flatten().any(|volume| token(&volume.name)),
        hostname: spec.hostname.clone().filter(|hostname| *hostname != pod.name_any()),
        liveness: container.and_then(liveness),
        has_queue: subject.queue.is_some(),
        archive_bytes: None,
        bytes_per_second: None,
    }
}

/// Those that are such a field, or made of one that is.
fn stale_variables(container: &Container) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for variable in container.env.iter().flatten() {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let of_field = field.is_some_and(|field| STALE_FIELDS.contains(&field.field_path.as_str()));
        let of_variable = variable
            .value
            .as_ref()
            .is_some_and(|value| found.iter().any(|stale| value.contains(&format!("$({stale})"))));
        if of_field || of_variable {
            found.push(variable.name.clone());
        }
    }
    found
}

fn liveness(container: &Container) -> Option<Liveness> {
    let probe = container.liveness_probe.as_ref()?;
    let seconds = |value: Option<i32>, default: u64| {
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
    };
    let (period, failures) = (seconds(probe.period_seconds, 10), seconds(probe.failure_threshold, 3));
    Some(Liveness { patience: Duration::from_secs(period * failures) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{OrderError, Refusal};
    use crate::operator::check::preflight::preflight;

    fn told(pod: serde_json::Value) -> Circumstances {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let spec = serde_json::from_value(json!({ "sourcePod": "web-0" })).unwrap();
        let accepted = preflight(&pod, &spec, &[]).unwrap();
        circumstances(&pod, &accepted.subject)
    }

    fn pod(container: serde_json::Value, hostname: &str) -> serde_json::Value {
        json!({
            "metadata": { "name": "web-0", "namespace": "demo", "uid": "u1",
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "o1",
                    "controller": true }] },
            "spec": { "nodeName": "n1", "hostname": hostname, "containers": [container],
                "volumes": [{ "name": "kube-api-access-x", "projected": { "sources": [] } }] }
        })
    }

    #[test]
    fn what_goes_stale_with_the_pod_is_read_from_its_spec() {
        let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
        let container = json!({ "name": "app", "livenessProbe": { "periodSeconds": 5 }, "env": [
            { "name": "POD_IP", "valueFrom": field("status.podIP") },
            { "name": "POD", "valueFrom": field("metadata.name") },
            { "name": "PEER", "value": "http://$(POD_IP):8080" },
            { "name": "NODE", "valueFrom": field("spec.nodeName") },
        ] });
        let found = told(pod(container, "worker"));
        assert_eq!(found.stale_variables, ["POD_IP", "PEER", "NODE"]);
        assert_eq!(found.hostname.as_deref(), Some("worker"));
        assert_eq!(found.liveness, Some(Liveness { patience: Duration::from_secs(15) }));
        assert!(found.has_bound_token && !found.has_queue);
    }

    #[test]
    fn an_agent_that_objects_is_heard_and_one_that_is_silent_is_told() {
        let error = |objection| OrderError {
            refusal: Refusal::CannotBeDumped,
            message: "no overlay".into(),
            objection,
        };
        let judged = |objection| {
            let looked = Err(AgentError::Refused { node: "n1".into(), error: error(objection) });
            judged(&looked, &Circumstances::default())
        };
        let objection =
            Objection { reason: Reason::RuntimeNotSupported, message: "no overlay".into(), passes: false };
        assert_eq!(judged(Some(objection.clone())).refusals, [objection]);
        let silent = judged(None);
        assert!(silent.refusals.is_empty());
        assert_eq!(silent.warnings, ["not looked into: no overlay (agent on node n1)"]);
    }

    #[test]
    fn only_a_pod_with_init_containers_waits_for_a_newer_agent() {
        let of = |has_init, format| init_needs(&Subject { has_init, ..Subject::example("web-0") }, format);
        let failure = of(true, 0).unwrap();
        assert_eq!((failure.reason, failure.retry), (Reason::InitContainers, true));
        assert!(failure.message.contains("web-0") && failure.message.contains("DaemonSet"), "{failure:?}");
        assert_eq!((of(true, AGENT_FORMAT), of(false, 0)), (None, None));
    }

    #[test]
    fn an_ordinary_pod_has_nothing_but_its_token() {
        let found = told(pod(json!({ "name": "app" }), "web-0"));
        assert_eq!(found, Circumstances { has_bound_token: true, ..Circumstances::default() });
    }
}
