//! A consumer that knows the two plain messages only, answers nothing, and declares what it is told to consume.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use shadow::api::control_queue;
use tokio::task::JoinHandle;

use super::Stage;

pub struct PlainConsumer {
    pub pod: String,
    applied: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

async fn consume(channel: &Channel, queue: &str) -> Consumer {
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

impl PlainConsumer {
    pub async fn start(stage: &Stage, pod: &str) -> Self {
        let connection = Connection::connect(&stage.url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.basic_qos(50, BasicQosOptions::default()).await.unwrap();
        let control = control_queue(pod);
        let durable = QueueDeclareOptions::durable();
        channel.queue_declare(control.as_str().into(), durable, FieldTable::default()).await.unwrap();
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut orders = channel
            .basic_consume(control.as_str().into(), "".into(), no_ack, FieldTable::default())
            .await
            .unwrap();
        let mut messages = consume(&channel, &stage.primary).await;
        let applied = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&applied);
        let task = tokio::spawn(async move {
            let _connection = connection;
            loop {
                tokio::select! {
                    Some(order) = orders.next() => {
                        let order: serde_json::Value = serde_json::from_slice(&order.unwrap().data).unwrap();
                        channel.basic_cancel(messages.tag(), BasicCancelOptions::default()).await.unwrap();
                        let queue = order["payload"]["queue"].as_str().unwrap().to_owned();
                        if order["type"] == "START_REPLAY" {
                            let queue = queue.as_str().into();
                            channel.queue_declare(queue, durable, FieldTable::default()).await.unwrap();
                        }
                        messages = consume(&channel, &queue).await;
                    }
                    Some(message) = messages.next() => {
                        count.fetch_add(1, Ordering::SeqCst);
                        message.unwrap().ack(BasicAckOptions::default()).await.unwrap();
                    }
                    else => return,
                }
            }
        });
        Self { pod: pod.to_owned(), applied, task }
    }

    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    /// Ends it and removes its control queue.
    pub async fn end(self, stage: &Stage) {
        self.task.abort();
        let _ = self.task.await;
        stage.delete(&control_queue(&self.pod)).await;
    }
}
