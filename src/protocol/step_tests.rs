//! What the transition function promises.

use super::Effect as E;
use super::*;
use crate::api::{Epoch, EvictionPolicy, Hold, Life};
use crate::protocol::{Archive, Plan, Restored, ShadowAt, Turn};

pub(super) fn plan(queue: bool, bridge: bool) -> Plan {
    Plan { bridge, queue, hold: Hold::Release, policy: EvictionPolicy::MigrateOrEvict, outlived: false }
}

pub(super) fn outcome(effect: Effect) -> Outcome {
    match effect {
        Effect::DeclareParking => Outcome::ParkingDeclared,
        Effect::PlaceShadow => Outcome::ShadowPlaced(ShadowAt {
            node: "n2".into(),
            pod: "s".into(),
            ip: None,
            image: None,
            pulls_always: false,
        }),
        Effect::Park => Outcome::Parked { position: Some(7) },
        Effect::Dump => Outcome::Dumped(Archive { digest: "d".into(), bytes: 1, frozen_ms: 1 }),
        Effect::RestoreShadow => Outcome::ShadowRestored,
        Effect::ConfirmShadow => Outcome::ShadowConfirmed,
        Effect::AddBridge => Outcome::BridgeAdded,
        Effect::ShrinkShadow => Outcome::ShadowShrunk,
        Effect::FreezeSource => Outcome::SourceFrozen,
        Effect::DeleteSource => Outcome::SourceDeleted,
        Effect::KillSource => Outcome::SourceKilled,
        Effect::RestoreReplacement => {
            Outcome::ReplacementRestored(Restored { pod: "r".into(), name: "web-0".into(), ip: None })
        }
        Effect::ConfirmReplacement => Outcome::ReplacementConfirmed,
        Effect::SpendTicket => Outcome::TicketSpent,
        Effect::ChooseNode => Outcome::NodeChosen("n3".into()),
        Effect::CarryArchive => Outcome::ArchiveCarried,
        Effect::ReturnArchive => Outcome::ArchiveReturned("n1".into()),
        Effect::KeepArchive => Outcome::ArchiveKept,
        Effect::ReleaseReplacement => Outcome::ReplacementReleased,
        Effect::SwitchReaders => Outcome::ReadersSwitched,
        Effect::Resume => Outcome::Resumed { position: Some(7) },
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
pub(super) fn run(mut state: State) -> (State, Vec<Effect>) {
    let mut seen = Vec::new();
    while let Some(effect) = state.outstanding().first().copied() {
        seen.push(effect);
        state = step(&state, Event::Done(state.turn(), outcome(effect))).0;
    }
    (state, seen)
}

pub(super) fn until(target: Step, plan: Plan) -> State {
    let mut state = step(&State::new(plan, None), Event::Admitted).0;
    while state.step != target {
        let effect = state.outstanding()[0];
        state = step(&state, Event::Done(state.turn(), outcome(effect))).0;
    }
    state
}

#[test]
fn while_no_node_fits_it_waits_and_tells_why_and_nothing_is_asked_for() {
    let why = |text: &str| Failure::retryable(Reason::NoNodeFits, text);
    let accepted = State::new(plan(true, true), None);
    let (waiting, effects) = step(&accepted, Event::NoNodeFits(why("n2: full")));
    assert_eq!((waiting.step, effects.len()), (Step::Accepted, 0));
    assert_eq!(waiting.failure, Some(why("n2: full")));
    let (ended, _) = step(&waiting, Event::DeadlineExceeded);
    assert!(ended.failure.unwrap().message.contains("NoNodeFits: n2: full"), "the drain is told why");
    let (begun, _) = step(&waiting, Event::Admitted);
    assert_eq!(begun.step, Step::Preparing);
    // Late: it has begun already.
    assert_eq!(step(&begun, Event::NoNodeFits(why("n3: full"))), (begun, vec![]));
}

const REVOCABLE: [Step; 6] =
    [Step::Preparing, Step::Parking, Step::Dumping, Step::RestoringShadow, Step::Bridging, Step::Confirming];

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
            E::ConfirmShadow,
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
            E::RestoreShadow,
            E::FreezeSource,
            E::DeleteSource,
            E::WithdrawShadow,
            E::KillSource,
            E::RestoreReplacement,
            E::ConfirmReplacement,
            E::CloseArchives
        ]
    );
}

#[test]
fn what_counts_less_when_it_goes_on_than_when_it_was_parked_has_lost_its_state_and_it_is_told() {
    for (position, lost) in [(Some(7), false), (Some(9), false), (None, false), (Some(6), true)] {
        let state = until(Step::Resuming, plan(true, true));
        let resumed = Event::Done(state.turn(), Outcome::Resumed { position });
        let (end, seen) = run(step(&state, resumed).0);
        assert_eq!(end.step, if lost { Step::Failed } else { Step::Completed }, "{position:?}");
        assert_eq!(seen, [E::RemoveShadow, E::DropParking], "what is left is taken away all the same");
        assert_eq!(end.failure.map(|f| f.reason), lost.then_some(Reason::StateLost));
    }
    let unanswered = State { position: None, ..until(Step::Resuming, plan(true, true)) };
    assert_eq!(run(unanswered).0.step, Step::Completed, "it never told what it had applied");
}

#[test]
fn a_failure_before_the_commit_gives_the_source_back_and_tries_again_under_a_new_epoch() {
    for at in REVOCABLE {
        let state = until(at, plan(true, true));
        let effect = state.outstanding()[0];
        let failure = Failure::retryable(Reason::DumpFailed, "x");
        let (state, effects) = step(&state, Event::Failed(state.turn(), effect, failure));
        assert_eq!(effects, [Effect::WithdrawShadow], "{at:?}");
        let (state, seen) = run(state);
        assert_eq!(state.step, Step::BackingOff);
        assert_eq!(seen.contains(&Effect::ResumeSource), at >= Step::Parking, "{at:?}");
        assert_eq!(seen.contains(&Effect::ThawSource), at >= Step::Dumping, "{at:?}");
        let (state, _) = step(&state, Event::RetryDue);
        assert_eq!((state.step, state.epoch), (Step::Accepted, Epoch(2)));
    }
}

/// Fails in that step, and comes to the next attempt's beginning or the end.
fn attempt(state: &State, at: Step, message: &str) -> State {
    let mut state = step(state, Event::Admitted).0;
    while state.step != at {
        state = step(&state, Event::Done(state.turn(), outcome(state.outstanding()[0]))).0;
    }
    let failure = Failure::retryable(Reason::DumpFailed, message);
    let state = run(step(&state, Event::Failed(state.turn(), state.outstanding()[0], failure)).0).0;
    step(&state, Event::RetryDue).0
}

#[test]
fn what_fails_alike_twice_after_the_source_was_stopped_stands_for_good() {
    let first = attempt(&State::new(plan(true, true), None), Step::Dumping, "io_uring");
    assert_eq!((first.step, first.epoch), (Step::Accepted, Epoch(2)));
    let waited = step(&first, Event::NoNodeFits(Failure::retryable(Reason::NoNodeFits, "full"))).0;
    let second = attempt(&waited, Step::Dumping, "io_uring");
    assert_eq!(second.step, Step::Failed, "evicted, and not stopped a third time");
    assert_eq!(second.failure, Some(Failure::terminal(Reason::DumpFailed, "io_uring")));
    let other = attempt(&first, Step::Dumping, "no space");
    assert_eq!((other.step, other.epoch), (Step::Accepted, Epoch(3)), "something else may be over");
    let unstopped = attempt(&attempt(&first, Step::Parking, "x"), Step::Parking, "x");
    assert_eq!(unstopped.step, Step::Accepted, "nobody was stopped");
    assert_eq!(attempt(&unstopped, Step::Dumping, "io_uring").step, Step::Failed);
}

#[test]
fn a_shadow_that_ends_after_it_was_let_go_takes_the_attempt_back() {
    let state = until(Step::Confirming, plan(true, true));
    assert_eq!(state.outstanding(), [E::ConfirmShadow], "asked last");
    let failure = Failure::retryable(Reason::RestoreFailed, "it ended");
    let (next, _) = step(&state, Event::Failed(state.turn(), E::ConfirmShadow, failure));
    assert_eq!(next.step, Step::Withdrawing);
}

#[test]
fn a_replacement_that_never_comes_ends_it_once_the_source_has_no_process_left() {
    let gone = |retry| Failure { reason: Reason::SourceGone, message: "x".into(), retry };
    let first = Turn { epoch: Epoch(1), life: Life::FIRST };
    let failed = |failure| Event::Failed(first, Effect::RestoreReplacement, failure);
    let state = until(Step::Deleting, plan(true, true));
    assert_eq!(
        step(&state, failed(gone(false))),
        (state.clone(), vec![]),
        "the source may still have a process"
    );
    let state = until(Step::Replacing, plan(true, true));
    assert_eq!(step(&state, failed(gone(true))), (state.clone(), vec![]));
    let (end, seen) = run(step(&state, failed(gone(false))).0);
    assert_eq!(end.step, Step::Failed);
    assert!(seen.contains(&Effect::WithdrawShadow) && seen.contains(&Effect::ResumeSource));
}

#[test]
fn the_replacement_is_restored_only_when_no_process_of_the_source_is_left() {
    for bridge in [true, false] {
        let state = until(Step::Deleting, plan(true, bridge));
        assert!(state.required().contains(&Effect::KillSource));
        assert_eq!(until(Step::Replacing, plan(true, bridge)).required(), [Effect::RestoreReplacement]);
    }
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
    let earlier = Turn { epoch: Epoch(0), ..state.turn() };
    for event in [
        Event::Done(state.turn(), outcome(Effect::Park)),
        Event::Done(state.turn(), outcome(Effect::Resume)),
        Event::Done(earlier, outcome(Effect::Dump)),
        Event::Failed(earlier, Effect::Dump, Failure::retryable(Reason::DumpFailed, "late")),
        Event::Failed(state.turn(), Effect::Park, Failure::retryable(Reason::BrokerUnreachable, "late")),
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
                state = step(&state, Event::Done(state.turn(), outcome(effect))).0;
            }
        }
    }
}

#[test]
fn a_drain_does_not_wait_for_a_broker_once_the_deadline_has_passed() {
    let failed = |state: &State| {
        let failure = Failure::retryable(Reason::BrokerUnreachable, "x");
        step(state, Event::Failed(state.turn(), state.outstanding()[0], failure)).0
    };
    let done = |state: &State, outcome| step(state, Event::Done(state.turn(), outcome)).0;
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
fn a_drain_does_not_wait_for_queues_that_cannot_be_deleted_once_the_deadline_has_passed() {
    let mut state = step(&until(Step::Preparing, plan(true, true)), Event::StepTimedOut).0;
    while state.outstanding() != [Effect::DropParking] {
        state = step(&state, Event::Done(state.turn(), outcome(state.outstanding()[0]))).0;
    }
    let (evicting, effects) = step(&state, Event::DeadlineExceeded);
    assert_eq!(effects, [Effect::EvictSource]);
    let (end, seen) = run(evicting);
    assert_eq!((end.step, seen), (Step::Failed, vec![E::EvictSource, E::CloseArchives, E::DropParking]));
}

/// Fails the dump of a fresh attempt and tries again; the state after the rollback.
fn dump_fails(state: &State, reason: Reason, message: &str) -> State {
    let mut state = state.clone();
    while state.step != Step::Dumping {
        let effect = state.outstanding()[0];
        state = step(&state, Event::Done(state.turn(), outcome(effect))).0;
    }
    state = step(&state, Event::Failed(state.turn(), Effect::Dump, Failure::retryable(reason, message))).0;
    run(state).0
}

#[test]
fn what_fails_at_the_same_place_twice_fails_for_good() {
    for (reason, second, tries_again) in [
        (Reason::DumpFailed, "POKEDATA failed in PID 99", false),
        (Reason::DumpFailed, "Can't open file x", true),
        (Reason::RestoreFailed, "POKEDATA failed in PID 99", true),
    ] {
        let first = dump_fails(
            &until(Step::Parking, plan(true, true)),
            Reason::DumpFailed,
            "POKEDATA failed in PID 17",
        );
        assert_eq!(first.step, Step::BackingOff);
        let again = step(&step(&first, Event::RetryDue).0, Event::Admitted).0;
        let ended = dump_fails(&again, reason, second);
        assert_eq!(ended.step == Step::BackingOff, tries_again, "{reason}: {second}: {:?}", ended.step);
        assert_eq!(ended.failure.is_some_and(|failure| failure.retry), tries_again);
    }
}

#[test]
fn nobody_is_frozen_over_and_over_for_a_transfer_that_takes_too_long() {
    let why = |seconds: u32, node: &str| format!("dump and transfer to node {node} not done in {seconds} s");
    let first = dump_fails(&until(Step::Parking, plan(true, true)), Reason::TooSlow, &why(30, "worker-a"));
    assert_eq!(first.step, Step::BackingOff, "the line may be better in a moment");
    let again = step(&step(&first, Event::RetryDue).0, Event::Admitted).0;
    let ended = dump_fails(&again, Reason::TooSlow, &why(95, "worker-a"));
    assert_eq!((ended.step, ended.failure.map(|f| f.retry)), (Step::Failed, Some(false)));
    let elsewhere = dump_fails(&again, Reason::TooSlow, &why(95, "worker-b"));
    assert_eq!(elsewhere.step, Step::BackingOff, "another line");
}

#[test]
fn what_is_told_of_nodes_and_brokers_may_pass_however_often_it_is_told() {
    let first = dump_fails(&until(Step::Parking, plan(true, true)), Reason::NoAgent, "no agent");
    let again = step(&step(&first, Event::RetryDue).0, Event::Admitted).0;
    assert_eq!(dump_fails(&again, Reason::NoAgent, "no agent").step, Step::BackingOff);
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

#[test]
fn an_eviction_that_is_refused_for_ever_can_be_called_off() {
    let plan = plan(true, true);
    let evicting = step(&State::new(plan, None), Event::DeadlineExceeded).0;
    assert_eq!(evicting.step, Step::Evicting);
    let (end, effects) = step(&evicting, Event::Abort);
    assert_eq!((end.step, effects, end.failure.unwrap().reason), (Step::Failed, vec![], Reason::Aborted));

    // The same where the rest of the rollback was to wait until the pod has gone: then it stays, and is resumed.
    let state = step(&until(Step::Dumping, plan), Event::DeadlineExceeded).0;
    let reverting = step(&state, Event::Done(state.turn(), Outcome::ShadowWithdrawn)).0;
    let evicting = step(&reverting, Event::Done(reverting.turn(), Outcome::SourceThawed)).0;
    assert!(evicting.step == Step::Evicting && evicting.evicted_first);
    let (end, seen) = run(step(&evicting, Event::Abort).0);
    assert_eq!((end.step, end.failure.unwrap().reason), (Step::Failed, Reason::Aborted));
    assert!(seen.contains(&E::ResumeSource) && !seen.contains(&E::EvictSource), "{seen:?}");
}
