//! What an eviction is answered: a function of what is known, nothing else. Pure; the clock is an argument.
//!
//! Guarantees: the answer is one of [`EvictionAnswer`]; a migration is started only for a running pod whose policy
//! asks for it and that no migration has moved or is moving; a real eviction never passes while a migration of the
//! pod runs, but by the operator itself or for a pod that someone already deletes.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::answers::{EvictionAnswer, Why};
use super::cache::{MigrationFacts, NodeFacts, OwnerFacts, PodFacts, PodPhase, Workload};
use crate::api::{
    ANNOTATION_POLICY, EvictionPolicy, Phase, PodUid, Policy, Reason, migration_name, pod_policy,
};

/// A retry by name that is older than this is none: kubectl repeats after 5 s, cluster-autoscaler after 10 s.
const STALE_RETRY: SignedDuration = SignedDuration::from_secs(60);
/// An owner that was not seen this long after its pod was made is gone.
const OWNER_LAG: SignedDuration = SignedDuration::from_secs(30);

/// The request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    pub namespace: String,
    pub name: String,
    /// Precondition: only this pod object is meant.
    pub uid: Option<PodUid>,
    /// The client knows that an eviction can go on in the background (the descheduler).
    pub background: bool,
    /// Nothing must happen.
    pub dry_run: bool,
    /// The client means a real eviction: the operator after the deadline, or one named in the settings.
    pub real: bool,
}

impl Asked {
    /// The client repeats on 429 by itself and knows the pod by its UID, or records the eviction as begun.
    fn takes_not_yet(&self) -> bool {
        self.uid.is_some() || self.background
    }
}

/// What is known of the pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Sight {
    /// The cache has none of that name.
    Unseen,
    /// The API server has none of that name.
    Gone,
    /// From the cache.
    Cached(Arc<PodFacts>),
    /// From the API server, just now.
    Live(Arc<PodFacts>),
}

/// All that the decision rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub pod: Sight,
    pub workload: Workload,
    /// The migration that moves this pod object away.
    pub leaving_by: Option<Arc<MigrationFacts>>,
    /// The migration that this pod object came by, or is the shadow of.
    pub came_by: Option<Arc<MigrationFacts>>,
    /// The youngest migration of a pod of this name.
    pub of_name: Option<Arc<MigrationFacts>>,
    pub node: Option<Arc<NodeFacts>>,
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The cache cannot be right, or is not enough: ask the API server for pod and node, then decide again.
    LookAgain,
    Answer(Verdict),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub answer: EvictionAnswer,
    pub why: Why,
    /// Start this migration first; if that fails the answer is 429.
    pub start: Option<Box<(PodUid, Policy)>>,
}

/// Decides. What lets a pod go that somebody wants migrated rests on what the API server says just now, not on a cache.
pub fn decide_eviction(asked: &Asked, facts: &Facts) -> Decision {
    match decide(asked, facts) {
        Decision::Answer(Verdict { answer: EvictionAnswer::PassThrough { .. }, why, .. })
            if matches!(facts.pod, Sight::Cached(_)) && !matches!(why, Why::NotAsked | Why::RealEviction) =>
        {
            Decision::LookAgain
        }
        decision => decision,
    }
}

fn decide(asked: &Asked, facts: &Facts) -> Decision {
    if asked.real {
        return pass(Why::RealEviction);
    }
    let (pod, live) = match &facts.pod {
        Sight::Unseen => return Decision::LookAgain,
        Sight::Gone => {
            return answer(
                Why::Gone,
                EvictionAnswer::NotFound { message: format!("pods \"{}\" not found", asked.name) },
            );
        }
        Sight::Cached(pod) => (pod.as_ref(), false),
        Sight::Live(pod) => (pod.as_ref(), true),
    };
    if asked.uid.as_ref().is_some_and(|uid| *uid != pod.uid) {
        // The cache may be the one that is wrong; the API server knows, and answers 409 if it is the client.
        return if live { pass(Why::OtherPod) } else { Decision::LookAgain };
    }
    if pod.is_finished() {
        return pass(Why::Finished);
    }
    if pod.deleting {
        return pass(Why::Deleting);
    }
    if let Some(verdict) = came_by_migration(asked, pod, live, facts) {
        return verdict;
    }
    if let Some(migration) = facts.leaving_by.as_deref() {
        return leaves_by_migration(asked, live, migration, facts);
    }
    match wish(pod, facts) {
        Wish::NotAsked => pass(Why::NotAsked),
        Wish::OwnerUnseen => wait(Why::NotSynced, asked, "its owner is not known yet"),
        Wish::Wrong(problem, EvictionPolicy::MigrateOrBlock) => wait(Why::WrongPolicy, asked, &problem),
        Wish::Wrong(problem, EvictionPolicy::MigrateOrEvict) => answer(
            Why::WrongPolicy,
            EvictionAnswer::PassThrough {
                warning: Some(format!("pod \"{}\" is evicted, not migrated: {problem}", asked.name)),
            },
        ),
        Wish::Migrate(_) if pod.phase == PodPhase::Pending => pass(Why::NotRunning),
        Wish::Migrate(_) if !is_kept(pod, facts) => pass(Why::NotKept),
        Wish::Migrate(policy) => {
            let verdict = under_way(Why::Started, asked, &migration_name(&pod.uid));
            let start = (!asked.dry_run).then(|| Box::new((pod.uid.clone(), *policy)));
            Decision::Answer(Verdict { start, ..verdict })
        }
    }
}

/// The pod is a shadow, or what a migration moves or has just moved to.
fn came_by_migration(asked: &Asked, pod: &PodFacts, live: bool, facts: &Facts) -> Option<Decision> {
    if pod.shadow_of.is_some() {
        // An orphan, or a pod that only calls itself a shadow, is like any other.
        let migration = facts.came_by.as_deref().filter(|m| m.is_running())?;
        let cause = format!("it is the shadow of migration {}/{}", migration.namespace, migration.name);
        return Some(wait(Why::IsShadow, asked, &cause));
    }
    // A pod of the same name as the one that left, and not that one, has come in its place.
    let in_its_place = |m: &&MigrationFacts| {
        let handed_over = m.is_running() || is_recent(m.succeeded_at, facts.now);
        m.committed && handed_over && m.source_uid.as_ref() != Some(&pod.uid)
    };
    let migration = facts.came_by.as_deref().or_else(|| facts.of_name.as_deref().filter(in_its_place))?;
    if migration.phase == Phase::Failed || !(migration.committed || migration.phase == Phase::Completed) {
        return None;
    }
    let staying = facts.node.as_deref().is_some_and(|node| !node.leaving);
    let young = is_recent(pod.created, facts.now) || is_recent(migration.succeeded_at, facts.now);
    // Whoever went home is still on the node that is drained: that eviction is not done, and this is no retry of it.
    let has_left = !migration.went_home && !migration.stranded;
    if asked.uid.is_none() && staying && has_left && (young || migration.is_moving()) {
        // A new drain cordons the node a moment before it evicts, and 404 tells it that nothing is left there: only
        // the API server knows whether the node stays.
        if !live {
            return Some(Decision::LookAgain);
        }
        let message = format!(
            "pods \"{}\" not found: pod already moved by migration {}/{}",
            asked.name, migration.namespace, migration.name
        );
        return Some(answer(Why::AlreadyMoved, EvictionAnswer::NotFound { message }));
    }
    if migration.stranded {
        let said = migration.message.as_deref().unwrap_or("it could be restored nowhere");
        let cause = format!("migration {}/{}: {said}", migration.namespace, migration.name);
        return Some(wait(Why::IsTarget, asked, &cause));
    }
    if migration.is_moving() {
        let cause = format!("migration {}/{} is moving it here", migration.namespace, migration.name);
        return Some(wait(Why::IsTarget, asked, &cause));
    }
    None // handed over, or moved to a node that is drained now: a pod like any other
}

/// There is a migration of this very pod object already.
fn leaves_by_migration(asked: &Asked, live: bool, migration: &MigrationFacts, facts: &Facts) -> Decision {
    let MigrationFacts { namespace, name, .. } = migration;
    let said = migration.message.as_deref().or(migration.reason.as_deref()).unwrap_or("no reason given");
    match migration.phase {
        Phase::Completed if !live => Decision::LookAgain,
        Phase::Completed if is_recent(migration.succeeded_at, facts.now) => {
            wait(Why::NotSynced, asked, &format!("migration {namespace}/{name} has just moved it"))
        }
        Phase::Failed if migration.ended_because(Reason::SourceGone) => pass(Why::Gone),
        Phase::Failed if migration.ended_because(Reason::Aborted) => {
            let patience_over = migration.created.is_none_or(|created| {
                SignedDuration::try_from(migration.deadline)
                    .is_ok_and(|deadline| facts.now.duration_since(created) > deadline)
            });
            if patience_over && migration.policy == EvictionPolicy::MigrateOrEvict {
                return pass(Why::FellBack);
            }
            let cause =
                format!("migration {namespace}/{name} was aborted; delete it to let another one start");
            wait(Why::TakenBack, asked, &cause)
        }
        Phase::Failed
            if migration.policy == EvictionPolicy::MigrateOrBlock
                && !migration.ended_because(Reason::EvictedInstead) =>
        {
            let cause = format!("policy MigrateOrBlock, and migration {namespace}/{name} failed: {said}");
            wait(Why::Blocked, asked, &cause)
        }
        Phase::Completed | Phase::Failed => pass(Why::FellBack),
        // Deleted by the time the client waits for it, or replaced already: only the API server knows which.
        _ if migration.committed && !live => Decision::LookAgain,
        _ if migration.committed => Decision::Answer(under_way(Why::Leaving, asked, name)),
        _ if migration.abort || migration.deleting => {
            wait(Why::TakenBack, asked, &format!("migration {namespace}/{name} is being taken back"))
        }
        _ => Decision::Answer(under_way(Why::UnderWay, asked, name)),
    }
}

enum Wish {
    NotAsked,
    OwnerUnseen,
    Wrong(String, EvictionPolicy),
    Migrate(Box<Policy>),
}

/// What the user wrote for this pod.
fn wish(pod: &PodFacts, facts: &Facts) -> Wish {
    let nothing = std::collections::BTreeMap::new();
    let above = match &facts.workload {
        Workload::Seen(owner) => &owner.annotations,
        Workload::None => &nothing,
        Workload::Unseen if pod.annotations.contains_key(ANNOTATION_POLICY) => &nothing,
        Workload::Unseen => {
            let young = pod.created.is_some_and(|at| facts.now.duration_since(at) < OWNER_LAG);
            if young {
                return Wish::OwnerUnseen;
            }
            &nothing
        }
    };
    match pod_policy(&pod.annotations, above) {
        Ok(None) => Wish::NotAsked,
        Ok(Some(policy)) => Wish::Migrate(Box::new(policy)),
        Err(error) => {
            let readable = pod.annotations.get(ANNOTATION_POLICY).or_else(|| above.get(ANNOTATION_POLICY));
            let policy = match readable.map(|text| text.trim()) {
                Some("MigrateOrBlock") => EvictionPolicy::MigrateOrBlock,
                _ => EvictionPolicy::MigrateOrEvict,
            };
            Wish::Wrong(error.to_string(), policy)
        }
    }
}

/// False where the StatefulSet would not make this pod again as it is: it is going, shrinks below it, or rolls out
/// another revision. The state would have nowhere to go.
fn is_kept(pod: &PodFacts, facts: &Facts) -> bool {
    let Workload::Seen(owner) = &facts.workload else { return true };
    let OwnerFacts { deleting, rollout, .. } = owner.as_ref();
    let Some(rollout) = rollout else { return !deleting };
    let Some(ordinal) = pod.name.rsplit_once('-').and_then(|(_, n)| n.parse().ok()) else { return !deleting };
    let changes = pod.revision.as_deref().is_some_and(|revision| rollout.would_change(ordinal, revision));
    !deleting && rollout.wants(ordinal) && !changes
}

/// A migration is, or from now on will be, under way.
fn under_way(why: Why, asked: &Asked, migration: &str) -> Verdict {
    let Asked { namespace, name, .. } = asked;
    let answer = if asked.dry_run {
        let warning = format!("dry run: pod \"{namespace}/{name}\" would be migrated, not evicted");
        EvictionAnswer::DryRun { warning }
    } else if asked.takes_not_yet() {
        // The descheduler recognises the beginning of this text.
        let message = format!(
            "Eviction triggered evacuation of pod \"{namespace}/{name}\" to another node; migration \
             {namespace}/{migration}"
        );
        EvictionAnswer::TooManyRequests { message }
    } else {
        let warning = format!(
            "pod \"{name}\" is migrated with its state, not evicted: migration {namespace}/{migration}"
        );
        EvictionAnswer::DryRun { warning }
    };
    Verdict { answer, why, start: None }
}

fn is_recent(at: Option<Timestamp>, now: Timestamp) -> bool {
    at.is_some_and(|at| now.duration_since(at) < STALE_RETRY)
}

fn pass(why: Why) -> Decision {
    answer(why, EvictionAnswer::PassThrough { warning: None })
}

fn wait(why: Why, asked: &Asked, cause: &str) -> Decision {
    let message = format!("pod \"{}/{}\" cannot be evicted now: {cause}", asked.namespace, asked.name);
    answer(why, EvictionAnswer::TooManyRequests { message })
}

fn answer(why: Why, answer: EvictionAnswer) -> Decision {
    Decision::Answer(Verdict { answer, why, start: None })
}
