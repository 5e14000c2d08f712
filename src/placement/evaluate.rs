//! Can this node take that checkpoint?

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;

use foldhash::fast::RandomState;

use super::snapshot::{NodeView, Reservation, Snapshot};
use crate::api::{Difference, MigrationUid, NodeName};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub migration: MigrationUid,
    pub source: NodeName,
    /// Expected size of the archive.
    pub bytes: u64,
}

/// Room on a node that can take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes free for archives, all reservations but its own taken off.
    pub free: u64,
    pub bytes: u64,
    /// Transfers that may still come in beside it.
    pub transfers: u32,
    pub stream: Option<u64>,
}

/// Why it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It runs there.
    IsTheSource,
    NoAgent,
    AgentSilent,
    SourceUnknown,
    /// The dump does not fit on the node that it is taken on.
    SourceFull {
        bytes: u64,
        free: u64,
    },
    Incompatible(Difference),
    NoRoom {
        bytes: u64,
        free: u64,
        reserved: u64,
    },
    TransfersIn {
        limit: u32,
    },
}

/// Looks at nodes for one need; what is the same for many of them is found out once.
pub struct Evaluator<'a> {
    need: &'a Need,
    snapshot: &'a Snapshot,
    /// The source's node, where it can write the dump.
    source: Result<&'a NodeView, Refusal>,
    /// Others' reservations by the nodes they are on.
    placed: HashMap<&'a str, Vec<Claimed<'a>>, RandomState>,
    /// Others' reservations that are nowhere yet and were there before: they may need any node.
    unplaced: Vec<&'a Reservation>,
    /// By class of node.
    admitted: HashMap<u64, Result<(), Difference>, RandomState>,
}

/// A reservation as it concerns one node.
#[derive(Clone, Copy)]
struct Claimed<'a> {
    reservation: &'a Reservation,
    /// Its archive comes here; otherwise it is dumped here.
    comes_in: bool,
}

impl<'a> Evaluator<'a> {
    pub fn new(need: &'a Need, snapshot: &'a Snapshot) -> Self {
        let own = snapshot.reservation(&need.migration);
        let mut placed: HashMap<_, Vec<_>, RandomState> = HashMap::default();
        let mut unplaced = Vec::new();
        for other in snapshot.reservations.iter().filter(|other| other.migration != need.migration) {
            let dumped = Claimed { reservation: other, comes_in: false };
            placed.entry(other.source.as_str()).or_default().push(dumped);
            match &other.target {
                Some(target) => {
                    let coming = Claimed { reservation: other, comes_in: true };
                    placed.entry(target.as_str()).or_default().push(coming);
                }
                None if own.is_none_or(|own| other.precedes(own)) => unplaced.push(other),
                None => {}
            }
        }
        let known = snapshot.nodes.get(&need.source).ok_or(Refusal::SourceUnknown);
        let source = known.and_then(|source| can_be_dumped(need, source, placed.get(need.source.as_str())));
        Self { need, snapshot, source, placed, unplaced, admitted: HashMap::default() }
    }

    /// The room that `node` has for it, or why it has none.
    pub fn room(&mut self, node: &str) -> Result<Room, Refusal> {
        self.room_on(node, self.snapshot.nodes.get(node))
    }

    /// For each of thousands of nodes. They are looked up first, one right after the other: so the processor waits for
    /// many places in memory at once.
    pub fn rooms(&mut self, nodes: &[&str]) -> impl Iterator<Item = Result<Room, Refusal>> {
        let known: Vec<_> = nodes.iter().map(|node| self.snapshot.nodes.get(*node)).collect();
        nodes.iter().zip(known).map(|(node, here)| self.room_on(node, here))
    }

    fn room_on(&mut self, node: &str, here: Option<&'a NodeView>) -> Result<Room, Refusal> {
        let need = self.need;
        if node == need.source.as_str() {
            return Err(Refusal::IsTheSource);
        }
        let source = match &self.source {
            Ok(source) => *source,
            Err(refusal) => return Err(refusal.clone()),
        };
        let here = here.ok_or(Refusal::NoAgent)?;
        if !here.is_alive {
            return Err(Refusal::AgentSilent);
        }
        let admits = || here.capacity.compatibility.admits(&source.capacity.compatibility);
        if let Err(difference) = self.admitted.entry(here.class).or_insert_with(admits) {
            return Err(Refusal::Incompatible(difference.clone()));
        }
        let elsewhere = self.unplaced.iter().filter(|other| other.source.as_str() != node);
        let elsewhere = elsewhere.map(|reservation| Claimed { reservation, comes_in: true });
        let (mut reserved, mut arriving) = (0_u64, 0_u32);
        for claimed in self.placed.get(node).into_iter().flatten().copied().chain(elsewhere) {
            arriving = arriving.saturating_add(u32::from(claimed.comes_in));
            reserved = reserved.saturating_add(claimed.bytes_on(here));
        }
        if arriving >= here.transfers_in {
            return Err(Refusal::TransfersIn { limit: here.transfers_in });
        }
        let free = here.free_bytes.saturating_sub(reserved);
        if free < need.bytes {
            return Err(Refusal::NoRoom { bytes: need.bytes, free, reserved });
        }
        Ok(Room {
            free,
            bytes: need.bytes,
            transfers: here.transfers_in - arriving - 1,
            stream: here.stream.map(NonZeroU64::get),
        })
    }
}

impl Claimed<'_> {
    /// Once archive or dump lies there, what is published as free is without it.
    fn bytes_on(self, node: &NodeView) -> u64 {
        if node.capacity.holds.contains(&self.reservation.migration) { 0 } else { self.reservation.bytes }
    }
}

/// The dump is written to the source's own disk first.
fn can_be_dumped<'a>(
    need: &Need,
    source: &'a NodeView,
    others: Option<&Vec<Claimed<'_>>>,
) -> Result<&'a NodeView, Refusal> {
    let reserved =
        others.into_iter().flatten().fold(0_u64, |sum, one| sum.saturating_add(one.bytes_on(source)));
    let free = source.free_bytes.saturating_sub(reserved);
    if free < need.bytes && !source.capacity.holds.contains(&need.migration) {
        return Err(Refusal::SourceFull { bytes: need.bytes, free });
    }
    Ok(source)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsTheSource => f.write_str("the pod is there"),
            Self::NoAgent => f.write_str("no agent"),
            Self::AgentSilent => f.write_str("its agent is silent"),
            Self::SourceUnknown => f.write_str("nothing is known of the source's node: no agent there"),
            Self::SourceFull { bytes, free } => {
                write!(
                    f,
                    "the source's own node cannot hold the dump: {}, free {}",
                    Bytes(*bytes),
                    Bytes(*free)
                )
            }
            Self::Incompatible(difference) => difference.fmt(f),
            Self::NoRoom { bytes, free, reserved: 0 } => {
                write!(f, "archive {}, free {}", Bytes(*bytes), Bytes(*free))
            }
            Self::NoRoom { bytes, free, reserved } => {
                let (bytes, free, reserved) = (Bytes(*bytes), Bytes(*free), Bytes(*reserved));
                write!(f, "archive {bytes}, free {free}, reserved {reserved}")
            }
            Self::TransfersIn { limit } => write!(f, "{limit} migrations come in already"),
        }
    }
}

/// `1.2 GiB`.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = if self.0 >= 1 << 30 { (1_u64 << 30, "GiB") } else { (1 << 20, "MiB") };
        let tenths = u128::from(self.0) * 10 / u128::from(unit);
        write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
