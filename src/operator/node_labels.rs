//! Keeps the label [`LABEL_NODE_READY`] on the nodes whose agent has installed the runtime; RuntimeClass `shadow`
//! selects on it, so that no restore is scheduled to a node that cannot do it. Run by the leader. A node keeps its label
//! while its agent is merely not ready: the runtime is still there.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::context::Context;
use crate::api::LABEL_NODE_READY;

/// Both sides come from caches, so a look costs nothing.
const PERIOD: Duration = Duration::from_millis(500);

/// Runs until dropped.
pub async fn label_nodes(ctx: Context) {
    let api: Api<Node> = Api::all(ctx.client.clone());
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let agents: Vec<_> = ctx.agent_pods.state();
        for node in ctx.nodes.state() {
            let labelled = node.labels().get(LABEL_NODE_READY).map(String::as_str) == Some("true");
            let Some(label) = wanted(labelled, &standing(&agents, &node.name_any())) else { continue };
            let patch = json!({"metadata": {"labels": {LABEL_NODE_READY: label}}});
            if let Err(error) =
                api.patch_metadata(&node.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await
            {
                tracing::warn!(node = node.name_any(), %error, "node not labelled; tried again");
            }
        }
    }
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

/// The label's next value, `null` to remove it; `None` where it is right.
fn wanted(labelled: bool, agents: &BTreeSet<Standing>) -> Option<Value> {
    match agents.last().copied().unwrap_or(Standing::Absent) {
        Standing::Ready if !labelled => Some(json!("true")),
        Standing::Absent if labelled => Some(Value::Null),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_labelled_once_its_agent_is_ready_and_until_it_has_none() {
        let set = |list: &[Standing]| list.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(wanted(false, &set(&[Standing::NotReady])), None);
        assert_eq!(wanted(false, &set(&[Standing::NotReady, Standing::Ready])), Some(json!("true")));
        assert_eq!(wanted(true, &set(&[Standing::NotReady])), None);
        assert_eq!(wanted(true, &set(&[])), Some(Value::Null));
        assert_eq!(wanted(false, &set(&[])), None);
    }
}
