//! Performs effects: every one idempotent, every one with a time limit of its own or of the step's. Does I/O.
//!
//! What an effect needs stands in the [`Journal`] it was asked for with; nothing is remembered here but connections, since
//! when a broker has not heard, since when a replacement has been in trouble, and which nodes have another image.

mod admitted;
mod archive;
mod bridge;
mod budget;
mod carry;
mod confirm;
mod consumer;
mod give_up;
mod image;
mod left_alone;
mod limits;
mod owner;
mod rehearsal;
mod replacement;
mod room;
mod seek;
mod shadow;
mod source;
mod spend;
mod ticket;
mod trouble;
mod unlike;
mod volumes;
mod waiting;
mod wake;

pub use admitted::admitted;
pub use budget::budget_allows;
pub use consumer::look_at_queue;
pub use limits::{impatient_probe, too_large};
pub use owner::{owner_keeps, owner_makes_at_once};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::consumer::BrokerLink;
use self::trouble::Patience;
use self::unlike::Unlike;
use super::agents::client::AgentError;
use super::context::Context;
use super::drive::subject::Journal;
use crate::api::{GROUP, MigrationUid, NodeName, Objection, OrderError, Reason, Refusal, StatefulMigration};
use crate::protocol::{Effect, Event, Failure, Outcome, State, Step, step};

/// An effect did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .failure.reason, .failure.message)]
pub struct EffectError {
    pub failure: Failure,
    /// The same call may succeed in a moment (a connection broke, an agent restarts).
    pub transient: bool,
}

impl EffectError {
    pub fn transient(reason: Reason, message: impl Into<String>) -> Self {
        Self { failure: Failure::retryable(reason, message), transient: true }
    }

    pub fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self { failure: Failure::retryable(reason, message), transient: false }
    }

    /// No attempt will succeed.
    pub fn terminal(reason: Reason, message: impl Into<String>) -> Self {
        Self { failure: Failure::terminal(reason, message), transient: false }
    }

    /// What failed in the same words at the attempt before will not succeed at the next.
    pub fn final_if_again(mut self, journal: &Journal) -> Self {
        let same =
            |last: &Failure| last.reason == self.failure.reason && last.message == self.failure.message;
        if !self.transient && journal.state.failure.as_ref().is_some_and(same) {
            self.failure.retry = false;
        }
        self
    }

    /// A call to the API server failed.
    fn api(what: &str) -> impl FnOnce(kube::Error) -> Self + '_ {
        move |error| Self::transient(Reason::StepTimedOut, format!("{what}: {error}"))
    }
}

impl From<AgentError> for EffectError {
    fn from(error: AgentError) -> Self {
        if let AgentError::Refused { error: OrderError { objection: Some(objection), .. }, .. } = &error {
            let Objection { reason, message, passes } = objection.clone();
            return Self { failure: Failure { reason, message, retry: passes }, transient: false };
        }
        let message = error.to_string();
        match error.refusal() {
            None => Self::transient(Reason::NoAgent, message),
            Some(Refusal::TransferFailed | Refusal::TimedOut) => {
                Self::failed(Reason::TransferFailed, message)
            }
            Some(Refusal::DigestMismatch) => Self::failed(Reason::ArchiveDamaged, message),
            Some(Refusal::NoSpace) => Self::failed(Reason::NoSpace, message),
            Some(Refusal::NoArchive) => Self::failed(Reason::ArchiveDamaged, message),
            Some(Refusal::ContainerNotFound) => Self::failed(Reason::SourceGone, message),
            Some(Refusal::StillLives) => Self::transient(Reason::RestoreFailed, message),
            Some(Refusal::NotAsDumped) => Self::failed(Reason::VolumeChanged, message),
            Some(
                Refusal::RuntimeFailed
                | Refusal::StaleEpoch
                | Refusal::Forbidden
                | Refusal::Malformed
                | Refusal::CannotBeDumped,
            ) => Self::failed(Reason::DumpFailed, message),
        }
    }
}

/// Performs the effects of one migration.
pub struct Performer {
    ctx: Context,
    uid: MigrationUid,
    migration: Arc<StatefulMigration>,
    broker: BrokerLink,
    patience: Mutex<Patience>,
    unlike: Mutex<Unlike>,
    /// Whether the migration has a slot.
    slot: watch::Sender<bool>,
    /// Nothing is restored before its owner makes the pod, or before an init container has ended.
    moves_nothing: AtomicBool,
    /// What a step was waiting for, in milliseconds, for the status to tell.
    waited: Mutex<BTreeMap<String, u64>>,
}

impl Performer {
    pub fn new(ctx: Context, migration: Arc<StatefulMigration>) -> Self {
        let uid = MigrationUid(migration.uid().unwrap_or_default());
        let broker = BrokerLink::new(ctx.client.clone(), ctx.brokers.clone());
        Self {
            ctx,
            uid,
            migration,
            broker,
            patience: Mutex::default(),
            unlike: Mutex::default(),
            slot: watch::Sender::new(true),
            moves_nothing: AtomicBool::new(false),
            waited: Mutex::default(),
        }
    }

    /// The replacement is to be restored, and its owner has not made it, or an init container of it runs.
    pub fn moves_nothing(&self) -> bool {
        self.moves_nothing.load(Ordering::Relaxed)
    }

    /// What was waited for since it was last asked, in milliseconds.
    pub fn waited(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.waited.lock())
    }

    /// Memory moves only while the migration has a slot.
    pub fn may_move(&self, may: bool) {
        self.slot.send_replace(may);
    }

    /// Waits for a slot where the effect moves memory. A restore looks meanwhile whether anybody will come for it, and waits
    /// by itself.
    pub async fn slot_for(&self, effect: Effect) {
        if matches!(effect, Effect::ChooseNode | Effect::CarryArchive | Effect::ReturnArchive) {
            self.slot().await;
        }
    }

    async fn slot(&self) {
        // It cannot be closed while somebody holds it.
        let _ = self.slot.subscribe().wait_for(|may| *may).await;
    }

    /// True where memory may move now or within that time.
    async fn has_slot_within(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.slot()).await.is_ok()
    }

    /// Performs one effect of the step that `journal` is in.
    pub async fn perform(&self, effect: Effect, journal: &Journal) -> Result<Outcome, EffectError> {
        let outcome = self.carry_out(effect, journal).await;
        if left_alone::is_told_to_broker(effect) {
            self.broker.heard(outcome.is_ok());
        }
        let outcome = outcome.map_err(|error| over_its_volumes(journal, error))?;
        if commits(&journal.state, &outcome) {
            owner_keeps(&self.ctx.client, &journal.subject).await?;
            self.volumes_come_along(journal).await?;
            self.stands_as_dumped(journal).await?;
        }
        Ok(outcome)
    }

    async fn carry_out(&self, effect: Effect, journal: &Journal) -> Result<Outcome, EffectError> {
        match effect {
            Effect::DeclareParking => self.declare_parking(journal).await,
            Effect::PlaceShadow => self.place_shadow(journal).await,
            Effect::Park => self.park(journal).await,
            Effect::Dump => self.dump(journal).await,
            Effect::RestoreShadow => self.restore_shadow(journal).await,
            Effect::ConfirmShadow => self.confirm_shadow(journal).await,
            Effect::AddBridge => self.add_bridge(journal).await,
            Effect::ShrinkShadow => self.shrink_shadow(journal).await,
            Effect::FreezeSource => self.freeze_source(journal).await,
            Effect::DeleteSource => self.delete_source(journal).await,
            Effect::KillSource => self.kill_source(journal).await,
            Effect::RestoreReplacement => self.restore_replacement(journal).await,
            Effect::ConfirmReplacement => self.confirm_replacement(journal).await,
            Effect::SpendTicket => self.spend_ticket(journal).await,
            Effect::ChooseNode => self.choose_node(journal).await,
            Effect::CarryArchive => self.carry_archive(journal).await,
            Effect::ReturnArchive => self.return_archive(journal).await,
            Effect::KeepArchive => self.keep_archive(journal).await,
            Effect::ReleaseReplacement => self.release_replacement(journal).await,
            Effect::SwitchReaders => self.switch_readers(journal).await,
            Effect::Resume => self.resume(journal).await,
            Effect::RemoveShadow => self.remove_shadow(journal).await,
            Effect::CloseArchives => self.close_archives(journal).await,
            Effect::DropParking => self.drop_parking(journal).await,
            Effect::WithdrawShadow => self.withdraw_shadow(journal).await,
            Effect::ThawSource => self.thaw_source(journal).await,
            Effect::ResumeSource => self.resume_source(journal).await,
            Effect::EvictSource => self.evict_source(journal).await,
        }
    }

    fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{GROUP}/v1alpha1"),
            kind: "StatefulMigration".to_owned(),
            name: self.migration.name_any(),
            uid: self.uid.to_string(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        }
    }
}

/// What ran on a machine that is lost may have written to volumes that are not: its memory is behind them, and nobody knows.
fn over_its_volumes(journal: &Journal, mut error: EffectError) -> EffectError {
    let restores = matches!(journal.state.step, Step::Replacing | Step::Switching);
    if error.failure.reason == Reason::TargetLost && journal.state.plan.outlived && restores {
        error.failure.reason = Reason::VolumeChanged;
        error.failure.message += ", and it may have run there and written to its volumes";
    }
    error
}

/// Nothing leads back once the protocol knows of it.
fn commits(state: &State, outcome: &Outcome) -> bool {
    let (next, _) = step(state, Event::Done(state.turn(), outcome.clone()));
    next.step.is_committed() && !state.step.is_committed()
}

/// The node chosen in an earlier step.
fn target(journal: &Journal) -> Result<&NodeName, EffectError> {
    journal
        .state
        .target
        .as_ref()
        .ok_or_else(|| EffectError::failed(Reason::NoNodeFits, "no target node in the journal"))
}
