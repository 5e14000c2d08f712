//! What is around a pod that `preflight` accepted: its queue, the NetworkPolicies of its namespace, the nodes that its volumes can come to. Does I/O, changes
//! nothing.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::api::{MigrationUid, Reason};
use crate::operator::check::claims::{Known, bound_to_source};
use crate::operator::check::policies;
use crate::operator::check::preflight::Accepted;
use crate::operator::context::Context;
use crate::operator::perform::look_at_queue;
use crate::operator::shadow_pod::shadow_labels;
use crate::placement::Place;
use crate::protocol::Failure;

/// Holds it against its surroundings, both at once: refused, or with what they add to plan and warnings.
pub async fn held_against_surroundings(
    ctx: &Context,
    pod: &Pod,
    mut accepted: Accepted,
    claims: &Known,
) -> Result<Result<Accepted, Failure>, kube::Error> {
    let nodes = ctx.nodes.state();
    let others: Vec<Place> = nodes
        .iter()
        .map(|node| Place::from(&**node))
        .filter(|node| *node.name != *accepted.subject.node.as_str())
        .collect();
    if let Some(claim) = bound_to_source(claims, &others) {
        let pod = pod.name_any();
        let why = format!(
            "pod {pod}: claim `{claim}`: no other node is where its volume can be (its node affinity)"
        );
        return Ok(Err(Failure::terminal(Reason::VolumeNotSharable, why)));
    }
    let policies: Api<NetworkPolicy> =
        Api::namespaced(ctx.client.clone(), &accepted.subject.source.namespace);
    let all = ListParams::default();
    let listed = async {
        if accepted.plan.bridge {
            Ok(policies.list(&all).await?.items)
        } else {
            Ok::<_, kube::Error>(Vec::new())
        }
    };
    let (queue, policies) = tokio::join!(look_at_queue(ctx, &accepted.subject), listed);
    match queue {
        Ok(cautions) => accepted.warnings.extend(cautions),
        Err(failure) => return Ok(Err(failure)),
    }
    if accepted.plan.bridge {
        let policies = policies?;
        let shadow = shadow_labels(pod, &MigrationUid(String::new()), &ctx.shadow_labels);
        if let Some(policy) = policies::telling_apart(&policies, pod.labels(), &shadow) {
            accepted.plan.bridge = false;
            accepted.subject.bridges.clear();
            accepted.warnings.push(policies::warning(policy));
        }
    }
    Ok(Ok(accepted))
}
