//! The real operator and webhook, with the real tickets of two agents, in a world in memory that strikes every call:
//! everything dies there, or the connection breaks, or a second operator starts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::format_collect,
    clippy::unused_self
)] // a test that cannot go on says so

mod crash_world;
mod sample;

use crash_world::mistake::Mistake;
use crash_world::run::play;
use crash_world::scenario::{Scenario, Trouble};
use crash_world::sweep::{Every, Until, sweep};

/// Every one of them must end exactly.
fn exact(cases: &[(&str, Scenario, Every)]) {
    let mut stories = String::new();
    for (what, scenario, every) in cases {
        let summary = sweep(*scenario, *every, Until::End);
        println!("{}", summary.line(what));
        if summary.failures() > 0 {
            stories += &format!("{what}\n{}", summary.story());
        }
        if let Some(why) = summary.shows_nothing(scenario.end()) {
            stories += &format!("{what} shows nothing: {why}\n");
        }
    }
    assert!(stories.is_empty(), "{stories}");
}

fn moved(bridged: bool) -> Scenario {
    Scenario { bridged, ..Scenario::of(Trouble::None) }
}

#[test]
fn a_drain_that_nothing_strikes_moves_the_pod() {
    for scenario in [moved(true), moved(false)] {
        let outcome = play(scenario, None);
        assert_eq!(
            (outcome.violations, outcome.end.as_str()),
            (vec![], "moved"),
            "{}",
            outcome.trace.join("\n")
        );
    }
}

#[test]
fn everything_cut_off_before_or_after_any_call_still_ends_exactly() {
    exact(&[
        ("crash, with a shadow", moved(true), Every::Crash),
        ("crash, without a shadow", moved(false), Every::Crash),
        ("long crash, with a shadow", moved(true), Every::LongCrash),
        ("long crash, without a shadow", moved(false), Every::LongCrash),
    ]);
}

#[test]
fn a_connection_that_breaks_at_any_call_does_no_harm() {
    exact(&[
        ("cut, with a shadow", moved(true), Every::Cut),
        ("cut, without a shadow", moved(false), Every::Cut),
    ]);
}

#[test]
fn two_operators_at_any_call_still_end_exactly() {
    exact(&[
        ("second operator", moved(true), Every::Rival),
        ("second operator, late call", moved(true), Every::Late),
        ("second operator, late call, no shadow", moved(false), Every::Late),
    ]);
}

const ROLLBACKS: [(&str, Scenario); 8] = [
    (
        "aborted while dumping, frozen",
        Scenario { trouble: Trouble::Abort("Dumping"), evicts: false, bridged: false, mistake: None },
    ),
    (
        "first dump fails",
        Scenario { trouble: Trouble::FirstDumpFails, evicts: false, bridged: true, mistake: None },
    ),
    (
        "dumps fail, blocked",
        Scenario { trouble: Trouble::DumpsFail, evicts: false, bridged: false, mistake: None },
    ),
    (
        "dumps fail, evicted",
        Scenario { trouble: Trouble::DumpsFail, evicts: true, bridged: true, mistake: None },
    ),
    (
        "never parks, blocked",
        Scenario { trouble: Trouble::NeverParks, evicts: false, bridged: true, mistake: None },
    ),
    (
        "aborted while preparing",
        Scenario { trouble: Trouble::Abort("Preparing"), evicts: true, bridged: true, mistake: None },
    ),
    (
        "aborted while dumping",
        Scenario { trouble: Trouble::Abort("Dumping"), evicts: true, bridged: true, mistake: None },
    ),
    (
        "aborted while bridging",
        Scenario { trouble: Trouble::Abort("Bridging"), evicts: true, bridged: true, mistake: None },
    ),
];

fn rollbacks(every: Every) {
    exact(&ROLLBACKS.map(|(what, scenario)| (what, scenario, every)));
}

#[test]
fn a_rollback_cut_off_at_any_call_still_ends_exactly() {
    rollbacks(Every::Crash);
}

#[test]
fn a_connection_that_breaks_at_any_call_of_a_rollback_does_no_harm() {
    rollbacks(Every::Cut);
}

#[test]
fn a_rollback_by_two_operators_at_any_call_still_ends_exactly() {
    rollbacks(Every::Rival);
}

#[test]
fn a_late_call_of_a_deposed_operator_in_a_rollback_does_no_harm() {
    rollbacks(Every::LateOnce);
}

#[test]
fn a_late_call_into_the_next_attempt_does_no_harm() {
    let scenario = Scenario { bridged: false, ..Scenario::of(Trouble::FirstDumpFails) };
    exact(&[("late call into the next attempt", scenario, Every::LateIntoNextAttempt)]);
}

/// What goes wrong after the commit, and how it ends all the same.
const AFTER: [(&str, Scenario); 7] = [
    ("restore fails once", Scenario { bridged: false, ..after(Trouble::RestoreFails) }),
    ("restores fail on the target", after(Trouble::RestoresFailOn(&["n2"]))),
    (
        "restores fail but at home",
        Scenario { bridged: false, ..after(Trouble::RestoresFailOn(&["n2", "n3"])) },
    ),
    ("target lost", after(Trouble::TargetLost("Replacing", &[]))),
    (
        "target lost, no other node",
        Scenario { bridged: false, ..after(Trouble::TargetLost("Replacing", &["n3"])) },
    ),
    (
        "restores fail everywhere, evicted",
        Scenario { evicts: true, ..after(Trouble::RestoresFailOn(&["n1", "n2", "n3"])) },
    ),
    ("restores fail everywhere, mended", after(Trouble::MendedAndRetried)),
];

const fn after(trouble: Trouble) -> Scenario {
    Scenario { trouble, evicts: false, bridged: true, mistake: None }
}

#[test]
fn whatever_fails_after_the_commit_it_ends_as_it_should() {
    let given_up = ("restores fail everywhere, given up", after(Trouble::GivenUp));
    let lost_late = ("target lost while readers are switched", after(Trouble::TargetLost("Switching", &[])));
    let ends = Scenario { evicts: true, bridged: false, ..after(Trouble::EndsOfItsConnections) };
    let ends = ("ends of its connections", ends);
    let elsewhere = ("another image elsewhere", after(Trouble::AnotherImageElsewhere));
    let scaled = ("restores fail everywhere, scaled down", after(Trouble::ScaledDownMeanwhile));
    for (what, scenario) in AFTER.into_iter().chain([given_up, lost_late, ends, elsewhere, scaled]) {
        let outcome = play(scenario, None);
        let trace = || outcome.trace.join("\n");
        assert_eq!(outcome.violations, Vec::<String>::new(), "{what}\n{}", trace());
        assert_eq!(Some(outcome.end.as_str()), scenario.end(), "{what}\n{}", trace());
        println!("{what}: {} in {:.1} s", outcome.end, outcome.took.as_secs_f64());
    }
}

#[test]
fn where_the_image_is_another_one_another_node_is_taken_and_nothing_is_stopped_for_the_first() {
    for bridged in [true, false] {
        let scenario = Scenario { bridged, ..Scenario::of(Trouble::AnotherImage) };
        let outcome = play(scenario, None);
        let found = (outcome.violations, outcome.end.as_str());
        assert_eq!(found, (vec![], "moved in a later attempt"), "{}", outcome.trace.join("\n"));
    }
}

/// Neither its Secret nor its broker comes back, and nobody is left to be resumed.
#[test]
fn a_stranded_migration_goes_with_its_namespace() {
    let scenario = after(Trouble::NamespaceDeleted);
    let outcome = play(scenario, None);
    assert_eq!(outcome.violations, Vec::<String>::new(), "{}", outcome.trace.join("\n"));
    assert_eq!(outcome.end, "gone");
    println!("gone after {:.0} s", outcome.took.as_secs_f64());
}

fn after_the_commit(every: Every) {
    exact(&AFTER.map(|(what, scenario)| (what, scenario, every)));
}

#[test]
fn each_way_after_the_commit_cut_off_at_any_call_still_ends_exactly() {
    after_the_commit(Every::Crash);
}

#[test]
fn a_connection_that_breaks_at_any_call_after_the_commit_does_no_harm() {
    after_the_commit(Every::Cut);
}

#[test]
fn each_way_after_the_commit_by_two_operators_at_any_call_still_ends_exactly() {
    after_the_commit(Every::Rival);
}

#[test]
fn giving_up_cut_off_at_any_call_still_ends_with_one_fresh_pod() {
    exact(&[("given up", after(Trouble::GivenUp), Every::Crash)]);
}

#[test]
fn every_mistake_that_is_built_in_is_caught() {
    let repeated = Scenario { bridged: false, ..Scenario::of(Trouble::FirstDumpFails) };
    let only_at_home = Scenario { bridged: false, ..after(Trouble::RestoresFailOn(&["n2", "n3"])) };
    for (mistake, scenario, every, told) in [
        (Mistake::StoreIgnoresVersions, moved(true), Every::Late, ""),
        (Mistake::StoreLosesJournal, moved(true), Every::Crash, ""),
        (Mistake::AgentsIgnoreFences, repeated, Every::LateIntoNextAttempt, ""),
        (Mistake::AgentsLoseTheirFolder, moved(true), Every::Crash, ""),
        (Mistake::DumpWithoutFreeze, moved(false), Every::Crash, " writes"),
        (Mistake::FreshShadow, moved(true), Every::Crash, "nothing was restored on the target"),
        (Mistake::FreshShadow, moved(false), Every::Crash, "nothing was restored on the target"),
        (Mistake::RestoreLetsRun, moved(false), Every::Crash, "runs and was never let go"),
        (Mistake::PartLetGoEarly, moved(true), Every::Crash, "is let go before all are back"),
        (Mistake::FreshWithoutInit, after(Trouble::GivenUp), Every::Crash, "its init container has not run"),
        (Mistake::DumpDroppedAtKill, only_at_home, Every::Crash, "the migration is in step"),
    ] {
        let summary = sweep(Scenario { mistake: Some(mistake), ..scenario }, every, Until::FirstFailure);
        println!("{}", summary.line(&format!("{mistake:?}")));
        let story = summary.story();
        assert!(summary.failures() > 0 && story.contains(told), "{mistake:?} was not caught: {story}");
    }
}
