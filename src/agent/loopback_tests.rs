//! Two agents that talk over real TLS on the loopback.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::StatusCode;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::context::{Locks, Node};
use super::dump::jobs::Jobs;
use super::failure::Failure;
use super::node::containers::Containers;
use super::node::engine::Engine;
use super::node::host::Host;
use super::orders;
use super::restore::settle;
use super::restore::tickets::Tickets;
use super::store::Store;
use super::transfer::archive::{self, IMAGES, LAYER, Origin};
use super::transfer::peer::Peer;
use super::transfer::relocate;
use crate::api::{
    CarryOrder, DumpReport, DumpTarget, Epoch, Life, MigrationUid, OpenTicketOrder, OrderError, Purpose,
    Refusal, Role, TLS_NAME_OPERATOR, tls_name_agent,
};
use crate::kit::tls::{ClientAuth, Credentials, TlsStore};
use crate::kit::{Shutdown, peer_client, serve_tls};
use crate::operator::certificates::Authority;

struct Cluster {
    authority: Authority,
    target: Arc<Node>,
    port: u16,
    dir: tempfile::TempDir,
    shutdown: Shutdown,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.stop_now();
    }
}

impl Cluster {
    async fn new() -> Self {
        let authority = Authority::found(SystemTime::now()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tls = credentials(&authority, &tls_name_agent("n2"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = Host::at(&dir.path().join("node"));
        let store = Store::open(&dir.path().join("shadow")).unwrap();
        let containers = Containers::new(host.clone());
        let tickets = Arc::new(Tickets::open(store.clone(), containers.clone()).unwrap());
        let (jobs, locks, meter) = (Jobs::default(), Locks::default(), Arc::default());
        let target = Arc::new(Node {
            host,
            engine: Engine::default(),
            store,
            containers,
            tickets,
            tls: tls.clone(),
            peer_port: port,
            jobs,
            locks,
            meter,
        });
        let shutdown = Shutdown::with_lag(Duration::ZERO);
        let router = orders::router(Arc::clone(&target));
        tokio::spawn(serve_tls(listener, router, tls, ClientAuth::Required, shutdown.clone()));
        Self { authority, target, port, dir, shutdown }
    }

    fn peer(&self) -> Peer {
        let target = DumpTarget { node: "n2".into(), address: "127.0.0.1".into() };
        Peer::new(&credentials(&self.authority, &tls_name_agent("n1")), &target, self.port).unwrap()
    }

    /// Sends a body as it is, under any name.
    async fn put(&self, name: &str, epoch: u32, body: reqwest::Body) -> (StatusCode, Refusal) {
        let address = ([127, 0, 0, 1], self.port).into();
        let client =
            peer_client(&credentials(&self.authority, name), &tls_name_agent("n2"), address).unwrap();
        let url = format!(
            "https://{}:{}/v1/migrations/{}/archive?epoch={epoch}",
            tls_name_agent("n2"),
            self.port,
            uid()
        );
        let answer = client.put(url).body(body).send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_slice::<OrderError>(&answer.bytes().await.unwrap()).unwrap().refusal)
    }

    /// Nothing of an archive, nor of an attempt at one.
    fn holds_nothing(&self) -> bool {
        std::fs::read_dir(self.dir.path().join("shadow/archives")).unwrap().count() == 0
    }
}

fn credentials(authority: &Authority, name: &str) -> TlsStore {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let issued = authority.issue(&[name.to_owned()], Duration::from_secs(3600), SystemTime::now()).unwrap();
    let (certificate, key) = (issued.certificate.as_bytes(), issued.key.as_bytes());
    TlsStore::new(Credentials::from_pem(certificate, key, authority.bundle().as_bytes()).unwrap()).unwrap()
}

fn uid() -> MigrationUid {
    "0b5c-2".into()
}

fn origin(epoch: u32) -> Origin {
    Origin { migration: uid(), epoch: Epoch(epoch), container: "app".into(), beside: Vec::new() }
}

/// A dump of 3 MB.
fn dump_in(dir: &Path) {
    std::fs::create_dir(dir.join(IMAGES)).unwrap();
    let pages: Vec<u8> = (0..3_000_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    std::fs::write(dir.join("images/pages-1.img"), pages).unwrap();
    std::fs::write(dir.join("images/core-1.img"), "core").unwrap();
    std::fs::write(dir.join(LAYER), [0; 1024]).unwrap();
}

fn stream(epoch: u32) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    dump_in(dir.path());
    let mut bytes = Vec::new();
    archive::write(dir.path(), &origin(epoch), &mut |chunk: Bytes| {
        bytes.extend_from_slice(&chunk);
        true
    })
    .unwrap();
    bytes
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn refusal<T>(result: Result<T, Failure>) -> Refusal {
    result.err().unwrap().refusal
}

#[tokio::test]
async fn an_archive_arrives_whole_and_may_be_sent_again_until_it_is_used() {
    let cluster = Cluster::new().await;
    let dir = tempfile::tempdir().unwrap();
    dump_in(dir.path());
    let peer = cluster.peer();
    peer.reserve(&uid(), Epoch(1), 1000, soon()).await.unwrap();
    let sent = peer.send(dir.path(), &origin(1), soon()).await.unwrap();
    assert_eq!(peer.send(dir.path(), &origin(1), soon()).await.unwrap(), sent);
    let archive = cluster.target.store.archive(&uid(), Epoch(1));
    assert_eq!(
        std::fs::read(archive.join("images/pages-1.img")).unwrap(),
        std::fs::read(dir.path().join("images/pages-1.img")).unwrap()
    );
    assert_eq!(cluster.target.tickets.archive(&uid(), Epoch(1)).unwrap(), Some(sent.clone()));
    let settled = async {
        while !settle::is_settled(&archive).unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect("it is brought to the disk");
    let order = OpenTicketOrder {
        epoch: Epoch(1),
        container: "app".into(),
        digest: sent.digest,
        life: Life::FIRST,
        purpose: Purpose::Live,
        once: false,
    };
    cluster.target.tickets.open_ticket(&uid(), Role::Shadow, &order).unwrap();
    assert_eq!(refusal(peer.send(dir.path(), &origin(1), soon()).await), Refusal::StaleEpoch);
}

#[tokio::test]
async fn a_damaged_or_cut_stream_leaves_nothing_behind() {
    let cluster = Cluster::new().await;
    let agent = tls_name_agent("n1");
    let whole = stream(1);
    let mut damaged = whole.clone();
    damaged[1_500_000] ^= 4;
    assert_eq!(
        cluster.put(&agent, 1, damaged.into()).await,
        (StatusCode::BAD_GATEWAY, Refusal::DigestMismatch)
    );
    assert!(cluster.holds_nothing());
    let rate = || cluster.target.meter.bytes_per_second();
    assert_eq!(rate(), None);
    let cut = whole[..2_000_000].to_vec();
    assert_eq!(cluster.put(&agent, 1, cut.into()).await, (StatusCode::BAD_GATEWAY, Refusal::TransferFailed));
    assert!(cluster.holds_nothing());
    assert!(rate().is_some(), "how fast it came is known all the same");
    let of_another = stream(2);
    assert_eq!(cluster.put(&agent, 1, of_another.into()).await.1, Refusal::DigestMismatch);
    assert!(cluster.holds_nothing());
}

#[tokio::test]
async fn a_dump_that_vanishes_while_it_is_read_never_becomes_an_archive() {
    let cluster = Cluster::new().await;
    let dir = tempfile::tempdir().unwrap();
    dump_in(dir.path());
    std::fs::remove_file(dir.path().join(LAYER)).unwrap();
    assert_eq!(refusal(cluster.peer().send(dir.path(), &origin(1), soon()).await), Refusal::RuntimeFailed);
    while !cluster.holds_nothing() {
        tokio::task::yield_now().await; // until the other side has noticed
    }
}

#[tokio::test]
async fn only_agents_bring_archives_and_only_in_time() {
    let cluster = Cluster::new().await;
    for name in [TLS_NAME_OPERATOR, "agent.shadow.internal", ".agent.shadow.internal.evil"] {
        assert_eq!(cluster.put(name, 1, stream(1).into()).await, (StatusCode::FORBIDDEN, Refusal::Forbidden));
    }
    cluster.target.tickets.close(&uid(), Epoch(2), false).unwrap();
    let peer = cluster.peer();
    assert_eq!(refusal(peer.reserve(&uid(), Epoch(2), 1, soon()).await), Refusal::StaleEpoch);
    let agent = tls_name_agent("n1");
    assert_eq!(cluster.put(&agent, 1, stream(1).into()).await, (StatusCode::CONFLICT, Refusal::StaleEpoch));
    assert_eq!(refusal(peer.reserve(&uid(), Epoch(3), u64::MAX / 2, soon()).await), Refusal::NoSpace);
    assert!(cluster.holds_nothing());
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_a_failed_transfer() {
    let cluster = Cluster::new().await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let target = DumpTarget { node: "n2".into(), address: "127.0.0.1".into() };
    let peer = Peer::new(&cluster.target.tls, &target, nowhere).unwrap();
    assert_eq!(refusal(peer.reserve(&uid(), Epoch(1), 1, soon()).await), Refusal::TransferFailed);
    let target = DumpTarget { node: "n3".into(), address: "127.0.0.1".into() };
    let other_name = Peer::new(&cluster.target.tls, &target, cluster.port).unwrap();
    assert_eq!(refusal(other_name.reserve(&uid(), Epoch(1), 1, soon()).await), Refusal::TransferFailed);
}

/// The agent of the source, on a folder of its own, with a dump of epoch 1 that was sent to the target.
struct Source {
    node: Arc<Node>,
    _dir: tempfile::TempDir,
}

impl Source {
    fn new(cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(&dir.path().join("node"));
        let store = Store::open(&dir.path().join("shadow")).unwrap();
        let containers = Containers::new(host.clone());
        let tickets = Arc::new(Tickets::open(store.clone(), containers.clone()).unwrap());
        let (jobs, locks, meter) = (Jobs::default(), Locks::default(), Arc::default());
        let tls = credentials(&cluster.authority, &tls_name_agent("n1"));
        let peer_port = cluster.port;
        let engine = Engine::default();
        let node = Node { host, engine, store, containers, tickets, tls, peer_port, jobs, locks, meter };
        Self { node: Arc::new(node), _dir: dir }
    }

    /// As a dump leaves it.
    fn dump(&self) -> std::path::PathBuf {
        let dir = self.node.store.dump(&uid(), Epoch(1));
        std::fs::create_dir(&dir).unwrap();
        dump_in(&dir);
        std::fs::create_dir(dir.join("work")).unwrap();
        let job = r#"{"container":{"pod":{"namespace":"d","name":"web-0","uid":"u"},"container":"app"}}"#;
        std::fs::write(dir.join("job.json"), job).unwrap();
        std::fs::write(dir.join("written"), "null").unwrap();
        dir
    }

    async fn carry(&self, order: &CarryOrder) -> Result<DumpReport, Failure> {
        relocate::carry(&self.node, &uid(), order).await
    }
}

fn carry_order(digest: &str, to: Option<&str>) -> CarryOrder {
    let target = to.map(|node| DumpTarget { node: node.into(), address: "127.0.0.1".into() });
    CarryOrder { epoch: Epoch(1), digest: digest.into(), target, timeout_ms: 20_000 }
}

#[tokio::test]
async fn a_dump_and_every_archive_made_of_it_have_one_digest_wherever_it_is_carried_from() {
    let cluster = Cluster::new().await;
    let source = Source::new(&cluster);
    let nothing = source.carry(&carry_order("00", None)).await;
    assert_eq!(refusal(nothing), Refusal::NoArchive);
    let dir = source.dump();
    let sent = cluster.peer().send(&dir, &origin(1), soon()).await.unwrap();
    let digest = sent.digest.as_str();

    // Home: the dump becomes an archive here, and stays a dump.
    assert_eq!(refusal(source.carry(&carry_order("00", None)).await), Refusal::DigestMismatch);
    assert_eq!(
        source.node.tickets.archive(&uid(), Epoch(1)).unwrap(),
        None,
        "nothing is left of the wrong one"
    );
    for _ in 0..2 {
        let report = source.carry(&carry_order(digest, None)).await.unwrap();
        assert_eq!((report.digest.as_str(), report.bytes, report.frozen_ms), (digest, sent.bytes, 0));
    }
    assert_eq!(source.node.tickets.archive(&uid(), Epoch(1)).unwrap(), Some(sent.clone()));
    assert!(dir.join(LAYER).exists() && source.node.store.archive(&uid(), Epoch(1)).join(LAYER).exists());

    // To another node: from the archive, and where there is none from the dump.
    for from_dump in [false, true] {
        if from_dump {
            super::store::remove(&source.node.store.archive(&uid(), Epoch(1))).unwrap();
        }
        super::store::remove(&cluster.target.store.archive(&uid(), Epoch(1))).unwrap();
        for _ in 0..2 {
            let report = source.carry(&carry_order(digest, Some("n2"))).await.unwrap();
            assert_eq!(report.digest.as_str(), digest);
        }
        assert_eq!(cluster.target.tickets.archive(&uid(), Epoch(1)).unwrap(), Some(sent.clone()));
    }
}

#[tokio::test]
async fn what_was_damaged_here_replaces_nothing_there() {
    let cluster = Cluster::new().await;
    let source = Source::new(&cluster);
    let dir = source.dump();
    let sent = cluster.peer().send(&dir, &origin(1), soon()).await.unwrap();
    std::fs::write(dir.join("images/core-1.img"), "c0re").unwrap();
    let digest = sent.digest.as_str();
    assert_eq!(refusal(source.carry(&carry_order(digest, Some("n2"))).await), Refusal::DigestMismatch);
    assert_eq!(refusal(source.carry(&carry_order(digest, None)).await), Refusal::DigestMismatch);
    assert_eq!(cluster.target.tickets.archive(&uid(), Epoch(1)).unwrap(), Some(sent.clone()));
    source.node.tickets.close(&uid(), Epoch(1), false).unwrap();
    assert_eq!(refusal(source.carry(&carry_order(digest, None)).await), Refusal::StaleEpoch);
}
