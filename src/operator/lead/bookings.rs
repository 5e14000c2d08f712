//! Which node each shadow was placed on, by this leader or the ones before. The extender and the scheduler decide on what
//! watches have brought them, which may be behind; before anybody is stopped, each shadow is booked here, one after the
//! other, and nothing else counts. So a node is never given away twice, whoever placed the shadows, and of several that
//! were bound to a node that cannot take them all, some are booked. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::api::{MigrationUid, NodeName};
use crate::placement::{Evaluator, Need, Refusal, Reservation, Snapshot, Stale, View};

/// Not booked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookingError {
    #[error("what is known of the nodes may be old: {0}")]
    Stale(#[from] Stale),
    #[error("the shadow was scheduled to {0}, which cannot take it: {1}")]
    Refused(NodeName, Refusal),
}

/// Shared by all drivers.
#[derive(Clone, Debug, Default)]
pub struct Bookings(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    booked: HashMap<MigrationUid, Reservation>,
    /// What the leaders before have placed is among them.
    is_open: bool,
}

impl Bookings {
    /// Takes room for it on the node that its shadow was bound to.
    pub fn book(&self, need: &Need, node: &NodeName, since: &str, view: &View) -> Result<(), BookingError> {
        view.must_be_current()?;
        let mut ledger = self.0.lock();
        if !ledger.is_open {
            return Err(Stale::NotSynced.into());
        }
        // Whoever is not booked yet is booked later than this one.
        let reservations = ledger.booked.values().cloned().collect();
        let known = Snapshot { nodes: view.snapshot.nodes.clone(), reservations };
        let room = Evaluator::new(need, &known).room(node.as_str());
        room.map_err(|refusal| BookingError::Refused(node.clone(), refusal))?;
        let reservation = Reservation {
            migration: need.migration.clone(),
            source: need.source.clone(),
            target: Some(node.clone()),
            bytes: need.bytes,
            since: since.to_owned(),
        };
        ledger.booked.insert(need.migration.clone(), reservation);
        Ok(())
    }

    /// Takes over what a leader before this one has placed.
    pub fn adopt(&self, placed: Reservation) {
        self.0.lock().booked.entry(placed.migration.clone()).or_insert(placed);
    }

    /// Whatever is not among these migrations, by UID, is released; all that was placed before has been adopted.
    pub fn open<V>(&self, known: &HashMap<String, V>) {
        let mut ledger = self.0.lock();
        ledger.booked.retain(|migration, _| known.contains_key(migration.as_str()));
        ledger.is_open = true;
    }

    /// The node that it is booked on.
    pub fn node(&self, migration: &MigrationUid) -> Option<NodeName> {
        self.0.lock().booked.get(migration)?.target.clone()
    }

    pub fn release(&self, migration: &MigrationUid) {
        self.0.lock().booked.remove(migration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NodeCapacitySpec;
    use crate::placement::NodeView;

    fn view(free: u64) -> View {
        let node = |free_bytes| {
            let spec = NodeCapacitySpec { free_bytes, transfers_in: 2, ..NodeCapacitySpec::default() };
            NodeView::new(Arc::new(spec), true)
        };
        let nodes = [("a", u64::MAX), ("b", free)];
        let nodes = nodes.into_iter().map(|(name, free)| (NodeName::from(name), node(free))).collect();
        View { snapshot: Snapshot { nodes, reservations: vec![] }, is_synced: true }
    }

    fn need(migration: &str, bytes: u64) -> Need {
        Need { migration: migration.into(), source: "a".into(), bytes }
    }

    fn opened() -> Bookings {
        let bookings = Bookings::default();
        bookings.open(&HashMap::<_, u8>::new());
        bookings
    }

    fn on(migration: &str, target: Option<&str>, bytes: u64) -> Reservation {
        Reservation {
            migration: migration.into(),
            source: "a".into(),
            target: target.map(NodeName::from),
            bytes,
            since: "0".into(),
        }
    }

    /// The scheduler bound both to one node before anybody knew of the other.
    #[test]
    fn what_was_booked_a_moment_ago_is_taken_though_no_watch_tells_of_it() {
        let (bookings, view, node) = (opened(), view(10), NodeName::from("b"));
        bookings.book(&need("m1", 6), &node, "1", &view).unwrap();
        bookings.book(&need("m1", 6), &node, "1", &view).unwrap(); // again, after a restart
        let refused = bookings.book(&need("m2", 6), &node, "2", &view).unwrap_err();
        assert!(
            matches!(refused, BookingError::Refused(_, Refusal::NoRoom { reserved: 6, .. })),
            "{refused}"
        );
        bookings.release(&"m1".into());
        bookings.book(&need("m2", 6), &node, "2", &view).unwrap();
        bookings.open(&HashMap::from([("m3".to_owned(), 0)]));
        bookings.book(&need("m3", 6), &node, "3", &view).unwrap();
    }

    #[test]
    fn no_more_come_in_than_may_and_who_is_nowhere_yet_does_not_count() {
        let (bookings, mut view, node) = (opened(), view(100), NodeName::from("b"));
        view.snapshot.reservations.push(on("m0", None, 100));
        for name in ["m1", "m2"] {
            bookings.book(&need(name, 1), &node, "1", &view).unwrap();
        }
        let refused = bookings.book(&need("m3", 1), &node, "1", &view).unwrap_err();
        assert!(matches!(refused, BookingError::Refused(_, Refusal::TransfersIn { limit: 2 })), "{refused}");
    }

    /// As the scheduler may place them where no extender is asked.
    #[test]
    fn of_two_that_were_bound_to_a_node_with_room_for_one_the_first_is_booked() {
        let (bookings, mut view, node) = (opened(), view(10), NodeName::from("b"));
        view.snapshot.reservations = vec![on("m1", Some("b"), 6), on("m2", Some("b"), 6)];
        bookings.book(&need("m1", 6), &node, "1", &view).unwrap();
        assert!(bookings.book(&need("m2", 6), &node, "2", &view).is_err());
    }

    #[test]
    fn what_leaders_before_have_placed_is_taken_and_nothing_is_booked_before_all_of_it_is_known() {
        let (bookings, view, node) = (Bookings::default(), view(10), NodeName::from("b"));
        bookings.adopt(on("m1", Some("b"), 6));
        let refused = bookings.book(&need("m2", 3), &node, "2", &view);
        assert_eq!(refused, Err(BookingError::Stale(Stale::NotSynced)));
        bookings.open(&HashMap::from([("m1".to_owned(), 0)]));
        assert!(bookings.book(&need("m2", 6), &node, "2", &view).is_err());
        bookings.book(&need("m2", 3), &node, "2", &view).unwrap();
    }

    #[test]
    fn nothing_is_booked_on_what_may_be_old() {
        let old = View { is_synced: false, ..view(10) };
        let refused = opened().book(&need("m1", 1), &"b".into(), "1", &old);
        assert_eq!(refused, Err(BookingError::Stale(Stale::NotSynced)));
    }
}
