//! Keeps labels on the nodes. [`LABEL_NODE_READY`] says that the agent has installed the runtime; RuntimeClass `shadow`
//! selects on it, so that no restore is scheduled to a node that cannot do it. A node keeps it while its agent is merely
//! not ready: the runtime is still there. The others say what must be the same where a container is dumped and where it
//! is restored, as the agent has published it. Also removes what agents of nodes that are no more have published. Run by
//! the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::api::{Compatibility, LABEL_NODE_READY, NodeCapacity, NodeName, lease_of_agent};
use crate::operator::context::Context;

/// Everything comes from caches, so a look costs nothing.
const PERIOD: Duration = Duration::from_millis(500);

/// A label's next value; `None` to remove it.
type Change = (&'static str, Option<String>);

/// Runs until dropped.
pub async fn label_nodes(ctx: Context) {
    let api: Api<Node> = Api::all(ctx.client.clone());
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let agents: Vec<_> = ctx.agent_pods.state();
        let view = ctx.views.newest();
        let nodes = ctx.nodes.state();
        for node in &nodes {
            let name = NodeName(node.name_any());
            let published = view.snapshot.nodes.get(&name).map(|node| &node.capacity.compatibility);
            let changes = changes(node.labels(), &standing(&agents, name.as_str()), published);
            if changes.is_empty() {
                continue;
            }
            let labels: BTreeMap<_, _> = changes.into_iter().collect();
            let patch = json!({"metadata": {"labels": labels}});
            if let Err(error) =
                api.patch_metadata(name.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await
            {
                tracing::warn!(node = %name, %error, "node not labelled; tried again");
            }
        }
        let there: BTreeSet<_> = nodes.iter().map(|node| NodeName(node.name_any())).collect();
        let published = view.snapshot.nodes.iter().filter(|(_, node)| !node.is_alive).map(|(name, _)| name);
        for gone in published.filter(|name| !there.contains(*name)) {
            if let Err(error) = forget(&ctx, gone).await {
                tracing::warn!(node = %gone, %error, "what its agent published is not removed; tried again");
            }
        }
    }
}

/// The node is no more.
async fn forget(ctx: &Context, node: &NodeName) -> Result<(), kube::Error> {
    let found = |result: Result<(), kube::Error>| match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    };
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let capacities: Api<NodeCapacity> = Api::all(ctx.client.clone());
    let params = DeleteParams::default();
    found(leases.delete(&lease_of_agent(node), &params).await.map(drop))?;
    found(capacities.delete(node.as_str(), &params).await.map(drop))
}

/// What there is of a node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Absent,
    NotReady,
    Ready,
}

fn standing<P: AsRef<Pod>>(agents: &[P], node: &str) -> BTreeSet<Standing> {
    agents
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node))
        .map(|pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            if conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                Standing::Ready
            } else {
                Standing::NotReady
            }
        })
        .collect()
}

/// Labels that are not as they should be.
fn changes(
    labels: &BTreeMap<String, String>,
    agents: &BTreeSet<Standing>,
    published: Option<&Compatibility>,
) -> Vec<Change> {
    let agent = agents.last().copied().unwrap_or(Standing::Absent);
    let is = |key: &str| labels.get(key).map(String::as_str);
    let mut changes = Vec::new();
    match agent {
        Standing::Ready if is(LABEL_NODE_READY) != Some("true") => {
            changes.push((LABEL_NODE_READY, Some("true".to_owned())));
        }
        Standing::Absent if is(LABEL_NODE_READY).is_some() => changes.push((LABEL_NODE_READY, None)),
        _ => {}
    }
    let facts = published.map(Compatibility::labels).into_iter().flatten();
    changes.extend(facts.filter_map(|(key, value)| match agent {
        Standing::Absent => labels.contains_key(key).then_some((key, None)),
        _ => (is(key) != Some(value.as_str())).then_some((key, Some(value))),
    }));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LABEL_CPU_VENDOR;

    const READY: Change = (LABEL_NODE_READY, None);

    fn of(labels: &[(&str, &str)], agents: &[Standing], published: Option<&Compatibility>) -> Vec<Change> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        changes(&labels, &agents.iter().copied().collect(), published)
    }

    #[test]
    fn a_node_is_labelled_once_its_agent_is_ready_and_until_it_has_none() {
        let labelled = [(LABEL_NODE_READY, "true")];
        assert_eq!(of(&[], &[Standing::NotReady], None), []);
        let ready = of(&[], &[Standing::NotReady, Standing::Ready], None);
        assert_eq!(ready, [(LABEL_NODE_READY, Some("true".to_owned()))]);
        assert_eq!(of(&labelled, &[Standing::NotReady], None), []);
        assert_eq!(of(&labelled, &[], None), [READY]);
        assert_eq!(of(&[], &[], None), []);
    }

    #[test]
    fn what_the_agent_published_is_told_and_taken_back_with_it() {
        let published = Compatibility { cpu_vendor: "GenuineIntel".into(), ..Compatibility::default() };
        let told = of(&[(LABEL_NODE_READY, "true")], &[Standing::Ready], Some(&published));
        assert!(told.contains(&(LABEL_CPU_VENDOR, Some("GenuineIntel".to_owned()))), "{told:?}");
        let labels: Vec<_> = published.labels().to_vec();
        let mut labels: Vec<(&str, &str)> =
            labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        labels.push((LABEL_NODE_READY, "true"));
        assert_eq!(of(&labels, &[Standing::Ready], Some(&published)), [], "written once");
        let gone = of(&labels, &[], Some(&published));
        assert!(gone.len() == labels.len() && gone.iter().all(|(_, value)| value.is_none()), "{gone:?}");
    }
}
