//! One run: the world is set up, drained, struck at one call, and looked at when it has come to rest.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use shadow::api::{Phase, Reason};
use tokio::time::{Instant, sleep, timeout};

use super::World;
use super::app::{Life, PRIMARY};
use super::cluster;
use super::mistake::Mistake;
use super::objects::{Key, uid};
use super::processes::Processes;
use super::scenario::{Scenario, Trouble};
use super::wire::{Blow, Strike};

/// From the drain to the end of the migration, whatever happens.
const LONGEST: Duration = Duration::from_secs(600);
/// The same where a broker is waited for that nobody brings back: as long as an order to park could come back.
const LONGEST_WITHOUT_BROKER: Duration = Duration::from_secs(900);
/// From there until nothing is left.
const REST: Duration = Duration::from_secs(100);
const LOOK: Duration = Duration::from_millis(500);
const REST_LOOK: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub calls: usize,
    /// Of them, how many before the commit, if there was one.
    pub before_commit: Option<usize>,
    pub was_struck: bool,
    pub violations: Vec<String>,
    /// A deposed operator made something after the end, which goes with the migration's object; its queues stay, empty.
    pub by_the_deposed: bool,
    pub end: String,
    pub took: Duration,
    pub trace: Vec<String>,
}

/// Plays one run on a clock of its own.
pub fn play(scenario: Scenario, blow: Option<Blow>) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(run(scenario, blow))
}

async fn run(scenario: Scenario, blow: Option<Blow>) -> Outcome {
    let world = World::new(scenario, blow);
    let mut processes = Processes::default();
    processes.start(&world);
    for node in cluster::NODES {
        tokio::spawn(super::kubelet::kubelet(world.clone(), node.to_owned()));
    }
    tokio::spawn(cluster::scheduler(world.clone()));
    tokio::spawn(cluster::stateful_set_controller(world.clone()));
    while !(processes.cache.is_synced() && is_serving(&world)) {
        sleep(LOOK).await;
    }
    world.source().memory.lock().has_past = true;
    world.sidecars.lock()[0].has_past.store(true, Ordering::SeqCst);

    world.wire.arm();
    let begun = Instant::now();
    let source = world.source().pod_uid.clone();
    tokio::spawn(cluster::producer(world.clone()));
    if !scenario.bridged {
        tokio::spawn(cluster::writer(world.clone()));
    }
    tokio::spawn(cluster::drainer(world.clone(), source));
    match scenario.trouble {
        Trouble::Abort(step) => drop(tokio::spawn(cluster::user_who_aborts(world.clone(), step))),
        Trouble::TargetLost(step, _) => drop(tokio::spawn(cluster::power_cut(world.clone(), step))),
        Trouble::MendedAndRetried => {
            drop(tokio::spawn(cluster::user_who_decides(world.clone(), "retry", json!(1))));
        }
        Trouble::ScaledDownMeanwhile => drop(tokio::spawn(cluster::user_who_scales(world.clone()))),
        Trouble::GivenUp => {
            drop(tokio::spawn(cluster::user_who_decides(world.clone(), "giveUp", json!(true))));
        }
        Trouble::NamespaceDeleted => {
            drop(tokio::spawn(cluster::user_who_deletes_the_namespace(world.clone())));
        }
        _ => {}
    }
    let longest = if scenario.all_is_deleted() { LONGEST_WITHOUT_BROKER } else { LONGEST };
    let mut strike = std::pin::pin!(world.wire.struck());
    let mut open = true;
    let ended = timeout(longest, async {
        while !world.has_ended() {
            tokio::select! {
                strike = &mut strike, if open => {
                    open = false;
                    suffer(&world, &mut processes, strike).await;
                }
                () = sleep(LOOK) => {}
            }
        }
    });
    let ended = ended.await.is_ok();
    let took = begun.elapsed();
    // What is struck at the very end still has to be mended.
    for _ in 0..3 {
        cluster::publish(&world);
    }
    let rests_at = Instant::now() + REST;
    let mut missing;
    loop {
        tokio::select! {
            strike = &mut strike, if open => {
                open = false;
                suffer(&world, &mut processes, strike).await;
            }
            () = sleep(REST_LOOK) => {}
        }
        missing = world.invariants.missing(&world);
        if missing.is_empty() || Instant::now() >= rests_at {
            break;
        }
    }
    let end = end(&world);
    let left = world.invariants.left(&world);
    let by_the_deposed = world.wire.has_rival() && !left.is_empty();
    if by_the_deposed {
        sweep(&world).await;
        let still = world.invariants.left(&world).into_iter().filter(|what| !what.starts_with("queues"));
        missing.retain(|what| !left.contains(what));
        missing.extend(still);
    }
    let mut violations = world.invariants.broken();
    if !ended {
        violations.push(format!("it did not end within {longest:?}"));
    }
    violations.extend(missing);
    processes.end(&world).await;
    let wire = &world.wire;
    Outcome {
        by_the_deposed,
        calls: wire.calls(),
        before_commit: wire.before_commit(),
        was_struck: wire.was_struck(),
        violations,
        end,
        took,
        trace: wire.trace(),
    }
}

/// The migration's object goes, as it does minutes after its end.
async fn sweep(world: &World) {
    let (migrations, _) = world.objects.list("statefulmigrations", None);
    for migration in &migrations {
        let name = migration["metadata"]["name"].as_str().unwrap_or_default();
        let _ = world.objects.delete(&Key::new("statefulmigrations", cluster::NAMESPACE, name), None, false);
    }
    sleep(REST_LOOK).await;
}

fn is_serving(world: &World) -> bool {
    !world.broker.consumers(PRIMARY).is_empty()
        && world.objects.get(&cluster::pod_key()).is_some_and(|pod| cluster::is_ready(&pod))
}

async fn suffer(world: &World, processes: &mut Processes, strike: Strike) {
    match strike {
        Strike::Crash(_, down) => {
            processes.end(world).await;
            lose(world);
            sleep(down).await;
            processes.start(world);
        }
        Strike::Rival | Strike::RivalAndLate(_) => processes.start_operator(world),
        Strike::Cut(_) => {}
    }
}

/// What a crash costs where a mistake is built in.
fn lose(world: &World) {
    match world.scenario.mistake {
        Some(Mistake::StoreLosesJournal) => {
            let (migrations, _) = world.objects.list("statefulmigrations", None);
            for migration in &migrations {
                let name = migration["metadata"]["name"].as_str().unwrap_or_default();
                let key = Key::new("statefulmigrations", cluster::NAMESPACE, name);
                world.objects.change(&key, None, |migration| migration["status"] = json!(null)).unwrap();
            }
        }
        Some(Mistake::AgentsLoseTheirFolder) => {
            for node in cluster::NODES {
                let _ = std::fs::remove_dir_all(world.node(node).dir().join("shadow"));
            }
        }
        _ => {}
    }
}

/// For the summary: how the migration ended, and who carries on.
fn end(world: &World) -> String {
    if world.scenario.all_is_deleted() && world.has_ended() {
        return "gone".into();
    }
    let Some(status) = cluster::migration(world).and_then(|m| m.status) else { return "never began".into() };
    let pod = world.objects.get(&cluster::pod_key());
    let same = pod.is_some_and(|pod| uid(&pod) == world.source().pod_uid);
    let lives = world.source().life() == Life::Running;
    let given_up = status.reason.as_deref() == Some(Reason::StateLost.as_str());
    match (status.phase, same && lives) {
        (Phase::Failed, false) if given_up => "started fresh".into(),
        (Phase::Completed, _) if status.target_node == status.source_node => "came home".into(),
        (Phase::Completed, _) if status.epoch.0 == 1 => "moved".into(),
        (Phase::Completed, _) => "moved in a later attempt".into(),
        (_, true) => format!("stayed ({})", status.reason.unwrap_or_default()),
        _ => "evicted".into(),
    }
}
