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
    /// bridge it is a rehearsal ([`Self::RestoreShadow`]) and keeps room.
    PlaceShadow,
    /// Order the source to stop taking messages; done when that is proven.
    Park,
    /// Dump the source's container and stream it; done when the archive is verified on the target.
    Dump,
    /// Open the shadow's ticket. Where it may answer: done when its process lives and the engine has it on record.
    /// Elsewhere it is a rehearsal: done when it was restored from the very archive, checked, and stands still.
    RestoreShadow,
    /// The shadow's process, which was let go, still lives. The last thing that is asked before the commit.
    ConfirmShadow,
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
    /// Open the replacement's ticket of this life on the target; done when its process lives and the engine has it on
    /// record. Pods that show the ticket of an earlier life are deleted, so that the next one comes in a new sandbox.
    /// Fails with [`crate::api::Reason::TargetLost`] where the machine is known to be down, with
    /// [`crate::api::Reason::SourceGone`] where no pod will ever claim the ticket, otherwise when it cannot be restored
    /// there.
    RestoreReplacement,
    /// Without a bridge: the replacement still lives some time after it was let go. The rehearsal stood still all the time, so
    /// a process that ends when it finds its connections closed ends here, while its ticket is open and the archive is kept.
    /// Fails as [`Self::RestoreReplacement`] does.
    ConfirmReplacement,
    /// See to it that tickets up to this life are never redeemed any more on the target and nothing that was restored by
    /// one is left there; done when the node's agent says so, or when the machine is known to be down. A machine that is
    /// merely silent is waited for. What was let go and lives is not killed, for it may have acted: it is the replacement,
    /// late ([`Outcome::ReplacementLives`]). From then on orders to open these tickets are refused, a deposed operator's
    /// too; and once the migration is closed there, so is this one.
    SpendTicket,
    /// Find another node that can take the archive: neither the target nor the source's. Fails where there is none now.
    ChooseNode,
    /// Stream the archive to the chosen node, from wherever it lies; done when it is verified there. Fails where it
    /// cannot be had, or be brought there in time.
    CarryArchive,
    /// Make the dump on the source's node an archive there. Fails where it cannot be had in time.
    ReturnArchive,
    /// Close all tickets for good, as [`Self::CloseArchives`]; one archive is kept for a person. Silent nodes are not waited for: their tickets are
    /// spent already.
    KeepArchive,
    /// Delete pods that show a ticket of this migration and were not restored: their owner makes ordinary ones.
    ReleaseReplacement,
    /// Let readers reach the replacement in the shadow's place, then fence the shadow, which stays on its own node
    /// ([`super::ShadowAt`]) wherever the replacement went; done when it cannot answer. Fails with
    /// [`crate::api::Reason::TargetLost`] where the replacement's machine is known to be down.
    SwitchReaders,
    /// Order the survivor to take messages again; done when it says so or the broker shows it.
    Resume,
    /// Delete the shadow pod and the bridge (the latter once the replacement is ready by itself).
    RemoveShadow,
    /// Close tickets and delete archives on all nodes: the target, [`super::State::left`], the source's. What was restored
    /// and stands still goes with its ticket. Only the target is waited for if it is silent: elsewhere no ticket is open.
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
            Self::ConfirmShadow => "ConfirmShadow",
            Self::AddBridge => "AddBridge",
            Self::ShrinkShadow => "ShrinkShadow",
            Self::FreezeSource => "FreezeSource",
            Self::DeleteSource => "DeleteSource",
            Self::KillSource => "KillSource",
            Self::RestoreReplacement => "RestoreReplacement",
            Self::ConfirmReplacement => "ConfirmReplacement",
            Self::SpendTicket => "SpendTicket",
            Self::ChooseNode => "ChooseNode",
            Self::CarryArchive => "CarryArchive",
            Self::ReturnArchive => "ReturnArchive",
            Self::KeepArchive => "KeepArchive",
            Self::ReleaseReplacement => "ReleaseReplacement",
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
