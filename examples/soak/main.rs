//! `make soak N=100 SEED=1`: drains back and forth under load while faults drawn from a seed strike; after each run the
//! ledger decides. A run is its seed: `make soak N=1 SEED=<seed of that run>` repeats it.
//!
//! Run i has seed SEED + i. target/soak/result.json is written after every run, target/soak/<seed>.txt holds what the
//! cluster says after a run that was not exact. Ends with 1 if one run was not exact.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)] // a test or an instrument that cannot go on says so

#[path = "../../tests/lab/mod.rs"]
mod lab;

mod dice;
mod leftovers;
mod plan;
mod run;
mod strike;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lab::{App, Kind, Lab, Load, QueueType, Result, Scene, on_cluster, whole};
use plan::{Plan, Shape};
use run::{DEADLINE, Record};

const NAMESPACE: &str = "soak";
const FOLDER: &str = "target/soak";
/// So many runs must have been struck by most of their faults, and most must have moved.
const MANY: usize = 10;

fn main() -> ExitCode {
    match on_cluster(NAMESPACE, soak) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(lab: &Lab) -> Result<bool> {
    let (count, first) = (setting("N", 10)?, setting("SEED", 1)?);
    let mut records: Vec<Record> = Vec::new();
    let mut stage: Option<((Shape, bool), Scene<'_>)> = None;
    for seed in first..first.saturating_add(count) {
        let plan = Plan::draw(seed);
        let kind = (plan.shape, plan.broker_dies());
        let scene = match stage.take() {
            Some((as_wanted, scene)) if as_wanted == kind => Ok(scene),
            _ => fresh_scene(lab, &plan).await,
        };
        let record = match &scene {
            Ok(scene) => run::perform(scene, &plan).await,
            Err(error) => Record { verdict: format!("not exact: no scene: {error}"), ..Record::of(&plan) },
        };
        tell(&record);
        if record.is_exact() {
            stage = scene.ok().map(|scene| (kind, scene));
        } else {
            std::fs::create_dir_all(folder())?;
            std::fs::write(folder().join(format!("{seed}.txt")), lab.description().await)?;
        }
        records.push(record);
        keep(&records)?;
    }
    Ok(summary(&records))
}

/// A consumer in an empty namespace, so that nothing of a run before it matters.
async fn fresh_scene<'a>(lab: &'a Lab, plan: &Plan) -> Result<Scene<'a>> {
    lab.restage().await?;
    let mut app = App::consumer("consumer")
        .kind(if plan.shape.deployment { Kind::Deployment } else { Kind::StatefulSet })
        .annotated("policy", "MigrateOrBlock")
        .annotated("deadline", &format!("{}s", DEADLINE.as_secs()))
        .env("WORK_MS", "1");
    if plan.broker_dies() {
        app = app.env("SKIP_REDELIVERED", "true");
    }
    if plan.shape.whole {
        app = whole(app);
    }
    let queue_type = if plan.shape.quorum { QueueType::Quorum } else { QueueType::Classic };
    Scene::open(lab, app, &Load { queue_type, ..Load::steady(10) }, None).await
}

fn setting(name: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(name).ok().filter(|value| !value.is_empty()) {
        Some(value) => value.parse().map_err(|error| format!("{name}={value}: {error}").into()),
        None => Ok(otherwise),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER)
}

fn keep(records: &[Record]) -> Result {
    std::fs::create_dir_all(folder())?;
    let text = serde_json::to_string_pretty(&serde_json::json!({ "runs": records }))?;
    Ok(std::fs::write(folder().join("result.json"), text + "\n")?)
}

fn tell(record: &Record) {
    println!(
        "seed {:>6}  {:<38}  {:>3} s  {:>3}/s +{:<4} {:<28} {}{}",
        record.seed,
        record.shape,
        record.seconds,
        record.rate,
        record.backlog,
        if record.moved { "moved" } else { record.ended.as_str() },
        if record.is_exact() { "exact" } else { &record.verdict },
        if record.faults.is_empty() { "  (no fault)" } else { "" },
    );
    for fault in &record.faults {
        println!("               {fault}");
    }
    for left in &record.leftovers {
        println!("               LEFT {left}");
    }
}

/// True if every run was exact, and many runs met what they were to meet.
fn summary(records: &[Record]) -> bool {
    let sum = |of: fn(&Record) -> u64| records.iter().map(of).sum::<u64>();
    let exact = records.iter().filter(|record| record.is_exact()).count();
    let moved = records.iter().filter(|record| record.moved).count();
    let faults: usize = records.iter().map(|record| record.faults.len()).sum();
    let hits: usize = records.iter().map(|record| record.hits).sum();
    println!(
        "\n{} runs in {} min, {hits} of {faults} faults struck: {moved} moved, {} stayed where they were\n\
         lost {}, duplicated {}, reordered {}, older reads {}, leftovers {}; every run is in {FOLDER}/result.json",
        records.len(),
        sum(|record| record.seconds) / 60,
        records.len() - moved,
        sum(|record| record.lost),
        sum(|record| record.duplicated),
        sum(|record| record.reordered),
        sum(|record| record.reads_older as u64),
        sum(|record| record.leftovers.len() as u64),
    );
    for record in records.iter().filter(|record| !record.is_exact()) {
        println!("again: make soak N=1 SEED={}   # {}", record.seed, record.verdict);
    }
    println!("{exact} passed, {} failed", records.len() - exact);
    if records.len() >= MANY && (hits * 2 < faults || moved * 5 < records.len() * 4) {
        println!("not a soak: most faults struck nothing, or more than a fifth of the drains moved nothing");
        return false;
    }
    exact == records.len() && !records.is_empty()
}
