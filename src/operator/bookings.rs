//! Which node each shadow of this leader's was bound to. The extender and the scheduler decide on what watches have brought
//! them, which may be behind; before anybody is stopped, each shadow is booked here, one after the other. So a node is
//! never given away twice, whoever placed the shadows. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::api::{MigrationUid, NodeName};
use crate::placement::{Evaluator, Need, Refusal, Reservation, Stale, View};

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
pub struct Bookings(Arc<Mutex<HashMap<MigrationUid, Reservation>>>);

impl Bookings {
    /// Takes room for it on the node that its shadow was bound to.
    pub fn book(&self, need: &Need, node: &NodeName, since: &str, view: &View) -> Result<(), BookingError> {
        view.must_be_current()?;
        let mut booked = self.0.lock();
        let mut known = view.snapshot.clone();
        // Who is nowhere yet is booked later than this one.
        known.reservations.retain(|known| known.target.is_some() && !booked.contains_key(&known.migration));
        known.reservations.extend(booked.values().cloned());
        let room = Evaluator::new(need, &known).room(node.as_str());
        room.map_err(|refusal| BookingError::Refused(node.clone(), refusal))?;
        let reservation = Reservation {
            migration: need.migration.clone(),
            source: need.source.clone(),
            target: Some(node.clone()),
            bytes: need.bytes,
            since: since.to_owned(),
        };
        booked.insert(need.migration.clone(), reservation);
        Ok(())
    }

    /// The node that it is booked on.
    pub fn node(&self, migration: &MigrationUid) -> Option<NodeName> {
        self.0.lock().get(migration)?.target.clone()
    }

    pub fn release(&self, migration: &MigrationUid) {
        self.0.lock().remove(migration);
    }

    /// Releases whatever is not among these migrations, by UID.
    pub fn keep<V>(&self, known: &HashMap<String, V>) {
        self.0.lock().retain(|migration, _| known.contains_key(migration.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NodeCapacitySpec;
    use crate::placement::{NodeView, Snapshot};

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

    /// The scheduler bound both to one node before anybody knew of the other.
    #[test]
    fn what_was_booked_a_moment_ago_is_taken_though_no_watch_tells_of_it() {
        let (bookings, view, node) = (Bookings::default(), view(10), NodeName::from("b"));
        bookings.book(&need("m1", 6), &node, "1", &view).unwrap();
        bookings.book(&need("m1", 6), &node, "1", &view).unwrap(); // again, after a restart
        let refused = bookings.book(&need("m2", 6), &node, "2", &view).unwrap_err();
        assert!(
            matches!(refused, BookingError::Refused(_, Refusal::NoRoom { reserved: 6, .. })),
            "{refused}"
        );
        bookings.release(&"m1".into());
        bookings.book(&need("m2", 6), &node, "2", &view).unwrap();
        bookings.keep(&HashMap::from([("m3".to_owned(), 0)]));
        bookings.book(&need("m3", 6), &node, "3", &view).unwrap();
    }

    #[test]
    fn no_more_come_in_than_may_and_who_is_nowhere_yet_does_not_count() {
        let (bookings, mut view, node) = (Bookings::default(), view(100), NodeName::from("b"));
        let unplaced = Reservation {
            migration: "m0".into(),
            source: "a".into(),
            target: None,
            bytes: 100,
            since: "0".into(),
        };
        view.snapshot.reservations.push(unplaced);
        for name in ["m1", "m2"] {
            bookings.book(&need(name, 1), &node, "1", &view).unwrap();
        }
        let refused = bookings.book(&need("m3", 1), &node, "1", &view).unwrap_err();
        assert!(matches!(refused, BookingError::Refused(_, Refusal::TransfersIn { limit: 2 })), "{refused}");
    }

    #[test]
    fn nothing_is_booked_on_what_may_be_old() {
        let old = View { is_synced: false, ..view(10) };
        let refused = Bookings::default().book(&need("m1", 1), &"b".into(), "1", &old);
        assert_eq!(refused, Err(BookingError::Stale(Stale::NotSynced)));
    }
}
