//! The transition function.

use super::{Effect, Event, Failure, Outcome, State, Step, Way};
use crate::api::{EvictionPolicy, Life, NodeName, Reason};

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
        Event::Done(turn, outcome) if turn == state.turn() => done(state, outcome),
        // Its ticket is open still, and nothing fresh can have acted: the archive is its state as it was before.
        Event::Failed(turn, Effect::ConfirmReplacement, failure)
            if turn == state.turn() && state.outstanding().contains(&Effect::ConfirmReplacement) =>
        {
            other_way(state, failure)
        }
        Event::Failed(turn, effect, failure)
            if turn == state.turn() && state.outstanding().contains(&effect) =>
        {
            failed(state, failure)
        }
        Event::Retry if state.step == Step::Stranded => anew(state),
        Event::GiveUp | Event::Abort if state.step == Step::Stranded => give_up(state.clone()),
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
        Outcome::Resumed { position } => went_on(&mut next, position),
        Outcome::ReplacementRestored(restored) | Outcome::ReplacementLives(restored) => {
            next.replacement = Some(restored);
        }
        Outcome::ReplacementStartedAnew { message } => {
            next.fell_back = true;
            next.failure = Some(Failure::terminal(Reason::StateLost, message));
        }
        Outcome::NodeChosen(node) | Outcome::ArchiveReturned(node) => leave_for(&mut next, node),
        _ => {}
    }
    advance(next)
}

/// A parked consumer applies nothing, so what carries on counts no less than what was parked: its count moves with its
/// memory. Less is another process than the one that was parked.
fn went_on(state: &mut State, position: Option<u64>) {
    if let (Some(before), Some(now)) = (state.position, position)
        && now < before
    {
        state.fell_back = true;
        let message = format!(
            "the consumer had applied {before} messages when it was parked and {now} when it went on: it started anew on the way, without its memory"
        );
        state.failure = Some(Failure::terminal(Reason::StateLost, message));
    }
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
        Step::Bridging => Step::Confirming,
        Step::Confirming => Step::Freezing,
        Step::Freezing => Step::Deleting,
        Step::Deleting => Step::Replacing,
        Step::Replacing => Step::Switching,
        Step::Spending if state.replacement.is_some() => Step::Switching,
        Step::Spending => return take_way(state),
        Step::Seeking => Step::Carrying,
        Step::Carrying | Step::Returning => return enter(next_life(state), Step::Replacing),
        Step::GivingUp => Step::StartingFresh,
        Step::StartingFresh => Step::Reverting,
        Step::Switching => Step::Closing,
        Step::Closing => Step::Resuming,
        Step::Resuming => Step::Cleaning,
        Step::Cleaning if state.fell_back => Step::Failed,
        Step::Cleaning => Step::Completed,
        Step::Withdrawing => Step::Reverting,
        Step::Reverting if state.ends_in_eviction() && !state.evicted_first => {
            return enter(State { evicted_first: true, ..state }, Step::Evicting);
        }
        Step::Reverting => Step::Discarding,
        Step::Discarding if state.evicted_first || state.given_up => Step::Failed,
        Step::Discarding => return settle(state),
        Step::Evicting if state.evicted_first => Step::Reverting,
        Step::Evicting => Step::Failed,
        Step::Accepted | Step::Stranded | Step::Completed | Step::BackingOff | Step::Failed => return state,
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

/// An outstanding effect failed for good.
fn failed(state: &State, failure: Failure) -> State {
    match state.step {
        step if step.is_revocable() => withdraw(state, failure),
        // A process runs there that was not dumped, and volumes outlive it: it goes on. Nothing was ever restored, as no ticket
        // is open yet.
        Step::Freezing | Step::Deleting if failure.reason == Reason::VolumeChanged && failure.retry => {
            withdraw(state, failure)
        }
        // Its pod is gone already or about to go, and the next of its name may show a ticket.
        Step::Freezing | Step::Deleting if failure.reason == Reason::VolumeChanged => {
            give_up(State { failure: Some(failure), ..state.clone() })
        }
        // The pod that was to carry on will never come: somebody deleted the source before the commit was known, and a
        // fresh pod has its name, or its owner makes none any more. No process of the source is left here.
        Step::Replacing if failure.reason == Reason::SourceGone && failure.retry => state.clone(),
        // From the second life on its archive was promised to whom the policy names, perhaps to a person who has waited:
        // what somebody did to pod or owner meanwhile may be undone, the archive cannot be made again.
        Step::Replacing if failure.reason == Reason::SourceGone && state.life > Life::FIRST => {
            lead_on(state, Way::Nowhere, failure)
        }
        Step::Replacing if failure.reason == Reason::SourceGone => withdraw(state, failure),
        Step::Replacing | Step::Seeking | Step::Carrying | Step::Returning => other_way(state, failure),
        // It stood parked all the time, and a crash would have brought it back as it was: what is in the archive is all
        // that it has ever been. Later its ticket may be closed, and something fresh may have acted.
        Step::Switching if matches!(failure.reason, Reason::TargetLost | Reason::VolumeChanged) => {
            other_way(state, failure)
        }
        // Its machine is lost, and nobody knows whether it has run there.
        Step::Spending if failure.reason == Reason::VolumeChanged => {
            take_way(State { way: Way::Nowhere, failure: Some(failure), replacement: None, ..state.clone() })
        }
        _ => state.clone(),
    }
}

/// The way leads nowhere: the next one, or what the policy says.
fn other_way(state: &State, failure: Failure) -> State {
    let way = match state.way {
        // Nothing is restored over volumes that are not as it left them.
        _ if failure.reason == Reason::VolumeChanged => Way::Nowhere,
        // A machine that is down is not asked again.
        Way::Target if failure.reason != Reason::TargetLost => Way::Again,
        Way::Target | Way::Again => Way::Elsewhere,
        Way::Elsewhere => Way::Home,
        Way::Home | Way::Nowhere => Way::Nowhere,
    };
    // That no other node fits says less than why another one was needed.
    let failure = state.failure.clone().filter(|_| state.step == Step::Seeking).unwrap_or(failure);
    lead_on(state, way, failure)
}

/// To that way, once no ticket is open.
fn lead_on(state: &State, way: Way, failure: Failure) -> State {
    let next = State { way, failure: Some(failure), replacement: None, ..state.clone() };
    // On the way to another node there is no ticket that must be spent first.
    match state.step {
        Step::Seeking | Step::Carrying | Step::Returning => take_way(next),
        _ => enter(next, Step::Spending),
    }
}

/// The first step on the way, once no ticket is open any more.
fn take_way(state: State) -> State {
    match state.way {
        // Both on the node where the archive lies.
        Way::Target | Way::Again => enter(next_life(state), Step::Replacing),
        Way::Elsewhere => enter(state, Step::Seeking),
        Way::Home => enter(state, Step::Returning),
        // What a person waits for may be overtaken by a fresh pod that nobody sees come and go.
        Way::Nowhere if state.plan.outlived => give_up(state),
        Way::Nowhere => match state.plan.policy {
            EvictionPolicy::MigrateOrEvict => give_up(state),
            EvictionPolicy::MigrateOrBlock => enter(state, Step::Stranded),
        },
    }
}

/// A person wants all ways tried again, beginning where the archive lies now.
fn anew(state: &State) -> State {
    take_way(State { way: Way::Target, ..state.clone() })
}

/// The state is given up. Its consumer was parked, so the fresh pod's is resumed.
fn give_up(state: State) -> State {
    let why = state.failure.as_ref().map(|last| format!("{}: {}; ", last.reason, last.message));
    let message =
        format!("{}restored nowhere, so it starts fresh; the archive is kept", why.unwrap_or_default());
    let failure = Failure::terminal(Reason::StateLost, message);
    enter(State { given_up: true, failure: Some(failure), ..state }, Step::GivingUp)
}

/// The archive goes to another node.
fn leave_for(state: &mut State, node: NodeName) {
    let before = state.target.replace(node);
    state.left.extend(before.filter(|before| !state.left.contains(before)));
    state.left.retain(|left| Some(left) != state.target.as_ref());
}

fn next_life(state: State) -> State {
    State { life: state.life.next(), ..state }
}

/// Rolls the attempt back. What fails alike twice after the source was stopped stands for good: it is not stopped a third
/// time for nothing.
fn withdraw(state: &State, mut failure: Failure) -> State {
    let mut next = state.clone();
    if state.dump_sent || failure.reason == Reason::ConsumerNeverParked {
        let stands = state.stopped_for.as_ref().is_some_and(|last| failure.repeats(last));
        next.stopped_for = Some(failure.clone());
        failure.retry &= !stands;
    }
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
        Step::Withdrawing | Step::Reverting | Step::Discarding if !state.given_up => {
            next.failure = Some(failure.clone());
            next
        }
        // A PodDisruptionBudget may refuse it for ever: whoever calls it off does not ask for it any more.
        Step::Evicting if failure.reason == Reason::Aborted => {
            next.failure = Some(failure.clone());
            let began_to_revert = std::mem::take(&mut next.evicted_first);
            enter(next, if began_to_revert { Step::Reverting } else { Step::Failed })
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

/// The next attempt, under the next epoch, with nothing carried over but the reasons of the last failures.
fn again(state: &State) -> State {
    let mut next = State::new(state.plan, None);
    next.epoch = state.epoch.next();
    next.failure.clone_from(&state.failure);
    next.stopped_for.clone_from(&state.stopped_for);
    next
}

fn timed_out(step: Step) -> Failure {
    let (reason, what) = match step {
        Step::Preparing => (Reason::NoNodeFits, "no node took the pod in time"),
        Step::Parking => (Reason::ConsumerNeverParked, "the consumer did not stop taking messages in time"),
        Step::Dumping => (Reason::TransferFailed, "dump and transfer took too long"),
        Step::RestoringShadow | Step::Bridging | Step::Confirming => {
            (Reason::RestoreFailed, "the shadow was not restored in time")
        }
        _ => (Reason::StepTimedOut, "the step took too long"),
    };
    Failure::retryable(reason, what)
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "ways_tests.rs"]
mod ways_tests;
