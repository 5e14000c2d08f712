//! A small world in memory for the real operator, the real webhook and the real tickets of two agents: an API server, a
//! broker, kubelets, a StatefulSet controller, a consumer. Every call between its parts can be struck, see [`wire`].

pub mod admission;
pub mod agent;
pub mod api_server;
pub mod app;
pub mod broker;
pub mod client;
pub mod cluster;
pub mod containers;
pub mod handover;
pub mod invariants;
pub mod kubelet;
pub mod mistake;
pub mod objects;
pub mod processes;
pub mod run;
pub mod scenario;
pub mod sidecar;
pub mod sweep;
pub mod transport;
pub mod watch;
pub mod wire;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use parking_lot::Mutex;

use agent::Agent;
use app::{App, Memory};
use scenario::Scenario;
use sidecar::Sidecar;
use wire::{Blow, Line, Wire};

/// One node: its folder outlives its agent.
pub struct Node {
    dir: tempfile::TempDir,
    agent: Mutex<Option<Arc<Agent>>>,
    lost: AtomicBool,
}

impl Node {
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn agent(&self) -> Option<Arc<Agent>> {
        self.agent.lock().clone()
    }

    /// Its machine has lost its power for good.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    pub fn set_agent(&self, agent: Option<Arc<Agent>>) {
        *self.agent.lock() = agent;
    }
}

/// Everything there is.
pub struct Parts {
    pub scenario: Scenario,
    pub wire: Arc<Wire>,
    /// The API server's own way to the webhook.
    pub api_line: Line,
    pub objects: objects::Objects,
    pub broker: broker::Broker,
    pub webhook: Mutex<Option<Router>>,
    pub apps: Mutex<Vec<Arc<App>>>,
    pub sidecars: Mutex<Vec<Arc<Sidecar>>>,
    pub containers: containers::Containers,
    pub published: AtomicU64,
    /// Somebody who was waited for has mended what kept it from living, or has given up.
    pub decided: AtomicBool,
    /// Nobody reaches the broker any more.
    pub broker_is_gone: AtomicBool,
    pub invariants: invariants::Invariants,
    nodes: BTreeMap<&'static str, Node>,
    images: Mutex<Vec<Memory>>,
}

#[derive(Clone)]
pub struct World(Arc<Parts>);

impl Deref for World {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl World {
    pub fn new(scenario: Scenario, blow: Option<Blow>) -> Self {
        let wire = Wire::new(blow);
        let dir = || {
            if Path::new("/dev/shm").is_dir() {
                tempfile::tempdir_in("/dev/shm")
            } else {
                tempfile::tempdir()
            }
        };
        let node = |name| {
            (name, Node { dir: dir().unwrap(), agent: Mutex::default(), lost: AtomicBool::new(false) })
        };
        let world = Self(Arc::new(Parts {
            scenario,
            api_line: wire.line("API server", false),
            wire,
            objects: objects::Objects::default(),
            broker: broker::Broker::default(),
            webhook: Mutex::default(),
            apps: Mutex::default(),
            sidecars: Mutex::default(),
            containers: containers::Containers::default(),
            published: AtomicU64::new(0),
            decided: AtomicBool::new(false),
            broker_is_gone: AtomicBool::new(false),
            invariants: invariants::Invariants::default(),
            nodes: cluster::NODES.into_iter().map(node).collect(),
            images: Mutex::default(),
        }));
        cluster::furnish(&world);
        world
    }

    pub fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// The node's machine is gone, and everything on it.
    pub fn lose(&self, name: &str) {
        let node = self.node(name);
        node.lost.store(true, Ordering::SeqCst);
        if let Some(agent) = node.agent() {
            agent.stopped.cancel();
        }
        node.set_agent(None);
        let there: Vec<_> = self.apps.lock().iter().filter(|app| app.node == name).cloned().collect();
        for app in there.into_iter().filter(|app| app.is_alive()) {
            app.kill(self);
        }
        self.sidecars.lock().iter().filter(|one| one.node == name).for_each(|one| one.kill());
        self.wire.note(format!("{name} is lost"));
    }

    /// The living process of a pod.
    pub fn app(&self, pod_uid: &str) -> Option<Arc<App>> {
        self.apps.lock().iter().rev().find(|app| app.pod_uid == pod_uid && app.is_alive()).cloned()
    }

    /// The living sidecar of a pod.
    pub fn sidecar(&self, pod_uid: &str) -> Option<Arc<Sidecar>> {
        self.sidecars.lock().iter().rev().find(|one| one.pod_uid == pod_uid && one.is_alive()).cloned()
    }

    /// The process that the drain is about: the first there was.
    pub fn source(&self) -> Arc<App> {
        Arc::clone(&self.apps.lock()[0])
    }

    pub fn has_ended(&self) -> bool {
        let (migrations, _) = self.objects.list("statefulmigrations", None);
        if self.scenario.all_is_deleted() {
            return migrations.is_empty() && self.broker_is_gone.load(Ordering::SeqCst);
        }
        migrations.iter().any(|m| matches!(objects::text(m, "/status/phase"), "Completed" | "Failed"))
    }

    /// What a dump takes along.
    pub fn keep_image(&self, memory: Memory) -> usize {
        let mut images = self.images.lock();
        images.push(memory);
        images.len() - 1
    }

    pub fn image(&self, number: usize) -> Memory {
        let image = self.images.lock()[number].clone();
        Memory { has_past: true, ..image }
    }
}
