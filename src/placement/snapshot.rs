//! All nodes and reservations at one moment.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::api::{MigrationUid, NodeCapacitySpec, NodeName};

/// What is known of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    pub capacity: Arc<NodeCapacitySpec>,
    /// Of `capacity`: what is looked at for each of thousands of nodes lies together.
    pub(super) free_bytes: u64,
    pub(super) transfers_in: u32,
    pub(super) stream: Option<NonZeroU64>,
    /// Its agent has renewed its Lease in time.
    pub is_alive: bool,
    /// Nodes of one class have the same [`crate::api::Compatibility`].
    pub class: u64,
}

impl NodeView {
    pub fn new(capacity: Arc<NodeCapacitySpec>, is_alive: bool) -> Self {
        let mut hasher = DefaultHasher::new();
        capacity.compatibility.hash(&mut hasher);
        Self {
            free_bytes: capacity.free_bytes,
            transfers_in: capacity.transfers_in,
            stream: capacity.stream_bytes_per_second.and_then(NonZeroU64::new),
            capacity,
            is_alive,
            class: hasher.finish(),
        }
    }
}

/// Room that a migration under way has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub migration: MigrationUid,
    pub source: NodeName,
    /// Where its shadow was bound to; nowhere yet, and it may come to any node.
    pub target: Option<NodeName>,
    pub bytes: u64,
    /// When it was taken (RFC 3339, sorts as text): of two that are nowhere yet the younger gives way, so that one of
    /// them always gets on.
    pub since: String,
}

impl Reservation {
    /// The order in which reservations that are nowhere yet are served.
    pub fn precedes(&self, other: &Self) -> bool {
        (&self.since, &self.migration) < (&other.since, &other.migration)
    }
}

/// Thousands of them are looked up in a request.
pub type Nodes = HashMap<NodeName, NodeView, foldhash::fast::RandomState>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub nodes: Nodes,
    pub reservations: Vec<Reservation>,
}

impl Snapshot {
    pub fn reservation(&self, migration: &MigrationUid) -> Option<&Reservation> {
        self.reservations.iter().find(|reservation| reservation.migration == *migration)
    }
}
