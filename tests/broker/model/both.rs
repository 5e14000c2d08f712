//! The model and a real RabbitMQ side by side: every operation is performed on both. Network I/O, every wait ends.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, ExchangeKind,
};
use tokio::sync::mpsc;

use super::model::{Broker, Only, Queue, Refusal};
use super::script::{CLIENTS, Operation, QUEUES};
use crate::support::{Stage, Wire};

/// The broker comes to rest long before.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an operation gave: an answer that both sides must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Routed(bool),
    Deleted(usize),
    Refused(Refusal),
}

/// One client's connection, through a wire that can be cut.
struct Client {
    wire: Wire,
    connection: Option<Connection>,
    seats: HashMap<Queue, (Channel, lapin::types::ShortString)>,
    /// What is dropped is closed, and then gives back what it holds.
    cancelled: Vec<Channel>,
}

struct Arrival {
    client: usize,
    queue: Queue,
    delivery: Delivery,
}

pub struct Both {
    stage: Stage,
    model: Broker,
    prefetch: u16,
    admin: Channel,
    clients: Vec<Client>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    arrive: mpsc::UnboundedSender<Arrival>,
    /// Delivered by the real broker, not acknowledged.
    held: Vec<Arrival>,
    pub told: Vec<String>,
}

fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

impl Both {
    pub async fn begin(prefetch: u16) -> Self {
        let stage = Stage::set(false).await;
        let admin = Self::channel(&stage).await;
        let exchange = format!("{}.x", stage.primary);
        let options = ExchangeDeclareOptions { auto_delete: false, ..ExchangeDeclareOptions::default() };
        admin
            .exchange_declare(exchange.into(), ExchangeKind::Fanout, options, FieldTable::default())
            .await
            .unwrap();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let wire = Wire::to(&stage.url).await;
            clients.push(Client { wire, connection: None, seats: HashMap::new(), cancelled: vec![] });
        }
        let (arrive, arrivals) = mpsc::unbounded_channel();
        let model = Broker::default();
        Self { stage, model, prefetch, admin, clients, arrivals, arrive, held: vec![], told: vec![] }
    }

    async fn channel(stage: &Stage) -> Channel {
        let channel = stage.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel
    }

    fn name(&self, queue: Queue) -> String {
        format!("{}.{}", self.stage.primary, queue.0)
    }

    fn exchange(&self) -> String {
        format!("{}.x", self.stage.primary)
    }

    /// A number that lies on no queue.
    fn unused(&self) -> Option<u8> {
        let lies =
            |content| (0..QUEUES).any(|queue| self.model.all(Queue(queue)).any(|there| there == content));
        (1..16).find(|content| !lies(*content))
    }

    /// On both sides. None: it makes no sense now.
    pub async fn perform(&mut self, operation: Operation) -> Option<(Answer, Answer)> {
        let refused = |error: Refusal| Answer::Refused(error);
        let done = |result: Result<(), Refusal>| result.map_or_else(refused, |()| Answer::Done);
        Some(match operation {
            Operation::Declare(queue) => {
                self.model.declare(queue);
                let (name, options) = (self.name(queue), QueueDeclareOptions::durable());
                self.admin.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
                (Answer::Done, Answer::Done)
            }
            Operation::Bind(queue) => {
                let (name, exchange) = (self.name(queue), self.exchange());
                let bind = self.admin.queue_bind(
                    name.into(),
                    exchange.into(),
                    "".into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                let real = bind.await.map(drop);
                (done(self.model.bind(queue)), self.answer(real, Answer::Done).await)
            }
            Operation::Unbind(queue) => {
                self.model.unbind(queue);
                let (name, exchange) = (self.name(queue), self.exchange());
                let _ = self
                    .admin
                    .queue_unbind(name.into(), exchange.into(), "".into(), FieldTable::default())
                    .await;
                (Answer::Done, Answer::Done)
            }
            Operation::Publish(queue) => {
                let content = self.unused().filter(|_| self.model.has_room(queue))?;
                let real = self.publish(String::new(), self.name(queue), content).await;
                (Answer::Routed(self.model.publish(queue, content)), real)
            }
            Operation::PublishToExchange => {
                let room = (0..QUEUES).all(|queue| self.model.has_room(Queue(queue)));
                let content = self.unused().filter(|_| room)?;
                let real = self.publish(self.exchange(), String::new(), content).await;
                (Answer::Routed(self.model.publish_to_exchange(content)), real)
            }
            Operation::Consume(client, queue, exclusive) => {
                let busy = self.model.consumes(client, queue)
                    || self.model.unacknowledged(client, queue).next().is_some();
                if busy {
                    return None;
                }
                self.model.connect(client);
                let real = self.consume(client, queue, exclusive).await;
                (done(self.model.consume(client, queue, exclusive)), real)
            }
            Operation::Cancel(client, queue) => {
                let (channel, tag) = self.clients[client].seats.remove(&queue)?;
                channel.basic_cancel(tag, BasicCancelOptions::default()).await.unwrap();
                self.clients[client].cancelled.push(channel);
                self.model.cancel(client, queue);
                (Answer::Done, Answer::Done)
            }
            Operation::Acknowledge(client, queue, oldest) => {
                let Arrival { delivery, .. } = self.let_go(client, queue, oldest)?;
                delivery.ack(BasicAckOptions::default()).await.unwrap();
                assert!(self.model.acknowledge(client, queue, delivery.data[0]));
                (Answer::Done, Answer::Done)
            }
            Operation::HandBack(client, queue, oldest) => {
                let Arrival { delivery, .. } = self.let_go(client, queue, oldest)?;
                let again = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                delivery.nack(again).await.unwrap();
                assert!(self.model.hand_back(client, queue, delivery.data[0]));
                (Answer::Done, Answer::Done)
            }
            Operation::Cut(client) => {
                self.model.cut(client);
                self.held.retain(|held| held.client != client);
                let cut = &mut self.clients[client];
                cut.wire.cut();
                cut.seats.clear();
                cut.cancelled.clear();
                cut.connection = None;
                (Answer::Done, Answer::Done)
            }
            Operation::Delete(queue, only) => self.delete(queue, only).await,
        })
    }

    async fn delete(&mut self, queue: Queue, only: Only) -> (Answer, Answer) {
        let Only { if_unused, if_empty } = only;
        let options = QueueDeleteOptions { if_unused, if_empty, ..QueueDeleteOptions::default() };
        let was_there = self.model.exists(queue);
        let real = self.admin.queue_delete(self.name(queue).into(), options).await;
        let count = real.as_ref().map_or(0, |count| *count as usize);
        let real = self.answer(real.map(drop), Answer::Deleted(count)).await;
        let expected = self.model.delete(queue, only).map_or_else(Answer::Refused, Answer::Deleted);
        if matches!(expected, Answer::Deleted(_)) {
            self.held.retain(|held| held.queue != queue);
            self.clients.iter_mut().for_each(|client| drop(client.seats.remove(&queue)));
        }
        // RabbitMQ counts the deletion of what is not there as done.
        if !was_there {
            assert_eq!(expected, Answer::Refused(Refusal::NotFound));
            assert!(matches!(real, Answer::Deleted(0) | Answer::Refused(Refusal::NotFound)), "{real:?}");
            return (expected, expected);
        }
        // 406 does not tell which of the two it is.
        match (expected, real) {
            (Answer::Refused(Refusal::NotEmpty), Answer::Refused(Refusal::InUse)) => (expected, expected),
            other => other,
        }
    }

    fn let_go(&mut self, client: usize, queue: Queue, oldest: bool) -> Option<Arrival> {
        let mine = |held: &Arrival| held.client == client && held.queue == queue;
        let at = if oldest { self.held.iter().position(mine) } else { self.held.iter().rposition(mine) };
        Some(self.held.remove(at?))
    }

    /// What the broker answered; a refusal has closed the channel.
    async fn answer(&mut self, result: lapin::Result<()>, done: Answer) -> Answer {
        let Err(error) = result else { return done };
        self.admin = Self::channel(&self.stage).await;
        refusal(&error)
    }

    async fn publish(&self, exchange: String, key: String, content: u8) -> Answer {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = [content];
        let sent =
            self.admin.basic_publish(exchange.into(), key.into(), options, &body, BasicProperties::default());
        match sent.await.unwrap().await.unwrap() {
            Confirmation::Ack(returned) => Answer::Routed(returned.is_none()),
            other => panic!("{other:?}"),
        }
    }

    async fn consume(&mut self, client: usize, queue: Queue, exclusive: bool) -> Answer {
        let name = self.name(queue);
        let subject = &mut self.clients[client];
        if subject.connection.is_none() {
            let url = subject.wire.url(&self.stage.url);
            subject.connection =
                Some(Connection::connect(&url, ConnectionProperties::default()).await.unwrap());
        }
        let channel = subject.connection.as_ref().unwrap().create_channel().await.unwrap();
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await.unwrap();
        let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await;
        let mut consumer = match consumer {
            Ok(consumer) => consumer,
            Err(error) => return refusal(&error),
        };
        subject.seats.insert(queue, (channel, consumer.tag()));
        let arrive = self.arrive.clone();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let _ = arrive.send(Arrival { client, queue, delivery });
            }
        });
        Answer::Done
    }

    /// Until the broker rests: the model allows every delivery and has none left.
    pub async fn settle(&mut self) {
        let until = Instant::now() + PATIENCE;
        let prefetch = usize::from(self.prefetch);
        let mut early: Vec<Arrival> = Vec::new();
        loop {
            let allowed = early.iter().position(|arrival| {
                self.model.next(arrival.client, arrival.queue, prefetch) == Some(arrival.delivery.data[0])
            });
            if let Some(at) = allowed {
                let arrival = early.remove(at);
                self.model.deliver(arrival.client, arrival.queue, prefetch);
                self.told.push(format!(
                    "  {} gets {} of {}",
                    arrival.client, arrival.delivery.data[0], arrival.queue.0
                ));
                self.held.push(arrival);
                continue;
            }
            let all = (0..CLIENTS).flat_map(|client| (0..QUEUES).map(move |queue| (client, Queue(queue))));
            let mut left = all.filter(|(client, queue)| self.model.next(*client, *queue, prefetch).is_some());
            if early.is_empty() && left.next().is_none() && self.agrees().await {
                return;
            }
            if let Ok(Some(arrival)) =
                tokio::time::timeout(Duration::from_millis(20), self.arrivals.recv()).await
            {
                early.push(arrival);
            }
            let waiting: Vec<_> = early.iter().map(|a| (a.client, a.queue, a.delivery.data[0])).collect();
            assert!(
                Instant::now() < until,
                "the broker does otherwise: it gave {waiting:?}, the model is {:?}\n{}",
                self.model,
                self.told.join("\n")
            );
        }
    }

    /// A passive declaration of every queue shows what the model says.
    async fn agrees(&self) -> bool {
        for queue in (0..QUEUES).map(Queue) {
            let seen = self.stage.look(&self.name(queue)).await;
            let seen = seen.map(|(messages, consumers)| (messages as usize, consumers as usize));
            if seen != self.model.look(queue) {
                return false;
            }
        }
        true
    }

    pub async fn end(self) {
        for queue in (0..QUEUES).map(Queue) {
            self.stage.delete(&self.name(queue)).await;
        }
        self.admin.exchange_delete(self.exchange().into(), ExchangeDeleteOptions::default()).await.unwrap();
        let pod = shadow::api::control_queue(&self.stage.pod);
        self.stage.declare(&pod, false).await;
        self.stage.done().await;
    }
}

fn refusal(error: &lapin::Error) -> Answer {
    Answer::Refused(match code(error) {
        Some(404) => Refusal::NotFound,
        Some(403) => Refusal::InExclusiveUse,
        Some(406) => Refusal::InUse,
        _ => panic!("{error}"),
    })
}
