//! State of a migration: the journal in the `StatefulMigration`, all that the operator remembers.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Effect;
use crate::api::{
    ArchiveDigest, Epoch, EvictionPolicy, Hold, NodeName, Phase, PodUid, Reason, same_but_for_numbers,
};

/// What kind of migration this is; fixed when it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// A shadow answers reads while the pod is replaced.
    pub bridge: bool,
    /// The pod consumes a queue, so it is parked and resumed.
    pub queue: bool,
    /// What becomes of the source between dump and commit.
    pub hold: Hold,
    /// What becomes of the drain if the deadline passes.
    pub policy: EvictionPolicy,
}

/// A verified archive on the target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    pub digest: ArchiveDigest,
    pub bytes: u64,
    pub frozen_ms: u64,
}

/// Where the shadow waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowAt {
    pub node: NodeName,
    pub pod: PodUid,
    pub ip: Option<String>,
}

/// The pod that carries on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    pub pod: PodUid,
    pub name: String,
    pub ip: Option<String>,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
    /// Another attempt may succeed.
    pub retry: bool,
}

impl Failure {
    pub fn retryable(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry: true }
    }

    pub fn terminal(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry: false }
    }

    /// The same as `last`, but for numbers, and it costs a stop each time. What is told of nodes, agents and brokers may
    /// be the same and pass all the same.
    pub fn repeats(&self, last: &Self) -> bool {
        let stops = matches!(
            self.reason,
            Reason::ConsumerNeverParked | Reason::DumpFailed | Reason::ArchiveDamaged | Reason::RestoreFailed
        );
        stops && self.reason == last.reason && same_but_for_numbers(&self.message, &last.message)
    }
}

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
    /// COMMITTED. The source is frozen for good.
    Freezing,
    /// The source pod object is deleted, then its process is killed.
    Deleting,
    /// No process of the source is left, so nobody takes the orders of the replacement, which has its name; the
    /// owner makes the pod again and it is restored.
    Replacing,
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

    /// A step of an attempt that can still be called off.
    pub fn is_revocable(self) -> bool {
        matches!(
            self,
            Self::Preparing | Self::Parking | Self::Dumping | Self::RestoringShadow | Self::Bridging
        )
    }

    /// How long the step may take before it counts as failed (before the commit) or is reported (after it).
    /// `None`: something else ends the wait (the effect's own limit, the deadline, the back-off).
    pub fn limit(self) -> Option<Duration> {
        let seconds = match self {
            Self::Accepted | Self::BackingOff | Self::Completed | Self::Failed => return None,
            // An image may take minutes to come, and nothing is stopped: what stands still is given up by the effect.
            Self::Preparing => return None,
            // As long as the bytes take: the effect's own limit knows how many there are.
            Self::Dumping | Self::RestoringShadow => return None,
            // A consumer finishes the messages it was already given.
            Self::Parking => 10,
            Self::Bridging => 20,
            _ => 30,
        };
        Some(Duration::from_secs(seconds))
    }

    /// The paper's name for it.
    pub fn phase(self) -> Phase {
        match self {
            Self::Accepted | Self::Preparing | Self::BackingOff => Phase::Pending,
            Self::Parking | Self::Dumping => Phase::Checkpointing,
            Self::RestoringShadow | Self::Bridging => Phase::Restoring,
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
            Self::Freezing => "Freezing",
            Self::Deleting => "Deleting",
            Self::Replacing => "Replacing",
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

/// Everything the protocol knows.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub plan: Plan,
    pub epoch: Epoch,
    pub step: Step,
    /// Effects of this step that are done.
    pub done: BTreeSet<Effect>,
    /// PARK may have been sent in this attempt: a rollback must take it back.
    pub park_sent: bool,
    /// A dump may have been ordered in this attempt: the source may stand frozen.
    pub dump_sent: bool,
    /// The shadow's pod may exist.
    pub shadow_sent: bool,
    pub target: Option<NodeName>,
    pub shadow: Option<ShadowAt>,
    pub position: Option<u64>,
    pub archive: Option<Archive>,
    pub replacement: Option<Restored>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// The source was evicted before the rest of the attempt is taken away: a drain does not wait for a broker.
    #[serde(default)]
    pub evicted_first: bool,
}

impl State {
    /// A migration that was just accepted, waiting for a slot.
    pub fn new(plan: Plan, target: Option<NodeName>) -> Self {
        Self {
            plan,
            epoch: Epoch(1),
            step: Step::Accepted,
            done: BTreeSet::new(),
            park_sent: false,
            dump_sent: false,
            shadow_sent: false,
            target,
            shadow: None,
            position: None,
            archive: None,
            replacement: None,
            failure: None,
            evicted_first: false,
        }
    }

    /// It failed for good, and the policy then gives the drain what it asked for.
    pub(super) fn ends_in_eviction(&self) -> bool {
        self.plan.policy == EvictionPolicy::MigrateOrEvict
            && self
                .failure
                .as_ref()
                .is_some_and(|f| !f.retry && !matches!(f.reason, Reason::Aborted | Reason::SourceGone))
    }

    /// All effects of the current step.
    pub fn required(&self) -> Vec<Effect> {
        let Plan { bridge, queue, .. } = self.plan;
        let when = |condition: bool, effect: Effect| condition.then_some(effect);
        let effects = match self.step {
            Step::Preparing => vec![when(queue, Effect::DeclareParking), Some(Effect::PlaceShadow)],
            Step::Parking => vec![when(queue, Effect::Park)],
            Step::Dumping => vec![Some(Effect::Dump)],
            Step::RestoringShadow => vec![when(bridge, Effect::RestoreShadow)],
            Step::Bridging => vec![when(bridge, Effect::AddBridge)],
            Step::Freezing => vec![Some(Effect::FreezeSource), when(bridge, Effect::ShrinkShadow)],
            Step::Deleting => vec![
                Some(Effect::DeleteSource),
                when(!bridge, Effect::WithdrawShadow),
                Some(Effect::KillSource),
            ],
            Step::Replacing => vec![Some(Effect::RestoreReplacement)],
            Step::Switching => vec![when(bridge, Effect::SwitchReaders)],
            Step::Closing => vec![Some(Effect::CloseArchives)],
            Step::Resuming => vec![when(queue, Effect::Resume)],
            Step::Cleaning => vec![when(bridge, Effect::RemoveShadow), when(queue, Effect::DropParking)],
            Step::Withdrawing => vec![when(self.shadow_sent, Effect::WithdrawShadow)],
            Step::Reverting => vec![
                when(self.dump_sent && !self.evicted_first, Effect::ThawSource),
                // After an eviction for the pod that comes next: it finds the order to park.
                when(
                    self.park_sent && (self.evicted_first || !self.ends_in_eviction()),
                    Effect::ResumeSource,
                ),
            ],
            Step::Discarding => vec![
                when(self.dump_sent || self.shadow_sent, Effect::CloseArchives),
                when(queue, Effect::DropParking),
            ],
            Step::Evicting => vec![Some(Effect::EvictSource)],
            Step::Accepted | Step::Completed | Step::BackingOff | Step::Failed => vec![],
        };
        effects.into_iter().flatten().collect()
    }

    /// Effects of the current step that are not known to be done: what to perform now, and again after a restart.
    pub fn outstanding(&self) -> Vec<Effect> {
        self.required().into_iter().filter(|effect| !self.done.contains(effect)).collect()
    }
}
