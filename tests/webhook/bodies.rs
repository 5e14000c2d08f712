//! The promise: whatever is sent, something clear comes back: never a panic, never a 5xx status, and for an eviction
//! that can be answered never another code than 201, 404 and 429.

use std::sync::atomic::Ordering;

use super::world::{World, code, corpus, migration, pod};
use axum::body::Body;
use http::{Request, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use shadow::webhook::BODY_LIMIT;
use tower::ServiceExt as _;

const PATHS: [&str; 4] = ["/evict", "/pod", "/policy", "/migration"];
const CORPUS: [&str; 14] = [
    "evict-kubectl",
    "evict-query-dry-run",
    "evict-cluster-autoscaler",
    "evict-karpenter",
    "evict-descheduler",
    "evict-without-namespace",
    "evict-unreadable-object",
    "create-statefulset-pod",
    "create-replicaset-pod",
    "create-forged-ticket",
    "policy-wrong",
    "policy-reserved",
    "migration-manual",
    "migration-changed",
];

/// What came back is JSON: a review with the same uid, or an error that says something.
fn assert_clear(path: &str, status: StatusCode, body: &Value, uid: Option<&str>) {
    if status == StatusCode::OK {
        let response = &body["response"];
        assert!(response["allowed"].is_boolean(), "{path}: {body}");
        if let Some(uid) = uid {
            assert_eq!(response["uid"], uid);
        }
        if path == "/evict" {
            assert!([201, 404, 429].contains(&code(response)), "{body}");
        }
    } else {
        assert!(status.is_client_error(), "{path}: {status} {body}");
        assert!(!body["error"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_is_no_review_gets_a_4xx_that_says_what_was_expected() {
    let world = World::new(Some("MigrateOrEvict"));
    for path in PATHS {
        for body in [
            &b""[..],
            b"   ",
            b"{",
            b"null",
            b"[]",
            b"\xff\xfe",
            b"AdmissionReview",
            br#"{"kind":"Pod","apiVersion":"v1"}"#,
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"u"}}"#,
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#,
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}"#,
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":7}}"#,
        ] {
            let (status, body) = world.post(path, body.to_vec()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}");
            assert_clear(path, status, &body, None);
        }
        let (status, _) = world.post(path, vec![b' '; BODY_LIMIT + 1]).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        let (status, _) = world.post(path, b"[".repeat(BODY_LIMIT)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "deep nesting ends in an error, not in the stack");
    }
    let (status, _) = world.post("/else", Vec::new()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let get = Request::get("/evict").body(Body::empty()).unwrap();
    assert_eq!(world.router.clone().oneshot(get).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn every_review_of_the_corpus_is_answered_on_every_path() {
    let world = World::new(Some("MigrateOrEvict"));
    for path in PATHS {
        for name in CORPUS {
            let review = corpus(name);
            let (status, body) = world.post(path, serde_json::to_vec(&review).unwrap()).await;
            assert_clear(path, status, &body, review["request"]["uid"].as_str());
        }
    }
}

#[tokio::test]
async fn what_users_write_is_answered_by_who_they_are_and_what_it_says() {
    let world = World::new(None);
    for (path, name, expected) in [
        ("/policy", "policy-right", 201),
        ("/policy", "policy-wrong", 422),
        ("/policy", "policy-reserved", 422),
        ("/migration", "migration-manual", 403),
        ("/migration", "migration-own", 201),
        ("/migration", "migration-abort", 403),
        ("/migration", "migration-changed", 422),
    ] {
        assert_eq!(code(&world.review(path, name).await), expected, "{name}");
    }
    world.server.allows.store(true, Ordering::SeqCst);
    assert_eq!(code(&world.review("/migration", "migration-manual").await), 201);
    assert_eq!(code(&world.review("/migration", "migration-abort").await), 201);
    world.server.fails.store(true, Ordering::SeqCst);
    assert_eq!(code(&world.review("/migration", "migration-manual").await), 503, "unknown rights are none");
}

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("web-0")),
        Just(json!(["All"])),
        Just(json!({ "uid": "pod-uid-1" })),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z./]{1,10}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Replaces the value that the walk leads to.
fn mutate(value: &mut Value, mut walk: impl Iterator<Item = usize>, by: Value) {
    let Some(step) = walk.next() else {
        *value = by;
        return;
    };
    let inner: Vec<&mut Value> = match value {
        Value::Object(map) => map.iter_mut().map(|(_, v)| v).collect(),
        Value::Array(items) => items.iter_mut().collect(),
        _ => Vec::new(),
    };
    let count = inner.len();
    match inner.into_iter().nth(step % count.max(1)) {
        Some(child) => mutate(child, walk, by),
        None => *value = by,
    }
}

#[test]
fn mutated_reviews_never_break_the_promise() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let world = World::new(Some("MigrateOrEvict"));
    world.server.pods.lock().insert("web-0".into(), pod());
    let stages = [
        None,
        Some(json!({ "phase": "Pending" })),
        Some(
            json!({ "phase": "Finalizing", "step": "Replacing", "committed": true, "ownerUid": "owner-uid-1", "targetNode": "n2" }),
        ),
        Some(json!({ "phase": "Completed", "committed": true, "replacementPodUid": "pod-uid-1" })),
        Some(json!({ "phase": "Failed", "reason": "Blocked" })),
    ];
    let input = (
        0..CORPUS.len(),
        0..PATHS.len(),
        0..stages.len(),
        prop::collection::vec((prop::collection::vec(0usize..12, 1..7), any_json()), 0..4),
        any::<bool>(),
    );
    let mut runner = TestRunner::new(Config { cases: 4_000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&input, |(name, path, stage, mutations, fails)| {
        let mut review = corpus(CORPUS[name]);
        for (walk, by) in mutations {
            mutate(&mut review, walk.into_iter(), by);
        }
        world.server.fails.store(fails, Ordering::SeqCst);
        world.webhook.cache.migrations.replace(stages[stage].clone().map(migration));
        let bytes = serde_json::to_vec(&review).unwrap();
        let (status, body) = runtime.block_on(world.post(PATHS[path], bytes));
        assert_clear(PATHS[path], status, &body, None);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn broken_bytes_never_break_the_promise() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let world = World::new(Some("MigrateOrEvict"));
    let input = (0..CORPUS.len(), 0..PATHS.len(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    let mut runner = TestRunner::new(Config { cases: 2_000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&input, |(name, path, at, byte, cut)| {
        let mut bytes = serde_json::to_vec(&corpus(CORPUS[name])).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let (status, body) = runtime.block_on(world.post(PATHS[path], bytes));
        assert_clear(PATHS[path], status, &body, None);
        Ok(())
    });
    result.unwrap();
}
