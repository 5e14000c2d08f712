//! Whether a new migration is taken on: reads its pod, asks `preflight`, looks into it, writes the first journal.
//!
//! Guarantees: nothing but the migration itself is written; a pod that cannot move is refused before it is touched, with
//! the reason in the status and in an Event.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::error::DriveError;
use super::events::Announcer;
use super::journal::Book;
use super::look::{circumstances, first, judged, look_into};
use super::subject::{Journal, OwnerKind, Subject};
use super::surroundings::held_against_surroundings;
use super::timings::Measured;
use super::volumes;
use crate::api::{NodeName, PodIdentity, PodUid, Reason};
use crate::judgement::Circumstances;
use crate::operator::agents::client::AgentError;
use crate::operator::check::preflight::{Accepted, preflight};
use crate::operator::check::properties;
use crate::operator::context::Context;
use crate::protocol::{Event, Plan, State, Step, step};

/// Reads the source and decides; writes the first journal. `None`: the pod is gone, so it ended at once.
pub async fn accept(
    ctx: &Context,
    book: &mut Book,
    announcer: &Announcer,
) -> Result<Option<Journal>, DriveError> {
    let spec = book.object().spec.clone();
    let namespace = book.object().namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let services: Api<Service> = Api::namespaced(ctx.client.clone(), &namespace);
    let all = ListParams::default();
    let (found, services) = tokio::join!(pods.get_opt(&spec.source_pod), services.list(&all));
    let source = found?
        .filter(|pod| {
            spec.source_pod_uid.as_ref().is_none_or(|uid| pod.uid().as_deref() == Some(uid.as_str()))
        })
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let Some(pod) = source else {
        let subject = bare_subject(&namespace, &spec.source_pod, spec.source_pod_uid.clone(), None);
        let plan = Plan::plain(spec.policy);
        let (state, _) = step(&State::new(plan, None), Event::SourceGone);
        let journal = Journal { subject, state };
        book.write(&journal, &Measured::default()).await?;
        announcer.step(&journal, Step::Accepted);
        return Ok(None);
    };
    let claims = volumes::known(&ctx.client, &pod).await?;
    let accepted = match preflight(&pod, &spec, &services?.items, &claims) {
        Ok(accepted) => {
            let subject = accepted.subject.clone();
            let (accepted, looked) = tokio::join!(
                held_against_surroundings(ctx, &pod, accepted, &claims),
                look_into(ctx, &subject)
            );
            accepted?.map(|accepted| (accepted, looked))
        }
        Err(refused) => Err(refused),
    };
    let journal = match accepted {
        Ok((Accepted { subject, plan, warnings, .. }, looked)) => {
            for warning in warnings {
                announcer.warning(&subject, Reason::WrongPolicy, &warning);
            }
            let target = spec.target_node.clone().map(NodeName);
            let state = State::new(plan, target);
            // Nearly every pod has a token: that is for a check to tell, not for each drain.
            let known = Circumstances { has_bound_token: false, ..circumstances(&pod, &subject) };
            let judgement = judged(&looked, &subject, &known);
            for warning in &judgement.warnings {
                announcer.warning(&subject, Reason::Noted, warning);
            }
            match first(&judgement).or_else(|| properties::obstacle(&pod)) {
                Some(failure) => {
                    announcer.warning(&subject, failure.reason, &failure.message);
                    let (state, _) = step(&state, Event::Refused(failure));
                    Journal { subject, state }
                }
                None => Journal { subject, state },
            }
        }
        Err(failure) => {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            let subject = bare_subject(&namespace, &pod.name_any(), pod.uid().map(PodUid), node);
            let plan = Plan::plain(spec.policy);
            announcer.warning(&subject, failure.reason, &failure.message);
            let (state, _) = step(&State::new(plan, None), Event::Refused(failure));
            Journal { subject, state }
        }
    };
    book.hold().await?;
    book.write(&journal, &Measured::default()).await?;
    announcer.step(&journal, Step::Accepted);
    Ok(Some(journal))
}

/// How large its archive would be now, by the source's agent.
pub async fn expected_bytes(ctx: &Context, subject: &Subject) -> Result<u64, AgentError> {
    let asked = match ctx.agents.on(&subject.node) {
        Ok(agent) => agent.size(&subject.containers()).await,
        Err(error) => Err(error),
    };
    let asked = asked.inspect_err(
        |error| tracing::warn!(pod = subject.source.name, %error, "size of its archive not known"),
    );
    Ok(asked?.bytes)
}

/// What is known of a pod that is refused: enough to evict it.
fn bare_subject(namespace: &str, pod: &str, uid: Option<PodUid>, node: Option<String>) -> Subject {
    Subject {
        source: PodIdentity {
            namespace: namespace.to_owned(),
            name: pod.to_owned(),
            uid: uid.unwrap_or_else(|| PodUid(String::new())),
        },
        node: NodeName(node.unwrap_or_default()),
        container: String::new(),
        beside: Vec::new(),
        fresh: Vec::new(),
        owner_kind: OwnerKind::StatefulSet,
        owner_uid: String::new(),
        revision: None,
        queue: None,
        bridges: Vec::new(),
        archive_bytes: None,
        empty_dirs: Vec::new(),
        claims: Vec::new(),
        has_init: false,
    }
}
