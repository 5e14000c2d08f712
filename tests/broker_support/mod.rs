//! A real RabbitMQ for tests: its address, queues of a test's own, the example's consumer and producer in this
//! process, and a wire between them and the broker that can be cut.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

#[path = "../../examples/producer/ledger.rs"]
pub mod ledger;
#[path = "../../examples/producer/publisher.rs"]
pub mod publisher;
#[path = "../../examples/consumer/session.rs"]
pub mod session;
#[path = "../../examples/consumer/state.rs"]
pub mod state;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use shadow::api::{Epoch, control_queue};
use shadow::broker::{AmqpBroker, BrokerUrl, MigrationQueues, ParkOrder, ResumeOrder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use publisher::Control;
use state::View;

/// Nothing in a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Address of the broker under test.
pub fn amqp_url() -> String {
    if let Ok(url) = std::env::var("SHADOW_TEST_AMQP") {
        return url;
    }
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/cluster");
    let status = Command::new(cluster).args(["status", "--json"]).output().ok();
    let facts: Option<serde_json::Value> = status.and_then(|out| serde_json::from_slice(&out.stdout).ok());
    let url = facts.as_ref().and_then(|facts| facts["broker"]["amqp"].as_str());
    url.map(str::to_owned).expect(
        "these tests need a RabbitMQ: `tests/cluster/cluster up`, then `tests/cluster/cluster in cp -- cargo test \
         --release`; or set SHADOW_TEST_AMQP=amqp://user:password@host:5672/%2f",
    )
}

fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{now:x}-{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits for a condition, not for a time.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One test's corner of the broker. `done` removes what it made.
pub struct Stage {
    pub url: String,
    pub primary: String,
    pub migration: String,
    pub pod: String,
    pub quorum: bool,
    connection: Connection,
}

impl Stage {
    pub async fn set(quorum: bool) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = amqp_url();
        let id = unique();
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let stage = Self {
            url,
            primary: format!("test.{id}"),
            migration: format!("test-{id}"),
            pod: format!("pod-{id}"),
            quorum,
            connection,
        };
        stage.declare(&stage.primary, quorum).await;
        stage
    }

    pub async fn channel(&self) -> Channel {
        self.connection.create_channel().await.unwrap()
    }

    pub async fn declare(&self, queue: &str, quorum: bool) {
        let mut arguments = FieldTable::default();
        if quorum {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        }
        let channel = self.channel().await;
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    }

    /// Ready messages and consumers, or None where there is no queue.
    pub async fn look(&self, queue: &str) -> Option<(u32, u32)> {
        let options = QueueDeclareOptions::default().passive();
        let channel = self.channel().await;
        let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
        Some((found.message_count(), found.consumer_count()))
    }

    pub async fn send(&self, queue: &str, body: &[u8]) {
        let channel = self.channel().await;
        channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish =
            channel.basic_publish("".into(), queue.into(), options, body, BasicProperties::default());
        assert_eq!(publish.await.unwrap().await.unwrap(), lapin::Confirmation::Ack(None));
    }

    pub async fn delete(&self, queue: &str) {
        self.channel().await.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    pub fn broker(&self) -> AmqpBroker {
        AmqpBroker::new(BrokerUrl::new(&self.url), "test")
    }

    pub fn queues(&self, epoch: u32) -> MigrationQueues {
        MigrationQueues::new(self.migration.as_str().into(), Epoch(epoch), &self.primary)
    }

    pub fn park(&self, epoch: u32) -> ParkOrder {
        ParkOrder { pod: self.pod.clone(), queues: self.queues(epoch) }
    }

    pub fn resume(&self, epoch: u32) -> ResumeOrder {
        ResumeOrder { pod: self.pod.clone(), queues: self.queues(epoch), answers: false }
    }

    pub async fn done(self) {
        self.delete(&self.primary).await;
        self.delete(&control_queue(&self.pod)).await;
        let _ = self.connection.close(200, "done".into()).await;
    }
}

/// The example's consumer, behind a wire.
pub struct Subject {
    pub state: state::Shared,
    pub wire: Wire,
    hostname: tempfile::NamedTempFile,
    task: JoinHandle<()>,
}

impl Subject {
    pub async fn start(stage: &Stage, prefetch: u16, work_ms: u64) -> Self {
        let wire = Wire::to(&stage.url).await;
        let hostname = tempfile::NamedTempFile::new().unwrap();
        let file = hostname.path().to_str().unwrap().to_owned();
        std::fs::write(&file, format!("{}\n", stage.pod)).unwrap();
        let url = wire.url(&stage.url);
        let config = session::Config {
            amqp_url: url,
            queue: stage.primary.clone(),
            prefetch,
            work_ms,
            hostname_file: file,
        };
        let state = state::State::shared(0).unwrap();
        let consumer = session::Consumer::new(config, state.clone());
        let task = tokio::spawn(async { match consumer.run().await {} });
        Self { state, wire, hostname, task }
    }

    pub fn view(&self) -> View {
        self.state.lock().view()
    }

    pub fn rename(&self, pod: &str) {
        std::fs::write(self.hostname.path(), format!("{pod}\n")).unwrap();
    }

    pub async fn is_connected(&self) {
        until("the consumer is connected", async || self.view().connected).await;
    }

    pub async fn has_applied(&self, count: u64) {
        until(&format!("{count} messages are applied"), async || self.view().count >= count).await;
    }

    /// As a crash does it: no good-bye on the connection.
    pub async fn crash(self) {
        self.wire.cut();
        self.task.abort();
        let _ = self.task.await;
    }
}

/// The example's producer.
pub struct Source {
    pub ledger: ledger::Shared,
    control: watch::Sender<Control>,
    task: JoinHandle<()>,
}

impl Source {
    pub fn start(stage: &Stage, rate: u32, burst: u32) -> Self {
        let kind = if stage.quorum { "quorum" } else { "classic" };
        let config = publisher::Config::parse_from([
            "producer",
            "--amqp-url",
            &stage.url,
            "--queue",
            &stage.primary,
            "--queue-type",
            kind,
            "--burst",
            &burst.to_string(),
        ]);
        let ledger = ledger::Shared::default();
        let (control, orders) = watch::channel(Control { rate, paused: false });
        let book = ledger.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = publisher::publish(&config, &book, orders).await {
                book.stop(&error.to_string());
            }
        });
        Self { ledger, control, task }
    }

    pub fn rate(&self, rate: u32) {
        self.control.send_modify(|control| control.rate = rate);
    }

    pub async fn has_published(&self, count: u64) {
        until(&format!("{count} messages are published"), async || {
            let ledger = self.ledger.view();
            assert_eq!(ledger.error, None);
            ledger.published >= count
        })
        .await;
    }

    /// The final ledger.
    pub async fn stop(self) -> ledger::View {
        self.control.send_modify(|control| control.paused = true);
        self.ledger.settled().await;
        let view = self.ledger.view();
        assert_eq!((view.error.as_deref(), view.under_way, view.paused), (None, 0, true));
        self.task.abort();
        view
    }
}

/// The state is exactly what was published: all of it, once, in order.
pub async fn agree(subject: &Subject, ledger: &ledger::View) {
    subject.has_applied(ledger.published).await;
    let state = subject.view();
    assert_eq!(
        (state.count, state.duplicates, state.out_of_order, state.missing),
        (ledger.published, 0, 0, 0)
    );
    assert_eq!(state.last_id, Some(ledger.last_id));
    assert_eq!(state.chain, ledger.chain);
}

/// A TCP relay to the broker whose connections can be cut.
pub struct Wire {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
    blocked: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Wire {
    pub async fn to(url: &str) -> Self {
        let uri: AMQPUri = url.parse().unwrap();
        let broker = (uri.authority.host, uri.authority.port);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, seen) = watch::channel(0);
        let blocked = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&blocked);
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                if closed.load(Ordering::SeqCst) {
                    continue;
                }
                let (broker, mut seen) = (broker.clone(), seen.clone());
                seen.mark_unchanged();
                relays.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(broker).await else { return };
                    near.set_nodelay(true).and(far.set_nodelay(true)).unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = seen.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts, blocked, task }
    }

    pub fn url(&self, url: &str) -> String {
        let mut uri: AMQPUri = url.parse().unwrap();
        uri.authority.host = self.address.ip().to_string();
        uri.authority.port = self.address.port();
        let user = &uri.authority.userinfo;
        format!("amqp://{}:{}@{}/%2f", user.username, user.password, self.address)
    }

    /// Cuts, and lets nobody through until it is opened again.
    pub fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
        if blocked {
            self.cut();
        }
    }

    /// Closes every connection that stands.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}
