//! What the API server keeps: objects with resourceVersion, finalizers and owners, and the log that watches read. No I/O.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub plural: String,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(plural: &str, namespace: &str, name: &str) -> Self {
        Self { plural: plural.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// How the API server refuses.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    pub fn not_found(key: &Key) -> Self {
        Self::new(404, "NotFound", format!("{} \"{}\" not found", key.plural, key.name))
    }

    pub fn conflict(key: &Key) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{}\"", key.plural, key.name);
        Self::new(409, "Conflict", message)
    }
}

/// One line of a watch.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub kind: &'static str,
    pub key: Key,
    pub object: Value,
}

#[derive(Default)]
struct Inner {
    all: BTreeMap<Key, Value>,
    version: u64,
    uids: u64,
    log: Vec<Change>,
    /// On the clock that stands still; the one on the wall does not.
    born: BTreeMap<String, Instant>,
}

/// Everything that is stored.
pub struct Objects {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

impl Default for Objects {
    fn default() -> Self {
        Self { inner: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// kind and apiVersion of a resource.
pub fn kind(plural: &str) -> (&'static str, &'static str) {
    match plural {
        "pods" => ("Pod", "v1"),
        "services" => ("Service", "v1"),
        "nodes" => ("Node", "v1"),
        "secrets" => ("Secret", "v1"),
        "statefulsets" => ("StatefulSet", "apps/v1"),
        "replicasets" => ("ReplicaSet", "apps/v1"),
        "deployments" => ("Deployment", "apps/v1"),
        "networkpolicies" => ("NetworkPolicy", "networking.k8s.io/v1"),
        "poddisruptionbudgets" => ("PodDisruptionBudget", "policy/v1"),
        "events" => ("Event", "events.k8s.io/v1"),
        "endpointslices" => ("EndpointSlice", "discovery.k8s.io/v1"),
        "statefulmigrations" => ("StatefulMigration", "migration.ms2m.io/v1alpha1"),
        other => panic!("no such resource in this world: {other}"),
    }
}

impl Objects {
    pub fn get(&self, key: &Key) -> Option<Value> {
        let inner = self.inner.lock();
        inner.all.get(key).map(|object| inner.shown(object))
    }

    /// All of a kind, and the version that a watch goes on from.
    pub fn list(&self, plural: &str, namespace: Option<&str>) -> (Vec<Value>, u64) {
        let inner = self.inner.lock();
        let wanted = |key: &Key| key.plural == plural && namespace.is_none_or(|n| key.namespace == n);
        let found = inner.all.iter().filter(|(key, _)| wanted(key));
        (found.map(|(_, object)| inner.shown(object)).collect(), inner.version)
    }

    pub fn create(&self, key: &Key, mut object: Value) -> Result<Value, Refusal> {
        let mut inner = self.inner.lock();
        if inner.all.contains_key(key) {
            let message = format!("{} \"{}\" already exists", key.plural, key.name);
            return Err(Refusal::new(409, "AlreadyExists", message));
        }
        inner.uids += 1;
        let uid = format!("0000{:04}-{}", inner.uids, key.plural.len());
        let (kind, version) = kind(&key.plural);
        object["kind"] = json!(kind);
        object["apiVersion"] = json!(version);
        let meta = &mut object["metadata"];
        meta["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            meta["namespace"] = json!(key.namespace);
        }
        meta["uid"] = json!(uid);
        meta["generation"] = json!(1);
        meta["creationTimestamp"] = json!(Timestamp::now().to_string());
        inner.born.insert(uid, Instant::now());
        let stored = inner.put(key, object, "ADDED");
        self.tell(inner.version);
        Ok(stored)
    }

    /// Changes an object; with a version given, only that version of it.
    pub fn change(
        &self,
        key: &Key,
        version: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> Result<Value, Refusal> {
        let mut inner = self.inner.lock();
        let Some(mut object) = inner.all.get(key).cloned() else { return Err(Refusal::not_found(key)) };
        if version.is_some_and(|version| version != text(&object, "/metadata/resourceVersion")) {
            return Err(Refusal::conflict(key));
        }
        let before = object.clone();
        change(&mut object);
        if object == before {
            return Ok(inner.shown(&object));
        }
        let is_over = object.pointer("/metadata/deletionTimestamp").is_some()
            && key.plural != "pods"
            && !has_finalizers(&object);
        let stored = if is_over {
            inner.remove(key);
            object
        } else {
            inner.put(key, object, "MODIFIED")
        };
        self.tell(inner.version);
        Ok(stored)
    }

    /// Deletes an object, or marks it where somebody has to see to it first.
    pub fn delete(&self, key: &Key, wanted_uid: Option<&str>, at_once: bool) -> Result<Value, Refusal> {
        let mut inner = self.inner.lock();
        let Some(mut object) = inner.all.get(key).cloned() else { return Err(Refusal::not_found(key)) };
        if wanted_uid.is_some_and(|wanted| wanted != uid(&object)) {
            return Err(Refusal::conflict(key));
        }
        let waits = has_finalizers(&object)
            || key.plural == "pods" && !at_once && !text(&object, "/spec/nodeName").is_empty();
        if waits {
            if object.pointer("/metadata/deletionTimestamp").is_none() {
                object["metadata"]["deletionTimestamp"] = json!(Timestamp::now().to_string());
                object = inner.put(key, object, "MODIFIED");
            }
        } else {
            inner.remove(key);
        }
        self.tell(inner.version);
        Ok(object)
    }

    /// Changes after `version`, for a watch.
    pub fn since(&self, version: u64, wanted: impl Fn(&Key) -> bool) -> (Vec<Change>, u64) {
        let inner = self.inner.lock();
        let first = inner.log.partition_point(|change| change.version <= version);
        let mut found = Vec::new();
        for change in inner.log[first..].iter().filter(|change| wanted(&change.key)) {
            found.push(Change { object: inner.shown(&change.object), ..change.clone() });
        }
        (found, inner.version)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tell(&self, version: u64) {
        self.changes.send_replace(version);
    }
}

fn has_finalizers(object: &Value) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

impl Inner {
    fn put(&mut self, key: &Key, mut object: Value, kind: &'static str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.all.insert(key.clone(), object.clone());
        self.log.push(Change { version: self.version, kind, key: key.clone(), object: object.clone() });
        self.shown(&object)
    }

    fn remove(&mut self, key: &Key) {
        let Some(mut object) = self.all.remove(key) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let gone = uid(&object).to_owned();
        self.log.push(Change { version: self.version, kind: "DELETED", key: key.clone(), object });
        // Garbage collection: what it owned goes with it. The StatefulSet is not deleted here.
        let owned: Vec<Key> = self
            .all
            .iter()
            .filter(|(_, object)| {
                let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
                owners.into_iter().flatten().any(|owner| text(owner, "/uid") == gone)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in owned {
            self.remove(&key);
        }
    }

    /// A migration's age is asked for by the clock on the wall: shown as old as it is in this world.
    fn shown(&self, object: &Value) -> Value {
        let mut object = object.clone();
        if text(&object, "/kind") == "StatefulMigration"
            && let Some(born) = self.born.get(uid(&object))
        {
            let age = SignedDuration::try_from(born.elapsed()).unwrap_or_default();
            let created = Timestamp::now() - age;
            object["metadata"]["creationTimestamp"] = json!(created.to_string());
        }
        object
    }
}
