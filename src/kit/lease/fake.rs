//! An API server with one Lease in memory: compare-and-swap, list and watch. Tests only.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use futures::stream;
use http::{Method, Request, Response};
use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::Client;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use super::{Leadership, Lease};
use crate::kit::Shutdown;

#[derive(Clone)]
pub(crate) struct Server {
    lease: Arc<watch::Sender<Option<Object>>>,
    /// Candidates that cannot reach the server.
    cut_off: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self { lease: Arc::new(watch::channel(None).0), cut_off: Arc::default() }
    }

    /// From now on this candidate cannot reach the server.
    pub(crate) fn cut_off(&self, candidate: &str) {
        self.cut_off.lock().insert(candidate.into(), true);
    }

    pub(crate) fn client(&self, of: &str) -> Client {
        let (server, of) = (self.clone(), of.to_owned());
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (server, of) = (server.clone(), of.clone());
            async move { Ok::<_, Infallible>(server.answer(&of, request).await) }
        });
        Client::new(service, "shadow-system")
    }

    async fn answer(&self, of: &str, request: Request<kube::client::Body>) -> Response<Body> {
        if self.cut_off.lock().contains_key(of) {
            return failure(503);
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let method = request.method().clone();
        if method == Method::GET && query.contains("watch=true") {
            let changes = self.lease.subscribe();
            return Response::new(Body::from_stream(stream::unfold(changes, |mut changes| async {
                changes.changed().await.ok()?;
                let object = changes.borrow_and_update().clone();
                let line = format!("{}\n", json!({"type": "MODIFIED", "object": object}));
                Some((Ok::<_, Infallible>(line), changes))
            })));
        }
        if method == Method::GET && query.contains("fieldSelector") {
            let items: Vec<_> = self.lease.borrow().clone().into_iter().collect();
            return body(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList",
                "metadata": {"resourceVersion": "1"}, "items": items}));
        }
        if method == Method::GET {
            let lease = self.lease.borrow().clone();
            return lease.map_or_else(|| failure(404), |lease| body(&lease));
        }
        let bytes = request.into_body().collect_bytes().await.unwrap();
        let mut wanted: Object = serde_json::from_slice(&bytes).unwrap();
        let mut stored = None;
        self.lease.send_if_modified(|lease| {
            let version = |lease: &Object| lease.metadata.resource_version.clone();
            let fits = match &*lease {
                None => method == Method::POST,
                Some(lease) => method == Method::PUT && version(lease) == version(&wanted),
            };
            if fits {
                let next = lease.as_ref().and_then(version).map_or(1, |v| v.parse::<u32>().unwrap() + 1);
                wanted.metadata.resource_version = Some(next.to_string());
                stored.clone_from(&Some(wanted.clone()));
                *lease = Some(wanted.clone());
            }
            fits
        });
        stored.map_or_else(|| failure(409), |lease| body(&lease))
    }

    async fn renewed_times(&self, times: u32) {
        let mut changes = self.lease.subscribe();
        for _ in 0..times {
            changes.changed().await.unwrap();
        }
    }

    fn candidate(&self, identity: &str) -> (watch::Receiver<Option<Leadership>>, Shutdown) {
        let terms = Lease {
            namespace: "shadow-system".into(),
            name: "shadow-operator".into(),
            identity: identity.into(),
            duration: Duration::from_secs(1),
        };
        let shutdown = Shutdown::with_lag(Duration::ZERO);
        let client = self.client(identity);
        (terms.campaign(client.clone(), client, shutdown.clone()), shutdown)
    }
}

fn body(value: &impl serde::Serialize) -> Response<Body> {
    Response::new(Body::from(serde_json::to_vec(value).unwrap()))
}

fn failure(code: u16) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "message": "test", "reason": "Test", "code": code});
    let mut response = body(&status);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

async fn leads(candidate: &mut watch::Receiver<Option<Leadership>>) -> Leadership {
    let led = tokio::time::timeout(Duration::from_secs(30), candidate.wait_for(Option::is_some)).await;
    led.expect("a leader in time").unwrap().unwrap()
}

#[tokio::test]
async fn of_two_candidates_one_leads_and_the_other_takes_over_at_once_when_it_is_released() {
    let server = Server::new();
    let (mut a, a_shutdown) = server.candidate("a");
    let first = leads(&mut a).await;
    let (mut b, _b_shutdown) = server.candidate("b");
    server.renewed_times(5).await; // longer than the lease's duration: b has had every chance
    assert!(a.borrow().is_some() && b.borrow().is_none());

    let released = std::time::Instant::now();
    a_shutdown.begin();
    let second = leads(&mut b).await;
    assert!(released.elapsed() < Duration::from_millis(500), "took {:?}", released.elapsed());
    assert!(a.borrow().is_none());
    assert!(second > first);
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_before_another_begins() {
    let server = Server::new();
    let (mut a, _a_shutdown) = server.candidate("a");
    leads(&mut a).await;
    let (mut b, _b_shutdown) = server.candidate("b");
    server.renewed_times(1).await;
    server.cut_off("a");
    a.wait_for(Option::is_none).await.unwrap();
    assert!(b.borrow().is_none(), "two at a time");
    leads(&mut b).await;
    assert!(a.borrow().is_none());
}
