//! A consumer under load that is drained from node to node, measured from outside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::Ledger;
use super::migrations::status_of;
use super::pods::state_at;
use super::{
    App, Drain, DrainOptions, Drained, Lab, Load, Probe, Producer, Result, Sighting, Snapshot, StateView,
    Verdict, Watch, eventually, fail,
};

/// Load runs for this long before and after a drain, so that the figures have both sides.
const SIDE: Duration = Duration::from_millis(500);
const MIGRATION: Duration = Duration::from_secs(60);
const EMPTY: Duration = Duration::from_secs(120);

/// How long a step took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepTime {
    pub step: String,
    pub ms: u64,
}

/// One drain in figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub rate: u32,
    pub drain_exit: i32,
    /// From the start of `kubectl drain` until it has exited and the replacement has applied a message.
    pub total_ms: u64,
    /// From the start of `kubectl drain` until the replacement has applied a message.
    pub moved_ms: u64,
    /// Longest time without a new message in the state, as readers of the Service saw it.
    pub pause_ms: u64,
    /// What the product says its pause was.
    pub pause_ms_status: Option<u64>,
    pub read_gap_ms: u64,
    pub reads: usize,
    pub reads_unanswered: usize,
    /// Reads that showed an older state than an earlier one.
    pub reads_older: usize,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub steps: Vec<StepTime>,
}

/// Where something is told while it happens.
pub type Narrator = Arc<dyn Fn(Instant, &str) + Send + Sync>;

/// One consumer, its producer and its readers.
pub struct Scene<'a> {
    pub lab: &'a Lab,
    pub app: App,
    pub producer: Producer,
    pub service: String,
    pub cookie: String,
    watch: Watch,
    narrator: Option<Narrator>,
}

impl<'a> Scene<'a> {
    /// The producer is there but paused; the pod is ready and consumes.
    pub async fn open(lab: &'a Lab, app: App, load: &Load, narrator: Option<Narrator>) -> Result<Self> {
        let producer = Producer::start(&lab.broker.url(), &app.queue, load.queue_type).await?;
        let pods = lab.deploy(&app).await?;
        let pod = pods.first().ok_or("no pod")?;
        let cookie = consuming(pod).await?.cookie;
        let service = lab.service(&app).await?;
        eventually("the Service answers", Duration::from_secs(30), async || {
            Ok(Some(state_at(&service).await?))
        })
        .await?;
        let watch = Watch::start(lab.client.clone(), &lab.namespace, narrator.clone().map(told));
        Ok(Self { lab, app, producer, service, cookie, watch, narrator })
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Drains the node of the pod under load, quiesces, and holds ledger against state. The node is uncordoned.
    pub async fn drain(&self, load: &Load, options: &DrainOptions) -> Result<Figures> {
        let before = self.lab.only_pod(&self.app).await?;
        self.producer.burst(load.backlog, load.rate).await?;
        let probe = Probe::start(&self.service);
        tokio::time::sleep(SIDE).await;
        let mut options = options.clone();
        options.on_line = options.on_line.or_else(|| self.narrator.clone());
        let drained = Drain::start(&self.lab.cluster, &before.node, &options)?.finish().await?;
        let ended = self.watch.ended(&before.uid, MIGRATION).await?;
        let after = self.lab.only_pod(&self.app).await?;
        self.applies_again(&after).await?;
        tokio::time::sleep(SIDE).await;
        let reads = probe.finish().await?;
        self.lab.uncordon(&before.node).await?;
        let (ledger, state) = self.quiesce().await?;
        if let Ok(file) = std::env::var("LAB_TRACE") {
            let steps = self.watch.sightings();
            let steps = steps.iter().filter(|one| one.at > drained.started);
            let steps = steps.map(|one| format!("{} {}\n", millis(one.at - drained.started), one.step));
            std::fs::write(file, steps.collect::<String>() + &reads.trace(drained.started))?;
        }

        let standstill = reads.longest_standstill(drained.started).ok_or("nothing was applied")?;
        let done = drained.exited.max(standstill.ended);
        let status = status_of(&ended);
        Ok(Figures {
            rate: load.rate,
            drain_exit: drained.code,
            total_ms: millis(done - drained.started),
            moved_ms: millis(standstill.ended - drained.started),
            pause_ms: millis(standstill.ended - standstill.began),
            pause_ms_status: status.pause_ms,
            read_gap_ms: millis(reads.longest_gap(drained.started)),
            reads: reads.answered(),
            reads_unanswered: reads.unanswered(),
            reads_older: reads.older_than_seen(),
            verdict: Verdict::of(&ledger, &state, &self.cookie),
            steps: self.steps(&drained, &before),
        })
    }

    /// Stops the producer and waits until the queue is empty and everything is applied, or nothing moves any more.
    pub async fn quiesce(&self) -> Result<(Ledger, StateView)> {
        quiesce(&self.producer, &self.service).await
    }

    async fn applies_again(&self, pod: &Snapshot) -> Result {
        let first = pod.state().await?.count;
        eventually(&format!("pod {} applies messages again", pod.name), MIGRATION, async || {
            Ok((pod.state().await?.count > first).then_some(()))
        })
        .await
    }

    /// As seen here: from one sighting to the next, kubectl's start and end included.
    fn steps(&self, drained: &Drained, source: &Snapshot) -> Vec<StepTime> {
        let mut steps = Vec::new();
        let mut last = ("Evict".to_owned(), drained.started);
        let sightings = self.watch.sightings();
        for sighting in sightings.iter().filter(|s| s.pod == source.name && s.at > drained.started) {
            steps.push(StepTime { step: last.0, ms: millis(sighting.at - last.1) });
            last = (sighting.step.clone(), sighting.at);
        }
        if drained.exited > last.1 {
            steps.push(StepTime { step: last.0, ms: millis(drained.exited - last.1) });
        }
        steps
    }
}

/// The final ledger and state of a producer and the consumer behind `address`.
pub async fn quiesce(producer: &Producer, address: &str) -> Result<(Ledger, StateView)> {
    let ledger = producer.pause().await?;
    let mut seen = (0, Instant::now());
    let state = eventually("the queue is worked off", EMPTY, async || {
        let state = state_at(address).await?;
        if state.count != seen.0 {
            seen = (state.count, Instant::now());
        }
        // Equal, and no more comes after that; or it has stood still for so long that the rest is lost.
        let still = if state.count >= ledger.published { SIDE } else { Duration::from_secs(20) };
        Ok((seen.1.elapsed() > still).then_some(state))
    })
    .await?;
    Ok((ledger, state))
}

/// The state of a pod that is connected to its broker.
pub async fn consuming(pod: &Snapshot) -> Result<StateView> {
    eventually(&format!("pod {} consumes", pod.name), Duration::from_secs(30), async || {
        let state = pod.state().await?;
        Ok((state.connected && !state.parked).then_some(state))
    })
    .await
}

fn told(narrator: Narrator) -> Arc<dyn Fn(&Sighting) + Send + Sync> {
    Arc::new(move |sighting| {
        let target = sighting.target.as_deref().map(|node| format!(" -> {node}")).unwrap_or_default();
        narrator(sighting.at, &format!("{} {}{target}", sighting.pod, sighting.step));
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Figures {
    /// Err with everything if one message was lost, doubled or out of order, or the drain failed.
    pub fn must_be_exact(&self) -> Result {
        let exact = self.verdict.is_exact() && self.drain_exit == 0 && self.reads_older == 0;
        if exact { Ok(()) } else { fail(format!("not exact: {self:#?}")) }
    }
}
