//! What the transition function promises after the commit.

use super::Effect as E;
use super::tests::{outcome, plan, run, until};
use super::*;
use crate::api::Life;
use crate::protocol::Plan;

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
        nothing_moves(&until(at, plan(true, true)));
    }
    for state in on_all_ways(plan(true, true)).iter().filter(|state| state.step.is_committed()) {
        nothing_moves(state);
    }
}

/// But by what it waits for, and by a restore that fails.
fn nothing_moves(state: &State) {
    let failure = Failure::retryable(Reason::RestoreFailed, "x");
    let failed =
        (!has_another_way(state.step)).then(|| Event::Failed(state.turn(), state.outstanding()[0], failure));
    let events = [
        Event::Abort,
        Event::DeadlineExceeded,
        Event::SourceGone,
        Event::StepTimedOut,
        Event::RetryDue,
        Event::Admitted,
        Event::Retry,
        Event::GiveUp,
    ];
    for event in events.into_iter().chain(failed) {
        assert_eq!(step(state, event.clone()), (state.clone(), vec![]), "{:?} {event:?}", state.step);
    }
}

fn has_another_way(step: Step) -> bool {
    matches!(step, Step::Replacing | Step::Seeking | Step::Carrying | Step::Returning)
}

fn fail(state: &State, reason: Reason) -> State {
    let failure = Failure::terminal(reason, format!("in {}", state.step.as_str()));
    step(state, Event::Failed(state.turn(), state.outstanding()[0], failure)).0
}

fn succeed(state: &State) -> State {
    step(state, Event::Done(state.turn(), outcome(state.outstanding()[0]))).0
}

/// From the first replacement on, every way fails: where it comes along, without the end.
fn on_all_ways(plan: Plan) -> Vec<State> {
    let mut state = until(Step::Replacing, plan);
    let mut seen = Vec::new();
    while !state.outstanding().is_empty() {
        seen.push(state.clone());
        state =
            if state.step == Step::Replacing { fail(&state, Reason::RestoreFailed) } else { succeed(&state) };
    }
    seen.push(state);
    seen
}

#[test]
fn a_replacement_that_cannot_be_restored_is_tried_again_then_elsewhere_then_at_home() {
    let ways = on_all_ways(plan(true, true));
    let steps: Vec<_> = ways.iter().map(|state| (state.step, state.life.0)).collect();
    assert_eq!(
        steps,
        [
            (Step::Replacing, 1),
            (Step::Spending, 1),
            (Step::Replacing, 2),
            (Step::Spending, 2),
            (Step::Seeking, 2),
            (Step::Carrying, 2),
            (Step::Replacing, 3),
            (Step::Spending, 3),
            (Step::Returning, 3),
            (Step::Replacing, 4),
            (Step::Spending, 4),
            (Step::GivingUp, 4),
            (Step::StartingFresh, 4),
            (Step::StartingFresh, 4),
            (Step::Reverting, 4),
            (Step::Discarding, 4),
            (Step::Failed, 4),
        ]
    );
    let at = |life: u32| {
        let replacing = |state: &&State| state.step == Step::Replacing && state.life == Life(life);
        ways.iter().find(replacing).and_then(|state| state.target.clone()).unwrap()
    };
    assert_eq!([at(1), at(2), at(3), at(4)], ["n2".into(), "n2".into(), "n3".into(), "n1".into()]);
    let end = ways.last().unwrap();
    assert_eq!(end.left, ["n2".into(), "n3".into()], "all of them are to be tidied up");
    assert_eq!(end.failure.as_ref().unwrap().reason, Reason::StateLost);
}

#[test]
fn each_way_may_succeed_and_the_migration_completes_and_knows_why_it_had_to_be_another_way() {
    for state in on_all_ways(plan(true, true)).into_iter().filter(|s| s.step == Step::Replacing) {
        let (end, seen) = run(state.clone());
        assert_eq!(end.step, Step::Completed);
        assert_eq!(
            seen,
            [
                E::RestoreReplacement,
                E::SwitchReaders,
                E::CloseArchives,
                E::Resume,
                E::RemoveShadow,
                E::DropParking
            ]
        );
        assert_eq!((end.way, end.failure), (state.way, state.failure));
    }
}

#[test]
fn a_ticket_that_failed_is_spent_before_anything_else_is_asked_for() {
    for state in on_all_ways(plan(true, true)).iter().filter(|state| state.step == Step::Replacing) {
        let next = fail(state, Reason::RestoreFailed);
        assert_eq!((next.life, next.outstanding()), (state.life, vec![E::SpendTicket]));
    }
}

#[test]
fn a_replacement_that_lives_after_all_is_not_killed() {
    for state in on_all_ways(plan(true, true)).iter().filter(|state| state.step == Step::Spending) {
        let Outcome::ReplacementRestored(restored) = outcome(E::RestoreReplacement) else { panic!() };
        let late = Outcome::ReplacementLives(restored.clone());
        let (next, effects) = step(state, Event::Done(state.turn(), late));
        assert_eq!(
            (next.step, next.life, next.replacement.as_ref()),
            (Step::Switching, state.life, Some(&restored))
        );
        assert_eq!(effects, [E::SwitchReaders]);
    }
}

#[test]
fn an_answer_to_an_earlier_life_means_nothing_in_the_next() {
    let first = until(Step::Replacing, plan(true, true));
    let second = succeed(&fail(&first, Reason::RestoreFailed));
    assert_eq!((second.step, second.life), (Step::Replacing, Life(2)));
    let failure = Failure::terminal(Reason::RestoreFailed, "late");
    for event in [
        Event::Done(first.turn(), outcome(E::RestoreReplacement)),
        Event::Failed(first.turn(), E::RestoreReplacement, failure),
    ] {
        assert_eq!(step(&second, event), (second.clone(), vec![]));
    }
}

#[test]
fn a_target_that_is_lost_is_not_asked_again() {
    let state = succeed(&fail(&until(Step::Replacing, plan(true, true)), Reason::TargetLost));
    assert_eq!((state.step, state.way), (Step::Seeking, Way::Elsewhere));
    let state = fail(&state, Reason::NoNodeFits);
    assert_eq!((state.step, state.way), (Step::Returning, Way::Home));
    assert_eq!(state.failure.as_ref().unwrap().reason, Reason::TargetLost, "why it goes home");
    let state = succeed(&state);
    assert_eq!((state.step, state.target), (Step::Replacing, Some("n1".into())));
}

#[test]
fn a_target_that_is_lost_before_the_ticket_is_closed_costs_nothing() {
    let state = until(Step::Switching, plan(true, true));
    assert!(state.replacement.is_some());
    assert_eq!(fail(&state, Reason::RestoreFailed), state, "only that makes it another way");
    let next = fail(&state, Reason::TargetLost);
    assert_eq!((next.step, next.replacement.as_ref()), (Step::Spending, None));
    assert_eq!(run(next).0.step, Step::Completed);
    for at in [Step::Closing, Step::Resuming] {
        let state = until(at, plan(true, true));
        assert_eq!(fail(&state, Reason::TargetLost), state, "something fresh may have acted since");
    }
}

#[test]
fn what_ends_once_it_is_let_go_is_another_way_as_long_as_its_ticket_is_open() {
    let state = until(Step::Switching, plan(true, false));
    assert_eq!(state.outstanding(), [E::ConfirmReplacement], "before its ticket is closed");
    for reason in [Reason::RestoreFailed, Reason::TargetLost] {
        let next = fail(&state, reason);
        assert_eq!((next.step, next.replacement.as_ref()), (Step::Spending, None));
        assert_eq!(run(next).0.step, Step::Completed, "there it may live");
    }
    let mut state = state;
    while !state.given_up {
        let ends = state.step == Step::Switching;
        state = if ends { fail(&state, Reason::RestoreFailed) } else { succeed(&state) };
    }
    assert_eq!(run(state).0.failure.unwrap().reason, Reason::StateLost, "it ends everywhere");
    assert!(!until(Step::Switching, plan(true, true)).required().contains(&E::ConfirmReplacement));
}

#[test]
fn an_archive_that_cannot_be_carried_goes_home() {
    let mut state = until(Step::Replacing, plan(false, false));
    for _ in 0..2 {
        state = succeed(&fail(&state, Reason::RestoreFailed));
    }
    let carrying = succeed(&state);
    assert_eq!((carrying.step, carrying.target.clone()), (Step::Carrying, Some("n3".into())));
    let returning = fail(&carrying, Reason::TransferFailed);
    assert_eq!((returning.step, returning.life), (Step::Returning, carrying.life));
    let given_up = fail(&returning, Reason::ArchiveDamaged);
    assert_eq!(given_up.step, Step::GivingUp);
    let told = given_up.failure.unwrap();
    assert!(told.message.starts_with("ArchiveDamaged: in Returning; "), "{}", told.message);
}

#[test]
fn where_the_policy_blocks_a_person_is_waited_for_who_may_try_again_or_give_up() {
    let blocking = Plan { policy: EvictionPolicy::MigrateOrBlock, ..plan(true, true) };
    let stranded = on_all_ways(blocking).pop().unwrap();
    assert_eq!(stranded.step, Step::Stranded);
    for event in [Event::DeadlineExceeded, Event::SourceGone, Event::StepTimedOut] {
        assert_eq!(step(&stranded, event), (stranded.clone(), vec![]));
    }
    let (again, effects) = step(&stranded, Event::Retry);
    assert_eq!((again.step, again.way, again.life), (Step::Replacing, Way::Target, Life(5)));
    assert_eq!(effects, [E::RestoreReplacement]);
    assert_eq!(run(again).0.step, Step::Completed);
    for event in [Event::GiveUp, Event::Abort] {
        let (end, seen) = run(step(&stranded, event).0);
        assert_eq!(end.step, Step::Failed);
        assert_eq!(
            seen,
            [E::KeepArchive, E::WithdrawShadow, E::ReleaseReplacement, E::ResumeSource, E::DropParking]
        );
    }
}

#[test]
fn whoever_asks_for_another_try_while_the_pod_cannot_come_back_does_not_lose_the_archive() {
    let blocking = Plan { policy: EvictionPolicy::MigrateOrBlock, ..plan(true, true) };
    let stranded = on_all_ways(blocking).pop().unwrap();
    let again = step(&stranded, Event::Retry).0;
    let spending = fail(&again, Reason::SourceGone);
    assert_eq!(spending.outstanding(), [E::SpendTicket], "its ticket may be open already");
    let back = succeed(&spending);
    assert_eq!((back.step, back.given_up), (Step::Stranded, false));
    assert_eq!(back.failure.as_ref().unwrap().reason, Reason::SourceGone, "why the try was in vain");
    let another = step(&back, Event::Retry).0;
    assert_eq!((another.step, another.way, another.life), (Step::Replacing, Way::Target, Life(6)));
    assert_eq!(run(another).0.step, Step::Completed);
    let (end, seen) = run(step(&back, Event::GiveUp).0);
    assert_eq!((end.step, seen[0]), (Step::Failed, E::KeepArchive));
}

#[test]
fn from_the_second_life_on_no_archive_is_discarded_though_the_pod_will_never_come() {
    for policy in [EvictionPolicy::MigrateOrEvict, EvictionPolicy::MigrateOrBlock] {
        let ways = on_all_ways(Plan { policy, ..plan(true, true) });
        for state in ways.iter().filter(|state| state.step == Step::Replacing && state.life > Life::FIRST) {
            let (end, seen) = run(fail(state, Reason::SourceGone));
            assert!(!seen.contains(&E::CloseArchives), "{policy:?} {:?}", state.life);
            let kept = end.step == Step::Stranded || seen.contains(&E::KeepArchive);
            assert!(kept, "{policy:?} {:?}", state.life);
        }
    }
}

#[test]
fn what_was_given_up_is_not_evicted_thawed_or_closed_once_more_whatever_happens() {
    for state in on_all_ways(plan(true, true)).iter().filter(|state| state.given_up) {
        for event in [Event::Abort, Event::DeadlineExceeded, Event::SourceGone] {
            let (end, seen) = run(step(state, event).0);
            assert_eq!(end.step, Step::Failed);
            assert_eq!(end.failure.unwrap().reason, Reason::StateLost);
            for never in [E::EvictSource, E::ThawSource, E::CloseArchives] {
                assert!(!seen.contains(&never), "{:?}", state.step);
            }
        }
    }
}

#[test]
fn a_pod_made_after_the_commit_is_to_be_restored_until_the_state_is_given_up() {
    for state in on_all_ways(plan(true, true)) {
        assert_eq!(state.step.awaits_replacement(), !state.given_up, "{:?}", state.step);
    }
}

#[test]
fn a_journal_of_before_there_were_several_ways_is_read() {
    let state = until(Step::Replacing, plan(true, true));
    let mut old = serde_json::to_value(&state).unwrap();
    for new in ["left", "life", "way", "givenUp", "stoppedFor", "fellBack"] {
        assert!(old.as_object_mut().unwrap().remove(new).is_some(), "{new}");
    }
    assert_eq!(serde_json::from_value::<State>(old).unwrap(), state);
}

fn outliving(policy: EvictionPolicy) -> Plan {
    Plan { policy, outlived: true, ..plan(false, false) }
}

const POLICIES: [EvictionPolicy; 2] = [EvictionPolicy::MigrateOrEvict, EvictionPolicy::MigrateOrBlock];

#[test]
fn memory_is_not_restored_over_volumes_that_are_not_as_it_left_them_whatever_the_policy_says() {
    for policy in POLICIES {
        for at in [Step::Replacing, Step::Switching] {
            let state = until(at, outliving(policy));
            let spending = fail(&state, Reason::VolumeChanged);
            assert_eq!((spending.step, spending.way), (Step::Spending, Way::Nowhere), "{at:?}");
            let fresh = succeed(&spending);
            assert!(fresh.step == Step::GivingUp && fresh.given_up, "{policy:?}: {fresh:?}");
        }
        let spending = fail(&until(Step::Replacing, outliving(policy)), Reason::RestoreFailed);
        assert_eq!((spending.step, spending.way), (Step::Spending, Way::Again));
        let fresh = fail(&spending, Reason::VolumeChanged);
        assert_eq!((fresh.step, fresh.life), (Step::GivingUp, Life::FIRST), "its machine is lost");
    }
}

#[test]
fn nobody_is_waited_for_where_a_fresh_pod_may_write_meanwhile() {
    for policy in POLICIES {
        let ways = on_all_ways(outliving(policy));
        assert!(ways.iter().all(|state| state.step != Step::Stranded), "{policy:?}");
        assert!(ways.iter().any(|state| state.given_up), "{policy:?}");
    }
}

#[test]
fn a_source_that_was_started_anew_since_its_dump_goes_on_as_it_is() {
    let failed = |state: &State, effect, failure: &Failure| {
        step(state, Event::Failed(state.turn(), effect, failure.clone())).0
    };
    for policy in POLICIES {
        let anew = Failure::retryable(Reason::VolumeChanged, "started anew");
        for (at, effect) in [(Step::Freezing, E::FreezeSource), (Step::Deleting, E::DeleteSource)] {
            let state = until(at, outliving(policy));
            let (end, seen) = run(failed(&state, effect, &anew));
            assert!(seen.contains(&E::ThawSource) && seen.contains(&E::CloseArchives), "{seen:?}");
            for never in [E::DeleteSource, E::KillSource, E::RestoreReplacement] {
                assert!(!seen.contains(&never), "{at:?}: {seen:?}");
            }
            assert_eq!(end.step, Step::BackingOff, "and is dumped once more");
        }
        let state = until(Step::Deleting, outliving(policy));
        let gone = Failure::terminal(Reason::VolumeChanged, "started anew");
        let (end, seen) = run(failed(&state, E::KillSource, &gone));
        assert_eq!((end.step, seen[0]), (Step::Failed, E::KeepArchive));
        for wanted in [E::WithdrawShadow, E::ReleaseReplacement, E::ThawSource] {
            assert!(seen.contains(&wanted) && !seen.contains(&E::RestoreReplacement), "{seen:?}");
        }
    }
}

#[test]
fn a_replacement_that_started_anew_once_it_had_run_is_told_as_lost() {
    let state = until(Step::Switching, outliving(EvictionPolicy::MigrateOrBlock));
    let anew = Outcome::ReplacementStartedAnew { message: "its process ended".into() };
    let (end, seen) = run(step(&state, Event::Done(state.turn(), anew)).0);
    assert_eq!((end.step, end.failure.unwrap().reason), (Step::Failed, Reason::StateLost));
    assert!(seen.contains(&E::CloseArchives), "{seen:?}");
}
