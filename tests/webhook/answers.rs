//! The promise: every drainer gets the answer that ends its drain well, and nothing but 201, 404 and 429.

use std::sync::atomic::Ordering;

use super::world::{
    MIGRATION_UID, NAMESPACE, POD, POD_UID, World, code, corpus, message, migration, migration_with, node,
    patched, pod,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shadow::api::TicketId;
use shadow::webhook::cache::PodFacts;

const EVICT: &str = "/evict";

async fn answer(world: &World, name: &str) -> (u64, Value) {
    let review = corpus(name);
    let response = world.send(EVICT, &review).await;
    (code(&response), patched(&review, &response)["deleteOptions"].clone())
}

fn moved_pod() -> PodFacts {
    let ticket: TicketId = format!("{MIGRATION_UID}.1.replacement").parse().unwrap();
    PodFacts {
        uid: "pod-uid-2".into(),
        node: Some("n2".into()),
        created: Some(Timestamp::now()),
        ticket: Some(ticket),
        ..pod()
    }
}

#[tokio::test]
async fn kubectl_and_the_autoscaler_get_a_dry_run_that_keeps_their_options_and_a_warning_with_the_migration()
{
    for (name, options) in [
        ("evict-kubectl", json!({ "dryRun": ["All"], "gracePeriodSeconds": 30 })),
        ("evict-kubectl-no-options", json!({ "dryRun": ["All"] })),
        ("evict-cluster-autoscaler", json!({ "dryRun": ["All"], "gracePeriodSeconds": 30 })),
        ("evict-object-without-namespace", json!({ "dryRun": ["All"] })),
        ("evict-object-without-metadata", json!({ "dryRun": ["All"] })),
    ] {
        let world = World::new(Some("MigrateOrEvict"));
        let review = corpus(name);
        let response = world.send(EVICT, &review).await;
        assert_eq!(code(&response), 201, "{name}");
        assert_eq!(patched(&review, &response)["deleteOptions"], options, "{name}");
        let warning = response["warnings"][0].as_str().unwrap();
        assert!(warning.contains("shop/evict-pod-uid-1"), "{warning}");
        assert_eq!(world.written().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn the_migration_names_pod_and_uid_policy_and_who_asked() {
    let world = World::new(Some("MigrateOrBlock"));
    let mut with_queue = pod();
    for (key, value) in [("queue", "orders"), ("deadline", "90s"), ("max-pause", "1500ms"), ("priority", "7")]
    {
        with_queue.annotations.insert(format!("migration.ms2m.io/{key}"), value.into());
    }
    world.webhook.cache.pods.insert(with_queue);
    world.review(EVICT, "evict-kubectl").await;
    let migration = &world.written()[0];
    assert_eq!(migration.metadata.name.as_deref(), Some("evict-pod-uid-1"));
    assert_eq!(migration.metadata.namespace.as_deref(), Some(NAMESPACE));
    let spec = serde_json::to_value(&migration.spec).unwrap();
    assert_eq!(
        spec,
        json!({
            "sourcePod": POD, "sourcePodUid": POD_UID, "messageQueue": { "queue": "orders" }, "stateFrom": "Queue",
            "migrationStrategy": "Auto", "sync": "Auto", "policy": "MigrateOrBlock", "maxPauseMs": 1500,
            "deadlineSeconds": 90, "priority": 7, "requestedBy": "kubectl", "abort": false
        })
    );
    let world = World::new(Some("MigrateOrEvict"));
    let mut review = corpus("evict-kubectl");
    review["request"]["object"]["metadata"]["managedFields"] = Value::Null;
    world.send(EVICT, &review).await;
    assert_eq!(world.written()[0].spec.requested_by.as_deref(), Some("kubernetes-admin"));
}

#[tokio::test]
async fn karpenter_and_the_descheduler_get_429_with_the_text_that_the_descheduler_looks_for() {
    for name in ["evict-karpenter", "evict-descheduler"] {
        let world = World::new(Some("MigrateOrEvict"));
        let response = world.review(EVICT, name).await;
        assert_eq!(code(&response), 429);
        let message = message(&response);
        assert!(message.starts_with("Eviction triggered evacuation of pod \"shop/web-0\""), "{message}");
        assert!(message.ends_with("migration shop/evict-pod-uid-1"), "{message}");
        assert!(response["status"].get("details").is_none(), "no Retry-After");
        assert_eq!(world.written().len(), 1);
    }
}

#[tokio::test]
async fn a_dry_run_in_request_or_body_is_answered_and_writes_nothing() {
    for name in ["evict-kubectl-dry-run", "evict-query-dry-run"] {
        let world = World::new(Some("MigrateOrEvict"));
        let response = world.review(EVICT, name).await;
        assert_eq!(code(&response), 201);
        assert!(response.get("patch").is_none());
        assert!(response["warnings"][0].as_str().unwrap().contains("would be migrated"));
        assert!(world.written().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn repetitions_and_a_second_replica_find_the_migration_there() {
    let world = World::new(Some("MigrateOrEvict"));
    for _ in 0..3 {
        assert_eq!(answer(&world, "evict-kubectl").await.0, 201);
    }
    assert_eq!(world.written().len(), 1, "AlreadyExists is success, while that migration runs");
    *world.server.migrations.lock() = vec![migration(json!({ "phase": "Failed" }))];
    assert_eq!(answer(&world, "evict-kubectl").await.0, 429, "what has just ended moves nothing any more");
    world.webhook.cache.migrations.insert(migration(json!({ "phase": "Checkpointing" })));
    let (code, options) = answer(&world, "evict-kubectl").await;
    assert_eq!((code, &options["dryRun"]), (201, &json!(["All"])));
    assert_eq!(answer(&world, "evict-karpenter").await.0, 429);
    assert_eq!(world.webhook.metrics.evictions_answered("dry_run", "under_way"), 1);
}

#[tokio::test]
async fn the_operator_and_clients_that_mean_it_evict_for_real() {
    let world = World::new(Some("MigrateOrBlock"));
    for name in ["evict-operator", "evict-vertical-pod-autoscaler"] {
        let response = world.review(EVICT, name).await;
        assert_eq!(code(&response), 201);
        assert!(response.get("patch").is_none() && response.get("warnings").is_none());
    }
    assert!(world.written().is_empty());
}

#[tokio::test]
async fn a_pod_that_the_cache_does_not_know_is_asked_for_once() {
    let world = World::new(Some("MigrateOrEvict"));
    world.webhook.cache.pods.replace([]);
    assert_eq!(answer(&world, "evict-kubectl").await.0, 404, "gone: the drain of this pod is over");
    world.server.pods.lock().insert(POD.into(), pod());
    assert_eq!(answer(&world, "evict-kubectl").await.0, 201);
    assert_eq!(world.reads(), 3);
    assert_eq!(world.written().len(), 1);
    world.server.fails.store(true, Ordering::SeqCst);
    assert_eq!(answer(&world, "evict-kubectl").await.0, 429, "unknown is not gone");
}

#[tokio::test]
async fn whatever_fails_the_client_is_told_to_ask_again() {
    let world = World::new(Some("MigrateOrEvict"));
    world.server.fails.store(true, Ordering::SeqCst);
    let response = world.review(EVICT, "evict-kubectl").await;
    assert_eq!(code(&response), 429);
    assert!(message(&response).contains("could not be started"));
    let world = World::unsynced();
    let response = world.review(EVICT, "evict-kubectl").await;
    assert_eq!(code(&response), 429);
    assert!(message(&response).contains("statefulmigrations"), "{}", message(&response));
    for name in ["evict-unreadable-object", "evict-without-namespace"] {
        assert_eq!(code(&world.review(EVICT, name).await), 429, "{name}");
    }
}

#[tokio::test]
async fn another_uid_is_left_to_the_api_server_once_it_confirms_ours() {
    let world = World::new(Some("MigrateOrEvict"));
    world.server.pods.lock().insert(POD.into(), pod());
    let (code, options) = answer(&world, "evict-karpenter-other-uid").await;
    assert_eq!(code, 201, "the API server answers 409");
    assert_eq!(options, json!({ "preconditions": { "uid": "pod-uid-0" } }), "not rewritten");
    assert_eq!(world.reads(), 2, "the pod and its node");
}

#[tokio::test]
async fn a_late_retry_by_name_does_not_move_the_pod_again() {
    let world = World::new(Some("MigrateOrEvict"));
    let cache = &world.webhook.cache;
    cache.pods.insert(moved_pod());
    world.server.pods.lock().insert(POD.into(), moved_pod());
    for status in [
        json!({ "phase": "Finalizing", "step": "Replacing", "committed": true }),
        json!({ "phase": "Completed", "step": "Completed", "committed": true }),
    ] {
        cache.migrations.insert(migration(status));
        let response = world.review(EVICT, "evict-kubectl").await;
        assert_eq!(code(&response), 404);
        assert!(message(&response).contains("already moved"));
        assert_eq!(response["status"]["reason"], "NotFound");
    }
    assert!(world.written().is_empty());
}

#[tokio::test]
async fn a_drain_of_the_node_that_it_moved_to_moves_it_again_however_young_it_is() {
    let world = World::new(Some("MigrateOrEvict"));
    let cache = &world.webhook.cache;
    cache.pods.insert(moved_pod());
    cache.migrations.insert(migration(json!({ "phase": "Completed", "committed": true })));
    cache.nodes.insert(node("n2", true));
    assert_eq!(answer(&world, "evict-kubectl").await.0, 201);
    assert_eq!(world.written()[0].spec.source_pod_uid, Some("pod-uid-2".into()));
}

/// kubectl cordons some milliseconds before it evicts; a 404 would tell it that the node is empty.
#[tokio::test]
async fn a_drain_whose_cordon_the_cache_has_not_seen_is_none_of_the_late_retries() {
    let world = World::new(Some("MigrateOrEvict"));
    world.webhook.cache.pods.insert(moved_pod());
    world.webhook.cache.migrations.insert(migration(json!({ "phase": "Completed", "committed": true })));
    world.server.pods.lock().insert(POD.into(), moved_pod());
    world.server.nodes.lock().insert("n2".into(), node("n2", true));
    assert_eq!(answer(&world, "evict-kubectl").await.0, 201);
    assert_eq!(world.written()[0].spec.source_pod_uid, Some("pod-uid-2".into()));
}

#[tokio::test]
async fn a_pod_that_moved_long_ago_is_like_any_other() {
    let world = World::new(Some("MigrateOrEvict"));
    let long_ago = Timestamp::now() - SignedDuration::from_secs(61);
    world.webhook.cache.pods.insert(PodFacts { created: Some(long_ago), ..moved_pod() });
    world.webhook.cache.migrations.insert(migration(json!({ "phase": "Completed", "committed": true })));
    assert_eq!(answer(&world, "evict-kubectl").await.0, 201);
    assert_eq!(world.written().len(), 1);
}

#[tokio::test]
async fn shadow_and_target_of_a_running_migration_stay() {
    let world = World::new(Some("MigrateOrEvict"));
    let cache = &world.webhook.cache;
    let running = json!({ "phase": "Finalizing", "step": "Replacing", "committed": true });
    cache.migrations.insert(migration(running));
    cache.pods.insert(moved_pod());
    cache.nodes.insert(node("n2", true));
    assert_eq!(answer(&world, "evict-kubectl").await.0, 429, "its node is drained, but it is not there yet");
    let shadow =
        PodFacts { uid: "pod-uid-3".into(), shadow_of: Some(MIGRATION_UID.into()), owner: None, ..pod() };
    cache.pods.insert(shadow);
    assert_eq!(answer(&world, "evict-kubectl").await.0, 429);
    cache.migrations.insert(migration(json!({ "phase": "Completed" })));
    assert_eq!(answer(&world, "evict-kubectl").await.0, 201, "an orphan may go");
    assert!(world.written().is_empty());
}

#[tokio::test]
async fn a_failed_migration_blocks_or_lets_go_as_the_policy_says() {
    let world = World::new(Some("MigrateOrEvict"));
    world.server.pods.lock().insert(POD.into(), pod());
    let ended = |policy: &str, reason: &str| {
        let spec = json!({ "sourcePod": POD, "sourcePodUid": POD_UID, "policy": policy });
        let status = json!({ "phase": "Failed", "reason": reason, "message": "no room on any node" });
        world.webhook.cache.migrations.insert(migration_with(spec, status));
    };
    ended("MigrateOrBlock", "Blocked");
    let response = world.review(EVICT, "evict-kubectl").await;
    assert_eq!(code(&response), 429);
    assert!(message(&response).contains("no room on any node"));
    ended("MigrateOrEvict", "EvictedInstead");
    let (code_, options) = answer(&world, "evict-kubectl").await;
    assert_eq!((code_, options), (201, json!({ "gracePeriodSeconds": 30 })), "a real eviction");
    ended("MigrateOrEvict", "Aborted");
    let response = world.review(EVICT, "evict-kubectl").await;
    assert_eq!(code(&response), 429, "someone wanted it to stay, until the deadline");
    assert!(message(&response).contains("delete it"));
    assert!(world.written().is_empty());
}

#[tokio::test]
async fn a_wrong_policy_blocks_if_it_says_block_and_evicts_with_a_warning_if_not() {
    for (policy, expected) in [("MigrateOrBlock", 429), ("MigrateOrEvict", 201), ("Nonsense", 201)] {
        let world = World::new(Some(policy));
        let mut wrong = pod();
        wrong.annotations.insert("migration.ms2m.io/deadline".into(), "soon".into());
        world.server.pods.lock().insert(POD.into(), wrong.clone());
        world.webhook.cache.pods.insert(wrong);
        let response = world.review(EVICT, "evict-kubectl").await;
        assert_eq!(code(&response), expected, "{policy}");
        let said = if expected == 201 { &response["warnings"][0] } else { &response["status"]["message"] };
        assert!(said.as_str().unwrap().contains("annotation migration.ms2m.io/"), "{said}");
        assert!(response.get("patch").is_none());
        assert!(world.written().is_empty());
    }
}

#[tokio::test]
async fn past_the_commit_the_api_server_is_asked_what_the_name_stands_for() {
    let world = World::new(Some("MigrateOrEvict"));
    let cache = &world.webhook.cache;
    cache
        .migrations
        .insert(migration(json!({ "phase": "Finalizing", "step": "Deleting", "committed": true })));
    assert_eq!(answer(&world, "evict-kubectl").await.0, 404, "deleted, not replaced yet");
    world.server.pods.lock().insert(POD.into(), pod());
    assert_eq!(answer(&world, "evict-kubectl").await.0, 201, "about to be deleted");
    world.server.pods.lock().insert(POD.into(), moved_pod());
    assert_eq!(answer(&world, "evict-kubectl").await.0, 404, "the cache had not seen the replacement");
    assert!(world.written().is_empty());
}
