//! Wakes the scheduler for a shadow that it has put aside: it tries an unschedulable pod again when a Node changes, and
//! knows nothing of capacities. So a node that has room is touched. Does I/O.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use crate::api::{ANNOTATION_ROOM_SINCE, NodeName};
use crate::operator::context::Context;
use crate::placement::{Evaluator, Need, View};

/// At most so often, unless a node has come to have room. The extender may hear of it a little after the scheduler has been
/// woken, or the scheduler have reasons of its own against the node: it is woken again.
const PERIOD: Duration = Duration::from_secs(1);

/// For one shadow.
pub struct Waker<'a> {
    ctx: &'a Context,
    rounds: Rounds,
    need: Need,
}

impl<'a> Waker<'a> {
    pub fn new(ctx: &'a Context, need: Need) -> Self {
        Self { ctx, rounds: Rounds::default(), need }
    }

    /// Looks at what is known now, and touches one node where that may help: any change of a Node wakes the scheduler.
    pub async fn look(&mut self) {
        let Some(fitting) = fitting(&self.need, &self.ctx.views.newest()) else { return };
        let Some(node) = self.rounds.touch(fitting, Instant::now()) else { return };
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        let patch =
            json!({"metadata": {"annotations": {ANNOTATION_ROOM_SINCE: Timestamp::now().to_string()}}});
        let touched =
            nodes.patch_metadata(node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        if let Err(error) = touched {
            tracing::warn!(%node, %error, "the scheduler was not woken for it; tried again");
        }
    }
}

/// Nodes with room; nothing where what is known may be old.
fn fitting(need: &Need, view: &View) -> Option<BTreeSet<NodeName>> {
    view.must_be_current().ok()?;
    let mut evaluator = Evaluator::new(need, &view.snapshot);
    Some(view.snapshot.nodes.keys().filter(|node| evaluator.room(node.as_str()).is_ok()).cloned().collect())
}

/// When, and which node.
#[derive(Default)]
struct Rounds {
    fitting: BTreeSet<NodeName>,
    touched: Option<Instant>,
}

impl Rounds {
    fn touch(&mut self, fitting: BTreeSet<NodeName>, now: Instant) -> Option<NodeName> {
        let fresh = fitting.difference(&self.fitting).next().cloned();
        let is_due = self.touched.is_none_or(|at| now.duration_since(at) >= PERIOD);
        self.fitting = fitting;
        let node = match fresh {
            Some(node) => Some(node),
            None if is_due => self.fitting.first().cloned(),
            None => None,
        };
        if node.is_some() {
            self.touched = Some(now);
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_is_touched_when_one_comes_to_have_room_and_now_and_then_while_one_has() {
        let set = |names: &[&str]| names.iter().map(|name| NodeName::from(*name)).collect::<BTreeSet<_>>();
        let (mut rounds, begun) = (Rounds::default(), Instant::now());
        assert_eq!(rounds.touch(set(&[]), begun), None);
        assert_eq!(rounds.touch(set(&["b"]), begun), Some("b".into()));
        assert_eq!(rounds.touch(set(&["b"]), begun), None, "not at every look");
        assert_eq!(rounds.touch(set(&["a", "b"]), begun), Some("a".into()), "at once");
        assert_eq!(rounds.touch(set(&["b"]), begun + PERIOD), Some("b".into()));
        assert_eq!(rounds.touch(set(&[]), begun + PERIOD * 2), None);
    }
}
