//! RabbitMQ itself, with its data on a disk that one node can mount: no confirmed message is lost, none is there twice, and what
//! it keeps in memory only is there too.

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use super::ledger::{Ledger, Store, there_and_back};
use super::tour::{Tour, on_tour};
use super::variants::{self, Variant};
use crate::lab::{App, Result, Volume, fail, mounts};

const AT: &str = "/claimed";
const LEDGER: &str = "ledger";
/// A durable queue whose messages are not: a server that starts anew has none of them.
const MEMORY: &str = "memory";
const KEPT: u64 = 7;
const ON_DISK: u8 = 2;

#[test]
fn rabbitmq_on_a_disk() -> Result {
    let variants = [Variant::Hardened { read_only: true }];
    on_tour("rabbitmq", &variants, async |tour, variant| {
        let claim = variants::name("rabbitmq", variant);
        tour.lab.claim(&claim, Volume::Disk, None).await?;
        let app = variants::app("rabbitmq", "/programs/rabbitmq.sh", variant).env("HOME", AT);
        loses_nothing(tour, variant, &app.pod(mounts(&claim, AT))).await
    })
}

async fn loses_nothing(tour: &Tour<'_>, variant: Variant, app: &App) -> Result {
    let (_, service) = tour.start(app).await?;
    let mut client = Rabbit::at(&service);
    client.publish(MEMORY, KEPT, BasicProperties::default()).await?;
    let ledger = Ledger::start(Rabbit::at(&service));
    there_and_back(tour, variant, app, &ledger, async |_| Ok(())).await?;
    let account = ledger.finish().await?;
    client.disconnect();
    account.check(&client.all(LEDGER).await?)?;
    assert_eq!(client.all(MEMORY).await?, [KEPT], "the same process");
    tour.end(app).await
}

struct Rabbit {
    url: String,
    open: Option<(Connection, Channel)>,
}

impl Rabbit {
    fn at(address: &str) -> Self {
        Self { url: format!("amqp://guest:guest@{address}/%2f"), open: None }
    }

    async fn channel(&mut self) -> Result<Channel> {
        if let Some((_, channel)) = &self.open {
            return Ok(channel.clone());
        }
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        for queue in [LEDGER, MEMORY] {
            channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
        }
        self.open = Some((connection, channel.clone()));
        Ok(channel)
    }

    /// Once it is confirmed.
    async fn publish(&mut self, queue: &str, number: u64, properties: BasicProperties) -> Result {
        let channel = self.channel().await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = number.to_string();
        let publish = channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
        match publish.await?.await? {
            Confirmation::Ack(None) => Ok(()),
            other => fail(format!("{queue}: {number} is not confirmed: {other:?}")),
        }
    }

    /// All that lies there.
    async fn all(&mut self, queue: &str) -> Result<Vec<u64>> {
        let channel = self.channel().await?;
        let mut found = Vec::new();
        while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await? {
            found.push(std::str::from_utf8(&message.data)?.parse()?);
        }
        Ok(found)
    }
}

impl Store for Rabbit {
    async fn append(&mut self, number: u64) -> Result {
        self.publish(LEDGER, number, BasicProperties::default().with_delivery_mode(ON_DISK)).await
    }

    fn disconnect(&mut self) {
        self.open = None;
    }
}
