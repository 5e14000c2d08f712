//! `make bench-drain`: drains on the real cluster, measured from outside; every run is kept.
//!
//! RATES (messages a second), RUNS and BESIDE (so many more containers, each with 4 MB) come from the environment; target/bench/drain.json is written after every run.
//! Only the application's pods are drained (`--pod-selector`): a whole node would also evict SHADOW's own webhook,
//! which goes on answering for some seconds before it ends, and the figure would be that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)] // a test or an instrument that cannot go on says so

#[path = "../tests/lab/mod.rs"]
mod lab;
mod runs;

use std::process::ExitCode;

use lab::{App, DrainOptions, Figures, IMAGE, Lab, Load, Result, Scene, on_cluster};
use runs::{keep, setting};

const RESULT: &str = "target/bench/drain.json";
/// What a drain may cost.
const BAR: [(&str, u64); 3] = [("total", 2500), ("pause", 1800), ("read gap", 400)];

fn main() -> ExitCode {
    match on_cluster("bench-drain", bench) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-drain: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(lab: &Lab) -> Result<bool> {
    let rates: Vec<u32> = setting("RATES", "10 60 120")
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let times: usize = setting("RUNS", "10").parse()?;
    let beside: u16 = setting("BESIDE", "0").parse()?;
    let more = (1..=beside).map(|number| {
        let listen = serde_json::json!({ "name": "LISTEN", "value": format!("0.0.0.0:{}", 8080 + number) });
        let ballast = serde_json::json!({ "name": "BALLAST_MB", "value": "4" });
        serde_json::json!({ "name": format!("beside-{number}"), "image": IMAGE, "command": ["/counter"], "env": [listen, ballast] })
    });
    let containers: Vec<_> = [serde_json::json!({})].into_iter().chain(more).collect();
    let app = App::consumer("consumer").pod(serde_json::json!({ "containers": containers }));
    let mut runs: Vec<Figures> = Vec::new();
    let scene = Scene::open(lab, app.clone(), &Load::steady(10), None).await?;
    for &rate in &rates {
        for run in 1..=times {
            let figures = scene.drain(&Load::steady(rate), &DrainOptions::of(&app.name)).await?;
            println!(
                "{rate:>4}/s run {run:>2}: total {:>5} ms, pause {:>5} ms, read gap {:>4} ms{}",
                figures.total_ms,
                figures.pause_ms,
                figures.read_gap_ms,
                if figures.must_be_exact().is_ok() { "" } else { "  NOT EXACT" }
            );
            runs.push(figures);
            keep(RESULT, &runs)?;
        }
    }
    Ok(summary(&rates, &runs))
}

/// Prints medians and maxima; true if every run was exact and the medians keep to the bar.
fn summary(rates: &[u32], runs: &[Figures]) -> bool {
    let mut good = runs.iter().all(|run| run.must_be_exact().is_ok());
    println!("\n rate        total ms        pause ms     read gap ms   lost doubled reordered");
    println!("           median   max   median   max   median   max");
    for &rate in rates {
        let of_rate: Vec<&Figures> = runs.iter().filter(|run| run.rate == rate).collect();
        let figures: [fn(&Figures) -> u64; 3] = [|f| f.total_ms, |f| f.pause_ms, |f| f.read_gap_ms];
        print!("{rate:>4}/s ");
        for (figure, (_, bar)) in figures.iter().zip(BAR) {
            let values = sorted(of_rate.iter().map(|run| figure(run)));
            good &= median(&values) <= bar;
            print!("{:>9} {:>5}", median(&values), values.last().copied().unwrap_or_default());
        }
        let sum = |count: fn(&Figures) -> u64| of_rate.iter().map(|run| count(run)).sum::<u64>();
        println!(
            "{:>7} {:>7} {:>9}",
            sum(|run| run.verdict.lost),
            sum(|run| run.verdict.duplicated),
            sum(|run| run.verdict.reordered)
        );
    }
    println!("\nwhere the time goes (median ms over all runs, as seen by a watch):");
    let mut names: Vec<&str> = Vec::new();
    for step in runs.iter().flat_map(|run| &run.steps) {
        if !names.contains(&step.step.as_str()) {
            names.push(&step.step);
        }
    }
    for name in names {
        let times = runs.iter().flat_map(|run| &run.steps).filter(|step| step.step == name);
        let values = sorted(times.map(|step| step.ms));
        println!("{:>6}  {name}", median(&values));
    }
    let bars: Vec<String> = BAR.iter().map(|(what, ms)| format!("{what} {ms}")).collect();
    println!("\nbar (medians, ms): {}: {}", bars.join(", "), if good { "kept" } else { "NOT KEPT" });
    println!("every run is in {RESULT}; drained with --pod-selector, see benches/drain.rs");
    good
}

fn sorted(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
}

fn median(values: &[u64]) -> u64 {
    match values.len() {
        0 => 0,
        n if n % 2 == 1 => values[n / 2],
        n => u64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
