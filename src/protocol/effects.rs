//! What the protocol can ask for.

use serde::{Deserialize, Serialize};

use super::Outcome;

/// One thing to be done, idempotent, keyed by migration UID, epoch and itself. What it needs to know (pod, node,
/// queue, digest) stands in the state and in the migration; what it found comes back as an `Outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Declare this attempt's parking queue and reply queue.
    DeclareParking,
    /// Create the shadow pod; done when its container's `create` waits for the ticket on a node. Where there is no
    /// bridge it is never restored: then it only finds the node and keeps room on it.
    PlaceShadow,
    /// Order the source to stop taking messages; done when that is proven.
    Park,
    /// Dump the source's container and stream it; done when the archive is verified on the target.
    Dump,
    /// Open the shadow's ticket; done when its process lives and the engine has it on record.
    RestoreShadow,
    /// Let readers reach the shadow.
    AddBridge,
    /// Make the shadow give up the room it reserved, which its replacement needs on the same node.
    ShrinkShadow,
    /// Freeze the source for good; done when its agent confirms that it stands still or is gone.
    FreezeSource,
    /// Delete the source pod, by UID, without grace.
    DeleteSource,
    /// Kill the frozen source once its pod object is gone (its kubelet would start it anew); done when no process is
    /// left.
    KillSource,
    /// Open the replacement's ticket; done when its process lives and the engine has it on record.
    RestoreReplacement,
    /// Let readers reach the replacement in the shadow's place, then fence the shadow; done when it cannot answer.
    SwitchReaders,
    /// Order the survivor to take messages again; done when it says so or the broker shows it.
    Resume,
    /// Delete the shadow pod and the bridge (the latter once the replacement is ready by itself).
    RemoveShadow,
    /// Close tickets and delete archives on both nodes.
    CloseArchives,
    /// Delete this attempt's queues, which must be empty.
    DropParking,
    /// No reader reaches the shadow any more and it is gone: in a rollback, and where it only kept room.
    WithdrawShadow,
    /// Rollback: the source runs.
    ThawSource,
    /// Rollback: the source takes messages again.
    ResumeSource,
    /// The deadline passed: evict the pod as if SHADOW were not there.
    EvictSource,
}

impl Effect {
    /// For what only tidies up: the outcome to go on with if it keeps failing. Not for [`Self::CloseArchives`]: a
    /// ticket that stays open would restore an old state.
    pub fn left_alone(self) -> Option<Outcome> {
        match self {
            Self::DropParking => Some(Outcome::ParkingDropped),
            _ => None,
        }
    }

    /// Name in logs, metrics and `status.phaseTimings`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeclareParking => "DeclareParking",
            Self::PlaceShadow => "PlaceShadow",
            Self::Park => "Park",
            Self::Dump => "Dump",
            Self::RestoreShadow => "RestoreShadow",
            Self::AddBridge => "AddBridge",
            Self::ShrinkShadow => "ShrinkShadow",
            Self::FreezeSource => "FreezeSource",
            Self::DeleteSource => "DeleteSource",
            Self::KillSource => "KillSource",
            Self::RestoreReplacement => "RestoreReplacement",
            Self::SwitchReaders => "SwitchReaders",
            Self::Resume => "Resume",
            Self::RemoveShadow => "RemoveShadow",
            Self::CloseArchives => "CloseArchives",
            Self::DropParking => "DropParking",
            Self::WithdrawShadow => "WithdrawShadow",
            Self::ThawSource => "ThawSource",
            Self::ResumeSource => "ResumeSource",
            Self::EvictSource => "EvictSource",
        }
    }
}
