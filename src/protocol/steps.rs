//! The steps of a migration, and the ways on after the commit. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::Phase;

/// Where a migration stands. The order is the order of time on the way that succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Waits for a slot.
    Accepted,
    /// Queues declared, shadow on its way, source untouched.
    Preparing,
    /// The consumer is told to stop.
    Parking,
    /// The container is dumped and streamed.
    Dumping,
    /// The shadow is restored.
    RestoringShadow,
    /// Readers learn of the shadow.
    Bridging,
    /// What was let go must have lived on: a consumer that ends because its connection is gone ends here.
    Confirming,
    /// COMMITTED. The source is frozen for good.
    Freezing,
    /// The source pod object is deleted, then its process is killed.
    Deleting,
    /// No process of the source is left, so nobody takes the orders of the replacement, which has its name; the
    /// owner makes the pod again and it is restored. A failure means that it cannot be restored there.
    Replacing,
    /// That ticket is spent before another way is tried; or the pod lives after all.
    Spending,
    /// Another node is looked for.
    Seeking,
    /// The archive goes to that node.
    Carrying,
    /// The archive goes back to the source's node, where everything is as it was.
    Returning,
    /// It could be restored nowhere, and the policy says that a person decides. No ticket is open, the archive is kept.
    Stranded,
    /// It could be restored nowhere, and the policy or a person says: fresh. No ticket is redeemed any more.
    GivingUp,
    /// The owner makes an ordinary pod.
    StartingFresh,
    /// Readers go to the replacement, the shadow is fenced.
    Switching,
    /// The ticket is spent: a process that crashes after the resume must start fresh, as ever. Restored once more it
    /// would lack what it applied meanwhile, and nobody would resume it. A step of its own, because agents obey no
    /// order of a migration that is closed.
    Closing,
    /// The replacement takes messages again.
    Resuming,
    /// Shadow and queues go away.
    Cleaning,
    Completed,
    /// Rollback: the shadow goes.
    Withdrawing,
    /// Rollback: the source goes on.
    Reverting,
    /// Rollback: archives, tickets and queues go away.
    Discarding,
    /// This attempt failed; the next one starts after a back-off.
    BackingOff,
    /// The deadline passed and the policy says evict.
    Evicting,
    Failed,
}

impl Step {
    /// From here on only forward.
    pub fn is_committed(self) -> bool {
        matches!(
            self,
            Self::Freezing
                | Self::Deleting
                | Self::Replacing
                | Self::Spending
                | Self::Seeking
                | Self::Carrying
                | Self::Returning
                | Self::Stranded
                | Self::GivingUp
                | Self::StartingFresh
                | Self::Switching
                | Self::Closing
                | Self::Resuming
                | Self::Cleaning
                | Self::Completed
        )
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// Committed, and no process carries on yet: a pod that the owner makes now gets the ticket of this life. If that is
    /// spent already, it waits until the next way's pod takes its place.
    pub fn awaits_replacement(self) -> bool {
        matches!(
            self,
            Self::Freezing
                | Self::Deleting
                | Self::Replacing
                | Self::Spending
                | Self::Seeking
                | Self::Carrying
                | Self::Returning
                | Self::Stranded
        )
    }

    /// A step of an attempt that can still be called off.
    pub fn is_revocable(self) -> bool {
        matches!(
            self,
            Self::Preparing
                | Self::Parking
                | Self::Dumping
                | Self::RestoringShadow
                | Self::Bridging
                | Self::Confirming
        )
    }

    /// A step in which [`super::Event::Abort`] still means something.
    pub fn heeds_abort(self) -> bool {
        self.is_revocable()
            || matches!(self, Self::Accepted | Self::BackingOff | Self::Evicting | Self::Stranded)
    }

    /// How long the step may take before it counts as failed (before the commit) or is reported (after it).
    /// `None`: something else ends the wait (the effect's own limit, the deadline, the back-off).
    pub fn limit(self) -> Option<Duration> {
        let seconds = match self {
            Self::Accepted | Self::BackingOff | Self::Stranded | Self::Completed | Self::Failed => {
                return None;
            }
            // An image may take minutes to come, and nothing is stopped: what stands still is given up by the effect.
            Self::Preparing => return None,
            // As long as the bytes take: the effect's own limit knows how many there are.
            Self::Dumping | Self::RestoringShadow | Self::Carrying => return None,
            // A consumer finishes the messages it was already given.
            Self::Parking => 10,
            Self::Bridging | Self::Confirming => 20,
            _ => 30,
        };
        Some(Duration::from_secs(seconds))
    }

    /// The paper's name for it.
    pub fn phase(self) -> Phase {
        match self {
            Self::Accepted | Self::Preparing | Self::BackingOff => Phase::Pending,
            Self::Parking | Self::Dumping => Phase::Checkpointing,
            Self::RestoringShadow | Self::Bridging | Self::Confirming => Phase::Restoring,
            Self::Completed => Phase::Completed,
            Self::Failed => Phase::Failed,
            _ => Phase::Finalizing,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Preparing => "Preparing",
            Self::Parking => "Parking",
            Self::Dumping => "Dumping",
            Self::RestoringShadow => "RestoringShadow",
            Self::Bridging => "Bridging",
            Self::Confirming => "Confirming",
            Self::Freezing => "Freezing",
            Self::Deleting => "Deleting",
            Self::Replacing => "Replacing",
            Self::Spending => "Spending",
            Self::Seeking => "Seeking",
            Self::Carrying => "Carrying",
            Self::Returning => "Returning",
            Self::Stranded => "Stranded",
            Self::GivingUp => "GivingUp",
            Self::StartingFresh => "StartingFresh",
            Self::Switching => "Switching",
            Self::Closing => "Closing",
            Self::Resuming => "Resuming",
            Self::Cleaning => "Cleaning",
            Self::Completed => "Completed",
            Self::Withdrawing => "Withdrawing",
            Self::Reverting => "Reverting",
            Self::Discarding => "Discarding",
            Self::BackingOff => "BackingOff",
            Self::Evicting => "Evicting",
            Self::Failed => "Failed",
        }
    }
}

/// The ways on after the commit, in the order in which they are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// On the target.
    #[default]
    Target,
    /// There once more, in a new sandbox: a restore that failed leaves segments and mounts in the old one.
    Again,
    /// On another node that fits.
    Elsewhere,
    /// On the source's node.
    Home,
    /// All were tried.
    Nowhere,
}
