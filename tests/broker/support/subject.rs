//! The example's consumer in this process, behind a wire.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{PATIENCE, Stage, Wire, session, state, until};

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
        let state = state::State::shared(0, false).unwrap();
        let consumer = session::Consumer::new(config, state.clone());
        let task = tokio::spawn(async { match consumer.run().await {} });
        Self { state, wire, hostname, task }
    }

    pub fn view(&self) -> state::View {
        self.state.lock().view()
    }

    pub fn rename(&self, pod: &str) {
        std::fs::write(self.hostname.path(), format!("{pod}\n")).unwrap();
    }

    /// As a restore under another name does it: the memory is there, the sockets are closed.
    pub async fn moves_to(&self, pod: &str) {
        let sessions = self.view().sessions;
        self.rename(pod);
        self.wire.cut();
        until("it is back under its new name", async || {
            let now = self.view();
            now.sessions > sessions && now.connected && now.pod == pod
        })
        .await;
    }

    pub async fn is_connected(&self) {
        until("the consumer is connected", async || self.view().connected).await;
    }

    /// However slow the machine is, it must get on, and come to the end.
    pub async fn has_applied(&self, count: u64) {
        let begun = Instant::now();
        let mut got_on = (Instant::now(), self.view().count);
        while self.view().count < count {
            let view = self.view();
            if view.count > got_on.1 {
                got_on = (Instant::now(), view.count);
            }
            assert!(
                got_on.0.elapsed() < PATIENCE && begun.elapsed() < PATIENCE * 3,
                "{count} messages are not applied, and none in {PATIENCE:?} beyond {}; connected {}, parked {}, sessions {}",
                view.count,
                view.connected,
                view.parked,
                view.sessions
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// As a crash does it: no good-bye on the connection.
    pub async fn crash(self) {
        self.wire.cut();
        self.task.abort();
        let _ = self.task.await;
    }
}
