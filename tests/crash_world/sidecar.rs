//! The pod's second container: a native sidecar that holds something and does nothing else. It must be frozen, moved, let go
//! and killed with the app, and never be older or younger than that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::World;
use super::app::Life;

/// Name of the container.
pub const SIDECAR: &str = "log";

pub struct Sidecar {
    pub node: String,
    pub pod_uid: String,
    /// What it holds is what the source's held.
    pub has_past: AtomicBool,
    life: watch::Sender<Life>,
}

impl Sidecar {
    pub fn start(world: &World, node: &str, pod_uid: &str) -> Arc<Self> {
        Self::begin(world, node, pod_uid, Life::Running, false)
    }

    /// It stands still until somebody lets it go.
    pub fn restore(world: &World, node: &str, pod_uid: &str) -> Arc<Self> {
        Self::begin(world, node, pod_uid, Life::Stopped, true)
    }

    fn begin(world: &World, node: &str, pod_uid: &str, life: Life, has_past: bool) -> Arc<Self> {
        let sidecar = Arc::new(Self {
            node: node.to_owned(),
            pod_uid: pod_uid.to_owned(),
            has_past: AtomicBool::new(has_past),
            life: watch::Sender::new(life),
        });
        world.sidecars.lock().push(Arc::clone(&sidecar));
        sidecar
    }

    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    pub fn is_alive(&self) -> bool {
        self.life() != Life::Dead
    }

    pub fn has_past(&self) -> bool {
        self.has_past.load(Ordering::SeqCst)
    }

    pub fn freeze(&self) {
        self.turns(Life::Running, Life::Frozen);
    }

    pub fn thaw(&self) {
        self.turns(Life::Frozen, Life::Running);
    }

    /// What was restored goes on.
    pub fn wake(&self) {
        self.turns(Life::Stopped, Life::Running);
    }

    fn turns(&self, from: Life, to: Life) {
        self.life.send_if_modified(|life| {
            let is_so = *life == from;
            if is_so {
                *life = to;
            }
            is_so
        });
    }

    pub fn kill(&self) {
        self.life.send_replace(Life::Dead);
    }

    pub async fn died(&self) {
        let _ = self.life.subscribe().wait_for(|life| *life == Life::Dead).await;
    }
}
