//! The agent of one node. Its tickets, fences, tombstones, archives and store are the product's own, on a folder;
//! what it does to containers is done to this world's processes, in the order in which `agent::orders` and `agent::dump`
//! do it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shadow::agent::failure::Failure;
use shadow::agent::node::capacity::Meter;
use shadow::agent::node::containers::Containers;
use shadow::agent::node::host::Host;
use shadow::agent::restore::fence::{Fence, Stale};
use shadow::agent::restore::tickets::Tickets;
use shadow::agent::store::{self, Durability, Store};
use shadow::agent::transfer::archive::{IMAGES, LAYER, Origin, container_folder, write};
use shadow::agent::transfer::receive::receive;
use shadow::api::{
    ArchiveSize, AwaitOrder, CarryOrder, CloseOrder, DumpOrder, DumpReport, Epoch, Findings, Hold,
    MigrationUid, NodeName, OpenTicketOrder, PodContainers, PodOrder, Refusal, Role, SpendOrder,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::World;
use super::app::App;
use super::containers::Hands;
use super::mistake::Mistake;
use super::sidecar::SIDECAR;
use super::wire::Line;

const DUMP_TIME: Duration = Duration::from_millis(40);
const SPEND_TIME: Duration = Duration::from_secs(5);
const JOB: &str = "job.json";
const REPORT: &str = "report.json";

type Outcome = Result<DumpReport, Failure>;
type Ending = watch::Receiver<Option<Outcome>>;

#[derive(Serialize, Deserialize)]
struct Job {
    containers: PodContainers,
}

/// One life of a node's agent.
pub struct Agent {
    pub store: Store,
    pub tickets: Arc<Tickets>,
    pub stopped: CancellationToken,
    node: String,
    line: Line,
    jobs: Mutex<HashMap<(MigrationUid, Epoch), Ending>>,
    lock: tokio::sync::Mutex<()>,
}

fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::new(Refusal::Malformed, error.to_string()))
}

/// An archive as it goes over the network.
fn streamed(dir: &Path, origin: &Origin) -> Result<Vec<u8>, Failure> {
    let mut stream = Vec::new();
    let taken = write(dir, origin, &mut |chunk: Bytes| {
        stream.extend_from_slice(&chunk);
        true
    });
    taken.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))?;
    Ok(stream)
}

fn freeze(world: &World, pod: &str) {
    if let Some(app) = world.app(pod) {
        app.freeze(world);
    }
    if let Some(sidecar) = world.sidecar(pod) {
        sidecar.freeze();
    }
}

fn thaw(world: &World, pod: &str) {
    if let Some(app) = world.app(pod) {
        app.thaw();
    }
    if let Some(sidecar) = world.sidecar(pod) {
        sidecar.thaw();
    }
}

fn kill(world: &World, pod: &str) {
    if let Some(app) = world.app(pod) {
        app.kill(world);
    }
    if let Some(sidecar) = world.sidecar(pod) {
        sidecar.kill();
    }
}

/// Folder of the node's container runtime.
pub fn bundles(dir: &Path) -> std::path::PathBuf {
    dir.join("node/run/containerd/io.containerd.runtime.v2.task/k8s.io")
}

impl Agent {
    /// Starts on what its folder holds.
    pub fn start(world: &World, node: &str, dir: &Path) -> Arc<Self> {
        let store = Store::open(&dir.join("shadow")).unwrap();
        std::fs::create_dir_all(bundles(dir)).unwrap();
        let containers = Containers::new(Host::at(&dir.join("node")));
        let tickets = Tickets::over(store.clone(), containers, Arc::new(Hands(world.clone())));
        let tickets = Arc::new(tickets.unwrap());
        let agent = Arc::new(Self {
            store,
            tickets,
            stopped: CancellationToken::new(),
            node: node.to_owned(),
            line: world.wire.line(&format!("agent {node}"), true),
            jobs: Mutex::default(),
            lock: tokio::sync::Mutex::default(),
        });
        agent.recover(world);
        let (tickets, stopped) = (Arc::clone(&agent.tickets), agent.stopped.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tickets.look_after() => {}
                () = stopped.cancelled() => {}
            }
        });
        agent
    }

    /// As `agent::dump::recover`.
    fn recover(&self, world: &World) {
        for (uid, epoch) in self.store.dumps().unwrap() {
            let dir = self.store.dump(&uid, epoch);
            if dir.join(REPORT).exists() {
                continue;
            }
            if let Some(job) = store::read::<Job>(&dir.join(JOB)).unwrap() {
                thaw(world, job.containers.pod.uid.as_str());
            }
            store::remove(&dir).unwrap();
        }
    }

    /// An order as it comes from the network.
    pub async fn order(self: &Arc<Self>, world: &World, path: &str, bytes: &[u8]) -> Result<Value, Failure> {
        if path == "/v1/size" {
            return Ok(json!(ArchiveSize { bytes: 1 << 20 }));
        }
        if path == "/v1/look" {
            return Ok(json!(Findings::default()));
        }
        if path == "/v1/image" {
            let another = world.scenario.has_another_image(&self.node);
            return Ok(json!({ "image": if another { "sha256:two" } else { "sha256:one" } }));
        }
        let parts: Vec<&str> = path.trim_start_matches("/v1/migrations/").split('/').collect();
        let uid = MigrationUid::from(parts[0]);
        let role = |text: &str| if text == "shadow" { Role::Shadow } else { Role::Replacement };
        match parts[1..] {
            ["dump"] => Ok(json!(self.dump(world, &uid, body(bytes)?).await?)),
            ["freeze"] => self.act(world, &uid, body(bytes)?, Fence::admit_forward, freeze).await,
            ["thaw"] => {
                let order: PodOrder = body(bytes)?;
                self.pass(world, &uid, order.epoch, Fence::call_off)?;
                let _lock = self.lock.lock().await;
                let pod = order.containers.pod.uid.as_str();
                if let Some(app) = world.app(pod) {
                    world.invariants.before_thaw(world, &app, order.epoch);
                }
                thaw(world, pod);
                Ok(json!({}))
            }
            ["kill"] => {
                if world.scenario.has(Mistake::DumpDroppedAtKill) {
                    let order: PodOrder = body(bytes)?;
                    store::remove(&self.store.dump(&uid, order.epoch))?;
                }
                self.act(world, &uid, body(bytes)?, Fence::admit_kill, kill).await
            }
            ["close"] => {
                let order: CloseOrder = body(bytes)?;
                self.tickets.close(&uid, order.epoch, order.keep)?;
                self.jobs
                    .lock()
                    .retain(|(of, at), job| *of != uid || *at > order.epoch || job.borrow().is_none());
                Ok(json!({}))
            }
            ["tickets", of] => {
                let order: OpenTicketOrder = body(bytes)?;
                self.tickets.open_ticket(&uid, role(of), &order)?;
                Ok(json!({}))
            }
            ["tickets", of, "await"] => {
                let order: AwaitOrder = body(bytes)?;
                Ok(json!(self.tickets.await_ticket(&uid, role(of), &order).await?))
            }
            ["tickets", of, "spend"] => {
                let order: SpendOrder = body(bytes)?;
                let deadline = Instant::now() + SPEND_TIME;
                self.tickets.spend(&uid, role(of), &order, deadline).await?;
                Ok(json!({}))
            }
            ["carry"] => Ok(json!(self.carry(world, &uid, &body(bytes)?).await?)),
            _ => Err(Failure::new(Refusal::Malformed, path)),
        }
    }

    /// As `agent::transfer`.
    async fn carry(&self, world: &World, uid: &MigrationUid, order: &CarryOrder) -> Outcome {
        self.pass(world, uid, order.epoch, Fence::admit_forward)?;
        let archive = self.store.archive(uid, order.epoch);
        let here = self.tickets.archive(uid, order.epoch)?.filter(|manifest| manifest.digest == order.digest);
        if let (Some(manifest), None) = (&here, &order.target) {
            let (digest, bytes) = (manifest.digest.clone(), manifest.bytes);
            return Ok(DumpReport::arrived(digest, bytes, 0));
        }
        let dir = if here.is_some() { archive } else { self.store.dump(uid, order.epoch) };
        if !dir.join(LAYER).exists() {
            return Err(Failure::new(Refusal::NoArchive, "neither archive nor dump lies here"));
        }
        let origin = Origin {
            migration: uid.clone(),
            epoch: order.epoch,
            container: "app".into(),
            beside: vec![SIDECAR.into()],
        };
        match &order.target {
            Some(target) => self.send(world, &dir, origin, &target.node).await,
            None => {
                let stream = streamed(&dir, &origin)?;
                let (uid, meter) = (origin.migration.clone(), Meter::default());
                receive(&self.tickets, &self.store, &meter, &uid, origin.epoch, Body::from(stream)).await
            }
        }
    }

    fn pass(
        &self,
        world: &World,
        uid: &MigrationUid,
        epoch: Epoch,
        check: fn(&mut Fence, Epoch) -> Result<(), Stale>,
    ) -> Result<(), Failure> {
        let passed = self.tickets.pass(uid, |fence| check(fence, epoch));
        if world.scenario.has(Mistake::AgentsIgnoreFences) { Ok(()) } else { passed }
    }

    async fn act(
        &self,
        world: &World,
        uid: &MigrationUid,
        order: PodOrder,
        check: fn(&mut Fence, Epoch) -> Result<(), Stale>,
        act: fn(&World, &str),
    ) -> Result<Value, Failure> {
        let _lock = self.lock.lock().await;
        self.pass(world, uid, order.epoch, check)?;
        act(world, order.containers.pod.uid.as_str());
        Ok(json!({}))
    }

    async fn dump(self: &Arc<Self>, world: &World, uid: &MigrationUid, order: DumpOrder) -> Outcome {
        let deadline = Instant::now() + Duration::from_millis(order.timeout_ms);
        self.pass(world, uid, order.epoch, Fence::admit_forward)?;
        let mut job = {
            let mut jobs = self.jobs.lock();
            match jobs.get(&(uid.clone(), order.epoch)) {
                Some(job) => job.clone(),
                None => {
                    if let Some(report) = store::read(&self.store.dump(uid, order.epoch).join(REPORT))? {
                        return Ok(report);
                    }
                    let (sender, receiver) = watch::channel(None);
                    jobs.insert((uid.clone(), order.epoch), receiver.clone());
                    let (agent, world, uid) = (Arc::clone(self), world.clone(), uid.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            outcome = agent.run_dump(&world, &uid, &order) => { sender.send_replace(Some(outcome)); }
                            () = agent.stopped.cancelled() => {}
                        }
                    });
                    receiver
                }
            }
        };
        let broken_off = || Failure::new(Refusal::RuntimeFailed, "the dump broke off");
        match timeout_at(deadline, job.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(broken_off())),
            Ok(Err(_)) => Err(broken_off()),
            Err(_) => Err(Failure::new(Refusal::TimedOut, "the dump has not ended in time")),
        }
    }

    async fn run_dump(&self, world: &World, uid: &MigrationUid, order: &DumpOrder) -> Outcome {
        let pod = &order.containers.pod;
        let Some(app) = world.app(pod.uid.as_str()) else {
            return Err(Failure::new(Refusal::ContainerNotFound, format!("no container of {}", pod.name)));
        };
        let dir = self.store.dump(uid, order.epoch);
        let outcome = self.dump_and_send(world, uid, order, &app, &dir).await;
        if outcome.is_err() {
            store::remove(&dir)?;
        }
        outcome
    }

    async fn dump_and_send(
        &self,
        world: &World,
        uid: &MigrationUid,
        order: &DumpOrder,
        app: &Arc<App>,
        dir: &Path,
    ) -> Outcome {
        let lock = self.lock.lock().await;
        self.pass(world, uid, order.epoch, Fence::admit_forward)?;
        store::remove(dir)?;
        std::fs::create_dir_all(dir.join(IMAGES)).unwrap();
        store::write(&dir.join(JOB), &Job { containers: order.containers.clone() }, Durability::Process)?;
        if !world.scenario.has(Mistake::DumpWithoutFreeze) {
            freeze(world, order.containers.pod.uid.as_str());
        }
        let image = world.keep_image(app.memory.lock().clone());
        sleep(DUMP_TIME).await;
        std::fs::write(dir.join(IMAGES).join("pages-1.img"), image.to_string()).unwrap();
        std::fs::write(dir.join(LAYER), "changed files").unwrap();
        for number in 0..order.containers.beside.len() {
            let part = dir.join(container_folder(number));
            std::fs::create_dir_all(part.join(IMAGES)).unwrap();
            std::fs::write(part.join(IMAGES).join("pages-1.img"), "held").unwrap();
            std::fs::write(part.join(LAYER), "changed files").unwrap();
        }
        let fails = world.scenario.dump_fails(order.epoch);
        let stands_still = order.hold == Hold::Frozen && !fails;
        let pod = order.containers.pod.uid.as_str();
        if !stands_still {
            thaw(world, pod);
        }
        drop(lock);
        if fails {
            return Err(Failure::new(Refusal::RuntimeFailed, "CRIU: cannot dump this"));
        }
        let origin = Origin::of(uid, order.epoch, order.containers.clone());
        let sent = self.send(world, dir, origin, &order.target.node).await;
        match sent {
            Ok(report) => {
                let report = DumpReport { beside: order.containers.beside.clone(), ..report };
                store::write(&dir.join(REPORT), &report, Durability::Process)?;
                Ok(report)
            }
            Err(failure) if stands_still => {
                let _lock = self.lock.lock().await;
                thaw(world, pod);
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn send(&self, world: &World, dir: &Path, origin: Origin, to: &NodeName) -> Outcome {
        let stream = streamed(dir, &origin)?;
        let cut_off = || Failure::new(Refusal::TransferFailed, "connection reset by peer");
        let (there, to) = (world.clone(), to.clone());
        let taken = async move {
            let agent = there.node(to.as_str()).agent().ok_or_else(cut_off)?;
            let meter = Meter::default();
            tokio::select! {
                taken = receive(&agent.tickets, &agent.store, &meter, &origin.migration, origin.epoch, Body::from(stream)) => taken,
                () = agent.stopped.cancelled() => Err(cut_off()),
            }
        };
        self.line.call("archive to the target's agent", taken).await.map_err(|_| cut_off())?
    }
}
