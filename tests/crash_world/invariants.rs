//! What must hold at every call, and what a good end is.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::Value;
use shadow::agent::store;
use shadow::agent::transfer::archive::MANIFEST;
use shadow::api::{Epoch, MigrationUid};
use std::sync::atomic::Ordering;

use super::World;
use super::api_server::User;
use super::app::{App, Life, PRIMARY};
use super::cluster::{NODES, migration, pod_key, shadows};
use super::mistake::Mistake;
use super::objects::{Key, text, uid};

#[derive(Default)]
pub struct Invariants {
    broken: Mutex<Vec<String>>,
    /// Which process applied a message.
    applied: Mutex<BTreeMap<u64, usize>>,
    /// How many writes over HTTP were acknowledged, by whomever.
    written: Mutex<u64>,
}

impl Invariants {
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().clone()
    }

    fn breaks(&self, world: &World, what: String) {
        world.wire.note(format!("VIOLATION: {what}"));
        self.broken.lock().push(what);
    }

    /// What its init container does is in no volume of this pod.
    pub fn fresh_without_init(&self, world: &World, pod: &str) {
        self.breaks(world, format!("pod {pod} starts fresh, and its init container has not run"));
    }

    /// The operator's deletion of the source is the commit's consequence.
    pub fn before_delete(&self, world: &World, user: User, key: &Key) {
        let is_source = *key == pod_key()
            && world.objects.get(key).is_some_and(|pod| uid(&pod) == world.source().pod_uid);
        let committed = migration(world).and_then(|m| m.status).is_some_and(|status| status.committed);
        if user == User::Operator && is_source && !committed {
            self.breaks(world, "the source is deleted though nothing is committed".into());
        }
    }

    pub fn before_eviction(&self, world: &World, user: User, key: &Key) {
        let Some(status) = migration(world).and_then(|m| m.status) else { return };
        let allowed = status.phase.is_terminal()
            || user == User::Operator && status.step.as_deref() == Some("Evicting");
        let of_source = world.objects.get(key).is_some_and(|pod| uid(&pod) == world.source().pod_uid);
        if of_source && !allowed {
            self.breaks(world, format!("the source is evicted by {user:?} in step {:?}", status.step));
        }
    }

    /// A journal is written: at the commit everything must lie ready.
    pub fn before_status(&self, world: &World, key: &Key, next: &Value) {
        let Some(now) = world.objects.get(key) else { return };
        if text(&now, "/metadata/resourceVersion") != text(next, "/metadata/resourceVersion") {
            return; // it will be refused, or should be
        }
        let committed = |object: &Value| object["status"]["committed"] == Value::Bool(true);
        if committed(&now) || !committed(next) {
            return;
        }
        world.wire.commits();
        let uid = MigrationUid::from(uid(&now));
        let epoch = Epoch(u32::try_from(next["status"]["epoch"].as_u64().unwrap_or(0)).unwrap_or(0));
        let target = text(next, "/status/targetNode");
        let Some(agent) = world.node(target).agent() else { return };
        let archive = agent.store.archive(&uid, epoch);
        let manifest = store::read::<Value>(&archive.join(MANIFEST)).ok().flatten();
        let digest = manifest.as_ref().map(|manifest| text(manifest, "/digest"));
        if digest != Some(text(next, "/status/journal/state/archive/digest")) {
            self.breaks(world, "committed without the verified archive on the target".into());
            return;
        }
        let restored = world.apps.lock().iter().any(|app| app.node == target && app.is_shadow_restored());
        if !restored {
            self.breaks(world, "committed though nothing was restored on the target".into());
        }
        let image = std::fs::read_to_string(archive.join("images/pages-1.img")).unwrap_or_default();
        let (kept, source) = (world.image(image.parse().unwrap_or(0)), world.source());
        if source.is_alive() && kept.applied != source.memory.lock().applied {
            self.breaks(world, "committed to an archive that is not the source's state".into());
        }
    }

    /// A process does something for the first time, or again after its connection broke.
    pub fn before_running(&self, world: &World, app: &App) {
        if !app.may_run() {
            self.breaks(world, format!("process {} of {} runs and was never let go", app.number, app.pod));
        }
    }

    /// One of its containers is let go: all of them must be there, restored.
    pub fn before_letting_go_of_pod(&self, world: &World, pod_uid: &str) {
        let app = world.app(pod_uid).is_some_and(|app| app.memory.lock().has_past);
        let sidecar = world.sidecar(pod_uid).is_some_and(|sidecar| sidecar.has_past());
        let fresh_by_mistake = world.scenario.has(Mistake::FreshShadow);
        if !(app || fresh_by_mistake) || !sidecar {
            let what =
                format!("a container of pod {pod_uid} is let go before all are back ({app}, {sidecar})");
            self.breaks(world, what);
        }
    }

    /// A container starts fresh: none of its pod may go on with its past.
    pub fn starts_fresh(&self, world: &World, pod_uid: &str) {
        let runs = |life: Life| matches!(life, Life::Running | Life::Frozen);
        let app = world.app(pod_uid).is_some_and(|app| app.memory.lock().has_past && runs(app.life()));
        let sidecar = world.sidecar(pod_uid).is_some_and(|one| one.has_past() && runs(one.life()));
        if app || sidecar {
            self.breaks(world, format!("pod {pod_uid} starts with a part restored and a part fresh"));
        }
    }

    /// What was restored is let go: nobody else of that name may live.
    pub fn before_letting_go(&self, world: &World, app: &App) {
        let apps = world.apps.lock();
        let others = apps.iter().filter(|other| other.number != app.number && other.pod == app.pod);
        let alive: Vec<usize> = others.filter(|other| other.is_alive()).map(|other| other.number).collect();
        drop(apps);
        if !alive.is_empty() {
            let what = format!("process {} of {} is let go beside {alive:?}", app.number, app.pod);
            self.breaks(world, what);
        }
    }

    /// A process that stands still is let go on.
    pub fn before_thaw(&self, world: &World, app: &App, epoch: Epoch) {
        let Some(status) = migration(world).and_then(|m| m.status) else { return };
        if app.life() == Life::Frozen && (status.committed || epoch < status.epoch) {
            self.breaks(
                world,
                format!(
                    "attempt {epoch} lets the source go on, in step {:?} of attempt {}",
                    status.step, status.epoch
                ),
            );
        }
    }

    /// A process is about to take messages.
    pub fn before_consuming(&self, world: &World, app: &App) {
        let seats = world.broker.consumers(PRIMARY);
        for other in world.apps.lock().iter().filter(|other| other.number != app.number && other.is_alive()) {
            if other.connection().is_some_and(|connection| seats.contains(&connection)) {
                self.breaks(
                    world,
                    format!(
                        "two consumers: {} ({}) beside {} ({})",
                        app.pod, app.number, other.pod, other.number
                    ),
                );
            }
        }
        let source = world.source();
        if app.number != source.number && source.is_alive() {
            self.breaks(world, format!("{} ({}) takes messages while the source lives", app.pod, app.number));
        }
    }

    pub fn applied(&self, world: &World, app: &App, number: u64) {
        let memory = app.memory.lock();
        let before = memory.applied.iter().rev().nth(1).copied();
        let in_order = if memory.has_past { Some(before.unwrap_or(0)) } else { before };
        drop(memory);
        if in_order.is_some_and(|before| before + 1 != number) {
            self.breaks(world, format!("{} ({}) applied {number} after {before:?}", app.pod, app.number));
        }
        if let Some(other) = self.applied.lock().insert(number, app.number) {
            self.breaks(
                world,
                format!("message {number} was applied by process {other} and by {}", app.number),
            );
        }
    }

    /// A process acknowledges a write over HTTP: it must know of all those before it.
    pub fn wrote(&self, world: &World, app: &App) {
        let all = {
            let mut written = self.written.lock();
            *written += 1;
            *written
        };
        let memory = app.memory.lock();
        let (known, has_past) = (memory.written, memory.has_past);
        drop(memory);
        if has_past && known != all {
            self.breaks(world, format!("{} ({}) knows {known} of {all} writes", app.pod, app.number));
        }
    }

    /// What the end of the migration should have taken away, but what a deposed operator may have made after it.
    pub fn left(&self, world: &World) -> Vec<String> {
        let mut left = Vec::new();
        let mut must = |holds: bool, what: &dyn Fn() -> String| {
            if !holds {
                left.push(what());
            }
        };
        let shadows = shadows(world);
        must(shadows.is_empty(), &|| format!("shadow pods are left: {shadows:?}"));
        let (slices, _) = world.objects.list("endpointslices", None);
        must(slices.is_empty(), &|| "a bridge is left".to_owned());
        let ours = [PRIMARY.to_owned(), shadow::api::control_queue(super::cluster::POD)];
        let queues: Vec<String> =
            world.broker.queues().into_iter().filter(|queue| !ours.contains(queue)).collect();
        must(queues.is_empty(), &|| format!("queues are left: {queues:?}"));
        left
    }

    /// What a good end lacks.
    pub fn missing(&self, world: &World) -> Vec<String> {
        let mut missing = self.left(world);
        let mut must = |holds: bool, what: &dyn Fn() -> String| {
            if !holds {
                missing.push(what());
            }
        };
        let migration = migration(world);
        let status = migration.as_ref().and_then(|m| m.status.clone()).unwrap_or_default();
        must(world.has_ended(), &|| format!("the migration is in step {:?}", status.step));
        let finalizers = migration.and_then(|m| m.metadata.finalizers).unwrap_or_default();
        must(finalizers.is_empty(), &|| format!("finalizers are left: {finalizers:?}"));

        for node in NODES.into_iter().filter(|node| !world.node(node).is_lost()) {
            for folder in ["archives", "dumps", "tickets"] {
                let entries = std::fs::read_dir(world.node(node).dir().join("shadow").join(folder)).unwrap();
                let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
                must(names.is_empty(), &|| format!("{folder} are left on {node}: {names:?}"));
            }
        }

        let pod = world.objects.get(&pod_key());
        let alive: Vec<_> = world.apps.lock().iter().filter(|app| app.is_alive()).cloned().collect();
        if world.scenario.all_is_deleted() {
            must(alive.is_empty() && pod.is_none(), &|| format!("{} processes live", alive.len()));
            missing.retain(|what| !what.starts_with("queues")); // they went with the broker
            return missing;
        }
        must(alive.len() == 1, &|| format!("{} processes live", alive.len()));
        let survivor = alive.iter().find(|app| pod.as_ref().is_some_and(|pod| uid(pod) == app.pod_uid));
        let Some(survivor) = survivor else {
            missing.push("nobody has the pod's name".to_owned());
            return missing;
        };
        must(survivor.life() == Life::Running, &|| "the survivor stands still".to_owned());
        let sidecars: Vec<_> = world.sidecars.lock().iter().filter(|one| one.is_alive()).cloned().collect();
        must(sidecars.len() == 1, &|| format!("{} sidecars live", sidecars.len()));
        let memory = survivor.memory.lock();
        for sidecar in &sidecars {
            must(sidecar.pod_uid == survivor.pod_uid, &|| "the survivor has no sidecar".to_owned());
            must(sidecar.life() == Life::Running, &|| "the survivor's sidecar stands still".to_owned());
            must(sidecar.has_past() == memory.has_past, &|| "a part is restored and a part fresh".to_owned());
        }
        must(memory.gate.parked_on().is_none(), &|| "the survivor is parked".to_owned());
        let published = world.published.load(Ordering::SeqCst);
        let all: Vec<u64> = (1..=published).collect();
        must(!memory.has_past || memory.applied == all, &|| {
            format!("the survivor applied {} of {published} messages", memory.applied.len())
        });
        let written = *self.written.lock();
        must(!memory.has_past || memory.written == written, &|| {
            format!("the survivor knows {} of {written} writes", memory.written)
        });
        must(world.scenario.bridged || written > 0, &|| "nothing was ever written".to_owned());
        let anywhere: Vec<u64> = self.applied.lock().keys().copied().collect();
        must(anywhere == all, &|| format!("{} of {published} messages were applied", anywhere.len()));
        let evicted = status.phase.is_terminal() && status.step.as_deref() == Some("Failed");
        must(memory.has_past || evicted && world.scenario.may_start_fresh(), &|| {
            "the survivor started without its state".to_owned()
        });
        missing
    }
}
