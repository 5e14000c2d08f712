//! A small cluster to answer for: one annotated StatefulSet pod on node n1, node n2 to go to, an API server that is
//! a table and can be made to fail.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::needless_pass_by_value, reason = "literals are handed over")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use shadow::api::StatefulMigration;
use shadow::webhook::cache::{
    Cache, MigrationFacts, NodeFacts, OwnerFacts, OwnerKind, OwnerRef, PodFacts, PodPhase,
};
use shadow::webhook::{Cluster, ClusterError, Metrics, Settings, Started, User, Webhook, router};
use tower::ServiceExt as _;

pub const NAMESPACE: &str = "shop";
pub const POD: &str = "web-0";
pub const POD_UID: &str = "pod-uid-1";
pub const OWNER_UID: &str = "owner-uid-1";
pub const MIGRATION_UID: &str = "0b5c-1";

/// What the API server has, and what it was asked.
#[derive(Default)]
pub struct Server {
    pub pods: Mutex<HashMap<String, PodFacts>>,
    pub nodes: Mutex<HashMap<String, NodeFacts>>,
    pub owners: Mutex<Vec<OwnerFacts>>,
    pub migrations: Mutex<Vec<MigrationFacts>>,
    pub written: Mutex<Vec<StatefulMigration>>,
    pub allows: AtomicBool,
    pub fails: AtomicBool,
    pub reads: AtomicUsize,
}

#[derive(Clone, Default)]
pub struct FakeCluster(pub Arc<Server>);

impl FakeCluster {
    fn read(&self) -> Result<(), ClusterError> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        self.write()
    }

    fn write(&self) -> Result<(), ClusterError> {
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(ClusterError::TooSlow { what: "fake".into(), limit: std::time::Duration::ZERO });
        }
        Ok(())
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn pod(&self, _: &str, name: &str) -> Result<Option<PodFacts>, ClusterError> {
        self.read()?;
        Ok(self.0.pods.lock().get(name).cloned())
    }

    async fn node(&self, name: &str) -> Result<Option<NodeFacts>, ClusterError> {
        self.read()?;
        Ok(self.0.nodes.lock().get(name).cloned())
    }

    async fn owner(&self, _: &str, owner: &OwnerRef) -> Result<Option<OwnerFacts>, ClusterError> {
        self.read()?;
        Ok(self.0.owners.lock().iter().find(|known| known.uid == owner.uid).cloned())
    }

    async fn migration(&self, _: &str, name: &str) -> Result<Option<MigrationFacts>, ClusterError> {
        self.read()?;
        Ok(self.0.migrations.lock().iter().find(|m| m.name == name).cloned())
    }

    async fn migrations_of(&self, _: &str, owner: &str) -> Result<Vec<MigrationFacts>, ClusterError> {
        self.read()?;
        let of_owner = |m: &&MigrationFacts| m.owner_uid.as_deref() == Some(owner);
        Ok(self.0.migrations.lock().iter().filter(of_owner).cloned().collect())
    }

    async fn start(&self, migration: StatefulMigration) -> Result<Started, ClusterError> {
        self.write()?;
        let mut written = self.0.written.lock();
        if written.iter().any(|m| m.metadata.name == migration.metadata.name) {
            return Ok(Started::Before);
        }
        self.0.migrations.lock().push(migration.clone().into());
        written.push(migration);
        Ok(Started::New)
    }

    async fn may_evict(&self, _: &User, _: &str, _: &str) -> Result<bool, ClusterError> {
        self.read()?;
        Ok(self.0.allows.load(Ordering::SeqCst))
    }
}

/// The webhook and what it knows.
pub struct World {
    pub server: Arc<Server>,
    pub webhook: Arc<Webhook<FakeCluster>>,
    pub router: Router,
}

impl World {
    /// Everything is read: pod `web-0` of StatefulSet `web` runs on `n1`, the set says `policy`.
    pub fn new(policy: Option<&str>) -> Self {
        let world = Self::unsynced();
        let cache = &world.webhook.cache;
        let owner = OwnerFacts {
            namespace: NAMESPACE.into(),
            name: "web".into(),
            uid: OWNER_UID.into(),
            annotations: policy
                .map(|p| ("migration.ms2m.io/policy".to_owned(), p.to_owned()))
                .into_iter()
                .collect(),
            ..OwnerFacts::default()
        };
        cache.stateful_sets.replace([owner]);
        cache.replica_sets.replace([]);
        cache.deployments.replace([]);
        cache.nodes.replace([node("n1", false), node("n2", false)]);
        cache.migrations.replace([]);
        cache.pods.replace([pod()]);
        world
    }

    pub fn unsynced() -> Self {
        let cluster = FakeCluster::default();
        let webhook = Arc::new(Webhook {
            cache: Arc::new(Cache::default()),
            cluster: cluster.clone(),
            settings: Settings::in_namespace(
                "shadow-system",
                vec!["system:serviceaccount:kube-system:vpa-updater".into()],
            ),
            metrics: Metrics::new().unwrap(),
        });
        Self { server: cluster.0, router: router(Arc::clone(&webhook)), webhook }
    }

    pub async fn post(&self, path: &str, body: Vec<u8>) -> (StatusCode, Value) {
        let request = Request::post(path).body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{e}: {body:?}")))
    }

    /// Sends a review of the corpus, gives `response`.
    pub async fn review(&self, path: &str, name: &str) -> Value {
        self.send(path, &corpus(name)).await
    }

    pub async fn send(&self, path: &str, review: &Value) -> Value {
        let (status, body) = self.post(path, serde_json::to_vec(review).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["kind"], "AdmissionReview");
        assert_eq!(body["response"]["uid"], review["request"]["uid"]);
        body["response"].clone()
    }

    pub fn written(&self) -> Vec<StatefulMigration> {
        self.server.written.lock().clone()
    }

    pub fn reads(&self) -> usize {
        self.server.reads.load(Ordering::SeqCst)
    }
}

/// A review as the API server sends it, from `tests/corpus`.
pub fn corpus(name: &str) -> Value {
    let path = format!("{}/tests/corpus/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_slice(&text).unwrap()
}

/// Status code that the client of the API server sees: 201 where it is allowed.
pub fn code(response: &Value) -> u64 {
    if response["allowed"] == json!(true) { 201 } else { response["status"]["code"].as_u64().unwrap() }
}

pub fn message(response: &Value) -> &str {
    response["status"]["message"].as_str().unwrap_or_default()
}

/// The reviewed object with the response's patch applied.
pub fn patched(review: &Value, response: &Value) -> Value {
    use base64::Engine as _;
    let mut object = review["request"]["object"].clone();
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
    }
    object
}

pub fn pod() -> PodFacts {
    PodFacts {
        node: Some("n1".into()),
        phase: PodPhase::Running,
        created: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        owner: Some(OwnerRef { kind: OwnerKind::StatefulSet, name: "web".into(), uid: OWNER_UID.into() }),
        ..PodFacts::new(NAMESPACE, POD, POD_UID.into())
    }
}

/// One with our runtime.
pub fn node(name: &str, leaving: bool) -> NodeFacts {
    NodeFacts {
        name: name.into(),
        hostname: Some(format!("host-{name}")),
        leaving,
        labels: [("migration.ms2m.io/ready".to_owned(), "true".to_owned())].into(),
        taints: vec![],
    }
}

/// A migration of `web-0` with this status.
pub fn migration(status: Value) -> MigrationFacts {
    migration_with(json!({ "sourcePod": POD, "sourcePodUid": POD_UID }), status)
}

pub fn migration_with(spec: Value, status: Value) -> MigrationFacts {
    let object: StatefulMigration = serde_json::from_value(json!({
        "apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
        "metadata": { "name": format!("evict-{POD_UID}"), "namespace": NAMESPACE, "uid": MIGRATION_UID,
                      "creationTimestamp": jiff::Timestamp::now().to_string() },
        "spec": spec, "status": status
    }))
    .unwrap();
    object.into()
}
