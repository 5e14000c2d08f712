//! One run: load, a drain with faults, everything healed, and then the ledger decides.

use std::time::{Duration, Instant};

use serde::Serialize;
use shadow::api::{Phase, StatefulMigration};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::lab::{
    Drain, DrainOptions, Probe, Result, Scene, Snapshot, Verdict, consuming, fail, give, held, status_of,
};
use crate::leftovers::Survey;
use crate::plan::{Plan, Side, Victim};
use crate::strike::strike;

/// Load runs for this long before the drain and after it.
const SIDE: Duration = Duration::from_millis(400);
/// What the consumer cannot take stops coming after this: the run must end some time.
const RUSH: Duration = Duration::from_secs(8);
const CALM: u32 = 20;
/// The migration's deadline, as the application asks for it.
pub const DEADLINE: Duration = Duration::from_secs(50);
/// Whoever drains repeats it until then.
const PATIENCE: Duration = Duration::from_secs(100);
const LOOK: Duration = Duration::from_millis(200);
const END: Duration = Duration::from_secs(90);

/// A line of target/soak/result.json.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub seed: u64,
    /// What was drained.
    pub shape: String,
    pub rate: u32,
    pub backlog: u64,
    pub faults: Vec<String>,
    /// How many of them found what they were to strike, at their moment.
    pub hits: usize,
    /// How the migration ended, and why.
    pub ended: String,
    pub moved: bool,
    /// How often `kubectl drain` was called.
    pub drains: u32,
    pub published: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Messages that came again and were not applied again, by a consumer that knows what it has applied: a broker that
    /// loses its power forgets the acknowledgements of some seconds.
    pub skipped: u64,
    pub chain_equal: bool,
    /// The memory of the consumer, and of its sidecars where there are some.
    pub cookie_kept: bool,
    pub reads: usize,
    pub reads_older: usize,
    pub leftovers: Vec<String>,
    pub seconds: u64,
    /// `exact`, or what is not.
    pub verdict: String,
}

impl Record {
    pub fn of(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            shape: plan.shape.to_string(),
            rate: plan.profile.rate,
            backlog: plan.profile.backlog,
            faults: plan.faults.iter().map(ToString::to_string).collect(),
            hits: 0,
            ended: String::new(),
            moved: false,
            drains: 0,
            published: 0,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            skipped: 0,
            chain_equal: false,
            cookie_kept: false,
            reads: 0,
            reads_older: 0,
            leftovers: Vec::new(),
            seconds: 0,
            verdict: "not decided".into(),
        }
    }

    pub fn is_exact(&self) -> bool {
        self.verdict == "exact"
    }
}

/// Does what the plan says and fills in the record; an error is a verdict, too.
pub async fn perform(scene: &Scene<'_>, plan: &Plan) -> Record {
    let began = Instant::now();
    let mut record = Record::of(plan);
    record.verdict = match drained(scene, plan, &mut record).await {
        Ok(()) => judge(&record),
        Err(error) => format!("not exact: {error}"),
    };
    record.seconds = began.elapsed().as_secs();
    record
}

fn judge(record: &Record) -> String {
    let mut wrong = Vec::new();
    for (count, what) in
        [(record.lost, "lost"), (record.duplicated, "duplicated"), (record.reordered, "reordered")]
    {
        if count > 0 {
            wrong.push(format!("{count} {what}"));
        }
    }
    if record.published == 0 || record.reads == 0 {
        wrong.push("nothing was published, or nothing was read".into());
    }
    if record.hits == 0 && !record.moved {
        wrong.push("nothing struck it, and it did not move".into());
    }
    if !record.chain_equal {
        wrong.push("the chains differ".into());
    }
    if !record.cookie_kept {
        wrong.push("another process's memory".into());
    }
    if record.reads_older > 0 {
        wrong.push(format!("{} reads older than an earlier one", record.reads_older));
    }
    if !record.leftovers.is_empty() {
        wrong.push(format!("{} leftovers", record.leftovers.len()));
    }
    if wrong.is_empty() { "exact".into() } else { format!("not exact: {}", wrong.join(", ")) }
}

async fn drained(scene: &Scene<'_>, plan: &Plan, record: &mut Record) -> Result {
    let lab = scene.lab;
    let before = lab.only_pod(&scene.app).await?;
    let survey = Survey::settled(lab, &scene.app).await?;
    let mut sidecars = Vec::new();
    if plan.shape.whole {
        give(&before, &format!("{};", plan.seed)).await?;
        sidecars = held(&before).await?;
    }
    scene.producer.burst(plan.profile.backlog, plan.profile.rate).await?;
    let probe = Probe::start(&scene.service);
    sleep(SIDE).await;

    let (over, is_over) = watch::channel(false);
    let drain = async {
        let ended = drain_and_wait(scene, &before, record).await;
        let _ = over.send(true);
        ended
    };
    let (struck, ended, ()) =
        tokio::join!(strike(scene, &before, plan, is_over.clone()), drain, calm_down(scene, plan, is_over));
    // The network and the machines; SHADOW's own parts mend themselves.
    lab.cluster.mend().await?;
    record.faults = struck.iter().map(|struck| struck.told.clone()).collect();
    record.hits = struck.iter().filter(|struck| struck.hit).count();
    if let Some(problem) = struck.into_iter().find_map(|struck| struck.problem) {
        return fail(format!("a fault could not be made or healed: {problem}"));
    }
    let ended = ended?;

    let status = status_of(&ended);
    record.ended = match status.reason {
        Some(reason) => format!("{}: {reason}", status.phase.as_str()),
        None => status.phase.as_str().to_owned(),
    };
    let now = lab.only_pod(&scene.app).await?;
    consuming(&now).await?;
    record.moved = now.uid != before.uid;
    let sidecars_kept = !plan.shape.whole || held(&now).await? == sidecars;
    sleep(SIDE).await;
    let reads = probe.finish().await?;
    (record.reads, record.reads_older) = (reads.answered(), reads.older_than_seen());
    let (ledger, state) = scene.quiesce().await?;
    let verdict = Verdict::of(&ledger, &state, &scene.cookie);
    record.published = verdict.published;
    record.lost = verdict.lost;
    record.duplicated = verdict.duplicated;
    record.reordered = verdict.reordered;
    record.chain_equal = verdict.chain_equal && verdict.published == verdict.applied;
    record.cookie_kept = verdict.cookie_kept && sidecars_kept;
    record.skipped = state.skipped;
    record.leftovers = survey.differences(lab, &scene.app).await;
    is_one_of_two(status.phase, plan, &before, &now)?;
    if status.phase != Phase::Completed {
        // It would refuse the next drain for a minute, as the policy says.
        lab.forget_migrations().await?;
    }
    // Only now: whoever starts puts in order what an earlier life left.
    lab.recycle_product().await?;
    record.leftovers.extend(survey.differences(lab, &scene.app).await);
    Ok(())
}

/// Moved, or as before: there is no third.
fn is_one_of_two(phase: Phase, plan: &Plan, before: &Snapshot, now: &Snapshot) -> Result {
    // A restore that is broken off is made again, which counts as a restart (an engine kills what it starts if the kubelet
    // that asked for it dies); the cookie says whose memory it has.
    let broken_off = plan.count(Victim::Restore) + plan.count(Victim::Kubelet(Side::Target));
    let begun_once = usize::try_from(now.restarts).is_ok_and(|restarts| restarts <= broken_off);
    let moved = now.uid != before.uid && now.node != before.node && begun_once;
    let stayed = now == before;
    let right = if phase == Phase::Completed { moved } else { stayed };
    if right {
        return Ok(());
    }
    fail(format!("the migration ended as {}, but the pod is {now:?}, was {before:?}", phase.as_str()))
}

/// A drainer with patience: what fails is tried again, until the pod is gone or the migration was given up.
async fn drain_and_wait(
    scene: &Scene<'_>,
    before: &Snapshot,
    record: &mut Record,
) -> Result<StatefulMigration> {
    let until = Instant::now() + PATIENCE;
    let options =
        DrainOptions { delete_empty_dir: true, ..DrainOptions::of(&scene.app.name).timeout(PATIENCE) };
    loop {
        record.drains += 1;
        let drain = Drain::start(&scene.lab.cluster, &before.node, &options)?;
        let drained = tokio::select! {
            drained = drain.finish() => drained?,
            given_up = given_up(scene, before) => return Ok(given_up),
        };
        if drained.code == 0 {
            break;
        }
        if Instant::now() > until {
            return fail(format!("drained {} times in vain, at last: {}", record.drains, drained.text()));
        }
        // Between two calls of kubectl, which itself says whether the pod is gone.
        sleep(Duration::from_secs(1)).await;
    }
    let ended = scene.watch().ended(&before.uid, END).await?;
    if status_of(&ended).phase != Phase::Completed {
        return fail("kubectl drain says that the pod is gone, but the migration failed");
    }
    Ok(ended)
}

/// Resolves when the migration has failed for good.
async fn given_up(scene: &Scene<'_>, before: &Snapshot) -> StatefulMigration {
    loop {
        if let Ok(ended) = scene.watch().ended(&before.uid, Duration::ZERO).await
            && status_of(&ended).phase != Phase::Completed
        {
            return ended;
        }
        sleep(LOOK).await;
    }
}

/// More than the consumer can take comes for a while only.
async fn calm_down(scene: &Scene<'_>, plan: &Plan, mut is_over: watch::Receiver<bool>) {
    let rush = async {
        sleep(RUSH).await;
        let calmed = if plan.profile.rate > CALM && !plan.broker_dies() {
            scene.producer.resume(CALM).await
        } else {
            Ok(())
        };
        if let Err(error) = calmed {
            eprintln!("the producer did not calm down: {error}");
        }
    };
    tokio::select! {
        () = rush => {}
        _ = is_over.wait_for(|over| *over) => {}
    }
}
