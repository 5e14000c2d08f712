//! How fast the extender answers, in kube-scheduler's request shapes, over TLS on loopback with keep-alive: filter and
//! prioritize for 500 and 5,000 node names. Prints a table, writes `target/bench/extender.json`. The goal is a p99 of
//! both together of 1 ms and 5 ms.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test or an instrument that cannot go on says so

mod figures;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shadow::api::{AGENT_FORMAT, CgroupNamespace, Compatibility, NodeCapacitySpec, NodeName};
use shadow::extender::{Metrics, THREADS, router};
use shadow::kit::Shutdown;
use shadow::kit::tls::{ClientAuth, Credentials, TlsStore};
use shadow::placement::{NodeView, Reservation, Snapshot, View, Views};
use tokio::net::TcpListener;

use figures::{micros, resident_kib};

const TLS_NAME: &str = "localhost";
const ROUNDS: usize = 1_000;
const SERIES: usize = 5;
const RESERVATIONS: usize = 5;
const MIB: u64 = 1 << 20;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    bench()
}

fn bench() -> Result<(), Error> {
    println!(
        "filter and prioritize of {ROUNDS} pods, {SERIES} times over: medians of the series; {RESERVATIONS} reservations, TLS, one connection"
    );
    println!(
        "{:>6} {:>12} {:>12} {:>12} {:>14} {:>12}",
        "nodes", "p50 us", "p99 us", "max us", "pods/s", "KiB"
    );
    let mut lines = Vec::new();
    for count in [500, 5_000] {
        lines.push(measure(count)?);
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let all = json!({ "rounds": ROUNDS, "series": SERIES, "reservations": RESERVATIONS, "nodes": lines });
    std::fs::write(folder.join("extender.json"), serde_json::to_vec_pretty(&all)?)?;
    Ok(())
}

/// What the scheduler asks of a pod, and what it must be answered each time.
struct Exchange {
    filter: Vec<u8>,
    filtered: Vec<u8>,
    prioritize: Vec<u8>,
    scored: Vec<u8>,
}

impl Exchange {
    fn of(client: &mut Client, count: usize) -> Result<Self, Error> {
        let names: Vec<String> = (0..count).map(name).collect();
        let filter = serde_json::to_vec(&args(&names))?;
        let filtered = client.post("/filter", &filter)?.to_vec();
        let answer: Value = serde_json::from_slice(&filtered)?;
        let fitting: Vec<String> = serde_json::from_value(answer["NodeNames"].clone())?;
        if fitting.len() < count / 2 || fitting.len() == count {
            return Err(format!("{} of {count} nodes fit: {}", fitting.len(), answer["Error"]).into());
        }
        let prioritize = serde_json::to_vec(&args(&fitting))?;
        let scored = client.post("/prioritize", &prioritize)?.to_vec();
        let scores: Vec<Value> = serde_json::from_slice(&scored)?;
        if scores.len() != fitting.len() {
            return Err(format!("{} scores for {} nodes", scores.len(), fitting.len()).into());
        }
        Ok(Self { filter, filtered, prioritize, scored })
    }

    fn again(&self, client: &mut Client) -> Result<Duration, Error> {
        let begun = Instant::now();
        let same = client.post("/filter", &self.filter)? == self.filtered;
        let same = client.post("/prioritize", &self.prioritize)? == self.scored && same;
        let took = begun.elapsed();
        if same { Ok(took) } else { Err("another answer to the same question".into()) }
    }
}

fn measure(count: usize) -> Result<Value, Error> {
    let mut client = serve(view(count))?;
    let exchange = Exchange::of(&mut client, count)?;
    let mut series = Vec::new();
    for _ in 0..SERIES {
        let took: Result<Vec<Duration>, Error> = (0..ROUNDS).map(|_| exchange.again(&mut client)).collect();
        let mut took = took?;
        took.sort_unstable();
        series.push(took);
    }
    let median = |of: &dyn Fn(&[Duration]) -> Duration| {
        let mut all: Vec<_> = series.iter().map(|one| of(one)).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    let at = |percent: usize| micros(median(&|one| one[(one.len() * percent / 100).min(one.len() - 1)]));
    #[allow(clippy::cast_precision_loss)] // a rate for people
    let rate = (ROUNDS as f64 / median(&|one| one.iter().sum()).as_secs_f64()).round();
    let kib = resident_kib();
    println!("{count:>6} {:>12.1} {:>12.1} {:>12.1} {rate:>14} {kib:>12}", at(50), at(99), at(100));
    Ok(json!({ "nodes": count, "p50_us": at(50), "p99_us": at(99), "max_us": at(100), "pods_per_s": rate,
        "resident_kib": kib }))
}

fn name(n: usize) -> String {
    format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", n >> 16, (n >> 8) & 255, n & 255)
}

/// Of ten nodes one is full and one has another processor; there are eight kinds of the others.
fn view(count: usize) -> View {
    let capacity = |n: usize| NodeCapacitySpec {
        free_bytes: if n % 10 == 3 { 10 * MIB } else { (500 + n as u64 % 1000) * MIB },
        transfers_in: 2,
        transfers_out: 2,
        stream_bytes_per_second: Some((50 + n as u64 % 100) * MIB),
        compatibility: Compatibility {
            architecture: "amd64".into(),
            cpu_vendor: "GenuineIntel".into(),
            cpu_features: (0..60).map(|f| format!("feature{f}")).collect(),
            xsave_size: if n % 10 == 7 { 2696 } else { 2440 },
            xsave_features: "2e7".into(),
            kernel: format!("6.1.{}", 100 + n % 8),
            agent_format: AGENT_FORMAT,
            criu: "4.2".into(),
            oci_runtime: "runc 1.4.3".into(),
            engine: "containerd 2.3.4".into(),
            cgroup_version: 2,
            cgroup_driver: "systemd".into(),
            cgroup_namespace: CgroupNamespace::Runtime,
            criu_features: (0..10).map(|f| format!("criu{f}")).collect(),
            soft_dirty: true,
            criu_config: "abcd".into(),
            security_module: "apparmor".into(),
            runtime_class: "shadow".into(),
            xsave_size_max: 2696,
        },
        ..NodeCapacitySpec::default()
    };
    let node = |n: usize| (NodeName(name(n)), NodeView::new(Arc::new(capacity(n)), true));
    let source = (NodeName::from("source"), NodeView::new(Arc::new(capacity(0)), true));
    let reservation = |n: usize| Reservation {
        migration: format!("m{n}").as_str().into(),
        source: "source".into(),
        target: (n > 0).then(|| NodeName(name(n))),
        bytes: 100 * MIB,
        since: n.to_string(),
    };
    let snapshot = Snapshot {
        nodes: (0..count).map(node).chain([source]).collect(),
        reservations: (0..RESERVATIONS).map(reservation).collect(),
    };
    View { snapshot, is_synced: true }
}

/// A pod of the usual size.
fn args(names: &[String]) -> Value {
    let env: Vec<Value> = (0..30).map(|n| json!({"name": format!("V{n}"), "value": "some value"})).collect();
    json!({
        "Pod": {
            "metadata": {"name": "web-0-shadow-1", "namespace": "shop", "uid": "u",
                "labels": {"migration.ms2m.io/migration": "m0", "migration.ms2m.io/role": "shadow"},
                "annotations": {"migration.ms2m.io/source-node": "source",
                    "migration.ms2m.io/archive-bytes": (100 * MIB).to_string()}},
            "spec": {"schedulerName": "shadow-scheduler", "containers": [{"name": "app", "image": "i", "env": env}]},
            "status": {"phase": "Pending", "qosClass": "Burstable"}
        },
        "Nodes": null,
        "NodeNames": names
    })
}

/// Starts the extender on threads of its own; a connection to it.
fn serve(view: View) -> Result<Client, Error> {
    let made = rcgen::generate_simple_self_signed([TLS_NAME.to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = TlsStore::new(Credentials::from_pem(certificate.as_bytes(), key.as_bytes(), b"")?)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let router = router(Views::fixed(view), Metrics::new()?);
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            let shutdown = Shutdown::with_lag(Duration::ZERO);
            shadow::kit::serve_tls(listener, router, tls, ClientAuth::None, shutdown).await.unwrap();
        });
    });
    Client::connect(address, certificate.as_bytes())
}

/// Blocking, and no more than it takes, so that what is measured is the server.
struct Client {
    stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    answer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr, authority: &[u8]) -> Result<Self, Error> {
        let config = shadow::kit::tls::anonymous_client_config(shadow::kit::tls::root_store(authority)?)?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let name = rustls_pki_types::ServerName::try_from(TLS_NAME)?;
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name)?;
        connection.set_buffer_limit(None);
        Ok(Self { stream: rustls::StreamOwned::new(connection, stream), answer: Vec::new() })
    }

    fn post(&mut self, path: &str, body: &[u8]) -> Result<&[u8], Error> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {TLS_NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        self.stream.flush()?;
        self.answer.clear();
        let mut piece = [0; 16 * 1024];
        let mut expected = None;
        loop {
            let read = self.stream.read(&mut piece)?;
            if read == 0 {
                return Err("the connection ended before the answer did".into());
            }
            self.answer.extend_from_slice(&piece[..read]);
            if expected.is_none() {
                expected = body_of(&self.answer)?;
            }
            if let Some((start, length)) = expected
                && self.answer.len() >= start + length
            {
                return Ok(&self.answer[start..]);
            }
        }
    }
}

/// Where the body begins and how long it is, once the head is there.
fn body_of(answer: &[u8]) -> Result<Option<(usize, usize)>, Error> {
    let Some(end) = answer.windows(4).take(1024).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(head.into());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Ok(Some((end + 4, length.ok_or("no content-length")?)))
}
