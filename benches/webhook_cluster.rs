//! `make bench-webhook`, second half: evictions through the real API server to the deployed webhook, with 5,000 real
//! pods in its cache; each eviction writes one migration. Prints a table and the memory of each role, writes
//! `target/bench/webhook-cluster.json`. The goal is p99 <= 30 ms, as the client sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)] // a test or an instrument that cannot go on says so

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{EvictParams, ListParams, Patch, PatchParams, PostParams};
use lab::{Lab, Result, fail, on_cluster};
use serde_json::{Value, json};
use shadow::api::StatefulMigration;

const RESULT: &str = "target/bench/webhook-cluster.json";
const PODS: usize = 5_000;
/// Of those, annotated; each is evicted once.
const EVICTED: usize = 200;
/// From one eviction to the next: the operator, on the same two cores, has then dealt with the last one.
const PACE: Duration = Duration::from_millis(250);
/// Requests under way at once while the pods are made.
const WIDTH: usize = 16;
const GOAL: Duration = Duration::from_millis(30);
const ROLES: [&str; 3] = ["webhook", "operator", "agent"];

fn main() -> ExitCode {
    match on_cluster("bench-webhook", bench) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("slower than the goal");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench-webhook: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(lab: &Lab) -> Result<bool> {
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let before = memory(lab).await?;
    let begun = Instant::now();
    stream::iter(0..PODS).map(Ok).try_for_each_concurrent(WIDTH, |i| create(&pods, i)).await?;
    println!("{PODS} pods made in {} s, each create answered by the webhook", begun.elapsed().as_secs());
    let filled = memory(lab).await?;

    let dry = EvictParams {
        post_options: PostParams { dry_run: true, ..PostParams::default() },
        ..EvictParams::default()
    };
    let series = [
        Series::of("dry run, nothing written", evict(&pods, &dry).await?),
        Series::of("starts a migration, one write", evict(&pods, &EvictParams::default()).await?),
    ];
    let started = Api::<StatefulMigration>::namespaced(lab.client.clone(), &lab.namespace)
        .list(&ListParams::default())
        .await?;
    if started.items.len() != EVICTED {
        return fail(format!("{EVICTED} evictions started {} migrations", started.items.len()));
    }
    report(&series, &[before, filled, memory(lab).await?])
}

fn name(i: usize) -> String {
    format!("pod-{i}")
}

/// A pod that no scheduler takes; the annotated ones are called running, as the webhook moves no others.
async fn create(pods: &Api<Pod>, i: usize) -> Result {
    let policy =
        if i < EVICTED { json!({ "migration.ms2m.io/policy": "MigrateOrBlock" }) } else { json!({}) };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name(i), "annotations": policy, "labels": { "app": "bench" } },
        "spec": { "schedulerName": "none", "automountServiceAccountToken": false,
                  "containers": [{ "name": "app", "image": "registry.example.com/app:1" }] }
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    if i < EVICTED {
        let running = Patch::Merge(json!({ "status": { "phase": "Running" } }));
        pods.patch_status(&name(i), &PatchParams::default(), &running).await?;
    }
    Ok(())
}

/// One after the other at a steady pace; the pods must still be there in the end.
async fn evict(pods: &Api<Pod>, how: &EvictParams) -> Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(EVICTED);
    let mut ticks = tokio::time::interval(PACE);
    for i in 0..EVICTED {
        ticks.tick().await;
        let begun = Instant::now();
        pods.evict(&name(i), how).await?;
        took.push(begun.elapsed());
    }
    for i in 0..EVICTED {
        if pods.get(&name(i)).await?.metadata.deletion_timestamp.is_some() {
            return fail(format!("{} was really evicted", name(i)));
        }
    }
    Ok(took)
}

/// Resident KiB of the largest process of each role.
async fn memory(lab: &Lab) -> Result<[u64; 3]> {
    let mut largest = [0; 3];
    for node in &lab.cluster.nodes {
        for (role, most) in ROLES.iter().zip(&mut largest) {
            let script = format!(
                "for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' < $p/cmdline 2>/dev/null)\" = '/shadow {role} ' ] && \
                 sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' $p/status; done; true"
            );
            let answer = lab.cluster.exec(node, &["sh", "-c", &script]).await?;
            *most = answer.stdout.lines().filter_map(|line| line.trim().parse().ok()).fold(*most, u64::max);
        }
    }
    if largest.contains(&0) {
        return fail(format!("a role has no process: {largest:?} of {ROLES:?}"));
    }
    Ok(largest)
}

/// One line of the table.
struct Series {
    name: &'static str,
    p50: Duration,
    p99: Duration,
    worst: Duration,
}

impl Series {
    fn of(name: &'static str, mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        Self { name, p50: at(50), p99: at(99), worst: at(100) }
    }
}

/// Prints and keeps; true if the goal is kept.
fn report(series: &[Series], memory: &[[u64; 3]; 3]) -> Result<bool> {
    println!("{EVICTED} evictions a line, one every {} ms, {PODS} pods in the caches", PACE.as_millis());
    println!("{:<34} {:>9} {:>9} {:>9}", "", "p50 ms", "p99 ms", "max ms");
    for Series { name, p50, p99, worst } in series {
        println!("{name:<34} {:>9.1} {:>9.1} {:>9.1}", millis(*p50), millis(*p99), millis(*worst));
    }
    for (at, role) in ROLES.iter().enumerate() {
        let [before, filled, after] = memory.each_ref().map(|of| of[at]);
        println!(
            "resident, {role:<8}: {before} KiB before, {filled} KiB with {PODS} pods, {after} KiB after"
        );
    }
    let lines: Vec<Value> = series
        .iter()
        .map(|s| json!({ "name": s.name, "p50_ms": millis(s.p50), "p99_ms": millis(s.p99), "max_ms": millis(s.worst) }))
        .collect();
    let all = json!({ "pods": PODS, "evictions": EVICTED, "series": lines, "roles": ROLES, "resident_kib": memory });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RESULT);
    std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    std::fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")?;
    Ok(series.iter().all(|s| s.p99 <= GOAL))
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}
