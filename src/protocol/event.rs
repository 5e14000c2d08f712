//! What can happen to a migration.

use serde::{Deserialize, Serialize};

use super::state::{Archive, Restored, ShadowAt};
use super::{Effect, Failure};
use crate::api::{Epoch, Life, NodeName};

/// For what an effect was performed. Within one turn no step begins twice, so an answer that comes late is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    pub epoch: Epoch,
    pub life: Life,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A slot is free and some node has room: begin the attempt.
    Admitted,
    /// No node can take it now: it waits on, and tells why.
    NoNodeFits(Failure),
    /// The pod cannot be moved as it is: nothing was touched, nothing will be.
    Refused(Failure),
    /// An effect of this turn is done.
    Done(Turn, Outcome),
    /// An effect of this turn failed for good. After the commit that means that the way leads nowhere, where the step has
    /// another one ([`super::Step`]); elsewhere nothing.
    Failed(Turn, Effect, Failure),
    /// The current step took longer than [`super::Step::limit`].
    StepTimedOut,
    /// Somebody asked to go back, or deletes the migration. Where a person is waited for it is the same as
    /// [`Self::GiveUp`]: nothing leads back, and nobody has to take a finalizer off by hand.
    Abort,
    /// The policy's deadline passed.
    DeadlineExceeded,
    /// The source pod object is gone though nobody of us deleted it.
    SourceGone,
    /// The back-off after a failed attempt is over.
    RetryDue,
    /// A person who was waited for says: try all places again.
    Retry,
    /// A person who was waited for says: start it fresh.
    GiveUp,
}

/// What an effect found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    ParkingDeclared,
    ShadowPlaced(ShadowAt),
    /// Messages applied, if the consumer said so.
    Parked {
        position: Option<u64>,
    },
    Dumped(Archive),
    ShadowRestored,
    ShadowConfirmed,
    BridgeAdded,
    ShadowShrunk,
    SourceFrozen,
    SourceDeleted,
    SourceKilled,
    ReplacementRestored(Restored),
    ReplacementConfirmed,
    /// It lives, but not what was restored: that has ended, and must not be restored a second time.
    ReplacementStartedAnew {
        message: String,
    },
    TicketSpent,
    /// It was let go after all, before its ticket could be spent, and lives.
    ReplacementLives(Restored),
    NodeChosen(NodeName),
    ArchiveCarried,
    /// To the source's node.
    ArchiveReturned(NodeName),
    ArchiveKept,
    ReplacementReleased,
    ReadersSwitched,
    /// Messages that the replacement had applied when it went on, if it said so.
    Resumed {
        position: Option<u64>,
    },
    ShadowRemoved,
    ArchivesClosed,
    ParkingDropped,
    ShadowWithdrawn,
    SourceThawed,
    SourceResumed,
    SourceEvicted,
}

impl Outcome {
    /// The effect that this is the outcome of.
    pub fn effect(&self) -> Effect {
        match self {
            Self::ParkingDeclared => Effect::DeclareParking,
            Self::ShadowPlaced(_) => Effect::PlaceShadow,
            Self::Parked { .. } => Effect::Park,
            Self::Dumped(_) => Effect::Dump,
            Self::ShadowRestored => Effect::RestoreShadow,
            Self::ShadowConfirmed => Effect::ConfirmShadow,
            Self::BridgeAdded => Effect::AddBridge,
            Self::ShadowShrunk => Effect::ShrinkShadow,
            Self::SourceFrozen => Effect::FreezeSource,
            Self::SourceDeleted => Effect::DeleteSource,
            Self::SourceKilled => Effect::KillSource,
            Self::ReplacementRestored(_) => Effect::RestoreReplacement,
            Self::ReplacementConfirmed | Self::ReplacementStartedAnew { .. } => Effect::ConfirmReplacement,
            Self::TicketSpent | Self::ReplacementLives(_) => Effect::SpendTicket,
            Self::NodeChosen(_) => Effect::ChooseNode,
            Self::ArchiveCarried => Effect::CarryArchive,
            Self::ArchiveReturned(_) => Effect::ReturnArchive,
            Self::ArchiveKept => Effect::KeepArchive,
            Self::ReplacementReleased => Effect::ReleaseReplacement,
            Self::ReadersSwitched => Effect::SwitchReaders,
            Self::Resumed { .. } => Effect::Resume,
            Self::ShadowRemoved => Effect::RemoveShadow,
            Self::ArchivesClosed => Effect::CloseArchives,
            Self::ParkingDropped => Effect::DropParking,
            Self::ShadowWithdrawn => Effect::WithdrawShadow,
            Self::SourceThawed => Effect::ThawSource,
            Self::SourceResumed => Effect::ResumeSource,
            Self::SourceEvicted => Effect::EvictSource,
        }
    }
}
