//! The transition function.

use super::state::{Failure, State, Step};
use super::{Effect, Event, Outcome};
use crate::api::Reason;

/// The next state and the effects to perform once it is durable. An event the state does not wait for gives the same
/// state and no effects.
pub fn step(state: &State, event: Event) -> (State, Vec<Effect>) {
    let next = match event {
        Event::Admitted if state.step == Step::Accepted => enter(state.clone(), Step::Preparing),
        Event::NoNodeFits(failure) if state.step == Step::Accepted => {
            State { failure: Some(failure), ..state.clone() }
        }
        Event::Refused(failure) if state.step == Step::Accepted => {
            settle(State { failure: Some(failure), ..state.clone() })
        }
        Event::Done(epoch, outcome) if epoch == state.epoch => done(state, outcome),
        Event::Failed(epoch, effect, failure)
            if epoch == state.epoch && state.step.is_revocable() && state.outstanding().contains(&effect) =>
        {
            withdraw(state, failure)
        }
        Event::Failed(epoch, Effect::RestoreReplacement, failure)
            if epoch == state.epoch && is_forsaken(state, &failure) =>
        {
            withdraw(state, failure)
        }
        Event::StepTimedOut if state.step.is_revocable() => withdraw(state, timed_out(state.step)),
        Event::Abort => call_off(state, &Failure::terminal(Reason::Aborted, "aborted on request")),
        Event::SourceGone => call_off(
            state,
            &Failure::terminal(Reason::SourceGone, "the source pod was deleted by someone else"),
        ),
        Event::DeadlineExceeded => deadline(state),
        Event::RetryDue if state.step == Step::BackingOff => again(state),
        _ => return (state.clone(), Vec::new()),
    };
    if next.step == state.step && next.epoch == state.epoch {
        return (next, Vec::new());
    }
    let effects = next.outstanding();
    (next, effects)
}

/// Takes note of an outcome; when the step has nothing left to do, goes on.
fn done(state: &State, outcome: Outcome) -> State {
    let effect = outcome.effect();
    let mut next = state.clone();
    if !state.outstanding().contains(&effect) {
        return next;
    }
    next.done.insert(effect);
    match outcome {
        Outcome::ShadowPlaced(at) => {
            next.target = Some(at.node.clone());
            next.shadow = Some(at);
        }
        Outcome::Parked { position } => next.position = position,
        Outcome::Dumped(archive) => next.archive = Some(archive),
        Outcome::ReplacementRestored(restored) => next.replacement = Some(restored),
        _ => {}
    }
    advance(next)
}

/// Goes to the following step as long as the current one has nothing left to do.
fn advance(state: State) -> State {
    if !state.outstanding().is_empty() {
        return state;
    }
    let following = match state.step {
        Step::Preparing => Step::Parking,
        Step::Parking => Step::Dumping,
        Step::Dumping => Step::RestoringShadow,
        Step::RestoringShadow => Step::Bridging,
        Step::Bridging => Step::Freezing,
        Step::Freezing => Step::Deleting,
        Step::Deleting => Step::Replacing,
        Step::Replacing => Step::Switching,
        Step::Switching => Step::Closing,
        Step::Closing => Step::Resuming,
        Step::Resuming => Step::Cleaning,
        Step::Cleaning => Step::Completed,
        Step::Withdrawing => Step::Reverting,
        Step::Reverting if state.ends_in_eviction() && !state.evicted_first => {
            return enter(State { evicted_first: true, ..state }, Step::Evicting);
        }
        Step::Reverting => Step::Discarding,
        Step::Discarding if state.evicted_first => Step::Failed,
        Step::Discarding => return settle(state),
        Step::Evicting if state.evicted_first => Step::Reverting,
        Step::Evicting => Step::Failed,
        Step::Accepted | Step::Completed | Step::BackingOff | Step::Failed => return state,
    };
    enter(state, following)
}

fn enter(mut state: State, step: Step) -> State {
    state.step = step;
    state.done.clear();
    match step {
        Step::Preparing => state.shadow_sent = true,
        Step::Parking => state.park_sent = state.plan.queue,
        Step::Dumping => state.dump_sent = true,
        _ => {}
    }
    advance(state)
}

/// The pod that was to carry on will never come: somebody deleted the source before the commit was known, and a fresh
/// pod has its name, or its owner makes none any more. While a process of the source may be left, nothing goes back.
fn is_forsaken(state: &State, failure: &Failure) -> bool {
    state.step == Step::Replacing
        && state.outstanding() == [Effect::RestoreReplacement]
        && failure.reason == Reason::SourceGone
        && !failure.retry
}

/// Rolls the attempt back. What fails at the same place twice fails for good: nobody is stopped over and over.
fn withdraw(state: &State, mut failure: Failure) -> State {
    if state.failure.as_ref().is_some_and(|last| failure.repeats(last)) {
        failure.retry = false;
    }
    let mut next = state.clone();
    next.failure = Some(failure);
    enter(next, Step::Withdrawing)
}

/// Abort, or the source is gone: roll back if that is still possible, and do not try again.
fn call_off(state: &State, failure: &Failure) -> State {
    let mut next = state.clone();
    match state.step {
        Step::Accepted | Step::BackingOff => {
            next.failure = Some(failure.clone());
            enter(next, Step::Failed)
        }
        step if step.is_revocable() => withdraw(state, failure.clone()),
        Step::Withdrawing | Step::Reverting | Step::Discarding => {
            next.failure = Some(failure.clone());
            next
        }
        _ => next,
    }
}

/// The deadline passed: roll back if needed, then what the policy says.
fn deadline(state: &State) -> State {
    let mut next = state.clone();
    // The cause first, where there is one.
    let mut message =
        state.failure.as_ref().map(|last| format!("{}: {}; ", last.reason, last.message)).unwrap_or_default();
    message += "not moved before the policy's deadline";
    if state.step.is_revocable() {
        message += &format!(", {} of attempt {} was under way", state.step.as_str(), state.epoch);
    }
    let failure = Failure::terminal(Reason::DeadlineExceeded, message);
    match state.step {
        Step::Accepted | Step::BackingOff => {
            next.failure = Some(failure);
            settle(next)
        }
        step if step.is_revocable() => withdraw(state, failure),
        Step::Withdrawing | Step::Reverting | Step::Discarding => {
            if next.failure.as_ref().is_none_or(|f| f.retry) {
                next.failure = Some(failure);
            }
            if next.step == Step::Discarding && next.ends_in_eviction() && !next.evicted_first {
                // The broker that keeps its queues must not keep the drain.
                return enter(State { evicted_first: true, ..next }, Step::Evicting);
            }
            advance(next)
        }
        _ => next,
    }
}

/// After a rollback: back off, evict, or give up.
fn settle(mut state: State) -> State {
    state.done.clear();
    state.step = match &state.failure {
        Some(f) if f.retry => Step::BackingOff,
        _ if state.ends_in_eviction() => Step::Evicting,
        _ => Step::Failed,
    };
    state
}

/// The next attempt, under the next epoch, with nothing carried over but the reason of the last failure.
fn again(state: &State) -> State {
    let mut next = State::new(state.plan, None);
    next.epoch = state.epoch.next();
    next.failure.clone_from(&state.failure);
    next
}

fn timed_out(step: Step) -> Failure {
    let (reason, what) = match step {
        Step::Preparing => (Reason::NoNodeFits, "no node took the pod in time"),
        Step::Parking => (Reason::ConsumerNeverParked, "the consumer did not stop taking messages in time"),
        Step::Dumping => (Reason::TransferFailed, "dump and transfer took too long"),
        Step::RestoringShadow | Step::Bridging => {
            (Reason::RestoreFailed, "the shadow was not restored in time")
        }
        _ => (Reason::StepTimedOut, "the step took too long"),
    };
    Failure::retryable(reason, what)
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
