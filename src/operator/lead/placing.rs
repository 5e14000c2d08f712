//! Is there a node for a migration that waits? The operator asks before anything is made, with the functions that the
//! extender answers by, and says node by node why there is none. Pure: what is known is given.

use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::bookings::Bookings;
use super::claim::Claim;
use crate::api::{LABEL_NODE_READY, NodeName};
use crate::operator::check::scheduling::Misfit;
use crate::placement::{Evaluator, Need, Refusal, Reservation, Room, Snapshot};

/// Nodes that are named in a message.
const NAMED: usize = 8;

/// Why a node is out of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    Cordoned,
    /// Its agent has not installed the runtime.
    NotInstalled,
    NotWanted,
    /// The pod could not be restored there.
    Tried,
    Refused(Refusal),
    /// The scheduler would not take it; not looked at before a migration, whose shadow the scheduler sees itself.
    Scheduling(Misfit),
    /// The archive could not be there before the deadline; looked at again when the shadow has its node.
    TooLarge(String),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cordoned => f.write_str("cordoned"),
            Self::NotInstalled => f.write_str("the runtime is not installed"),
            Self::NotWanted => f.write_str("another node was asked for"),
            Self::Tried => f.write_str("the pod could not be restored there"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Scheduling(misfit) => misfit.fmt(f),
            Self::TooLarge(why) => f.write_str(why),
        }
    }
}

/// What is found of each node.
pub type Verdicts = Vec<(NodeName, Result<Room, Unfit>)>;

/// All nodes and what is reserved on them; placing one takes its room.
pub struct Placing {
    nodes: Vec<Arc<Node>>,
    snapshot: Snapshot,
}

impl Placing {
    /// `nodes` in any order. `claims` are this leader's own migrations, whose reservations it knows best.
    pub fn new(
        mut nodes: Vec<Arc<Node>>,
        mut snapshot: Snapshot,
        claims: &[Claim],
        bookings: &Bookings,
    ) -> Self {
        nodes.sort_by_key(|node| node.name_any());
        snapshot.reservations.retain(|known| claims.iter().all(|claim| claim.uid != known.migration));
        snapshot.reservations.extend(claims.iter().filter_map(|claim| {
            let mut reservation = claim.reservation.clone()?;
            // One that was asked for is where it goes, or nowhere.
            let target = reservation.target.take().or_else(|| bookings.node(&claim.uid));
            reservation.target = target.or_else(|| claim.wanted.clone());
            Some(reservation)
        }));
        Self { nodes, snapshot }
    }

    /// What each node says.
    pub fn verdicts(&self, need: &Need, wanted: Option<&NodeName>) -> Verdicts {
        let mut evaluator = Evaluator::new(need, &self.snapshot);
        let mut verdict = |node: &Arc<Node>| {
            let name = NodeName(node.name_any());
            let found = if name == need.source {
                Err(Unfit::Refused(Refusal::IsTheSource))
            } else if wanted.is_some_and(|wanted| *wanted != name) {
                Err(Unfit::NotWanted)
            } else if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
                Err(Unfit::Cordoned)
            } else if node.labels().get(LABEL_NODE_READY).map(String::as_str) != Some("true") {
                Err(Unfit::NotInstalled)
            } else {
                evaluator.room(name.as_str()).map_err(Unfit::Refused)
            };
            (name, found)
        };
        self.nodes.iter().map(&mut verdict).collect()
    }

    /// Takes room for it if a node has some; says why not otherwise.
    pub fn place(&mut self, claim: &Claim, since: &str) -> Result<Reservation, String> {
        let bytes = *claim
            .bytes
            .as_ref()
            .map_err(|why| format!("how large the archive will be is not known: {why}"))?;
        let need = Need { migration: claim.uid.clone(), source: claim.node.clone(), bytes };
        let verdicts = self.verdicts(&need, claim.wanted.as_ref());
        if !verdicts.iter().any(|(_, found)| found.is_ok()) {
            return Err(explain(&verdicts, claim.wanted.as_ref()));
        }
        let reservation = Reservation {
            migration: need.migration,
            source: need.source,
            target: claim.wanted.clone(),
            bytes,
            since: since.to_owned(),
        };
        self.snapshot.reservations.push(reservation.clone());
        Ok(reservation)
    }
}

/// `n2: archive 1.2 GiB, free 0.4 GiB; n3: cordoned`
pub fn explain(verdicts: &Verdicts, wanted: Option<&NodeName>) -> String {
    let others = |(_, found): &&(NodeName, Result<Room, Unfit>)| {
        !matches!(found, Err(Unfit::Refused(Refusal::IsTheSource) | Unfit::NotWanted))
    };
    let told: Vec<_> = verdicts.iter().filter(others).collect();
    if told.is_empty() {
        return match wanted {
            Some(wanted) if verdicts.iter().any(|(name, _)| name == wanted) => {
                format!("{wanted}: {}", Refusal::IsTheSource)
            }
            Some(wanted) => format!("{wanted}: there is no such node"),
            None => "there is no other node".to_owned(),
        };
    }
    let mut text = String::new();
    for (name, found) in told.iter().take(NAMED) {
        if let Err(unfit) = found {
            let separator = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{separator}{name}: {unfit}");
        }
    }
    match told.len().saturating_sub(NAMED) {
        0 => text,
        more => format!("{text}; and {more} more nodes"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::slot::Standing;
    use super::*;
    use crate::api::{Epoch, NodeCapacitySpec};
    use crate::placement::NodeView;

    fn node(name: &str, cordoned: bool, ready: bool) -> Arc<Node> {
        let labels = if ready { json!({LABEL_NODE_READY: "true"}) } else { json!({}) };
        let object =
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"unschedulable": cordoned}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn snapshot(free: &[(&str, u64)]) -> Snapshot {
        let view = |free_bytes| {
            let spec = NodeCapacitySpec { free_bytes, transfers_in: 2, ..NodeCapacitySpec::default() };
            NodeView::new(Arc::new(spec), true)
        };
        let nodes = free.iter().map(|(name, free)| (NodeName::from(*name), view(*free))).collect();
        Snapshot { nodes, reservations: vec![] }
    }

    fn claim(uid: &str, bytes: u64) -> Claim {
        Claim {
            uid: uid.into(),
            epoch: Epoch(1),
            owner: uid.to_owned(),
            node: "a".into(),
            priority: 0,
            created: String::new(),
            standing: Standing::Waits,
            bytes: Ok(bytes),
            wanted: None,
            reservation: None,
            is_placed: false,
        }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn where_no_node_takes_it_each_says_why() {
        let nodes = vec![
            node("d", false, false),
            node("c", true, true),
            node("b", false, true),
            node("a", false, true),
        ];
        let free = [("a", 900 * MIB), ("b", 100 * MIB), ("c", 900 * MIB), ("d", 900 * MIB)];
        let mut placing = Placing::new(nodes, snapshot(&free), &[], &Bookings::default());
        assert_eq!(
            placing.place(&claim("m", 200 * MIB), "1").unwrap_err(),
            "b: archive 200.0 MiB, free 100.0 MiB; c: cordoned; d: the runtime is not installed"
        );
        assert!(placing.place(&claim("m", 50 * MIB), "1").is_ok());
    }

    #[test]
    fn a_node_that_was_asked_for_is_looked_at_alone() {
        let nodes = vec![node("a", false, true), node("b", false, true), node("c", false, true)];
        let mut placing =
            Placing::new(nodes, snapshot(&[("a", MIB), ("b", 0), ("c", MIB)]), &[], &Bookings::default());
        let mut place =
            |wanted: &str| placing.place(&Claim { wanted: Some(wanted.into()), ..claim("m", 1) }, "1");
        assert_eq!(place("b").unwrap_err(), "b: archive 0.0 MiB, free 0.0 MiB");
        assert_eq!(place("a").unwrap_err(), "a: the pod is there");
        assert_eq!(place("x").unwrap_err(), "x: there is no such node");
        assert!(place("c").is_ok());
    }

    #[test]
    fn what_was_given_away_a_moment_ago_is_taken() {
        let nodes = vec![node("a", false, true), node("b", false, true)];
        let mut placing = Placing::new(
            nodes.clone(),
            snapshot(&[("a", 99 * MIB), ("b", 10 * MIB)]),
            &[],
            &Bookings::default(),
        );
        let first = placing.place(&claim("m1", 6 * MIB), "1").unwrap();
        assert!(placing.place(&claim("m2", 6 * MIB), "2").unwrap_err().contains("reserved 6.0 MiB"));
        // The same, told by the claim while no watch has brought it.
        let known = Claim { reservation: Some(first), ..claim("m1", 6 * MIB) };
        let mut placing = Placing::new(
            nodes,
            snapshot(&[("a", 99 * MIB), ("b", 10 * MIB)]),
            &[known],
            &Bookings::default(),
        );
        assert!(placing.place(&claim("m2", 6 * MIB), "2").is_err());
    }

    #[test]
    fn why_its_size_is_not_known_is_told() {
        let claim = Claim { bytes: Err("no overlay (agent on node a)".into()), ..claim("m", 1) };
        let why = Placing::new(vec![], snapshot(&[]), &[], &Bookings::default()).place(&claim, "1");
        assert_eq!(
            why.unwrap_err(),
            "how large the archive will be is not known: no overlay (agent on node a)"
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let nodes: Vec<_> = (0..20).map(|n| node(&format!("n{n:02}"), true, true)).collect();
        let why = Placing::new(nodes, snapshot(&[]), &[], &Bookings::default())
            .place(&claim("m", 1), "1")
            .unwrap_err();
        assert!(why.ends_with("n07: cordoned; and 12 more nodes"), "{why}");
    }
}
