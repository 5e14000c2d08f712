//! `make demo`: a node is drained under load, and what happens is told as it happens.
//!
//! Writes target/demo/result.json and leaves cluster and application as they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)] // a test or an instrument that cannot go on says so

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use lab::{App, DrainOptions, Figures, Lab, Load, Narrator, Result, Scene, on_cluster_leaving_it};

const NAMESPACE: &str = "demo";
const RATE: u32 = 60;
const BACKLOG: u64 = 600;
const RESULT: &str = "target/demo/result.json";

fn main() -> ExitCode {
    match on_cluster_leaving_it(NAMESPACE, demo) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(lab: &Lab) -> Result<bool> {
    let began = Instant::now();
    let narrator: Narrator = Arc::new(move |at: Instant, line: &str| {
        println!("{:8.3} s  {line}", (at - began).as_secs_f64());
    });
    let load = Load { backlog: BACKLOG, ..Load::steady(RATE) };
    let app = App::consumer("consumer");
    let scene = Scene::open(lab, app.clone(), &load, Some(narrator)).await?;
    let pod = lab.only_pod(&app).await?;
    let node = &pod.node;
    println!(
        "\nPod {} runs on {node}. Its memory holds all it has learnt from its queue, and a cookie made at start: {}.\n\
         A backlog of {BACKLOG} messages waits, {RATE} more come every second, and its Service is read 200 times a \
         second.\n\n$ kubectl drain {node} --ignore-daemonsets\n",
        pod.name, scene.cookie,
    );
    let figures = scene.drain(&load, &DrainOptions::default()).await?;
    let after = lab.only_pod(&app).await?;
    let text = serde_json::to_string_pretty(&figures)?;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(RESULT);
    std::fs::create_dir_all(folder.parent().ok_or("no folder")?)?;
    std::fs::write(&folder, text + "\n")?;
    tell(&figures, &pod.node, &after.node);
    Ok(figures.must_be_exact().is_ok())
}

fn tell(figures: &Figures, from: &str, to: &str) {
    let verdict = &figures.verdict;
    println!("\nWhere the time went, in ms:");
    for step in &figures.steps {
        println!("  {:>6}  {}", step.ms, step.step);
    }
    let yes = |value: bool| if value { "yes" } else { "NO" };
    println!(
        "\nThe verdict\n\
         \x20 published          {}\n\
         \x20 applied            {}\n\
         \x20 lost               {}\n\
         \x20 duplicated         {}\n\
         \x20 reordered          {}\n\
         \x20 hash chains equal  {}\n\
         \x20 same memory        {}   (the cookie that was made at start)\n\
         \x20 moved              {from} -> {to}\n\
         \x20 kubectl drain      exit {} after {} ms in all; the pod had moved after {} ms\n\
         \x20 consumption stood  {} ms\n\
         \x20 longest read gap   {} ms; {} reads, {} unanswered, {} older than an earlier one\n\n\
         It is in {RESULT}. Cluster and application go on. Try next:\n\
         \x20 tests/cluster/cluster kubectl -n {NAMESPACE} get statefulmigrations\n\
         \x20 tests/cluster/cluster kubectl -n {NAMESPACE} get events\n\
         \x20 tests/cluster/cluster kubectl drain {to} --ignore-daemonsets   (and back it goes; then uncordon {to})\n\
         \x20 make bench-drain       the same at 10, 60 and 120 messages a second, ten times each\n\
         \x20 make demo-down         removes everything",
        verdict.published,
        verdict.applied,
        verdict.lost,
        verdict.duplicated,
        verdict.reordered,
        yes(verdict.chain_equal),
        yes(verdict.cookie_kept),
        figures.drain_exit,
        figures.total_ms,
        figures.moved_ms,
        figures.pause_ms,
        figures.read_gap_ms,
        figures.reads,
        figures.reads_unanswered,
        figures.reads_older,
    );
}
