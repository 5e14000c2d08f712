//! The promise: whatever comes together (policy, dry run, uid, phase, deletion, migration, cached or live), the rules of
//! eviction hold.

use std::sync::Arc;

use super::world::{NAMESPACE, POD, POD_UID, World, migration, pod};
use jiff::Timestamp;
use serde_json::{Value, json};
use shadow::webhook::cache::{PodFacts, PodPhase};
use shadow::webhook::{Asked, Decision, EvictionAnswer, Facts, Sight, Why, decide_eviction};

/// What is known in the pure matrix.
fn facts(pod: PodFacts, leaving_by: Option<Value>, live: bool) -> Facts {
    let world = World::new(Some("MigrateOrEvict"));
    let cache = &world.webhook.cache;
    let pod = Arc::new(pod);
    Facts {
        workload: cache.workload(NAMESPACE, pod.owner.as_ref()),
        leaving_by: leaving_by.map(|status| Arc::new(migration(status))),
        came_by: None,
        of_name: None,
        node: cache.node("n1"),
        now: Timestamp::now(),
        pod: if live { Sight::Live(pod) } else { Sight::Cached(pod) },
    }
}

/// policy x dry run x uid x descheduler x phase x deleting x migration: 4 x 2 x 3 x 2 x 5 x 2 x 6.
#[test]
fn in_every_combination_the_rules_hold() {
    let migrations = [
        None,
        Some(json!({ "phase": "Pending" })),
        Some(json!({ "phase": "Finalizing", "committed": true })),
        Some(json!({ "phase": "Completed", "committed": true })),
        Some(json!({ "phase": "Failed", "reason": "DumpFailed" })),
        Some(json!({ "phase": "Failed", "reason": "Aborted" })),
    ];
    let phases =
        [PodPhase::Pending, PodPhase::Running, PodPhase::Succeeded, PodPhase::Failed, PodPhase::Unknown];
    let uids = [None, Some(POD_UID), Some("another")];
    let mut seen = 0;
    for policy in [None, Some("None"), Some("MigrateOrEvict"), Some("MigrateOrBlock")] {
        for (dry_run, background) in [(false, false), (true, false), (false, true), (true, true)] {
            for (uid, phase) in uids.iter().flat_map(|uid| phases.iter().map(move |phase| (uid, phase))) {
                for (deleting, migration) in
                    [false, true].iter().flat_map(|d| migrations.iter().map(move |m| (*d, m)))
                {
                    let mut subject = PodFacts { phase: *phase, deleting, owner: None, ..pod() };
                    if let Some(policy) = policy {
                        subject.annotations.insert("migration.ms2m.io/policy".into(), policy.into());
                    }
                    let asked = Asked {
                        namespace: NAMESPACE.into(),
                        name: POD.into(),
                        uid: uid.map(Into::into),
                        background,
                        dry_run,
                        real: false,
                    };
                    seen += 1;
                    check(
                        &asked,
                        &facts(subject.clone(), migration.clone(), false),
                        policy,
                        *phase,
                        deleting,
                    );
                    let live = facts(subject, migration.clone(), true);
                    assert_ne!(decide_eviction(&asked, &live), Decision::LookAgain, "asking once is enough");
                    check(&asked, &live, policy, *phase, deleting);
                }
            }
        }
    }
    assert_eq!(seen, 4 * 4 * 3 * 5 * 2 * 6);
}

fn check(asked: &Asked, facts: &Facts, policy: Option<&str>, phase: PodPhase, deleting: bool) {
    let Decision::Answer(verdict) = decide_eviction(asked, facts) else { return };
    let context = || format!("{asked:?} {facts:?} {verdict:?}");
    let wanted = matches!(policy, Some("MigrateOrEvict" | "MigrateOrBlock"));
    let mine = asked.uid.as_ref().is_none_or(|uid| uid.as_str() == POD_UID);
    let alive = matches!(phase, PodPhase::Running | PodPhase::Unknown) && !deleting;
    let may_start = wanted && mine && alive && facts.leaving_by.is_none() && !asked.dry_run;
    assert_eq!(verdict.start.is_some(), may_start, "{}", context());
    if !mine {
        assert_eq!(verdict.why, Why::OtherPod, "{}", context());
    }
    let running = facts.leaving_by.as_ref().is_some_and(|m| m.is_running());
    match &verdict.answer {
        EvictionAnswer::PassThrough { .. } => {
            let exposed =
                running && mine && !deleting && !matches!(phase, PodPhase::Succeeded | PodPhase::Failed);
            assert!(!exposed, "a migrating pod would be killed: {}", context());
        }
        EvictionAnswer::DryRun { .. } => {
            let patient = asked.uid.is_some() || asked.background;
            assert!(asked.dry_run || !patient, "{}", context());
            assert!(
                running || may_start || (asked.dry_run && wanted),
                "a client would wait for ever: {}",
                context()
            );
        }
        EvictionAnswer::TooManyRequests { message } => assert!(message.contains(POD), "{}", context()),
        EvictionAnswer::NotFound { .. } => panic!("{}", context()),
    }
}
