//! Numbered messages published without confirms: what a careless producer sends, in one order, with a ledger.

use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Stage, ledger};

/// One channel without confirms. What it was given counts as published once the channel was closed in order: the
/// broker has then dealt with all of it.
pub struct Post {
    channel: Channel,
    queue: String,
    book: ledger::Shared,
    next: u64,
}

impl Post {
    pub async fn open(stage: &Stage) -> Self {
        let channel = stage.channel().await;
        Self { channel, queue: stage.primary.clone(), book: ledger::Shared::default(), next: 1 }
    }

    pub async fn send(&mut self, count: u64) {
        for _ in 0..count {
            let id = self.next;
            self.next += 1;
            let body = format!("{{\"id\":{id}}}").into_bytes();
            let properties = BasicProperties::default().with_message_id(id.to_string().into());
            let options = BasicPublishOptions::default();
            self.channel
                .basic_publish("".into(), self.queue.as_str().into(), options, &body, properties)
                .await
                .unwrap();
            self.book.confirmed(id, &body);
        }
    }

    /// The final ledger.
    pub async fn close(self) -> ledger::View {
        self.channel.close(200, "done".into()).await.unwrap();
        self.book.view()
    }

    /// Goes on by itself, one message every `pace`.
    pub fn keep_sending(mut self, pace: Duration) -> Flow {
        let (stop, mut stopped) = watch::channel(());
        let book = self.book.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(pace);
            loop {
                tokio::select! {
                    _ = stopped.changed() => return self.close().await,
                    _ = ticks.tick() => self.send(1).await,
                }
            }
        });
        Flow { book, stop, task }
    }
}

/// A post that sends by itself.
pub struct Flow {
    book: ledger::Shared,
    stop: watch::Sender<()>,
    task: JoinHandle<ledger::View>,
}

impl Flow {
    pub fn sent(&self) -> u64 {
        self.book.view().published
    }

    /// The final ledger.
    pub async fn stop(self) -> ledger::View {
        self.stop.send_replace(());
        self.task.await.unwrap()
    }
}
