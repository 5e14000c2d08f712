use std::sync::Arc;

use proptest::prelude::*;

use super::super::NodeView;
use super::*;
use crate::api::{Compatibility, NodeCapacitySpec};

const GIB: u64 = 1 << 30;

fn capacity(free_bytes: u64) -> NodeCapacitySpec {
    NodeCapacitySpec {
        free_bytes,
        transfers_in: 2,
        transfers_out: 2,
        compatibility: Compatibility { xsave_size: 2440, ..Compatibility::default() },
        ..NodeCapacitySpec::default()
    }
}

fn node(capacity: NodeCapacitySpec) -> NodeView {
    NodeView::new(Arc::new(capacity), true)
}

fn change(snapshot: &mut Snapshot, node: &str, change: impl FnOnce(&mut NodeCapacitySpec)) {
    let view = snapshot.nodes.get_mut(&NodeName::from(node)).unwrap();
    let mut capacity = (*view.capacity).clone();
    change(&mut capacity);
    *view = NodeView::new(Arc::new(capacity), view.is_alive);
}

fn evaluate(need: &Need, snapshot: &Snapshot, node: &NodeName) -> Result<Room, Refusal> {
    Evaluator::new(need, snapshot).room(node.as_str())
}

fn snapshot(free: &[(&str, u64)]) -> Snapshot {
    let nodes = free.iter().map(|(name, free)| (NodeName::from(*name), node(capacity(*free)))).collect();
    Snapshot { nodes, reservations: vec![] }
}

fn need(bytes: u64) -> Need {
    Need { migration: "own".into(), source: "source".into(), bytes }
}

fn reservation(migration: &str, target: Option<&str>, bytes: u64, since: &str) -> Reservation {
    Reservation {
        migration: migration.into(),
        source: "source".into(),
        target: target.map(NodeName::from),
        bytes,
        since: since.into(),
    }
}

fn reason(need: &Need, snapshot: &Snapshot, node: &str) -> String {
    evaluate(need, snapshot, &node.into()).unwrap_err().to_string()
}

#[test]
fn a_node_with_room_is_taken_and_a_full_one_says_how_much_it_lacks() {
    let nodes = snapshot(&[("source", 900 * GIB), ("roomy", 3 * GIB), ("full", GIB / 2)]);
    let room = evaluate(&need(GIB), &nodes, &"roomy".into()).unwrap();
    assert_eq!((room.free, room.transfers), (3 * GIB, 1));
    assert_eq!(reason(&need(GIB), &nodes, "full"), "archive 1.0 GiB, free 512.0 MiB");
    assert_eq!(reason(&need(GIB), &nodes, "source"), "the pod is there");
    assert_eq!(reason(&need(GIB), &nodes, "other"), "no agent");
}

#[test]
fn silent_agents_and_foreign_processors_are_refused() {
    let mut nodes = snapshot(&[("source", 900 * GIB), ("n2", GIB), ("n3", GIB)]);
    nodes.nodes.get_mut(&NodeName::from("n2")).unwrap().is_alive = false;
    change(&mut nodes, "n3", |capacity| capacity.compatibility.xsave_size = 2696);
    assert_eq!(reason(&need(1), &nodes, "n2"), "its agent is silent");
    assert_eq!(reason(&need(1), &nodes, "n3"), "xsave size 2696, source 2440");
    nodes.nodes.remove(&NodeName::from("source"));
    assert!(reason(&need(1), &nodes, "n3").starts_with("nothing is known of the source's node"));
}

#[test]
fn a_source_whose_agent_is_silent_can_still_be_compared() {
    let mut nodes = snapshot(&[("source", 900 * GIB), ("n2", GIB)]);
    nodes.nodes.get_mut(&NodeName::from("source")).unwrap().is_alive = false;
    assert!(evaluate(&need(1), &nodes, &"n2".into()).is_ok());
}

#[test]
fn reservations_of_others_are_taken_off_until_their_archive_is_there_and_its_own_never() {
    let mut nodes = snapshot(&[("source", 900 * GIB), ("n2", 2 * GIB)]);
    nodes.reservations = vec![
        reservation("own", Some("n2"), GIB, "2"),
        reservation("other", Some("n2"), GIB, "1"),
        reservation("elsewhere", Some("n3"), 9 * GIB, "1"),
    ];
    assert_eq!(evaluate(&need(GIB), &nodes, &"n2".into()).unwrap().free, GIB);
    assert_eq!(reason(&need(GIB + 1), &nodes, "n2"), "archive 1.0 GiB, free 1.0 GiB, reserved 1.0 GiB");
    change(&mut nodes, "n2", |capacity| {
        capacity.free_bytes = GIB;
        capacity.holds.insert("other".into());
    });
    assert_eq!(evaluate(&need(GIB), &nodes, &"n2".into()).unwrap().free, GIB, "not counted twice");
}

/// The dump is written there first, and other dumps and archives may be on their way to that disk.
#[test]
fn a_source_whose_disk_is_full_is_not_begun_with() {
    let mut nodes = snapshot(&[("source", 2 * GIB), ("n2", 9 * GIB)]);
    assert!(evaluate(&need(2 * GIB), &nodes, &"n2".into()).is_ok());
    nodes.reservations = vec![reservation("other", Some("n3"), GIB, "1")];
    assert_eq!(
        reason(&need(2 * GIB), &nodes, "n2"),
        "the source's own node cannot hold the dump: 2.0 GiB, free 1.0 GiB"
    );
    assert!(evaluate(&need(GIB), &nodes, &"n2".into()).is_ok());
    change(&mut nodes, "source", |capacity| {
        capacity.free_bytes = 0;
        capacity.holds.insert("own".into());
    });
    assert!(evaluate(&need(GIB), &nodes, &"n2".into()).is_ok(), "it lies there already");
}

#[test]
fn a_node_that_others_are_dumped_on_has_that_much_less_room() {
    let mut nodes = snapshot(&[("source", 9 * GIB), ("n2", 2 * GIB)]);
    nodes.reservations =
        vec![Reservation { source: "n2".into(), ..reservation("other", Some("n3"), GIB, "1") }];
    assert_eq!(evaluate(&need(GIB), &nodes, &"n2".into()).unwrap().free, GIB);
    assert_eq!(evaluate(&need(GIB), &nodes, &"n2".into()).unwrap().transfers, 1, "nothing comes in");
}

#[test]
fn no_more_transfers_come_in_than_the_node_takes() {
    let mut nodes = snapshot(&[("source", 900 * GIB), ("n2", 100 * GIB)]);
    nodes.reservations = vec![
        reservation("a", Some("n2"), 1, "1"),
        reservation("own", None, 1, "2"),
        reservation("b", Some("n2"), 1, "3"),
    ];
    assert_eq!(reason(&need(1), &nodes, "n2"), "2 migrations come in already");
}

#[test]
fn of_two_that_are_nowhere_yet_the_younger_gives_way() {
    let mut nodes = snapshot(&[("source", 900 * GIB), ("n2", GIB)]);
    nodes.reservations = vec![reservation("own", None, GIB, "1"), reservation("other", None, GIB, "2")];
    assert!(evaluate(&need(GIB), &nodes, &"n2".into()).is_ok());
    nodes.reservations[0].since = "3".into();
    assert!(evaluate(&need(GIB), &nodes, &"n2".into()).is_err());
}

proptest! {
    /// Fifty start at once; each is placed from a view that holds every older reservation but may lack any news of where
    /// others were bound, as a watch that lags shows it. (Where an older reservation itself is not known, the operator's
    /// bookings are what keeps a node from being given away twice.)
    #[test]
    fn nodes_are_never_overcommitted_however_late_the_news_is(
        free in prop::collection::vec(0_u64..100, 1..5),
        needs in prop::collection::vec((1_u64..60, any::<u64>()), 50),
        order in Just((0..50_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let names: Vec<String> = (0..free.len()).map(|n| format!("n{n}")).collect();
        let all: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(free.iter().copied()).collect();
        let mut truth = snapshot(&all);
        truth.nodes.insert("source".into(), node(capacity(u64::MAX)));
        for name in &names {
            change(&mut truth, name, |capacity| capacity.transfers_in = 1000);
        }
        truth.reservations = needs
            .iter()
            .enumerate()
            .map(|(n, (bytes, _))| reservation(&format!("m{n:02}"), None, *bytes, &format!("{n:02}")))
            .collect();
        for who in order {
            let mut view = truth.clone();
            for (n, other) in view.reservations.iter_mut().enumerate() {
                if needs[who].1 >> n & 1 == 1 {
                    other.target = None; // not heard of yet
                }
            }
            let own = &truth.reservations[who];
            let need = Need { migration: own.migration.clone(), source: "source".into(), bytes: own.bytes };
            let fits = names.iter().find(|name| evaluate(&need, &view, &NodeName::from(name.as_str())).is_ok());
            if let Some(name) = fits {
                truth.reservations[who].target = Some(NodeName::from(name.as_str()));
            }
        }
        for (name, free) in &all {
            let taken: u64 = truth
                .reservations
                .iter()
                .filter(|one| one.target == Some(NodeName::from(*name)))
                .map(|one| one.bytes)
                .sum();
            prop_assert!(taken <= *free, "{name}: {taken} of {free}");
        }
    }
}
