//! State of a migration: the journal in the `StatefulMigration`, all that the operator remembers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Effect, Step, Turn, Way};
use crate::api::{
    ArchiveDigest, Epoch, EvictionPolicy, Hold, Life, NodeName, PodUid, Reason, same_but_for_numbers,
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
    /// The pod may write to volumes that outlive it: once anything has run on them, its archive is behind them.
    #[serde(default)]
    pub outlived: bool,
}

impl Plan {
    /// The least there is: neither queue nor bridge, and no volume that outlives the pod.
    pub fn plain(policy: EvictionPolicy) -> Self {
        Self { bridge: false, queue: false, hold: Hold::Frozen, policy, outlived: false }
    }
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
    /// What its source's container was made from, where that is told: what is restored must be made from the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Kubelets ask the registry at each start what the image's name means (`imagePullPolicy: Always`).
    #[serde(default)]
    pub pulls_always: bool,
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
            Reason::ConsumerNeverParked
                | Reason::DumpFailed
                | Reason::TooSlow
                | Reason::ArchiveDamaged
                | Reason::RestoreFailed
                | Reason::VolumeChanged
        );
        stops && self.reason == last.reason && same_but_for_numbers(&self.message, &last.message)
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
    /// The node on which the pod is to carry on: after the commit perhaps another one than the shadow's.
    pub target: Option<NodeName>,
    /// Nodes that were the target before: an archive may lie there, no ticket is open.
    #[serde(default)]
    pub left: Vec<NodeName>,
    /// Number of the replacement's ticket.
    #[serde(default)]
    pub life: Life,
    #[serde(default)]
    pub way: Way,
    /// The state was given up after the commit: a fresh pod takes the place.
    #[serde(default)]
    pub given_up: bool,
    pub shadow: Option<ShadowAt>,
    pub position: Option<u64>,
    pub archive: Option<Archive>,
    pub replacement: Option<Restored>,
    /// Why the last attempt, or the last way, failed. Kept when the next one succeeds after the commit: it says why the
    /// pod is where it is.
    pub failure: Option<Failure>,
    /// Why the last attempt failed that had stopped the source: an equal failure stands for good.
    #[serde(default)]
    pub stopped_for: Option<Failure>,
    /// The replacement had applied fewer messages than its source when it went on: it carries on without its state.
    #[serde(default)]
    pub fell_back: bool,
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
            left: Vec::new(),
            life: Life::default(),
            way: Way::Target,
            given_up: false,
            shadow: None,
            position: None,
            archive: None,
            replacement: None,
            failure: None,
            stopped_for: None,
            fell_back: false,
            evicted_first: false,
        }
    }

    /// What an answer to an effect performed now belongs to.
    pub fn turn(&self) -> Turn {
        Turn { epoch: self.epoch, life: self.life }
    }

    /// It failed for good, and the policy then gives the drain what it asked for.
    pub(super) fn ends_in_eviction(&self) -> bool {
        self.plan.policy == EvictionPolicy::MigrateOrEvict
            && !self.given_up
            && self
                .failure
                .as_ref()
                .is_some_and(|f| !f.retry && !matches!(f.reason, Reason::Aborted | Reason::SourceGone))
    }

    /// Before anything was to be restored: source and shadow may be there still.
    fn is_given_up_early(&self) -> bool {
        self.given_up && self.way == Way::Target
    }

    /// All effects of the current step.
    pub fn required(&self) -> Vec<Effect> {
        let Plan { bridge, queue, .. } = self.plan;
        let when = |condition: bool, effect: Effect| condition.then_some(effect);
        let effects = match self.step {
            Step::Preparing => vec![when(queue, Effect::DeclareParking), Some(Effect::PlaceShadow)],
            Step::Parking => vec![when(queue, Effect::Park)],
            Step::Dumping => vec![Some(Effect::Dump)],
            Step::RestoringShadow => vec![Some(Effect::RestoreShadow)],
            Step::Bridging => vec![when(bridge, Effect::AddBridge)],
            Step::Confirming => vec![when(bridge, Effect::ConfirmShadow)],
            Step::Freezing => vec![Some(Effect::FreezeSource), when(bridge, Effect::ShrinkShadow)],
            Step::Deleting => vec![
                Some(Effect::DeleteSource),
                when(!bridge, Effect::WithdrawShadow),
                Some(Effect::KillSource),
            ],
            Step::Replacing => vec![Some(Effect::RestoreReplacement)],
            Step::Spending => vec![Some(Effect::SpendTicket)],
            Step::Seeking => vec![Some(Effect::ChooseNode)],
            Step::Carrying => vec![Some(Effect::CarryArchive)],
            Step::Returning => vec![Some(Effect::ReturnArchive)],
            Step::GivingUp => vec![Some(Effect::KeepArchive)],
            // The fresh pod need not wait for a shadow that nobody takes away: it takes no message.
            Step::StartingFresh => {
                vec![
                    when(bridge || self.is_given_up_early(), Effect::WithdrawShadow),
                    Some(Effect::ReleaseReplacement),
                ]
            }
            // A shadow that was let go has shown the same before the commit, and the pause is not made longer for it.
            Step::Switching => {
                vec![when(bridge, Effect::SwitchReaders), when(!bridge, Effect::ConfirmReplacement)]
            }
            Step::Closing => vec![Some(Effect::CloseArchives)],
            Step::Resuming => vec![when(queue, Effect::Resume)],
            Step::Cleaning => vec![when(bridge, Effect::RemoveShadow), when(queue, Effect::DropParking)],
            Step::Withdrawing => vec![when(self.shadow_sent, Effect::WithdrawShadow)],
            Step::Reverting => vec![
                when(
                    self.dump_sent && !self.evicted_first && (!self.given_up || self.is_given_up_early()),
                    Effect::ThawSource,
                ),
                // After an eviction for the pod that comes next: it finds the order to park.
                when(
                    self.park_sent && (self.evicted_first || !self.ends_in_eviction()),
                    Effect::ResumeSource,
                ),
            ],
            Step::Discarding => vec![
                // What is given up was closed with an archive kept.
                when((self.dump_sent || self.shadow_sent) && !self.given_up, Effect::CloseArchives),
                when(queue, Effect::DropParking),
            ],
            Step::Evicting => vec![Some(Effect::EvictSource)],
            Step::Accepted | Step::Stranded | Step::Completed | Step::BackingOff | Step::Failed => vec![],
        };
        effects.into_iter().flatten().collect()
    }

    /// Effects of the current step that are not known to be done: what to perform now, and again after a restart.
    pub fn outstanding(&self) -> Vec<Effect> {
        self.required().into_iter().filter(|effect| !self.done.contains(effect)).collect()
    }
}
