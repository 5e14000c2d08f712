//! Whatever happens in whatever order, the design's invariants I1 to I15 hold and every migration ends well; and the
//! explorer that says so catches every mistake that is seeded for it.

#![allow(clippy::unused_self, clippy::struct_excessive_bools, clippy::too_many_lines, clippy::match_bool)] // a model reads as tables
#![allow(clippy::inconsistent_struct_constructor, clippy::manual_hash_one)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test or an instrument that cannot go on says so

mod explore;

use explore::catalog::{trap, usual};
use explore::mistake::Mistake;
use explore::model::{Model, Scenario};
use explore::search::explore as search;

/// Far more than any of these scenarios has: a test must end.
const LIMIT: usize = 20_000_000;

#[test]
fn every_interleaving_keeps_the_invariants_and_ends_well() {
    let states = all_hold(&usual(), LIMIT);
    assert!(states > 1_000_000, "only {states} states: the scenarios have lost their bite");
}

fn all_hold(scenarios: &[Scenario], limit: usize) -> usize {
    let mut states = 0;
    for scenario in scenarios {
        let name = scenario.name;
        let report = search(&Model::new(scenario.clone(), None), limit);
        println!(
            "{name}: {} states, {} transitions, depth {}, {} protocol states, {:.1} s",
            report.states,
            report.transitions,
            report.depth,
            report.protocol_states,
            report.took.as_secs_f64()
        );
        if let Some(story) = report.violation {
            panic!("{name}:\n{story}");
        }
        assert!(!report.incomplete, "{name}: more than {limit} states");
        states += report.states;
    }
    states
}

/// By the invariant that one expects, not by accident.
#[test]
fn every_seeded_mistake_is_caught_by_its_invariant() {
    assert!(Mistake::ALL.len() >= 15);
    let missed: Vec<_> = Mistake::ALL
        .iter()
        .filter_map(|mistake| {
            let (what, invariant) = (mistake.what(), mistake.breaks());
            match search(&Model::new(trap(*mistake), Some(*mistake)), LIMIT).violation {
                None => Some(format!("{what}: not caught")),
                Some(story) if !story.breaks(invariant) => {
                    Some(format!("{what}: not by {invariant}:\n{story}"))
                }
                Some(_) => None,
            }
        })
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// What is caught in a trap is caught because of the mistake: without it the same scenario is fine.
#[test]
fn the_traps_themselves_are_sound() {
    for mistake in Mistake::ALL {
        let report = search(&Model::new(trap(*mistake), None), LIMIT);
        if let Some(story) = report.violation {
            panic!("the trap for \"{}\" springs by itself:\n{story}", mistake.what());
        }
        assert!(!report.incomplete, "the trap for \"{}\" is too large", mistake.what());
    }
}
