//! What can happen to a migration.

use serde::{Deserialize, Serialize};

use super::state::{Archive, Restored, ShadowAt};
use super::{Effect, Failure};
use crate::api::Epoch;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A slot is free and some node has room: begin the attempt.
    Admitted,
    /// No node can take it now: it waits on, and tells why.
    NoNodeFits(Failure),
    /// The pod cannot be moved as it is: nothing was touched, nothing will be.
    Refused(Failure),
    /// An effect of this epoch is done.
    Done(Epoch, Outcome),
    /// An effect of this epoch failed for good.
    Failed(Epoch, Effect, Failure),
    /// The current step took longer than [`super::Step::limit`].
    StepTimedOut,
    /// Somebody asked to go back.
    Abort,
    /// The policy's deadline passed.
    DeadlineExceeded,
    /// The source pod object is gone though nobody of us deleted it.
    SourceGone,
    /// The back-off after a failed attempt is over.
    RetryDue,
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
    BridgeAdded,
    ShadowShrunk,
    SourceFrozen,
    SourceDeleted,
    SourceKilled,
    ReplacementRestored(Restored),
    ReadersSwitched,
    Resumed,
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
            Self::BridgeAdded => Effect::AddBridge,
            Self::ShadowShrunk => Effect::ShrinkShadow,
            Self::SourceFrozen => Effect::FreezeSource,
            Self::SourceDeleted => Effect::DeleteSource,
            Self::SourceKilled => Effect::KillSource,
            Self::ReplacementRestored(_) => Effect::RestoreReplacement,
            Self::ReadersSwitched => Effect::SwitchReaders,
            Self::Resumed => Effect::Resume,
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
