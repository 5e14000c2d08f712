//! The containers of this world as the agents' tickets touch them: restored processes stand still until they are let go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use shadow::agent::failure::Failure;
use shadow::agent::restore::processes::Processes;
use tokio::time::sleep;

use super::World;
use super::app::{App, Life};
use super::sidecar::Sidecar;

/// Until a restored process finds its connections closed, where it ends of that.
const FINDS_OUT: Duration = Duration::from_millis(30);

/// Restored containers by ID.
#[derive(Default)]
pub struct Containers(Mutex<BTreeMap<String, Container>>);

#[derive(Clone)]
struct Container {
    process: Process,
    /// The engine has its start on record.
    started: bool,
}

impl Containers {
    pub fn add(&self, id: &str, process: &Process) {
        self.0.lock().insert(id.to_owned(), Container { process: process.clone(), started: false });
    }

    /// The kubelet has started it.
    pub fn start(&self, id: &str) {
        if let Some(container) = self.0.lock().get_mut(id) {
            container.started = true;
        }
    }

    fn get(&self, id: &str) -> Option<Container> {
        self.0.lock().get(id).cloned()
    }
}

/// What runs in a container.
#[derive(Clone)]
pub enum Process {
    App(Arc<App>),
    Sidecar(Arc<Sidecar>),
}

impl Process {
    pub fn is_alive(&self) -> bool {
        match self {
            Self::App(app) => app.is_alive(),
            Self::Sidecar(sidecar) => sidecar.is_alive(),
        }
    }

    pub fn kill(&self, world: &World) {
        match self {
            Self::App(app) => app.kill(world),
            Self::Sidecar(sidecar) => sidecar.kill(),
        }
    }

    async fn died(&self) {
        match self {
            Self::App(app) => app.died().await,
            Self::Sidecar(sidecar) => sidecar.died().await,
        }
    }
}

/// The hands of one node's agent.
pub struct Hands(pub World);

#[async_trait]
impl Processes for Hands {
    fn has_started(&self, id: &str) -> bool {
        self.0.containers.get(id).is_some_and(|container| container.started && container.process.is_alive())
    }

    fn lives(&self, id: &str) -> bool {
        self.0.containers.get(id).is_some_and(|container| container.process.is_alive())
    }

    async fn let_go(&self, id: &str) -> Result<(), Failure> {
        let Some(Container { process, .. }) = self.0.containers.get(id) else { return Ok(()) };
        if let Process::Sidecar(sidecar) = &process
            && sidecar.life() == Life::Stopped
        {
            self.0.invariants.before_letting_go_of_pod(&self.0, &sidecar.pod_uid);
            sidecar.wake();
        }
        if let Process::App(app) = process
            && app.life() == Life::Stopped
        {
            self.0.invariants.before_letting_go_of_pod(&self.0, &app.pod_uid);
            self.0.invariants.before_letting_go(&self.0, &app);
            app.wake();
            if self.0.scenario.ends_of_its_connections() {
                let world = self.0.clone();
                tokio::spawn(async move {
                    sleep(FINDS_OUT).await;
                    app.kill(&world);
                });
            }
        }
        Ok(())
    }

    async fn ended(&self, id: &str) -> Option<i32> {
        if let Some(container) = self.0.containers.get(id) {
            container.process.died().await;
        }
        Some(137)
    }

    async fn kill(&self, id: &str) -> Result<(), Failure> {
        if let Some(container) = self.0.containers.get(id) {
            container.process.kill(&self.0);
        }
        Ok(())
    }
}
