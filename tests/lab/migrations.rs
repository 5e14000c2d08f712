//! What the product says of its migrations, with the time at which it was seen here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{Result, eventually};
use crate::lab::Failure;
use shadow::api::{Phase, StatefulMigration, StatefulMigrationStatus};

/// A migration came to a step.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub at: Instant,
    pub migration: String,
    pub pod: String,
    pub step: String,
    pub phase: Phase,
    pub reason: String,
    pub message: String,
    pub target: Option<String>,
}

type OnSighting = Arc<dyn Fn(&Sighting) + Send + Sync>;

#[derive(Default)]
struct Seen {
    sightings: Vec<Sighting>,
    latest: BTreeMap<String, StatefulMigration>,
}

/// Watches the migrations of one namespace until it is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub fn start(client: Client, namespace: &str, on_sighting: Option<OnSighting>) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let api: Api<StatefulMigration> = Api::namespaced(client, namespace);
        let into = seen.clone();
        let task = tokio::spawn(async move {
            let stream = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
            let mut stream = std::pin::pin!(stream);
            while let Some(object) = stream.next().await {
                let Ok(object) = object else { continue };
                if let Some(sighting) = note(&into, object)
                    && let Some(tell) = &on_sighting
                {
                    tell(&sighting);
                }
            }
        });
        Self { seen, task }
    }

    pub fn sightings(&self) -> Vec<Sighting> {
        self.seen.lock().sightings.clone()
    }

    /// The newest migration of that pod name.
    pub fn latest(&self, pod: &str) -> Option<StatefulMigration> {
        let seen = self.seen.lock();
        let last = seen.sightings.iter().rev().find(|sighting| sighting.pod == pod)?;
        seen.latest.get(&last.migration).cloned()
    }

    pub fn migrations(&self) -> Vec<StatefulMigration> {
        self.seen.lock().latest.values().cloned().collect()
    }

    /// The migration of that pod object, once it has ended.
    pub async fn ended(&self, pod_uid: &str, limit: Duration) -> Result<StatefulMigration> {
        eventually(&format!("the migration of {pod_uid} ends"), limit, async || {
            let found = self.of_uid(pod_uid);
            if let Some(object) = &found
                && !status_of(object).phase.is_terminal()
            {
                let status = status_of(object);
                let said = format!(
                    "{} {}: {}",
                    status.step.unwrap_or_default(),
                    status.reason.unwrap_or_default(),
                    status.message.unwrap_or_default()
                );
                return Err(Failure::from(said));
            }
            Ok(found)
        })
        .await
    }

    /// The migration of that pod object, at the first step that is wanted.
    pub async fn reaches(&self, pod_uid: &str, steps: &[&str], limit: Duration) -> Result<Sighting> {
        eventually(&format!("a migration at {steps:?}"), limit, async || {
            let name = self.of_uid(pod_uid).map(|object| object.name_any());
            let seen = self.seen.lock();
            let wanted =
                |one: &&Sighting| Some(&one.migration) == name.as_ref() && steps.contains(&one.step.as_str());
            Ok(seen.sightings.iter().find(wanted).cloned())
        })
        .await
    }

    /// The migration of that pod object has been seen at that step.
    pub fn has_reached(&self, pod_uid: &str, step: &str) -> bool {
        let Some(name) = self.of_uid(pod_uid).map(|object| object.name_any()) else { return false };
        self.seen.lock().sightings.iter().any(|one| one.migration == name && one.step == step)
    }

    fn of_uid(&self, pod_uid: &str) -> Option<StatefulMigration> {
        let seen = self.seen.lock();
        seen.latest
            .values()
            .find(|one| one.spec.source_pod_uid.as_ref().is_some_and(|uid| uid.as_str() == pod_uid))
            .cloned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn status_of(object: &StatefulMigration) -> StatefulMigrationStatus {
    object.status.clone().unwrap_or_default()
}

/// Remembers the object; a sighting where its step is a new one.
fn note(seen: &Mutex<Seen>, object: StatefulMigration) -> Option<Sighting> {
    let status = status_of(&object);
    let migration = object.name_any();
    let sighting = Sighting {
        at: Instant::now(),
        migration: migration.clone(),
        pod: object.spec.source_pod.clone(),
        step: status.step.unwrap_or_else(|| "Created".into()),
        phase: status.phase,
        reason: status.reason.unwrap_or_default(),
        message: status.message.unwrap_or_default(),
        target: status.target_node,
    };
    let mut seen = seen.lock();
    seen.latest.insert(migration.clone(), object);
    let before = seen.sightings.iter().rev().find(|one| one.migration == migration);
    if before.is_some_and(|one| one.step == sighting.step) {
        return None;
    }
    seen.sightings.push(sighting.clone());
    Some(sighting)
}
