//! The promise: exactly the pod that a committed migration waits for becomes its replacement, also when the cache is
//! behind, and nobody else wears its marks.

use std::sync::atomic::Ordering;

use super::world::{
    MIGRATION_UID, NAMESPACE, OWNER_UID, World, code, corpus, message, migration, node, patched, pod,
};
use serde_json::{Value, json};
use shadow::api::TicketId;
use shadow::webhook::cache::{MigrationFacts, NodeFacts, OwnerFacts, OwnerKind, OwnerRef, PodFacts};

const POD: &str = "/pod";

fn committed(step: &str) -> MigrationFacts {
    at(step, true)
}

fn at(step: &str, committed: bool) -> MigrationFacts {
    migration(json!({
        "phase": "Finalizing", "step": step, "committed": committed, "epoch": 3, "ownerUid": OWNER_UID,
        "targetNode": "n2"
    }))
}

fn ticket(role: &str) -> String {
    format!("{MIGRATION_UID}.3.{role}")
}

async fn created(world: &World, name: &str) -> Value {
    let review = corpus(name);
    let response = world.send(POD, &review).await;
    assert_eq!(code(&response), 201, "{name}: {response}");
    patched(&review, &response)
}

/// It starts afresh, and so that it can be moved later.
fn assert_prepared(pod: &Value) {
    assert_eq!(pod["metadata"]["annotations"]["migration.ms2m.io/prepared"], "true");
    assert!(pod["metadata"]["annotations"].get("migration.ms2m.io/ticket").is_none());
    assert_eq!(pod["spec"]["runtimeClassName"], "shadow");
    assert_eq!(pod["spec"]["nodeSelector"], json!({ "migration.ms2m.io/ready": "true" }));
}

fn assert_replacement(pod: &Value) {
    assert_eq!(pod["metadata"]["annotations"]["migration.ms2m.io/ticket"], ticket("replacement"));
    assert_eq!(pod["metadata"]["annotations"]["migration.ms2m.io/placed-on"], "n2");
    assert_eq!(pod["spec"]["runtimeClassName"], "shadow");
    assert_eq!(pod["spec"]["nodeSelector"]["kubernetes.io/hostname"], "host-n2");
    assert_eq!(pod["metadata"]["annotations"]["migration.ms2m.io/prepared"], "restored");
}

#[tokio::test]
async fn the_pod_that_is_waited_for_becomes_the_replacement_and_keeps_what_it_has() {
    for step in ["Freezing", "Deleting", "Replacing"] {
        let world = World::new(Some("MigrateOrEvict"));
        world.webhook.cache.migrations.insert(committed(step));
        assert_replacement(&created(&world, "create-statefulset-pod").await);
        let pod = created(&world, "create-statefulset-pod-selector").await;
        assert_replacement(&pod);
        assert_eq!(pod["metadata"]["annotations"]["team"], "a");
        assert_eq!(pod["spec"]["nodeSelector"]["disk"], "ssd");
        assert_eq!(world.reads(), 0, "from the cache alone");
    }
}

#[tokio::test]
async fn our_own_patch_seen_again_is_left_as_it_is() {
    let world = World::new(Some("MigrateOrEvict"));
    world.webhook.cache.migrations.insert(committed("Replacing"));
    let mut review = corpus("create-statefulset-pod");
    let first = world.send(POD, &review).await;
    review["request"]["object"] = patched(&review, &first);
    let second = world.send(POD, &review).await;
    assert_eq!(code(&second), 201);
    assert!(second.get("patch").is_none());
}

#[tokio::test]
async fn a_commit_that_the_cache_has_not_seen_is_asked_for() {
    let world = World::new(None);
    world.webhook.cache.migrations.insert(at("Bridging", false));
    world.server.migrations.lock().push(committed("Freezing"));
    assert_replacement(&created(&world, "create-statefulset-pod").await);
    assert_eq!(world.reads(), 1);
    world.server.migrations.lock()[0] = at("Bridging", false);
    let pod = created(&world, "create-statefulset-pod").await;
    assert!(pod["spec"].get("runtimeClassName").is_none(), "not committed: someone else deleted the source");
}

#[tokio::test]
async fn a_migration_that_the_cache_has_not_seen_at_all_is_asked_for_where_the_policy_wants_one() {
    let world = World::new(Some("MigrateOrEvict"));
    world.server.migrations.lock().push(committed("Replacing"));
    assert_replacement(&created(&world, "create-statefulset-pod").await);
    let world = World::new(None);
    created(&world, "create-statefulset-pod").await;
    assert_eq!(world.reads(), 0, "nobody asked for migration: nothing is asked");
}

#[tokio::test]
async fn where_the_api_server_does_not_answer_the_pod_is_refused_for_now_and_not_started_without_its_state() {
    let world = World::new(Some("MigrateOrEvict"));
    world.server.fails.store(true, Ordering::SeqCst);
    let response = world.review(POD, "create-statefulset-pod").await;
    assert_eq!(code(&response), 503);
    assert!(message(&response).contains("try again"));
    let world = World::unsynced();
    world.server.migrations.lock().push(committed("Replacing"));
    world.server.nodes.lock().insert("n2".into(), node("n2", false));
    assert_replacement(&created(&world, "create-statefulset-pod").await);
}

#[tokio::test]
async fn pods_that_no_migration_waits_for_stay_as_they_are() {
    let world = World::new(None);
    let cache = &world.webhook.cache;
    cache.migrations.insert(MigrationFacts { source_pod: "web-1".into(), ..committed("Replacing") });
    for name in ["create-statefulset-pod", "create-bare-pod", "create-job-pod"] {
        assert!(world.review(POD, name).await.get("patch").is_none(), "another ordinal: {name}");
    }
    for step in ["Switching", "Closing", "Resuming", "Cleaning"] {
        cache.migrations.insert(committed(step));
        assert!(world.review(POD, "create-statefulset-pod").await.get("patch").is_none(), "{step}");
    }
    cache.migrations.insert(MigrationFacts { namespace: "other".into(), ..committed("Replacing") });
    cache.migrations.insert(MigrationFacts { owner_uid: Some("another".into()), ..committed("Replacing") });
    assert!(world.review(POD, "create-statefulset-pod").await.get("patch").is_none());
}

#[tokio::test]
async fn of_a_replica_set_the_next_pod_claims_the_ticket_and_the_one_after_it_does_not() {
    let world = World::new(None);
    let cache = &world.webhook.cache;
    let set = OwnerFacts {
        namespace: NAMESPACE.into(),
        name: "web-7d4b".into(),
        uid: OWNER_UID.into(),
        ..OwnerFacts::default()
    };
    cache.replica_sets.replace([set]);
    cache.migrations.insert(MigrationFacts { source_pod: "web-7d4b-abcde".into(), ..committed("Replacing") });
    assert_replacement(&created(&world, "create-replicaset-pod").await);
    let claimer = PodFacts {
        ticket: Some(ticket("replacement").parse::<TicketId>().unwrap()),
        owner: Some(OwnerRef { kind: OwnerKind::ReplicaSet, name: "web-7d4b".into(), uid: OWNER_UID.into() }),
        ..PodFacts::new(NAMESPACE, "web-7d4b-fghij", "pod-uid-2".into())
    };
    cache.pods.insert(claimer.clone());
    assert!(world.review(POD, "create-replicaset-pod").await.get("patch").is_none());
    cache.pods.insert(PodFacts { deleting: true, ..claimer });
    assert_replacement(&created(&world, "create-replicaset-pod").await);
}

#[tokio::test]
async fn marks_of_a_replacement_are_refused_unless_they_are_ours() {
    let world = World::new(Some("MigrateOrEvict"));
    world.webhook.cache.migrations.insert(committed("Replacing"));
    for name in ["create-forged-ticket", "create-template-ticket", "create-shadow-by-user"] {
        let response = world.review(POD, name).await;
        assert_eq!(code(&response), 403, "{name}");
        assert!(message(&response).contains("reserved"), "{}", message(&response));
    }
    let response = world.review(POD, "create-shadow-by-operator").await;
    assert_eq!(code(&response), 201);
    assert!(response.get("patch").is_none());
}

#[tokio::test]
async fn a_target_without_a_hostname_label_is_no_reason_to_start_fresh() {
    let world = World::new(Some("MigrateOrEvict"));
    world.webhook.cache.migrations.insert(committed("Replacing"));
    let mut nameless = node("n2", false);
    nameless.hostname = None;
    world.webhook.cache.nodes.insert(nameless);
    assert_eq!(code(&world.review(POD, "create-statefulset-pod").await), 503);
}

#[tokio::test]
async fn a_claim_is_for_the_pod_not_for_what_moves_next() {
    let world = World::new(Some("MigrateOrEvict"));
    let cache = &world.webhook.cache;
    cache.pods.insert(pod());
    cache
        .migrations
        .insert(migration(json!({ "phase": "Completed", "committed": true, "ownerUid": OWNER_UID })));
    // A crash later starts fresh.
    assert_prepared(&created(&world, "create-statefulset-pod").await);
}

#[tokio::test]
async fn a_pod_of_an_annotated_owner_is_prepared_and_our_patch_seen_again_is_left_as_it_is() {
    let world = World::new(Some("MigrateOrEvict"));
    let mut review = corpus("create-statefulset-pod");
    let first = world.send(POD, &review).await;
    review["request"]["object"] = patched(&review, &first);
    assert_prepared(&review["request"]["object"]);
    let second = world.send(POD, &review).await;
    assert_eq!(code(&second), 201);
    assert!(second.get("patch").is_none());
    assert_eq!(world.reads(), 2, "whether a migration waits for it, each time, and nothing more");
}

#[tokio::test]
async fn a_pod_that_may_come_to_a_node_without_the_runtime_is_left_as_it_is_and_says_why() {
    let world = World::new(Some("MigrateOrEvict"));
    world.webhook.cache.nodes.insert(NodeFacts { labels: [].into(), ..node("n3", false) });
    let pod = created(&world, "create-statefulset-pod").await;
    let told = &pod["metadata"]["annotations"]["migration.ms2m.io/prepared"];
    assert_eq!(told, "false: node n3 has no runtime handler");
    assert!(pod["spec"].get("runtimeClassName").is_none());
    world.webhook.cache.nodes.insert(node("n3", false));
    assert_prepared(&created(&world, "create-statefulset-pod").await);
}

#[tokio::test]
async fn who_opts_out_or_is_not_annotated_or_no_controller_gets_no_patch() {
    let opted_out = World::new(Some("MigrateOrEvict"));
    let set = OwnerFacts {
        annotations: [("policy", "MigrateOrEvict"), ("prepare", "false")]
            .map(|(key, value)| (format!("migration.ms2m.io/{key}"), value.to_owned()))
            .into(),
        ..owner()
    };
    opted_out.webhook.cache.stateful_sets.replace([set]);
    assert!(opted_out.review(POD, "create-statefulset-pod").await.get("patch").is_none());
    opted_out.webhook.cache.migrations.insert(committed("Replacing"));
    let replacement = created(&opted_out, "create-statefulset-pod").await;
    assert_eq!(replacement["metadata"]["annotations"]["migration.ms2m.io/ticket"], ticket("replacement"));
    assert!(replacement["metadata"]["annotations"].get("migration.ms2m.io/prepared").is_none());

    let unannotated = World::new(None);
    assert!(unannotated.review(POD, "create-statefulset-pod").await.get("patch").is_none());

    let by_a_person = World::new(Some("MigrateOrEvict"));
    let mut review = corpus("create-statefulset-pod");
    review["request"]["userInfo"]["username"] = "eve".into();
    assert!(by_a_person.send(POD, &review).await.get("patch").is_none());
}

#[tokio::test]
async fn the_first_pod_of_a_set_that_the_cache_has_not_seen_is_prepared_too() {
    let world = World::new(None);
    world.webhook.cache.stateful_sets.replace([]);
    let set = OwnerFacts {
        annotations: [("migration.ms2m.io/policy".to_owned(), "MigrateOrBlock".to_owned())].into(),
        ..owner()
    };
    world.server.owners.lock().push(set);
    assert_prepared(&created(&world, "create-statefulset-pod").await);
    world.server.owners.lock().clear();
    let response = world.review(POD, "create-statefulset-pod").await;
    assert!(code(&response) == 201 && response.get("patch").is_none(), "not told: left as it is");
}

fn owner() -> OwnerFacts {
    OwnerFacts {
        namespace: NAMESPACE.into(),
        name: "web".into(),
        uid: OWNER_UID.into(),
        ..OwnerFacts::default()
    }
}
