//! One test's corner of the broker: names of its own, a primary queue, and a connection to look around.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use shadow::api::{Epoch, control_queue};
use shadow::broker::control::Order;
use shadow::broker::{AmqpBroker, BrokerUrl, MigrationQueues, ParkOrder, ResumeOrder};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::tool;

/// How long the broker's answer to the end of a connection is waited for.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a new channel is waited for before the connection is taken for dead.
const ANSWER: Duration = Duration::from_secs(5);

fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{now:x}-{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// `done` removes what it made.
pub struct Stage {
    pub url: String,
    pub primary: String,
    pub migration: String,
    pub pod: String,
    pub quorum: bool,
    connection: Mutex<Connection>,
}

async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default()).await.unwrap()
}

impl Stage {
    pub async fn set(quorum: bool) -> Self {
        Self::at(tool::amqp_url(), quorum).await
    }

    pub async fn at(url: String, quorum: bool) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let id = unique();
        let connection = Mutex::new(connect(&url).await);
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

    /// A second identity on the same primary queue: another pod, another migration.
    pub async fn beside(&self) -> Self {
        let id = unique();
        Self {
            url: self.url.clone(),
            primary: self.primary.clone(),
            migration: format!("test-{id}"),
            pod: format!("pod-{id}"),
            quorum: self.quorum,
            connection: Mutex::new(connect(&self.url).await),
        }
    }

    /// On a connection that is opened again where the broker was restarted. One that lost its power says no good-bye: the
    /// old connection only seems to stand.
    pub async fn channel(&self) -> Channel {
        let mut connection = self.connection.lock().await;
        loop {
            let opening = connection.create_channel();
            match timeout(ANSWER, opening).await {
                Ok(Ok(channel)) => return channel,
                Ok(Err(error)) if connection.status().connected() => panic!("{error}"),
                Ok(Err(_)) | Err(_) => *connection = connect(&self.url).await,
            }
        }
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
        self.publish(queue, body, BasicProperties::default()).await;
    }

    /// A message to the primary queue that tells its number.
    pub async fn send_number(&self, id: u64) {
        let properties = BasicProperties::default().with_message_id(id.to_string().into());
        self.publish(&self.primary, format!("{{\"id\":{id}}}").as_bytes(), properties).await;
    }

    /// Durable and confirmed.
    async fn publish(&self, queue: &str, body: &[u8], properties: BasicProperties) {
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties.with_delivery_mode(2);
        let publish = channel.basic_publish("".into(), queue.into(), options, body, properties);
        assert_eq!(publish.await.unwrap().await.unwrap(), lapin::Confirmation::Ack(None));
    }

    /// Takes the orders that lie on a control queue.
    pub async fn orders(&self, pod: &str) -> Vec<Order> {
        let channel = self.channel().await;
        let options = BasicGetOptions { no_ack: true };
        let mut orders = Vec::new();
        while let Some(message) = channel.basic_get(control_queue(pod).into(), options).await.unwrap() {
            orders.push(Order::from_slice(&message.data).unwrap());
        }
        orders
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

    /// Nothing is known of the consumer.
    pub fn resume(&self, epoch: u32) -> ResumeOrder {
        ResumeOrder { pod: self.pod.clone(), queues: self.queues(epoch), answers: false }
    }

    /// The consumer has answered when it parked.
    pub fn resume_answering(&self, epoch: u32) -> ResumeOrder {
        ResumeOrder { answers: true, ..self.resume(epoch) }
    }

    pub async fn done(self) {
        self.delete(&self.primary).await;
        self.delete(&control_queue(&self.pod)).await;
        // lapin now and then misses the broker's answer, or that it hung up instead.
        let connection = self.connection.into_inner();
        let _ = timeout(GOODBYE, connection.close(200, "done".into())).await;
    }
}
