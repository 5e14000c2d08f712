//! What is done to the processes of a restored container: they are let go, watched and killed. Does I/O.
//!
//! Guarantees: each may be repeated; a container that is gone counts as killed; nothing is signalled but what lies in the
//! container's own cgroup.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::agent::failure::Failure;
use crate::agent::node::containers::Containers;
use crate::api::Refusal;

/// For freezing, waking and thawing.
const WAKE_PATIENCE: Duration = Duration::from_secs(5);
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// The engine puts an exit code on record soon after the end.
const CODE_PATIENCE: Duration = Duration::from_millis(250);
const CODE_LOOK: Duration = Duration::from_millis(10);
/// That a process which is not our child has ended is no event.
const LOOK_FOR_END: Duration = Duration::from_millis(5);

/// Restored containers, by the ID of their `create`.
#[async_trait]
pub trait Processes: Send + Sync {
    /// The engine has put on record that it has started the container, and not that it has ended.
    fn has_started(&self, container_id: &str) -> bool;

    /// Its first process lives, be it stopped.
    fn lives(&self, container_id: &str) -> bool;

    /// Lets all its processes go on, as if at once.
    async fn let_go(&self, container_id: &str) -> Result<(), Failure>;

    /// Resolves when its first process has ended, with its exit code where that can be told.
    async fn ended(&self, container_id: &str) -> Option<i32>;

    /// Kills all its processes; done when none is left.
    async fn kill(&self, container_id: &str) -> Result<(), Failure>;
}

#[async_trait]
impl Processes for Containers {
    fn has_started(&self, container_id: &str) -> bool {
        Self::has_started(self, container_id)
    }

    fn lives(&self, container_id: &str) -> bool {
        // What cannot be read is no proof of an end.
        self.by_id(container_id).map_or(true, |container| container.is_some())
    }

    async fn let_go(&self, container_id: &str) -> Result<(), Failure> {
        let Some(container) = self.by_id(container_id)? else { return Ok(()) };
        Ok(container.freezer.wake(Instant::now() + WAKE_PATIENCE).await?)
    }

    async fn ended(&self, container_id: &str) -> Option<i32> {
        loop {
            match self.by_id(container_id) {
                Ok(Some(container)) => {
                    while container.lives() {
                        sleep(LOOK_FOR_END).await;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, container = container_id, "whether it lives cannot be told");
                    sleep(LOOK_FOR_END).await;
                }
            }
        }
        let until = Instant::now() + CODE_PATIENCE;
        loop {
            let code = self.exit_code(container_id);
            if code.is_some() || Instant::now() >= until {
                return code;
            }
            sleep(CODE_LOOK).await;
        }
    }

    async fn kill(&self, container_id: &str) -> Result<(), Failure> {
        let Some(container) = self.on_record(container_id)? else { return Ok(()) };
        let killed = container.freezer.kill(Instant::now() + KILL_PATIENCE).await;
        killed.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))
    }
}
