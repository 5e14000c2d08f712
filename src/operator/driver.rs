//! Drives one migration: observe -> event -> `step` -> write the journal -> perform effects -> observe.
//!
//! Guarantees: no effect of a step is performed before the journal says so; after a restart exactly the outstanding
//! effects of the journal are performed again; every wait ends (step limit, deadline, back-off).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::accept::accept;
use super::announce::Announcer;
use super::context::Context;
use super::journal::{Book, JournalError};
use super::perform::{EffectError, Performer};
use super::status::Measured;
use super::subject::{Journal, Subject};
use crate::api::{Epoch, LONGEST_DEADLINE, Phase, StatefulMigration, StatefulMigrationStatus};
use crate::broker::PARK_LIVES;
use crate::protocol::{Effect, Event, Failure, Outcome, Step, step};

/// First pause between attempts, doubled each time.
const FIRST_BACK_OFF: Duration = Duration::from_secs(20);
/// Before the commit an effect may stumble this long before the attempt is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// What only tidies up is left alone after that. By then every order to park has expired; as long as one may come back,
/// from a connection that the broker has not noticed to be dead, whoever obeys it must be resumed.
const TIDY_PATIENCE: Duration = PARK_LIVES.saturating_add(Duration::from_secs(60));
/// The same for an attempt that ordered nobody to park.
const TIDY_PATIENCE_UNPARKED: Duration = Duration::from_secs(20);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("read what the migration is about: {0}")]
    Api(#[from] kube::Error),
}

impl DriveError {
    /// Nothing changes by trying again soon.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Unreadable(..)))
    }
}

/// What the supervisor says to a driver.
#[derive(Clone)]
pub struct Orders {
    /// The object as last seen (for `abort` and deletion).
    pub object: watch::Receiver<Arc<StatefulMigration>>,
    /// True once a slot is free.
    pub admitted: watch::Receiver<bool>,
}

impl Orders {
    async fn admission(&self) {
        if self.admitted.clone().wait_for(|admitted| *admitted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn abort(&self) {
        if self.object.clone().wait_for(|object| wants_abort(object)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

type Attempt = (Effect, Result<Outcome, Failure>);

/// One migration under way.
pub struct Driver {
    ctx: Context,
    book: Book,
    journal: Arc<Journal>,
    performer: Arc<Performer>,
    measured: Measured,
    announcer: Announcer,
    started: Option<Instant>,
    paused: Option<Instant>,
    entered: Instant,
}

impl Driver {
    /// Reads the journal, or accepts the migration and writes the first one. `None` where there is nothing to drive:
    /// it ended already, or its pod is gone.
    pub async fn open(ctx: Context, object: StatefulMigration) -> Result<Option<Self>, DriveError> {
        let mut book = Book::new(ctx.client.clone(), object);
        let announcer = Announcer::new(&ctx, book.object());
        if book.object().status.as_ref().is_some_and(|s| s.phase.is_terminal()) {
            book.release().await?;
            return Ok(None);
        }
        let journal = match book.read().inspect_err(|error| announcer.left_alone(&error.to_string()))? {
            Some(journal) => journal,
            None => match accept(&ctx, &mut book, &announcer).await? {
                Some(journal) => journal,
                None => return Ok(None),
            },
        };
        let performer = Arc::new(Performer::new(ctx.clone(), Arc::new(book.object().clone())));
        let measured = book.object().status.as_ref().map(measured_before).unwrap_or_default();
        Ok(Some(Self {
            ctx,
            book,
            journal: Arc::new(journal),
            performer,
            measured,
            announcer,
            started: None,
            paused: None,
            entered: Instant::now(),
        }))
    }

    pub fn subject(&self) -> &Subject {
        &self.journal.subject
    }

    /// True while it holds a slot. What is only taken back, evicted or tidied up moves no memory, and may take as long as
    /// a broker or a `PodDisruptionBudget` likes: it keeps nobody else waiting.
    pub fn is_active(&self) -> bool {
        let step = self.journal.state.step;
        step.is_revocable()
            || matches!(step, Step::Withdrawing)
            || (step.is_committed() && step < Step::Cleaning)
    }

    /// True while no other pod of its owner may begin to move: the names of shadows and of their queues are the owner's.
    pub fn holds_owner(&self) -> bool {
        self.is_active() || self.journal.state.step == Step::Cleaning
    }

    /// Drives to the end. `report` is called after every step.
    pub async fn run(mut self, orders: Orders, report: impl Fn(&Self) + Send) -> Result<Phase, DriveError> {
        let created = self.book.object().creation_timestamp().map_or_else(Timestamp::now, |t| t.0);
        let deadline = Instant::now() + until_deadline(created, self.book.object().spec.deadline_seconds);
        let mut deadline_passed = false;
        let mut source_gone = source_watch(&self.ctx, &self.journal.subject);
        let mut running: FuturesUnordered<BoxFuture<'static, Attempt>> = FuturesUnordered::new();
        self.perform_outstanding(&mut running);
        report(&self);
        while !self.journal.state.step.is_terminal() {
            let state = &self.journal.state;
            let limit = state.step.limit().map(|limit| self.entered + limit);
            let event = tokio::select! {
                Some((effect, result)) = running.next() => match result {
                    Ok(outcome) => Event::Done(state.epoch, outcome),
                    Err(failure) => Event::Failed(state.epoch, effect, failure),
                },
                () = orders.admission(), if state.step == Step::Accepted => Event::Admitted,
                () = orders.abort(), if may_abort(state.step) => Event::Abort,
                () = &mut source_gone, if may_abort(state.step) => {
                    source_gone = Box::pin(std::future::pending());
                    Event::SourceGone
                }
                () = sleep_until(limit.unwrap_or(deadline)), if limit.is_some() && state.step.is_revocable() => {
                    Event::StepTimedOut
                }
                () = sleep_until(deadline), if !deadline_passed => {
                    deadline_passed = true;
                    Event::DeadlineExceeded
                }
                () = sleep(self.back_off()), if state.step == Step::BackingOff => Event::RetryDue,
            };
            self.take(event, &mut running).await?;
            report(&self);
        }
        self.book.release().await?;
        Ok(self.journal.state.step.phase())
    }

    /// One turn of the loop.
    async fn take(
        &mut self,
        event: Event,
        running: &mut FuturesUnordered<BoxFuture<'static, Attempt>>,
    ) -> Result<(), DriveError> {
        tracing::debug!(migration = self.book.name(), step = self.journal.state.step.as_str(), ?event);
        let failed = match &event {
            Event::Failed(_, effect, _) => Some(*effect),
            _ => None,
        };
        let (next, effects) = step(&self.journal.state, event);
        if next == self.journal.state {
            // A failure that means nothing yet may do so later: whoever still waits for the effect must hear of it.
            let again = failed.filter(|effect| next.outstanding().contains(effect));
            self.perform_all(again.into_iter().collect(), running);
            return Ok(());
        }
        let before = self.journal.state.step;
        let moved = next.step != before || next.epoch != self.journal.state.epoch;
        if moved {
            self.measure(before, next.step);
        }
        self.journal = Arc::new(Journal { subject: self.journal.subject.clone(), state: next });
        self.book.write(&self.journal, &self.measured).await?;
        if moved {
            self.announcer.step(&self.journal, before);
            running.clear();
            self.perform_all(effects, running);
        }
        Ok(())
    }

    fn perform_outstanding(&self, running: &mut FuturesUnordered<BoxFuture<'static, Attempt>>) {
        self.perform_all(self.journal.state.outstanding(), running);
    }

    fn perform_all(&self, effects: Vec<Effect>, running: &mut FuturesUnordered<BoxFuture<'static, Attempt>>) {
        for effect in effects {
            let (performer, journal, ctx) = (self.performer.clone(), self.journal.clone(), self.ctx.clone());
            let announcer = self.announcer.clone();
            running.push(Box::pin(async move {
                let started = Instant::now();
                let result = attempt(&performer, effect, &journal, &announcer).await;
                ctx.metrics.effect(effect, result.is_ok(), started.elapsed().as_secs_f64());
                (effect, result)
            }));
        }
    }

    fn back_off(&self) -> Duration {
        pause_after(self.journal.state.epoch).saturating_sub(self.entered.elapsed())
    }

    fn measure(&mut self, before: Step, next: Step) {
        let now = Instant::now();
        let spent = now.duration_since(self.entered);
        self.ctx.metrics.step(before, spent.as_secs_f64());
        if next == Step::Accepted || before == Step::Accepted {
            self.measured = Measured::default();
        }
        if before != Step::Accepted {
            *self.measured.timings.entry(before.as_str().to_owned()).or_default() += millis(spent);
        }
        self.entered = now;
        let queue = self.journal.state.plan.queue;
        match next {
            Step::Preparing => self.started = Some(now),
            Step::Parking if queue => self.paused = Some(now),
            Step::Dumping if !queue || self.paused.is_none() => self.paused = Some(now),
            Step::Cleaning => {
                self.measured.total_ms = self.started.map(|at| millis(now.duration_since(at)));
                self.measured.pause_ms = self.paused.map(|at| millis(now.duration_since(at)));
            }
            Step::BackingOff => {
                let due = Timestamp::now() + pause_after(self.journal.state.epoch);
                self.measured.retry_at = Some(due.to_string());
            }
            _ => {}
        }
    }
}

/// Performs one effect, again where that makes sense. Ends by success, or before the commit by a failure; after the
/// commit and in a rollback it insists, because only success leads on.
async fn attempt(
    performer: &Performer,
    effect: Effect,
    journal: &Journal,
    announcer: &Announcer,
) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let insist = !journal.state.step.is_revocable();
    let tidy_patience = if journal.state.park_sent { TIDY_PATIENCE } else { TIDY_PATIENCE_UNPARKED };
    let mut pause = RETRY_FIRST;
    let mut reported = false;
    loop {
        let EffectError { failure, transient } = match performer.perform(effect, journal).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        if let Some(outcome) = effect.left_alone()
            && started.elapsed() > tidy_patience
        {
            tracing::warn!(effect = effect.as_str(), failure.message, "left to expire or be swept");
            return Ok(outcome);
        }
        let hopeless = if insist { !failure.retry } else { !transient || started.elapsed() > PATIENCE };
        if hopeless {
            return Err(failure);
        }
        tracing::info!(effect = effect.as_str(), failure.message, "tried again");
        if !reported && started.elapsed() > PATIENCE {
            announcer.stuck(journal, effect, &failure);
            reported = true;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

/// Resolves when the source pod object is gone or another one has its name.
fn source_watch(ctx: &Context, subject: &Subject) -> BoxFuture<'static, ()> {
    let pods: Api<Pod> = Api::namespaced(ctx.watch_client.clone(), &subject.source.namespace);
    let (name, uid) = (subject.source.name.clone(), subject.source.uid.clone());
    Box::pin(async move {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut stream =
            std::pin::pin!(kube::runtime::WatchStreamExt::default_backoff(watcher(pods, config)));
        let mut seen = false;
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    if pod.uid().as_deref() != Some(uid.as_str()) {
                        return;
                    }
                    seen = true;
                }
                Ok(watcher::Event::Delete(pod)) if pod.uid().as_deref() == Some(uid.as_str()) => return,
                Ok(watcher::Event::InitDone) if !seen => return,
                Ok(watcher::Event::Init) => seen = false,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "watch of the source interrupted"),
            }
        }
        std::future::pending::<()>().await;
    })
}

/// Exponential: the next attempt is not more welcome than the last one.
fn pause_after(epoch: Epoch) -> Duration {
    FIRST_BACK_OFF.saturating_mul(1 << epoch.0.saturating_sub(1).min(5))
}

fn wants_abort(object: &StatefulMigration) -> bool {
    object.spec.abort || object.metadata.deletion_timestamp.is_some()
}

/// Steps in which abort or the loss of the source still means something.
fn may_abort(step: Step) -> bool {
    step.is_revocable() || matches!(step, Step::Accepted | Step::BackingOff)
}

fn until_deadline(created: Timestamp, seconds: u64) -> Duration {
    let gone = Timestamp::now().duration_since(created);
    let gone = Duration::try_from(gone).unwrap_or_default();
    Duration::from_secs(seconds).min(LONGEST_DEADLINE).saturating_sub(gone)
}

fn measured_before(status: &StatefulMigrationStatus) -> Measured {
    Measured {
        timings: status.phase_timings.clone(),
        total_ms: status.total_ms,
        pause_ms: status.pause_ms,
        retry_at: status.retry_at.clone(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
