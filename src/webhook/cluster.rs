//! What the webhook asks of the API server beyond its caches, and the one object it writes. Does I/O.
//!
//! Guarantees: every call ends within its limit and is sent once.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

use super::cache::{MigrationFacts, NodeFacts, OwnerFacts, OwnerKind, OwnerRef, PodFacts};
use super::review::User;
use crate::api::StatefulMigration;

/// A read may take this long: the client of the eviction waits meanwhile.
const READ_LIMIT: Duration = Duration::from_secs(1);
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// A call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("{what} did not answer within {limit:?}")]
    TooSlow { what: String, limit: Duration },
    #[error("{what}: {source}")]
    Api { what: String, source: Box<kube::Error> },
}

impl ClusterError {
    /// The API server does not know the field selector: its CRD is older than this webhook.
    fn is_bad_selector(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(s) if s.code == 400))
    }
}

/// Whether the migration is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    New,
    /// This request is a repetition, or the other replica was faster.
    Before,
}

/// The API server as the webhook uses it.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodFacts>, ClusterError>;
    async fn node(&self, name: &str) -> Result<Option<NodeFacts>, ClusterError>;
    /// The StatefulSet or ReplicaSet of that UID; the latter carries the annotations of its Deployment.
    async fn owner(&self, namespace: &str, owner: &OwnerRef) -> Result<Option<OwnerFacts>, ClusterError>;
    async fn migration(&self, namespace: &str, name: &str) -> Result<Option<MigrationFacts>, ClusterError>;
    /// Migrations of pods that this owner made.
    async fn migrations_of(&self, namespace: &str, owner: &str) -> Result<Vec<MigrationFacts>, ClusterError>;
    /// Creates it; one of that name counts as this one.
    async fn start(&self, migration: StatefulMigration) -> Result<Started, ClusterError>;
    /// May this user evict that pod?
    async fn may_evict(&self, user: &User, namespace: &str, pod: &str) -> Result<bool, ClusterError>;
}

/// The real one.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
}

impl KubeCluster {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn migrations(&self, namespace: &str) -> Api<StatefulMigration> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Bounds a call and names it.
async fn call<T>(
    what: String,
    limit: Duration,
    call: impl Future<Output = kube::Result<T>> + Send,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(ClusterError::Api { what, source: Box::new(source) }),
        Err(_) => Err(ClusterError::TooSlow { what, limit }),
    }
}

#[async_trait]
impl Cluster for KubeCluster {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodFacts>, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = call(format!("get pod {namespace}/{name}"), READ_LIMIT, api.get_opt(name)).await?;
        Ok(found.map(PodFacts::from))
    }

    async fn node(&self, name: &str) -> Result<Option<NodeFacts>, ClusterError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let found = call(format!("get node {name}"), READ_LIMIT, api.get_opt(name)).await?;
        Ok(found.map(NodeFacts::from))
    }

    async fn owner(&self, namespace: &str, owner: &OwnerRef) -> Result<Option<OwnerFacts>, ClusterError> {
        let what = format!("get owner {namespace}/{}", owner.name);
        let found: Option<OwnerFacts> = match owner.kind {
            OwnerKind::StatefulSet => {
                let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
                call(what, READ_LIMIT, api.get_opt(&owner.name)).await?.map(OwnerFacts::from)
            }
            OwnerKind::ReplicaSet => {
                let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
                call(what, READ_LIMIT, api.get_metadata_opt(&owner.name)).await?.map(OwnerFacts::from)
            }
            OwnerKind::Deployment | OwnerKind::Other => None,
        };
        Ok(found.filter(|found| found.uid == owner.uid))
    }

    async fn migration(&self, namespace: &str, name: &str) -> Result<Option<MigrationFacts>, ClusterError> {
        let api = self.migrations(namespace);
        let what = format!("get statefulmigration {namespace}/{name}");
        Ok(call(what, READ_LIMIT, api.get_opt(name)).await?.map(MigrationFacts::from))
    }

    async fn migrations_of(&self, namespace: &str, owner: &str) -> Result<Vec<MigrationFacts>, ClusterError> {
        let api = self.migrations(namespace);
        let what = || format!("list statefulmigrations in {namespace}");
        let selected = ListParams::default().fields(&format!("status.ownerUid={owner}"));
        let found = match call(what(), READ_LIMIT, api.list(&selected)).await {
            Err(error) if error.is_bad_selector() => {
                call(what(), READ_LIMIT, api.list(&ListParams::default())).await?
            }
            found => found?,
        };
        let of_owner = |m: &MigrationFacts| m.owner_uid.as_deref() == Some(owner);
        Ok(found.items.into_iter().map(MigrationFacts::from).filter(of_owner).collect())
    }

    async fn start(&self, migration: StatefulMigration) -> Result<Started, ClusterError> {
        let namespace = migration.metadata.namespace.clone().unwrap_or_default();
        let name = migration.metadata.name.clone().unwrap_or_default();
        let api = self.migrations(&namespace);
        let what = format!("create statefulmigration {namespace}/{name}");
        match call(what, WRITE_LIMIT, api.create(&PostParams::default(), &migration)).await {
            Ok(_) => Ok(Started::New),
            Err(ClusterError::Api { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.is_already_exists()) => {
                Ok(Started::Before)
            }
            Err(error) => Err(error),
        }
    }

    async fn may_evict(&self, user: &User, namespace: &str, pod: &str) -> Result<bool, ClusterError> {
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    verb: Some("create".to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("pods".to_owned()),
                    subresource: Some("eviction".to_owned()),
                    name: Some(pod.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let what = format!("subjectaccessreview for pods/eviction of {namespace}/{pod}");
        let answered = call(what, WRITE_LIMIT, api.create(&PostParams::default(), &review)).await?;
        Ok(answered.status.is_some_and(|status| status.allowed))
    }
}
