//! Explores all interleavings around the migration protocol and prints what was looked at.
//!
//! `cargo run --release --example explore` for the usual scenarios, with `thorough` for larger ones, with `mistakes` for
//! the stories of seeded mistakes, with anything else for the scenarios that have it in their name.

#![allow(clippy::unused_self, clippy::struct_excessive_bools, clippy::too_many_lines, clippy::match_bool)] // a model reads as tables
#![allow(clippy::inconsistent_struct_constructor, clippy::manual_hash_one)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test or an instrument that cannot go on says so

#[path = "../tests/explore/mod.rs"]
mod explore;

use std::process::ExitCode;
use std::time::Duration;

use explore::catalog::{thorough, trap, usual};
use explore::mistake::Mistake;
use explore::model::{Model, Scenario};
use explore::search::{Report, explore as search};

/// Takes about 9 GB.
const LIMIT: usize = 150_000_000;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => all(&usual()),
        Some("thorough") => all(&thorough()),
        Some("mistakes") => mistakes(),
        Some(part) => {
            let named: Vec<_> =
                usual().into_iter().chain(thorough()).filter(|one| one.name.contains(part)).collect();
            all(&named)
        }
    }
}

fn print(name: &str, report: &Report) {
    println!(
        "{name:<45} {:>10} states {:>11} transitions  depth {:>3}  {:>4} protocol states  {:>6.1} s{}",
        report.states,
        report.transitions,
        report.depth,
        report.protocol_states,
        report.took.as_secs_f64(),
        if report.incomplete { "  NOT ALL" } else { "" },
    );
}

fn all(scenarios: &[Scenario]) -> ExitCode {
    let (mut states, mut transitions, mut took, mut depth) = (0, 0, Duration::ZERO, 0);
    let mut failed = false;
    for scenario in scenarios {
        let report = search(&Model::new(scenario.clone(), None), LIMIT);
        print(scenario.name, &report);
        if let Some(story) = report.violation {
            println!("{story}");
            failed = true;
        }
        failed |= report.incomplete;
        states += report.states;
        transitions += report.transitions;
        took += report.took;
        depth = depth.max(report.depth);
    }
    println!(
        "in all: {states} states, {transitions} transitions, depth {depth}, {:.1} s",
        took.as_secs_f64()
    );
    if failed || scenarios.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn mistakes() -> ExitCode {
    let mut missed = 0;
    for mistake in Mistake::ALL {
        let report = search(&Model::new(trap(*mistake), Some(*mistake)), LIMIT);
        print(mistake.what(), &report);
        match report.violation {
            Some(story) if story.breaks(mistake.breaks()) => println!("{story}"),
            Some(story) => {
                println!("{story}    CAUGHT BY ACCIDENT: {} was expected\n", mistake.breaks());
                missed += 1;
            }
            None => {
                println!("    NOT CAUGHT\n");
                missed += 1;
            }
        }
    }
    println!("{} mistakes, {missed} not caught as expected", Mistake::ALL.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
