//! A look into the source before anything is stopped: asks its agent, and puts together what the pod's spec says beside.
//! An agent that does not answer is no objection: it looks once more itself before it dumps.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::subject::{Journal, Subject};
use crate::api::{
    FORMAT_OF_INIT, FORMAT_OF_PODS, FORMAT_OF_VOLUMES, Findings, Objection, Reason, Refusal, sentence,
};
use crate::judgement::{Circumstances, Judgement, Liveness, judge_pod};
use crate::operator::agents::client::AgentError;
use crate::operator::check::containers::running;
use crate::operator::context::Context;
use crate::operator::lead::admission::Orders;
use crate::protocol::{Event, Failure, Plan};

/// What was seen in a pod counts that long.
const LOOK_HOLDS: Duration = Duration::from_secs(10);
/// Fields of the downward API that are another pod's, or another node's, after a move.
const STALE_FIELDS: [&str; 5] =
    ["status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs", "spec.nodeName"];

/// What was found, by the container's name.
pub type Looked = Result<Vec<(String, Findings)>, AgentError>;

/// What is in the source's containers, those that move.
pub async fn look_into(ctx: &Context, subject: &Subject) -> Looked {
    let found = match ctx.agents.on(&subject.node) {
        Ok(agent) => {
            let containers = subject.containers();
            let looks =
                containers.carried().map(async |one| Ok((one.container.clone(), agent.look(&one).await?)));
            try_join_all(looks).await
        }
        Err(error) => Err(error),
    };
    found.inspect_err(|error| tracing::warn!(pod = subject.source.name, %error, "not looked into"))
}

/// What to make of it. Where nothing was seen, only what the agent itself says stands against a move, and that a container
/// does not run.
pub fn judged(looked: &Looked, subject: &Subject, known: &Circumstances) -> Judgement {
    let against = |objection: Objection| Judgement { refusals: vec![objection], warnings: Vec::new() };
    match looked {
        Ok(found) => judge_pod(found, !subject.fresh.is_empty(), known),
        Err(error) if error.refusal() == Some(Refusal::ContainerNotFound) => {
            let message = sentence(&format!("{error}: it is moved once all its containers run"));
            against(Objection { reason: Reason::ContainerNotRunning, message, passes: true })
        }
        Err(error) => match error.objection() {
            Some(objection) => against(objection.clone()),
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
        && let Some(failure) = older_agent(ctx, &journal.subject, journal.state.plan)
    {
        return Event::Refused(failure);
    }
    if event != Event::Admitted || looked.is_some_and(|at| at.elapsed() < LOOK_HOLDS) {
        return event;
    }
    let looked = look_into(ctx, &journal.subject).await;
    first(&judged(&looked, &journal.subject, &Circumstances::default())).map_or(event, Event::Refused)
}

/// Agents of an earlier version let init containers run again, know of one container only, or restore twice over the same volumes: such a pod waits until its own is newer. It is enough to ask for
/// that one, as nodes take nothing that comes from a newer agent than theirs.
pub fn older_agent(ctx: &Context, subject: &Subject, plan: Plan) -> Option<Failure> {
    let view = ctx.views.newest();
    let node = view.snapshot.nodes.get(&subject.node)?;
    newer_needed(subject, plan.outlived, node.capacity.compatibility.agent_format)
}

fn newer_needed(subject: &Subject, outlived: bool, agent_format: u32) -> Option<Failure> {
    let several = !subject.beside.is_empty() || !subject.fresh.is_empty();
    let (reason, what) = match () {
        () if several && agent_format < FORMAT_OF_PODS => (Reason::SeveralContainers, "several containers"),
        () if (outlived || !subject.claims.is_empty()) && agent_format < FORMAT_OF_VOLUMES => {
            (Reason::VolumeNotSharable, "volumes that outlive it")
        }
        () if subject.has_init && agent_format < FORMAT_OF_INIT => {
            (Reason::InitContainers, "init containers")
        }
        () => return None,
    };
    let message = format!(
        "pod {}: it has {what}, and the agent on node {} is of an earlier version: roll out the DaemonSet",
        subject.source.name, subject.node
    );
    Some(Failure::retryable(reason, message))
}

/// The objection that decides.
pub fn first(judgement: &Judgement) -> Option<Failure> {
    let Objection { reason, message, passes } = judgement.refusals.first()?.clone();
    Some(Failure { reason, message, retry: passes })
}

/// What somebody should be warned of, as far as the pod's spec says it.
pub fn circumstances(pod: &Pod, subject: &Subject) -> Circumstances {
    let Some(spec) = &pod.spec else { return Circumstances::default() };
    let moves = |one: &&Container| one.name == subject.container || subject.beside.contains(&one.name);
    let moving: Vec<&Container> = running(spec).filter(moves).collect();
    let mut stale: Vec<String> = moving.iter().flat_map(|one| stale_variables(one)).collect();
    let mut seen = std::collections::HashSet::new();
    stale.retain(|name| seen.insert(name.clone()));
    let token = |name: &str| name.starts_with("kube-api-access-");
    Circumstances {
        stale_variables: stale,
        has_bound_token: spec.volumes.iter().flatten().any(|volume| token(&volume.name)),
        hostname: spec.hostname.clone().filter(|hostname| *hostname != pod.name_any()),
        // Whichever gives up first.
        liveness: moving.iter().filter_map(|one| liveness(one)).min_by_key(|probe| probe.patience),
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
    use crate::api::OrderError;
    use crate::operator::check::claims::Known;
    use crate::operator::check::preflight::preflight;

    fn told(pod: serde_json::Value) -> Circumstances {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let spec = serde_json::from_value(json!({ "sourcePod": "web-0" })).unwrap();
        let accepted = preflight(&pod, &spec, &[], &Known::Nothing).unwrap();
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
            judged(&looked, &Subject::example("web-0"), &Circumstances::default())
        };
        let objection =
            Objection { reason: Reason::RuntimeNotSupported, message: "no overlay".into(), passes: false };
        assert_eq!(judged(Some(objection.clone())).refusals, [objection]);
        let silent = judged(None);
        assert!(silent.refusals.is_empty());
        assert_eq!(silent.warnings, ["not looked into: no overlay (agent on node n1)"]);
    }

    #[test]
    fn only_a_pod_with_several_or_init_containers_waits_for_a_newer_agent() {
        let of = |has_init, format| {
            newer_needed(&Subject { has_init, ..Subject::example("web-0") }, false, format)
        };
        let failure = of(true, 0).unwrap();
        assert_eq!((failure.reason, failure.retry), (Reason::InitContainers, true));
        assert!(failure.message.contains("web-0") && failure.message.contains("DaemonSet"), "{failure:?}");
        assert_eq!((of(true, FORMAT_OF_INIT), of(false, 0)), (None, None));
        let several = Subject { beside: vec!["log".into()], ..Subject::example("web-0") };
        let failure = newer_needed(&several, false, FORMAT_OF_INIT).unwrap();
        assert_eq!((failure.reason, failure.retry), (Reason::SeveralContainers, true));
        assert_eq!(newer_needed(&several, false, FORMAT_OF_PODS), None);
        let failure = newer_needed(&Subject::example("web-0"), true, FORMAT_OF_PODS).unwrap();
        assert_eq!((failure.reason, failure.retry), (Reason::VolumeNotSharable, true), "NFS too");
        assert_eq!(newer_needed(&Subject::example("web-0"), true, FORMAT_OF_VOLUMES), None);
    }

    #[test]
    fn an_ordinary_pod_has_nothing_but_its_token() {
        let found = told(pod(json!({ "name": "app" }), "web-0"));
        assert_eq!(found, Circumstances { has_bound_token: true, ..Circumstances::default() });
    }
}
