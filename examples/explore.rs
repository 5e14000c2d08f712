//! Explores the migration protocol and prints what was looked at: `cargo run --release --example explore [scenario]`.

#[path = "../tests/explore/mod.rs"]
mod explore;

use std::process::ExitCode;

use explore::{Model, Scenario, explore as search};

fn main() -> ExitCode {
    let faults: u8 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let messages: u8 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(2);
    let kinds = std::env::args().nth(3).unwrap_or("dbfuo".into());
    let has = |k: char| kinds.contains(k);
    let mut scenario = Scenario {
        messages,
        deadline: has('d'),
        breaks: has('b'),
        failures: has('f'),
        users: has('u'),
        operators: has('o'),
        ..Scenario::with_faults("x", faults)
    };
    if has('1') {
        scenario.attempts = 1;
    }
    if has('s') {
        scenario.plan.bridge = false;
    }
    if has('w') {
        scenario.plan.bridge = false;
        scenario.plan.queue = false;
        scenario.plan.hold = shadow::api::Hold::Frozen;
    }
    let model = Model::new(scenario, None);
    let report = search(&model, 20_000_000);
    println!(
        "states {} transitions {} depth {} protocol {} took {:?} incomplete {} size {}",
        report.states,
        report.transitions,
        report.depth,
        report.protocol_states,
        report.took,
        report.incomplete,
        std::mem::size_of_val(&model.beginning())
    );
    if let Some(story) = report.violation {
        println!("{story}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
