//! `make bench-rehearsal`: what it costs that a pod without a bridge is restored once before the commit, by its memory.
//!
//! MEGABYTES (of memory, not compressible) and RUNS come from the environment; target/bench/rehearsal.json has every run.
//! The steps are the migration's own `phaseTimings`: while they last the pod stands still.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)] // a test or an instrument that cannot go on says so

#[path = "../tests/lab/mod.rs"]
mod lab;
mod runs;

use std::process::ExitCode;
use std::time::Duration;

use lab::{App, DrainOptions, Lab, Result, fail, on_cluster, status_of};
use runs::{keep, setting};
use serde::Serialize;

const RESULT: &str = "target/bench/rehearsal.json";
/// The whole of the rehearsal: the restore and the look at what came of it.
const REHEARSAL: [&str; 2] = ["RestoringShadow", "Confirming"];

#[derive(Clone, Debug, Serialize)]
struct Run {
    megabytes: u64,
    total_ms: u64,
    pause_ms: u64,
    dumping_ms: u64,
    rehearsal_ms: u64,
    replacing_ms: u64,
}

fn main() -> ExitCode {
    match on_cluster("bench-rehearsal", bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-rehearsal: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(lab: &Lab) -> Result {
    let sizes: Vec<u64> = setting("MEGABYTES", "20 200 1000")
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let times: usize = setting("RUNS", "6").parse()?;
    let mut runs = Vec::new();
    for &megabytes in &sizes {
        let app = App::counter(&format!("counter-{megabytes}"))
            .env("BALLAST_MB", &megabytes.to_string())
            .pod(serde_json::json!({ "containers": [{ "name": "app", "resources": {
                "requests": { "memory": format!("{}Mi", megabytes + 64) },
                "limits": { "memory": format!("{}Mi", 2 * megabytes + 128) } } }] }));
        lab.deploy(&app).await?;
        for _ in 0..times {
            let run = drained(lab, &app, megabytes).await?;
            println!("{run:?}");
            runs.push(run);
            keep(RESULT, &runs)?;
        }
        lab.restage().await?;
    }
    summary(&sizes, &runs);
    Ok(())
}

async fn drained(lab: &Lab, app: &App, megabytes: u64) -> Result<Run> {
    let before = lab.only_pod(app).await?;
    let cookie = before.state().await?.cookie;
    let watch = lab.watch();
    let drained = lab.drain(&before.node, &DrainOptions::of(&app.name)).await?;
    let status = status_of(&watch.ended(&before.uid, Duration::from_secs(120)).await?);
    let after = lab.only_pod(app).await?;
    if drained.code != 0 || after.state().await?.cookie != cookie {
        return fail(format!("it has not moved: {status:#?}\n{}", drained.text()));
    }
    lab.uncordon(&before.node).await?;
    let step = |name: &str| status.phase_timings.get(name).copied().unwrap_or_default();
    Ok(Run {
        megabytes,
        total_ms: status.total_ms.unwrap_or_default(),
        pause_ms: status.pause_ms.unwrap_or_default(),
        dumping_ms: step("Dumping"),
        rehearsal_ms: REHEARSAL.iter().map(|name| step(name)).sum(),
        replacing_ms: step("Replacing"),
    })
}

fn summary(sizes: &[u64], runs: &[Run]) {
    println!("\nmedians (ms)\n   MB   total   stands still   dump and transfer   rehearsal   replacement");
    for &size in sizes {
        let median = |figure: fn(&Run) -> u64| {
            let mut values: Vec<u64> = runs.iter().filter(|run| run.megabytes == size).map(figure).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        println!(
            "{size:>5} {:>7} {:>14} {:>19} {:>11} {:>13}",
            median(|run| run.total_ms),
            median(|run| run.pause_ms),
            median(|run| run.dumping_ms),
            median(|run| run.rehearsal_ms),
            median(|run| run.replacing_ms)
        );
    }
    println!("every run is in {RESULT}");
}
