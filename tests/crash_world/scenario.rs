//! What is tried: the policy, what goes wrong by itself, and which mistake is built in.

use shadow::api::Epoch;

use super::mistake::Mistake;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// The first dump fails, the second attempt succeeds.
    FirstDumpFails,
    /// No dump ever succeeds.
    DumpsFail,
    /// The consumer ignores orders to park.
    NeverParks,
    /// Somebody asks to go back once the migration is in this step.
    Abort(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub trouble: Trouble,
    /// `MigrateOrEvict`, else `MigrateOrBlock`.
    pub evicts: bool,
    /// A shadow answers readers, else the source stands still from the dump on.
    pub bridged: bool,
    pub mistake: Option<Mistake>,
}

impl Scenario {
    pub fn of(trouble: Trouble) -> Self {
        Self { trouble, evicts: false, bridged: true, mistake: None }
    }

    pub fn policy(&self) -> &'static str {
        if self.evicts { "MigrateOrEvict" } else { "MigrateOrBlock" }
    }

    pub fn state_from(&self) -> &'static str {
        if self.bridged { "Queue" } else { "Any" }
    }

    pub fn never_parks(&self) -> bool {
        self.trouble == Trouble::NeverParks
    }

    pub fn dump_fails(&self, epoch: Epoch) -> bool {
        self.trouble == Trouble::DumpsFail || self.trouble == Trouble::FirstDumpFails && epoch == Epoch(1)
    }

    /// It should end on the other node, whatever strikes.
    pub fn moves(&self) -> bool {
        matches!(self.trouble, Trouble::None | Trouble::FirstDumpFails)
    }

    /// It may end in an eviction.
    pub fn may_evict(&self) -> bool {
        self.evicts
    }
}
