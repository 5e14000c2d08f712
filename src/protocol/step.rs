//! The transition function.

use super::state::{Failure, State, Step};
use super::{Effect, Event, Outcome};
use crate::api::Reason;

/// The next state and the effects to perform once it is durable. An event the state does not wait for gives the same
/// state and no effects.
pub fn step(state: &State, event: Event) -> (State, Vec<Effect>) {
    let next = match event {
        Event::Admitted if state.step == Step::Accepted => enter(state.clone(), Step::Preparing),
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

/// Rolls the attempt back.
fn withdraw(state: &State, failure: Failure) -> State {
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
    let mut message = "not moved before the policy's deadline".to_owned();
    if state.step.is_revocable() {
        message += &format!(", {} of attempt {} was under way", state.step.as_str(), state.epoch);
    }
    if let Some(last) = &state.failure {
        message += &format!(" (last: {}: {})", last.reason, last.message);
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
mod tests {
    use super::Effect as E;
    use super::*;
    use crate::api::{Epoch, EvictionPolicy, Hold};
    use crate::protocol::{Archive, Plan, Restored, ShadowAt};

    fn plan(queue: bool, bridge: bool) -> Plan {
        Plan { bridge, queue, hold: Hold::Release, policy: EvictionPolicy::MigrateOrEvict }
    }

    fn outcome(effect: Effect) -> Outcome {
        match effect {
            Effect::DeclareParking => Outcome::ParkingDeclared,
            Effect::PlaceShadow => {
                Outcome::ShadowPlaced(ShadowAt { node: "n2".into(), pod: "s".into(), ip: None })
            }
            Effect::Park => Outcome::Parked { position: Some(7) },
            Effect::Dump => Outcome::Dumped(Archive { digest: "d".into(), bytes: 1, frozen_ms: 1 }),
            Effect::RestoreShadow => Outcome::ShadowRestored,
            Effect::AddBridge => Outcome::BridgeAdded,
            Effect::ShrinkShadow => Outcome::ShadowShrunk,
            Effect::FreezeSource => Outcome::SourceFrozen,
            Effect::DeleteSource => Outcome::SourceDeleted,
            Effect::KillSource => Outcome::SourceKilled,
            Effect::RestoreReplacement => {
                Outcome::ReplacementRestored(Restored { pod: "r".into(), name: "web-0".into(), ip: None })
            }
            Effect::SwitchReaders => Outcome::ReadersSwitched,
            Effect::Resume => Outcome::Resumed,
            Effect::RemoveShadow => Outcome::ShadowRemoved,
            Effect::CloseArchives => Outcome::ArchivesClosed,
            Effect::DropParking => Outcome::ParkingDropped,
            Effect::WithdrawShadow => Outcome::ShadowWithdrawn,
            Effect::ThawSource => Outcome::SourceThawed,
            Effect::ResumeSource => Outcome::SourceResumed,
            Effect::EvictSource => Outcome::SourceEvicted,
        }
    }

    /// Performs everything asked for until nothing is; gives the effects in order.
    fn run(mut state: State) -> (State, Vec<Effect>) {
        let mut seen = Vec::new();
        while let Some(effect) = state.outstanding().first().copied() {
            seen.push(effect);
            state = step(&state, Event::Done(state.epoch, outcome(effect))).0;
        }
        (state, seen)
    }

    fn until(target: Step, plan: Plan) -> State {
        let mut state = step(&State::new(plan, None), Event::Admitted).0;
        while state.step != target {
            let effect = state.outstanding()[0];
            state = step(&state, Event::Done(state.epoch, outcome(effect))).0;
        }
        state
    }

    const REVOCABLE: [Step; 5] =
        [Step::Preparing, Step::Parking, Step::Dumping, Step::RestoringShadow, Step::Bridging];

    #[test]
    fn with_queue_and_bridge_everything_happens_in_order() {
        let (end, seen) = run(step(&State::new(plan(true, true), None), Event::Admitted).0);
        assert_eq!(end.step, Step::Completed);
        assert_eq!(end.position, Some(7));
        assert_eq!(
            seen,
            [
                E::DeclareParking,
                E::PlaceShadow,
                E::Park,
                E::Dump,
                E::RestoreShadow,
                E::AddBridge,
                E::FreezeSource,
                E::ShrinkShadow,
                E::DeleteSource,
                E::KillSource,
                E::RestoreReplacement,
                E::SwitchReaders,
                E::CloseArchives,
                E::Resume,
                E::RemoveShadow,
                E::DropParking
            ]
        );
    }

    #[test]
    fn without_queue_and_bridge_the_same_without_them() {
        let (end, seen) = run(step(&State::new(plan(false, false), None), Event::Admitted).0);
        assert_eq!(end.step, Step::Completed);
        assert_eq!(
            seen,
            [
                E::PlaceShadow,
                E::Dump,
                E::FreezeSource,
                E::DeleteSource,
                E::WithdrawShadow,
                E::KillSource,
                E::RestoreReplacement,
                E::CloseArchives
            ]
        );
    }

    #[test]
    fn a_failure_before_the_commit_gives_the_source_back_and_tries_again_under_a_new_epoch() {
        for at in REVOCABLE {
            let state = until(at, plan(true, true));
            let effect = state.outstanding()[0];
            let failure = Failure::retryable(Reason::DumpFailed, "x");
            let (state, effects) = step(&state, Event::Failed(state.epoch, effect, failure));
            assert_eq!(effects, [Effect::WithdrawShadow], "{at:?}");
            let (state, seen) = run(state);
            assert_eq!(state.step, Step::BackingOff);
            assert_eq!(seen.contains(&Effect::ResumeSource), at >= Step::Parking, "{at:?}");
            assert_eq!(seen.contains(&Effect::ThawSource), at >= Step::Dumping, "{at:?}");
            let (state, _) = step(&state, Event::RetryDue);
            assert_eq!((state.step, state.epoch), (Step::Accepted, Epoch(2)));
        }
    }

    #[test]
    fn nothing_leads_back_after_the_commit() {
        for at in [
            Step::Freezing,
            Step::Deleting,
            Step::Replacing,
            Step::Switching,
            Step::Closing,
            Step::Resuming,
            Step::Cleaning,
        ] {
            let state = until(at, plan(true, true));
            let epoch = state.epoch;
            for event in [
                Event::Abort,
                Event::DeadlineExceeded,
                Event::SourceGone,
                Event::StepTimedOut,
                Event::RetryDue,
                Event::Admitted,
                Event::Failed(epoch, state.outstanding()[0], Failure::retryable(Reason::RestoreFailed, "x")),
            ] {
                assert_eq!(step(&state, event.clone()), (state.clone(), vec![]), "{at:?} {event:?}");
            }
        }
    }

    #[test]
    fn a_replacement_that_never_comes_ends_it_once_the_source_has_no_process_left() {
        let gone = |retry| Failure { reason: Reason::SourceGone, message: "x".into(), retry };
        let state = until(Step::Replacing, plan(true, true));
        let failed = |failure| Event::Failed(Epoch(1), Effect::RestoreReplacement, failure);
        assert_eq!(
            step(&state, failed(gone(false))),
            (state.clone(), vec![]),
            "the source may still have a process"
        );
        let state = step(&state, Event::Done(Epoch(1), Outcome::SourceKilled)).0;
        assert_eq!(step(&state, failed(gone(true))), (state.clone(), vec![]));
        let (end, seen) = run(step(&state, failed(gone(false))).0);
        assert_eq!(end.step, Step::Failed);
        assert!(seen.contains(&Effect::WithdrawShadow) && seen.contains(&Effect::ResumeSource));
    }

    #[test]
    fn tickets_are_closed_before_consumption_resumes() {
        for (queue, bridge) in [(true, true), (true, false)] {
            let state = until(Step::Resuming, plan(queue, bridge));
            let closing = until(Step::Closing, plan(queue, bridge)).required();
            assert_eq!(closing, [Effect::CloseArchives]);
            assert_eq!(state.outstanding(), [Effect::Resume]);
        }
    }

    #[test]
    fn late_and_repeated_answers_change_nothing() {
        let state = until(Step::Dumping, plan(true, true));
        for event in [
            Event::Done(state.epoch, outcome(Effect::Park)),
            Event::Done(state.epoch, outcome(Effect::Resume)),
            Event::Done(Epoch(0), outcome(Effect::Dump)),
            Event::Failed(Epoch(0), Effect::Dump, Failure::retryable(Reason::DumpFailed, "late")),
            Event::Failed(state.epoch, Effect::Park, Failure::retryable(Reason::BrokerUnreachable, "late")),
        ] {
            assert_eq!(step(&state, event), (state.clone(), vec![]));
        }
    }

    #[test]
    fn the_deadline_ends_as_the_policy_says() {
        for (policy, end) in
            [(EvictionPolicy::MigrateOrEvict, Step::Evicting), (EvictionPolicy::MigrateOrBlock, Step::Failed)]
        {
            let plan = Plan { policy, ..plan(true, true) };
            let state = step(&State::new(plan, None), Event::DeadlineExceeded).0;
            assert_eq!(state.step, end);
            for at in REVOCABLE {
                let mut state = step(&until(at, plan), Event::DeadlineExceeded).0;
                while state.step != end {
                    let effect = state.outstanding()[0];
                    state = step(&state, Event::Done(state.epoch, outcome(effect))).0;
                }
            }
        }
    }

    #[test]
    fn a_drain_does_not_wait_for_a_broker_once_the_deadline_has_passed() {
        let failed = |state: &State| {
            let failure = Failure::retryable(Reason::BrokerUnreachable, "x");
            step(state, Event::Failed(Epoch(1), state.outstanding()[0], failure)).0
        };
        let done = |state: &State, outcome| step(state, Event::Done(Epoch(1), outcome)).0;
        let withdrawing = failed(&until(Step::Dumping, plan(true, true)));
        let reverting = done(&done(&withdrawing, Outcome::ShadowWithdrawn), Outcome::SourceThawed);
        assert_eq!(reverting.outstanding(), [Effect::ResumeSource], "the broker is down");
        let (evicting, effects) = step(&reverting, Event::DeadlineExceeded);
        assert_eq!(effects, [Effect::EvictSource]);
        let (end, seen) = run(evicting);
        assert_eq!(end.step, Step::Failed);
        assert_eq!(seen, [E::EvictSource, E::ResumeSource, E::CloseArchives, E::DropParking]);
    }

    #[test]
    fn an_abort_ends_without_eviction() {
        for at in REVOCABLE {
            let state = step(&until(at, plan(true, true)), Event::Abort).0;
            let (state, seen) = run(state);
            assert_eq!(state.step, Step::Failed);
            assert!(!seen.contains(&Effect::EvictSource));
            assert_eq!(state.failure.unwrap().reason, Reason::Aborted);
        }
    }
}
