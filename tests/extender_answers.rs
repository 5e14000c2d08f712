//! What kube-scheduler is answered: over HTTP, in its own words, whatever it sends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on says so

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use shadow::api::{Compatibility, NodeCapacitySpec, NodeName};
use shadow::extender::{BODY_LIMIT, Metrics, router};
use shadow::placement::{NodeView, Reservation, Snapshot, View, Views};
use tower::ServiceExt as _;

const MIB: u64 = 1 << 20;

fn capacity(free_bytes: u64, xsave_size: u32) -> NodeCapacitySpec {
    NodeCapacitySpec {
        free_bytes,
        transfers_in: 2,
        transfers_out: 2,
        compatibility: Compatibility { xsave_size, ..Compatibility::default() },
        ..NodeCapacitySpec::default()
    }
}

/// Three nodes beside the source: roomy, full, and with another processor.
fn view() -> View {
    let nodes = [
        ("source", capacity(4096 * MIB, 2440)),
        ("roomy", capacity(4096 * MIB, 2440)),
        ("smaller", capacity(1100 * MIB, 2440)),
        ("full", capacity(400 * MIB, 2440)),
        ("foreign", capacity(4096 * MIB, 2696)),
    ];
    let nodes = nodes.map(|(name, spec)| (NodeName::from(name), NodeView::new(Arc::new(spec), true)));
    let own = Reservation {
        migration: "m1".into(),
        source: "source".into(),
        target: None,
        bytes: 1024 * MIB,
        since: "1".into(),
    };
    View {
        snapshot: Snapshot { nodes: nodes.into_iter().collect(), reservations: vec![own] },
        is_synced: true,
    }
}

/// As kube-scheduler writes it: every key, null where there is nothing, the whole pod.
fn body(migration: &str, names: &[&str]) -> Value {
    json!({
        "Pod": {
            "metadata": {"name": "web-0-shadow-1", "namespace": "shop", "uid": "u",
                "labels": {"migration.ms2m.io/migration": migration, "migration.ms2m.io/role": "shadow"},
                "annotations": {"migration.ms2m.io/ticket": "m1.1.shadow",
                    "migration.ms2m.io/source-node": "source",
                    "migration.ms2m.io/archive-bytes": (1024 * MIB).to_string()}},
            "spec": {"containers": [{"name": "app", "image": "i", "env": [{"name": "PASSWORD", "value": "x"}]}]},
            "status": {"phase": "Pending"}
        },
        "Nodes": null,
        "NodeNames": names
    })
}

async fn post(router: &Router, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::post(path).body(body.into()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fn extender(view: View) -> Router {
    router(Views::fixed(view), Metrics::new().unwrap())
}

#[tokio::test]
async fn nodes_that_can_take_it_are_named_and_the_others_with_their_reason() {
    let body = body("m1", &["roomy", "full", "foreign", "nowhere"]);
    let (status, answer) = post(&extender(view()), "/filter", body.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        answer,
        json!({
            "Nodes": null,
            "NodeNames": ["roomy"],
            "FailedNodes": {},
            "FailedAndUnresolvableNodes": {
                "full": "archive 1.0 GiB, free 400.0 MiB",
                "foreign": "xsave size 2696, source 2440",
                "nowhere": "no agent",
            },
            "Error": ""
        })
    );
}

/// As the Go types of each version write it: `tests/corpus/extender/record/record` makes them.
#[tokio::test]
async fn every_version_s_request_is_answered_alike() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/extender");
    let mut versions = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        versions += 1;
        let body = std::fs::read(&path).unwrap();
        let (status, answer) = post(&extender(view()), "/filter", body.clone()).await;
        assert_eq!(status, StatusCode::OK, "{}", path.display());
        assert_eq!(answer["NodeNames"], json!(["roomy"]), "{}: {answer}", path.display());
        let refused =
            json!({"full": "archive 1.0 GiB, free 400.0 MiB", "foreign": "xsave size 2696, source 2440"});
        assert_eq!(answer["FailedAndUnresolvableNodes"], refused, "{}", path.display());
        let (status, scores) = post(&extender(view()), "/prioritize", body).await;
        assert_eq!(status, StatusCode::OK, "{}", path.display());
        assert_eq!(scores[0], json!({"Host": "roomy", "Score": 10}), "{}", path.display());
    }
    assert!(versions >= 5, "{versions} versions");
}

/// Null would be taken for the other way of answering, and a node that was not asked for for an error.
#[tokio::test]
async fn none_is_an_empty_list() {
    let (_, answer) = post(&extender(view()), "/filter", body("m1", &["full"]).to_string()).await;
    assert_eq!(answer["NodeNames"], json!([]));
    let (_, answer) = post(&extender(view()), "/filter", body("m1", &[]).to_string()).await;
    assert_eq!((&answer["NodeNames"], &answer["Error"]), (&json!([]), &json!("")));
}

#[tokio::test]
async fn scores_are_whole_numbers_from_0_to_10_and_a_node_without_room_gets_none() {
    let body = body("m1", &["smaller", "roomy", "full"]);
    let (status, answer) = post(&extender(view()), "/prioritize", body.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        answer,
        json!([{"Host": "smaller", "Score": 0}, {"Host": "roomy", "Score": 10}, {"Host": "full", "Score": 0}])
    );
}

#[tokio::test]
async fn a_scheduler_that_sends_whole_nodes_is_told_to_send_names() {
    let mut body = body("m1", &[]);
    body["Nodes"] = json!({"metadata": {}, "items": []});
    body["NodeNames"] = Value::Null;
    let (status, answer) = post(&extender(view()), "/filter", body.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert!(answer["Error"].as_str().unwrap().contains("nodeCacheCapable: true"), "{answer}");
}

#[tokio::test]
async fn a_view_that_may_be_old_is_an_error_and_no_refusal() {
    let unsynced = View { is_synced: false, ..view() };
    let mut silent = view();
    for node in silent.snapshot.nodes.values_mut() {
        node.is_alive = false;
    }
    for (view, why) in [(unsynced, "have not been seen yet"), (silent, "no agent at all")] {
        let (status, answer) = post(&extender(view), "/filter", body("m1", &["roomy"]).to_string()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(answer["Error"].as_str().unwrap().contains(why), "{answer}");
        assert_eq!(answer["FailedAndUnresolvableNodes"], json!({}));
    }
}

#[tokio::test]
async fn a_pod_whose_reservation_is_not_known_yet_is_waited_for_a_moment_and_then_tried_again() {
    let begun = Instant::now();
    let (_, answer) = post(&extender(view()), "/filter", body("m2", &["roomy"]).to_string()).await;
    assert!(answer["Error"].as_str().unwrap().contains("own reservation"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let (status, _) = post(&extender(view()), "/prioritize", body("m2", &["roomy"]).to_string()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_what_is_wrong() {
    let whole = body("m1", &["roomy"]).to_string();
    let mut other = body("m1", &["roomy"]);
    other["Pod"]["metadata"]["labels"] = Value::Null;
    for (sent, why) in [
        (String::new(), "EOF"),
        (whole[..whole.len() / 2].to_owned(), "EOF"),
        ("[]".to_owned(), "not the JSON"),
        ("{}".to_owned(), "lacks Pod"),
        (r#"{"Pod":null,"Nodes":null,"NodeNames":null}"#.to_owned(), "lacks Pod"),
        (other.to_string(), "lacks migration.ms2m.io/migration"),
    ] {
        let (status, answer) = post(&extender(view()), "/filter", sent.clone()).await;
        assert_eq!(status, StatusCode::OK, "{sent}");
        assert!(answer["Error"].as_str().unwrap().contains(why), "{sent}: {answer}");
        let (status, answer) = post(&extender(view()), "/prioritize", sent.clone()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{sent}: {answer}");
    }
    let (status, _) = post(&extender(view()), "/filter", vec![b'x'; BODY_LIMIT + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = post(&extender(view()), "/bind", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn no_answer_repeats_what_a_pod_holds() {
    let mut body = body("m1", &["roomy"]);
    body["Pod"]["metadata"]["labels"]["migration.ms2m.io/migration"] = json!(7); // malformed
    let (_, answer) = post(&extender(view()), "/filter", body.to_string()).await;
    assert!(
        !answer["Error"].as_str().unwrap().is_empty() && !answer.to_string().contains("PASSWORD"),
        "{answer}"
    );
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0_usize..2000) {
        let whole = body("m1", &["roomy", "full"]).to_string();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            for sent in [bytes.clone(), whole.as_bytes()[..cut.min(whole.len())].to_vec()] {
                let (status, _) = post(&extender(view()), "/filter", sent).await;
                assert_eq!(status, StatusCode::OK);
            }
        });
    }
}
