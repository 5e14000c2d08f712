//! Faults on the real cluster: done when their moment comes, healed when their time is over.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::lab::{Cluster, NodeAction, Result, Scene, Snapshot, leader};
use crate::plan::{Fault, Plan, Side, Timed, Victim, When};

/// How long a restore is waited for that is to be broken off.
const RESTORE_COMES: &str = "8";
const LOOK: Duration = Duration::from_millis(5);

/// A fault, and what came of it, for the record.
pub struct Struck {
    pub told: String,
    /// Its moment came, and there was something to strike.
    pub hit: bool,
    pub problem: Option<String>,
}

/// All faults of the plan, at their moments, until the drain `is_over`; everything is healed at the end.
pub async fn strike(
    scene: &Scene<'_>,
    source: &Snapshot,
    plan: &Plan,
    is_over: watch::Receiver<bool>,
) -> Vec<Struck> {
    let started = Instant::now();
    let sides = Sides::of(&scene.lab.cluster, source);
    join_all(
        plan.faults.iter().map(|timed| one(scene, source, &sides, plan, timed, started, is_over.clone())),
    )
    .await
}

struct Sides {
    source: String,
    target: String,
}

impl Sides {
    fn of(cluster: &Cluster, source: &Snapshot) -> Self {
        let target = cluster.nodes.iter().find(|node| **node != source.node);
        Self { source: source.node.clone(), target: target.cloned().unwrap_or_default() }
    }

    fn node(&self, side: Side) -> &str {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }
}

async fn one(
    scene: &Scene<'_>,
    source: &Snapshot,
    sides: &Sides,
    plan: &Plan,
    timed: &Timed,
    started: Instant,
    mut is_over: watch::Receiver<bool>,
) -> Struck {
    let comes = tokio::select! {
        biased;
        () = moment(scene, source, timed, started) => true,
        _ = is_over.wait_for(|over| *over) => false,
    };
    if !comes {
        return Struck { told: format!("{timed}: its moment did not come"), hit: false, problem: None };
    }
    let at = started.elapsed().as_millis();
    let (told, hit, problem) = match inflict(scene, sides, plan, timed).await {
        Ok(Hit::Yes) => (format!("{timed} (at {at} ms)"), true, None),
        Ok(Hit::Missed(why)) => (format!("{timed}: missed ({why})"), false, None),
        Err(error) => (format!("{timed}: {error}"), false, Some(error.to_string())),
    };
    Struck { told, hit, problem }
}

/// Resolves when it is time.
async fn moment(scene: &Scene<'_>, source: &Snapshot, timed: &Timed, started: Instant) {
    match timed.when {
        When::Time(after) => sleep((after + timed.lag).saturating_sub(started.elapsed())).await,
        When::Step(step) => {
            while !scene.watch().has_reached(&source.uid, step) {
                sleep(LOOK).await;
            }
            sleep(timed.lag).await;
        }
    }
}

enum Hit {
    Yes,
    /// What was to be killed was not there at that moment.
    Missed(String),
}

async fn inflict(scene: &Scene<'_>, sides: &Sides, plan: &Plan, timed: &Timed) -> Result<Hit> {
    let cluster = &scene.lab.cluster;
    match timed.fault {
        Fault::Kill(victim) => return kill(scene, sides, victim).await,
        Fault::BrokerDies => {
            // What is in the air at that moment could be in the queue or not: the ledger is final before.
            scene.producer.pause().await?;
            cluster.broker("kill").await?;
            sleep(timed.lasts).await;
            cluster.broker("start").await?;
            scene.producer.reconnect().await?;
            scene.producer.resume(plan.profile.rate).await?;
        }
        Fault::Slow { side, delay_ms, loss_percent } => {
            let (delay, loss) = (delay_ms.to_string(), loss_percent.to_string());
            cluster.spoil("slow", sides.node(side), &["--delay", &delay, "--loss", &loss]).await?;
            heal_after(cluster, sides.node(side), timed.lasts).await?;
        }
        Fault::Apart => {
            let node = sides.node(Side::Target);
            cluster.spoil("slow", node, &["--loss", "100", "--to", &sides.source]).await?;
            heal_after(cluster, node, timed.lasts).await?;
        }
        Fault::Cut(side) => {
            cluster.node(NodeAction::Cut, sides.node(side)).await?;
            heal_after(cluster, sides.node(side), timed.lasts).await?;
        }
        Fault::Full { side, leave_mib } => {
            cluster.spoil("fill", sides.node(side), &["--leave", &leave_mib.to_string()]).await?;
            heal_after(cluster, sides.node(side), timed.lasts).await?;
        }
    }
    Ok(Hit::Yes)
}

async fn heal_after(cluster: &Cluster, node: &str, lasts: Duration) -> Result {
    sleep(lasts).await;
    cluster.node(NodeAction::Heal, node).await
}

async fn kill(scene: &Scene<'_>, sides: &Sides, victim: Victim) -> Result<Hit> {
    let led_from;
    let (node, words): (&str, &[&str]) = match victim {
        Victim::Leader => {
            led_from = leader(&scene.lab.client).await?.1;
            (&led_from, &["shadow", "operator"])
        }
        Victim::Webhook(side) => (sides.node(side), &["shadow", "webhook"]),
        Victim::Agent(side) => (sides.node(side), &["shadow", "agent"]),
        Victim::Kubelet(side) => (sides.node(side), &["kubelet"]),
        Victim::Containerd(side) => (sides.node(side), &["containerd"]),
        Victim::Restore => (
            sides.node(Side::Target),
            &["shadow-runc", "create", "--having", "criu", "--wait", RESTORE_COMES],
        ),
    };
    let killed = scene.lab.cluster.kill_program(node, words).await?;
    Ok(killed.map_or_else(|| Hit::Missed("it was not there".into()), |()| Hit::Yes))
}
