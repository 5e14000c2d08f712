//! Drives one migration: observe -> event -> `step` -> write the journal -> perform effects -> observe.
//!
//! Guarantees: no effect of a step is performed before the journal says so; after a restart exactly the outstanding
//! effects of the journal are performed again; every wait ends (step limit, deadline, back-off).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::accept::{accept, expected_bytes};
use super::attempt::attempt;
use super::due::{pause_after, room, until, until_deadline};
use super::error::DriveError;
use super::events::Announcer;
use super::journal::Book;
use super::look::admission;
use super::source_watch::source_watch;
use super::subject::Journal;
use super::timings::{Measured, Stopwatch, millis};
use crate::api::{MigrationUid, Phase, Reason, StatefulMigration};
use crate::operator::agents::client::AgentError;
use crate::operator::context::Context;
use crate::operator::lead::admission::{Orders, is_no_node};
use crate::operator::lead::claim::{Claim, Expected};
use crate::operator::lead::slot::{OwnSlot, Slot, is_quiet};
use crate::operator::perform::Performer;
use crate::protocol::{Effect, Event, Failure, Outcome, State, Step, Turn, step};

/// A dump that was called off has stopped to send after this, at the latest.
const TRANSFER_ENDS: Duration = Duration::from_secs(60);
/// A pod that waits grows meanwhile.
const SIZE_PERIOD: Duration = Duration::from_secs(5);
/// Between looks whether whoever is waited for is there again.
const SLOT_LOOK: Duration = Duration::from_secs(2);

type Attempt = (Turn, Effect, Result<Outcome, Failure>);

/// One migration under way.
pub struct Driver {
    ctx: Context,
    book: Book,
    journal: Arc<Journal>,
    performer: Arc<Performer>,
    measured: Measured,
    announcer: Announcer,
    stopwatch: Stopwatch,
    slot: OwnSlot,
    entered: Instant,
    /// When its pod was looked into, if by this driver.
    looked: Option<Instant>,
    expected: Expected,
    /// Bytes of an earlier attempt's archive.
    last_archive: Option<u64>,
}

impl Driver {
    /// Reads the journal, or accepts the migration and writes the first one. `None` where there is nothing to drive:
    /// it ended already, or its pod is gone. `has_slot`: the driver before this one had not given its slot back.
    pub async fn open(
        ctx: Context,
        object: StatefulMigration,
        has_slot: bool,
    ) -> Result<Option<Self>, DriveError> {
        let mut book = Book::new(ctx.client.clone(), object);
        let announcer = Announcer::new(&ctx, book.object());
        if book.object().status.as_ref().is_some_and(|s| s.phase.is_terminal()) {
            ctx.bookings.release(&MigrationUid(book.object().uid().unwrap_or_default()));
            book.release().await?;
            return Ok(None);
        }
        let on_record = book.read().inspect_err(|error| announcer.left_alone(&error.to_string()))?;
        let accepted = on_record.is_none();
        let journal = match on_record {
            Some(journal) => journal,
            None => match accept(&ctx, &mut book, &announcer).await? {
                Some(journal) => journal,
                None => return Ok(None),
            },
        };
        let performer = Arc::new(Performer::new(ctx.clone(), Arc::new(book.object().clone())));
        let measured = book.object().status.as_ref().map(Measured::before).unwrap_or_default();
        let stopwatch = Stopwatch::of(&measured);
        let slot = OwnSlot::new(journal.state.step, has_slot && !is_quiet(&journal, &ctx.agents));
        let mut driver = Self {
            ctx,
            book,
            journal: Arc::new(journal),
            performer,
            measured,
            announcer,
            stopwatch,
            slot,
            entered: Instant::now(),
            looked: accepted.then(Instant::now),
            expected: Expected::NotAsked,
            last_archive: None,
        };
        driver.follow_journal();
        driver.look_at_slot();
        Ok(Some(driver))
    }

    /// What is booked is what the journal says, whatever its last driver got to hear.
    fn follow_journal(&self) {
        let claim = self.claim();
        match claim.reservation {
            Some(placed) if claim.is_placed => self.ctx.bookings.adopt(placed),
            Some(_) => {}
            None => self.ctx.bookings.release(&claim.uid),
        }
    }

    pub fn claim(&self) -> Claim {
        let room = self.measured.reservation.as_ref();
        Claim::of(self.book.object(), &self.journal, room, &self.expected, self.slot.get())
    }

    /// Whether it needs its slot where it stands now; effects hear of it before anybody else may have it. True if that has
    /// changed.
    fn look_at_slot(&mut self) -> bool {
        let waits = self.journal.state.step == Step::Replacing && self.performer.moves_nothing();
        let is_quiet = waits || is_quiet(&self.journal, &self.ctx.agents);
        let changed = self.slot.look(self.journal.state.step, is_quiet, Instant::now());
        self.performer.may_move(self.slot.get() == Slot::Held);
        changed
    }

    /// Expected size of the next attempt's archive.
    fn expected_bytes(&self) -> Option<u64> {
        match self.expected {
            Expected::Bytes(bytes) => Some(bytes),
            Expected::NotAsked | Expected::Unknown(_) => None,
        }
    }

    /// Drives to the end. `report` is called after every step.
    pub async fn run(mut self, orders: Orders, report: impl Fn(&Self) + Send) -> Result<Phase, DriveError> {
        let created = self.book.object().creation_timestamp().map_or_else(Timestamp::now, |t| t.0);
        let deadline = Instant::now() + until_deadline(created, self.book.object().spec.deadline_seconds);
        let mut deadline_passed = false;
        let mut source_gone = source_watch(&self.ctx, &self.journal.subject);
        let mut running: FuturesUnordered<BoxFuture<'static, Attempt>> = FuturesUnordered::new();
        self.perform_outstanding(&mut running);
        let mut sizing = self.sizing(Duration::ZERO);
        report(&self);
        while !self.journal.state.step.is_terminal() {
            let state = &self.journal.state;
            let limit = state.step.limit().map(|limit| self.entered + limit);
            let asked = match self.slot.get() {
                Slot::AskedFor(time) => Some(time),
                Slot::Held | Slot::GivenBack => None,
            };
            let event = tokio::select! {
                Some((turn, effect, result)) = running.next() => match result {
                    Ok(outcome) => Event::Done(turn, outcome),
                    Err(failure) => Event::Failed(turn, effect, failure),
                },
                event = admission(&self.ctx, &orders, &self.journal, self.looked), if state.step == Step::Accepted => event,
                bytes = &mut sizing, if state.step == Step::Accepted => {
                    sizing = self.sizing(SIZE_PERIOD);
                    self.expect(bytes);
                    report(&self);
                    continue;
                }
                () = orders.abort(), if may_abort(state.step) || state.step == Step::Evicting => Event::Abort,
                () = &mut source_gone, if may_abort(state.step) => {
                    source_gone = Box::pin(std::future::pending());
                    Event::SourceGone
                }
                () = sleep_until(limit.unwrap_or(deadline)), if limit.is_some() && state.step.is_revocable() => {
                    Event::StepTimedOut
                }
                // What is taken back after the commit has it too.
                () = sleep_until(deadline), if !deadline_passed && !state.step.is_committed() => {
                    deadline_passed = true;
                    Event::DeadlineExceeded
                }
                () = sleep(self.back_off()), if state.step == Step::BackingOff => Event::RetryDue,
                decision = orders.decision(self.measured.retries), if state.step == Step::Stranded => {
                    if decision == Event::Retry {
                        self.measured.retries = orders.retries(); // written together with what comes of it
                    }
                    decision
                }
                () = orders.returned(asked.unwrap_or_default()), if asked.is_some() => {
                    self.performer.may_move(self.slot.regain(asked.unwrap_or_default()));
                    report(&self);
                    continue;
                }
                () = sleep(SLOT_LOOK), if self.slot.is_watched() => {
                    if self.look_at_slot() {
                        report(&self);
                    }
                    continue;
                }
                () = sleep(self.room_expires_in()), if self.measured.reservation.is_some() => {
                    self.release();
                    report(&self);
                    continue;
                }
            };
            if event == Event::Admitted
                && let Some(bytes) = orders.granted(self.journal.state.epoch)
            {
                self.expected = Expected::Bytes(bytes); // whatever the agent said since
            }
            let waited = self.journal.state.step == Step::Accepted;
            self.take(event, &mut running).await?;
            if !waited && self.journal.state.step == Step::Accepted {
                // It has grown since the last attempt.
                self.expected = Expected::NotAsked;
                sizing = self.sizing(Duration::ZERO);
            }
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
        let unplaceable = match &event {
            Event::NoNodeFits(why) if !is_no_node(self.journal.state.failure.as_ref()) => {
                Some(why.message.clone())
            }
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
            self.measure(before, &next);
        }
        if let (Some(room), Some(archive)) = (&mut self.measured.reservation, &next.archive)
            && room.bytes != archive.bytes
        {
            self.ctx.metrics.archive(room.bytes, archive.bytes);
            room.bytes = archive.bytes; // no more a guess
        }
        if next.step == Step::Discarding && next.done.contains(&Effect::CloseArchives) {
            self.release();
        }
        self.last_archive = self.last_archive.max(next.archive.as_ref().map(|archive| archive.bytes));
        let mut subject = self.journal.subject.clone();
        if let (Step::Accepted, Some(bytes)) = (before, self.expected_bytes()) {
            subject.archive_bytes = Some(bytes);
        }
        self.journal = Arc::new(Journal { subject, state: next });
        self.look_at_slot();
        self.book.write(&self.journal, &self.measured).await?;
        if let Some(why) = unplaceable {
            self.announcer.warning(&self.journal.subject, Reason::NoNodeFits, &why);
        }
        if moved {
            self.announcer.step(&self.journal, before);
            running.clear();
            self.perform_all(effects, running);
        }
        Ok(())
    }

    /// Asks the source's agent how large the archive would be, after a pause.
    fn sizing(&self, after: Duration) -> BoxFuture<'static, Result<u64, AgentError>> {
        let (ctx, journal) = (self.ctx.clone(), Arc::clone(&self.journal));
        Box::pin(async move {
            sleep(after).await;
            expected_bytes(&ctx, &journal.subject).await
        })
    }

    /// The agent's answer. No less than the last attempt's archive was.
    fn expect(&mut self, bytes: Result<u64, AgentError>) {
        let least = self.last_archive.unwrap_or_default();
        self.expected = match bytes {
            Ok(bytes) => Expected::Bytes(bytes.max(least)),
            Err(error) => Expected::Unknown(error.to_string()),
        };
    }

    fn perform_outstanding(&self, running: &mut FuturesUnordered<BoxFuture<'static, Attempt>>) {
        self.perform_all(self.journal.state.outstanding(), running);
    }

    fn perform_all(&self, effects: Vec<Effect>, running: &mut FuturesUnordered<BoxFuture<'static, Attempt>>) {
        for effect in effects {
            let (performer, journal, ctx) = (self.performer.clone(), self.journal.clone(), self.ctx.clone());
            let announcer = self.announcer.clone();
            running.push(Box::pin(async move {
                performer.slot_for(effect).await;
                let started = Instant::now();
                let result = attempt(&performer, effect, &journal, &announcer).await;
                ctx.metrics.effect(effect, result.is_ok(), started.elapsed().as_secs_f64());
                (journal.state.turn(), effect, result)
            }));
        }
    }

    /// Room is taken before the shadow exists, for as long as the archive may lie on a node.
    fn reserve(&mut self, next: &State) {
        match next.step {
            Step::Preparing => {
                self.measured.reservation = Some(room(self.expected_bytes().unwrap_or_default()));
            }
            // Its archive may still be arriving for a while; the eviction may be refused for ever.
            Step::Evicting if next.evicted_first => {
                let until = Timestamp::now() + TRANSFER_ENDS;
                if let Some(room) = &mut self.measured.reservation {
                    room.until = until.to_string();
                }
            }
            Step::Cleaning | Step::Stranded | Step::GivingUp | Step::BackingOff | Step::Evicting => {
                self.release();
            }
            step if step.is_terminal() => self.release(),
            // A person has waited, and room was given to others: it is asked for again.
            step if step.awaits_replacement() && self.measured.reservation.is_none() => {
                let bytes = next.archive.as_ref().map(|archive| archive.bytes);
                self.measured.reservation = Some(room(bytes.unwrap_or_default()));
            }
            _ => {}
        }
    }

    fn release(&mut self) {
        self.measured.reservation = None;
        self.ctx.bookings.release(&MigrationUid(self.book.object().uid().unwrap_or_default()));
    }

    fn back_off(&self) -> Duration {
        let due = self.measured.retry_at.as_deref().and_then(until);
        due.unwrap_or_else(|| pause_after(self.journal.state.epoch).saturating_sub(self.entered.elapsed()))
    }

    fn room_expires_in(&self) -> Duration {
        let room = self.measured.reservation.as_ref();
        room.and_then(|room| until(&room.until)).unwrap_or_default()
    }

    fn measure(&mut self, before: Step, state: &State) {
        let next = state.step;
        let now = Instant::now();
        let spent = now.duration_since(self.entered);
        self.ctx.metrics.step(before, spent.as_secs_f64());
        if next == Step::Accepted || before == Step::Accepted {
            self.measured = Measured { retries: self.measured.retries, ..Measured::default() };
        }
        if before != Step::Accepted {
            *self.measured.timings.entry(before.as_str().to_owned()).or_default() += millis(spent);
            self.measured.timings.extend(self.performer.waited());
        }
        self.entered = now;
        self.reserve(state);
        self.stopwatch.enter(state, now, &mut self.measured);
        if next == Step::BackingOff {
            let due = Timestamp::now() + pause_after(self.journal.state.epoch);
            self.measured.retry_at = Some(due.to_string());
        }
    }
}

/// Steps in which abort or the loss of the source still means something.
fn may_abort(step: Step) -> bool {
    step.is_revocable() || matches!(step, Step::Accepted | Step::BackingOff)
}
