//! The tests' counter in several languages: every write that was acknowledged is in its state after.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::net::UdpSocket;

use super::tour::{Tour, on_tour};
use super::variants::{Variant, app};
use crate::lab::{App, Result, Snapshot, StateView, Writer, eventually, request, state_at};

const BOTH: [Variant; 2] = [Variant::Root, Variant::Hardened { read_only: true }];
const PACE: Duration = Duration::from_millis(5);
const SIDE: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(30);

#[test]
fn a_python_server() -> Result {
    moves("python", "python3 /programs/counter.py", &BOTH)
}

#[test]
fn a_jvm() -> Result {
    moves("jvm", "java -Xmx256m -XX:+UseSerialGC /programs/Counter.java", &BOTH)
}

#[test]
fn a_node_js_server() -> Result {
    // As root there is no seccomp profile: then libuv uses io_uring.
    moves("nodejs", "node /programs/counter.js", &BOTH)
}

#[test]
fn a_go_server_with_the_sockets_that_go_makes() -> Result {
    moves("go", "/programs/go-counter", &BOTH)
}

/// Its address is another one afterwards.
#[test]
fn a_server_that_listens_on_the_address_of_its_pod() -> Result {
    on_tour("pod-ip", &BOTH, async |tour, variant| {
        let env = json!([
            { "name": "POD_IP", "value": null, "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "LISTEN", "value": "$(POD_IP):8080" },
        ]);
        let app = app("pod-ip", "python3 /programs/counter.py", variant);
        counts_on(tour, variant, app.pod(json!({ "containers": [{ "env": env }] }))).await
    })
}

/// As a client of statsd or of a log collector has one: it never asked for an address, and has one.
#[test]
fn a_server_with_a_connected_udp_socket() -> Result {
    on_tour("udp", &BOTH, async |tour, variant| {
        let collector = UdpSocket::bind("0.0.0.0:0").await?;
        collector.connect((tour.lab.cluster.broker_ip.as_str(), 9)).await?;
        let here = collector.local_addr()?;
        drop(collector);
        let collector = UdpSocket::bind(here).await?;
        let app = app("udp", "python3 /programs/counter.py", variant).env("SENDS_TO", &here.to_string());
        counts_on_with(tour, variant, app, async |pod, state| {
            // There must be room for what it says next: of what it said under load nobody has read anything.
            while collector.try_recv(&mut [0; 128]).is_ok() {}
            let add = request(&format!("{}:8080", pod.ip), "POST", "/add", "", b"last", LIMIT).await?;
            let wanted = (format!("{} {}", state.cookie, state.count + 1), pod.ip.clone());
            assert_eq!(add.status, 200);
            eventually("the collector hears of it, from the pod's present address", LIMIT, async || {
                let mut text = [0; 128];
                while let Ok((length, from)) = collector.try_recv_from(&mut text) {
                    let heard = String::from_utf8_lossy(&text[..length]).into_owned();
                    if (heard, from.ip().to_string()) == wanted {
                        return Ok(Some(()));
                    }
                }
                Ok(None)
            })
            .await
        })
        .await
    })
}

/// Locks, queues and shared memory of `multiprocessing`: in /dev/shm, with and without names.
#[test]
fn a_python_server_with_worker_processes() -> Result {
    on_tour("multiprocessing", &BOTH, async |tour, variant| {
        // It needs a place for its sockets, whatever is read-only.
        let app = app("multiprocessing", "python3 /programs/workers.py", variant).env("TMPDIR", "/dev/shm");
        let mut workers = BTreeSet::new();
        counts_on_with(tour, variant, app, async |pod, _| {
            let mut found = BTreeSet::new();
            eventually("both workers answer", START, async || {
                let view = state_at(&format!("{}:8080", pod.ip)).await?;
                found.extend(view.pod.split(' ').next().map(str::to_owned));
                Ok((found.len() == 2).then_some(()))
            })
            .await?;
            if workers.is_empty() {
                workers.clone_from(&found);
            }
            assert_eq!(found, workers, "the same processes");
            Ok(())
        })
        .await
    })
}

fn moves(name: &str, command: &str, variants: &[Variant]) -> Result {
    on_tour(name, variants, async |tour, variant| counts_on(tour, variant, app(name, command, variant)).await)
}

async fn counts_on(tour: &Tour<'_>, variant: Variant, app: App) -> Result {
    counts_on_with(tour, variant, app, async |_, _| Ok(())).await
}

/// Two drains under writes; `look` is called before and after each, while nobody writes.
async fn counts_on_with(
    tour: &Tour<'_>,
    variant: Variant,
    app: App,
    mut look: impl AsyncFnMut(&Snapshot, &StateView) -> Result,
) -> Result {
    let (pod, service) = tour.start(&app).await?;
    look(&pod, &pod.state().await?).await?;
    for _ in 0..2 {
        let first = state_at(&service).await?;
        let writer = Writer::start(service.clone(), &first, PACE)?;
        tokio::time::sleep(SIDE).await;
        let leg = tour.leg(&app).await?;
        eventually("the Service answers", START, async || Ok(Some(state_at(&service).await?))).await?;
        tokio::time::sleep(SIDE).await;
        let mut written = writer.finish().await?;
        let last = leg.after.state().await?;
        written.must_be_in(&first, &last)?;
        assert!(written.acknowledged > 20, "{written:?}");
        tour.tell(variant, &leg, written.longest_gap);
        look(&leg.after, &last).await?;
    }
    tour.end(&app).await
}
