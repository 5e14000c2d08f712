//! The review of an eviction: gathers the facts, decides, starts the migration. Does I/O through [`Cluster`] only.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use serde::Deserialize;

use super::answers::{EvictionAnswer, Why};
use super::cache::{NodeFacts, PodFacts};
use super::cluster::{Cluster, ClusterError, Started};
use super::decide_eviction::{Asked, Decision, Facts, Sight, Verdict, decide_eviction};
use super::review::{Request, Response, ReviewError, User, read};
use super::reviews::{EVICTION_LIMIT, Webhook};
use crate::api::{PodUid, Policy, StatefulMigration, StatefulMigrationSpec, migration_name};

/// By this annotation the descheduler says who it is.
const REQUESTED_BY: &str = "requested-by";
/// Longest text of `spec.requestedBy`.
const REQUESTER_LIMIT: usize = 128;

/// The parts of an Eviction (policy/v1 or v1beta1) that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvictionObject {
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    delete_options: Option<DeleteOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    managed_fields: Option<Vec<ManagedFields>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ManagedFields {
    #[serde(default)]
    manager: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOptions {
    #[serde(default)]
    dry_run: Option<Vec<String>>,
    #[serde(default)]
    preconditions: Option<Preconditions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Preconditions {
    #[serde(default)]
    uid: Option<String>,
}

/// The request in the words of the decision, and what the answer needs.
struct Eviction {
    asked: Asked,
    has_options: bool,
    requested_by: Option<String>,
}

impl Eviction {
    fn of(request: &mut Request<EvictionObject>, means_it: bool) -> Self {
        let object = request.object.take().unwrap_or_default();
        let meta = object.metadata.unwrap_or_default();
        let has_options = object.delete_options.is_some();
        let options = object.delete_options.unwrap_or_default();
        let or = |first: &str, second: Option<String>| {
            if first.is_empty() { second.unwrap_or_default() } else { first.to_owned() }
        };
        let background = meta.annotations.as_ref().is_some_and(|a| a.contains_key(REQUESTED_BY));
        let managers = meta.managed_fields.unwrap_or_default();
        let by = managers.into_iter().find_map(|f| f.manager.filter(|m| !m.is_empty()));
        let user = request.user();
        let by = by.or_else(|| user.username.filter(|name| !name.is_empty()));
        Self {
            asked: Asked {
                // The path of the request counts: the body is checked against it later.
                name: or(request.name(), meta.name),
                namespace: or(request.namespace(), meta.namespace),
                uid: options
                    .preconditions
                    .and_then(|p| p.uid)
                    .filter(|uid| !uid.is_empty())
                    .map(PodUid::from),
                background,
                dry_run: request.dry_run() || options.dry_run.is_some_and(|dry| !dry.is_empty()),
                real: means_it,
            },
            has_options,
            requested_by: by.map(|by| by.chars().take(REQUESTER_LIMIT).collect()),
        }
    }
}

impl<C: Cluster> Webhook<C> {
    /// A pod is evicted.
    pub async fn review_eviction(&self, body: &[u8]) -> Result<Response, ReviewError> {
        let mut request = match read::<EvictionObject>(body) {
            Ok(request) => request,
            Err(ReviewError::Object { uid, problem }) => {
                let message = format!("the eviction cannot be read: {problem}");
                let verdict = held(Why::Unreadable, message);
                self.count(&verdict, false);
                return Ok(verdict.answer.into_response(&uid, false, false));
            }
            Err(error) => return Err(error),
        };
        let user: User = request.user();
        let uid = request.uid.clone();
        let about_evictions = request.is_about("", "pods", "eviction") && request.operation() == "CREATE";
        let eviction = Eviction::of(&mut request, self.settings.means_it(&user));
        let verdict = if !about_evictions {
            passed(Why::NotAnEviction)
        } else if eviction.asked.real {
            passed(Why::RealEviction)
        } else if eviction.asked.name.is_empty() || eviction.asked.namespace.is_empty() {
            held(Why::Unreadable, "the eviction names no pod, or no namespace".to_owned())
        } else {
            match tokio::time::timeout(EVICTION_LIMIT, self.answer(&eviction)).await {
                Ok(verdict) => verdict,
                Err(_) => held(Why::ApiFailed, "the API server did not answer in time; ask again".to_owned()),
            }
        };
        let Asked { namespace, name, dry_run, .. } = &eviction.asked;
        self.count(&verdict, *dry_run);
        tracing::info!(
            namespace,
            pod = name,
            answer = verdict.answer.as_str(),
            why = verdict.why.as_str(),
            dry_run,
            by = eviction.requested_by,
            "eviction"
        );
        Ok(verdict.answer.into_response(&uid, eviction.has_options, *dry_run))
    }

    async fn answer(&self, eviction: &Eviction) -> Verdict {
        let asked = &eviction.asked;
        let missing = self.cache.missing();
        if !missing.is_empty() {
            return held(
                Why::NotSynced,
                format!("just started, {} not read yet; ask again", missing.join(", ")),
            );
        }
        let seen = self.cache.pod(&asked.namespace, &asked.name);
        let sight = seen.map_or(Sight::Unseen, Sight::Cached);
        let verdict = match decide_eviction(asked, &self.facts(asked, sight, None)) {
            Decision::Answer(verdict) => verdict,
            Decision::LookAgain => {
                let sight = match self.cluster.pod(&asked.namespace, &asked.name).await {
                    Ok(found) => found.map_or(Sight::Gone, |pod| Sight::Live(Arc::new(pod))),
                    Err(error) => return held(Why::ApiFailed, format!("pod not known: {error}; ask again")),
                };
                let node = match self.node_of(&sight).await {
                    Ok(node) => node,
                    Err(error) => {
                        return held(Why::ApiFailed, format!("its node is not known: {error}; ask again"));
                    }
                };
                match decide_eviction(asked, &self.facts(asked, sight, node)) {
                    Decision::Answer(verdict) => verdict,
                    // Not with a pod that was just read; whatever it is, the client can ask again.
                    Decision::LookAgain => {
                        held(Why::NotSynced, "its state is not clear; ask again".to_owned())
                    }
                }
            }
        };
        match &verdict.start {
            None => verdict,
            Some(start) => {
                let (pod, policy) = start.as_ref();
                let (pod, migration) = (pod.clone(), new_migration(eviction, pod, policy));
                match self.cluster.start(migration).await {
                    Ok(Started::New) => verdict,
                    Ok(Started::Before) => self.after_another(asked, &pod, verdict).await,
                    Err(error) => held(
                        Why::ApiFailed,
                        format!("its migration could not be started: {error}; ask again"),
                    ),
                }
            }
        }
    }

    /// There is a migration of that name which the cache does not show yet: the answer holds only while it runs.
    async fn after_another(&self, asked: &Asked, pod: &PodUid, verdict: Verdict) -> Verdict {
        match self.cluster.migration(&asked.namespace, &migration_name(pod)).await {
            Ok(Some(migration)) if migration.is_running() => verdict,
            Ok(_) => held(Why::NotSynced, "its last migration has just ended; ask again".to_owned()),
            Err(error) => held(Why::ApiFailed, format!("its migration is not known: {error}; ask again")),
        }
    }

    /// The node of a pod that was just read, just read as well.
    async fn node_of(&self, sight: &Sight) -> Result<Option<NodeFacts>, ClusterError> {
        let Sight::Live(pod) = sight else { return Ok(None) };
        match &pod.node {
            Some(node) => self.cluster.node(node.as_str()).await,
            None => Ok(None),
        }
    }

    /// `node` is the pod's, if it was read just now; the cache knows it otherwise.
    fn facts(&self, asked: &Asked, sight: Sight, node: Option<NodeFacts>) -> Facts {
        let pod: Option<Arc<PodFacts>> = match &sight {
            Sight::Cached(pod) | Sight::Live(pod) => Some(Arc::clone(pod)),
            Sight::Unseen | Sight::Gone => None,
        };
        let pod = pod.as_deref();
        let cache = &self.cache;
        Facts {
            workload: cache.workload(&asked.namespace, pod.and_then(|pod| pod.owner.as_ref())),
            leaving_by: pod.and_then(|pod| cache.migration_from(&pod.uid)),
            came_by: pod.and_then(|pod| cache.migration_to(pod)),
            of_name: cache.migrations.read().of_pod_name(&asked.namespace, &asked.name),
            node: node.map(Arc::new).or_else(|| cache.node(pod?.node.as_ref()?.as_str())),
            now: Timestamp::now(),
            pod: sight,
        }
    }

    fn count(&self, verdict: &Verdict, dry_run: bool) {
        self.metrics.eviction(verdict.answer.as_str(), verdict.why.as_str(), dry_run);
    }
}

fn new_migration(eviction: &Eviction, pod: &PodUid, policy: &Policy) -> StatefulMigration {
    let policy = policy.clone();
    StatefulMigration {
        metadata: ObjectMeta {
            name: Some(migration_name(pod)),
            namespace: Some(eviction.asked.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: StatefulMigrationSpec {
            requested_by: eviction.requested_by.clone(),
            ..StatefulMigrationSpec::of(policy, &eviction.asked.name, pod.clone())
        },
        status: None,
    }
}

fn held(why: Why, message: String) -> Verdict {
    Verdict { answer: EvictionAnswer::TooManyRequests { message }, why, start: None }
}

fn passed(why: Why) -> Verdict {
    Verdict { answer: EvictionAnswer::PassThrough { warning: None }, why, start: None }
}
