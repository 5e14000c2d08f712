//! The example's producer in this process, and the comparison of its ledger with a consumer's state.

use clap::Parser;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::publisher::Control;
use super::{Stage, Subject, ledger, publisher, until};

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
        let (control, orders) = watch::channel(Control { rate, paused: false, connection: 0 });
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
        (ledger.published, 0, 0, 0),
        "in {} sessions; a lost connection makes the broker deliver again",
        state.sessions
    );
    assert_eq!(state.last_id, Some(ledger.last_id));
    assert_eq!(state.chain, ledger.chain);
}
