//! What is tried: the policy, what goes wrong by itself, and which mistake is built in.

use shadow::api::{Epoch, Life};

use super::cluster::NODES;
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
    /// After the commit the first restore fails.
    RestoreFails,
    /// After the commit no restore succeeds on these nodes.
    RestoresFailOn(&'static [&'static str]),
    /// The name of the pod's image means another one on the second node.
    AnotherImage,
    /// The same on the third node, and after the commit no restore succeeds on the second.
    AnotherImageElsewhere,
    /// What is let go after the commit ends when it finds its connections closed.
    EndsOfItsConnections,
    /// The target's machine is lost in this step, and nothing is ever restored on these nodes.
    TargetLost(&'static str, &'static [&'static str]),
    /// No restore succeeds after the commit; somebody mends that and says so.
    MendedAndRetried,
    /// The same, but a first try comes while the owner is scaled down.
    ScaledDownMeanwhile,
    /// No restore succeeds after the commit; somebody gives up.
    GivenUp,
    /// The same; somebody deletes the namespace, and with it the owner, the Secret and the broker.
    NamespaceDeleted,
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

    pub fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    pub fn policy(&self) -> &'static str {
        if self.evicts { "MigrateOrEvict" } else { "MigrateOrBlock" }
    }

    /// Where the first attempt fails by itself there is time for a third: what strikes may cost the second.
    pub fn deadline(&self) -> &'static str {
        if self.trouble == Trouble::FirstDumpFails { "120s" } else { "45s" }
    }

    pub fn state_from(&self) -> &'static str {
        if self.bridged { "Queue" } else { "Any" }
    }

    pub fn ends_of_its_connections(&self) -> bool {
        self.trouble == Trouble::EndsOfItsConnections
    }

    pub fn has_another_image(&self, node: &str) -> bool {
        match self.trouble {
            Trouble::AnotherImage => node == NODES[1],
            Trouble::AnotherImageElsewhere => node == NODES[2],
            _ => false,
        }
    }

    pub fn never_parks(&self) -> bool {
        self.trouble == Trouble::NeverParks
    }

    pub fn dump_fails(&self, epoch: Epoch) -> bool {
        self.trouble == Trouble::DumpsFail || self.trouble == Trouble::FirstDumpFails && epoch == Epoch(1)
    }

    /// A replacement cannot be restored on this node, by the ticket of this life.
    pub fn restore_fails(&self, node: &str, life: Life, decided: bool) -> bool {
        match self.trouble {
            Trouble::RestoreFails => life == Life::FIRST,
            Trouble::RestoresFailOn(nodes) | Trouble::TargetLost(_, nodes) => nodes.contains(&node),
            Trouble::MendedAndRetried | Trouble::ScaledDownMeanwhile => !decided,
            Trouble::AnotherImageElsewhere => node == NODES[1],
            Trouble::GivenUp | Trouble::NamespaceDeleted => true,
            _ => false,
        }
    }

    /// Until the commit it is as any other.
    pub fn is_about_the_time_after(&self) -> bool {
        matches!(
            self.trouble,
            Trouble::RestoreFails
                | Trouble::RestoresFailOn(_)
                | Trouble::EndsOfItsConnections
                | Trouble::AnotherImageElsewhere
                | Trouble::TargetLost(..)
                | Trouble::MendedAndRetried
                | Trouble::ScaledDownMeanwhile
                | Trouble::GivenUp
                | Trouble::NamespaceDeleted
        )
    }

    /// In the end nobody is left.
    pub fn all_is_deleted(&self) -> bool {
        self.trouble == Trouble::NamespaceDeleted
    }

    /// How nearly all runs should end, whatever strikes; nothing where that depends.
    pub fn end(&self) -> Option<&'static str> {
        match self.trouble {
            Trouble::None | Trouble::FirstDumpFails | Trouble::RestoreFails => Some("moved"),
            Trouble::AnotherImage => Some("moved in a later attempt"),
            Trouble::AnotherImageElsewhere => Some("came home"),
            // All ways begin anew where the archive lies now.
            Trouble::MendedAndRetried | Trouble::ScaledDownMeanwhile => Some("came home"),
            Trouble::RestoresFailOn(nodes) | Trouble::TargetLost(_, nodes) => {
                let lost = matches!(self.trouble, Trouble::TargetLost(..));
                let fits = |node: &&str| !(nodes.contains(node) || lost && *node == NODES[1]);
                match NODES.into_iter().rev().find(fits) {
                    Some(node) if node == NODES[0] => Some("came home"),
                    Some(_) => Some("moved"),
                    None => Some("started fresh"),
                }
            }
            Trouble::GivenUp | Trouble::EndsOfItsConnections => Some("started fresh"),
            Trouble::NamespaceDeleted => Some("gone"),
            Trouble::DumpsFail | Trouble::NeverParks | Trouble::Abort(_) => None,
        }
    }

    /// It may end in an eviction, or without its state in another way.
    pub fn may_start_fresh(&self) -> bool {
        self.evicts || self.end() == Some("started fresh")
    }
}
