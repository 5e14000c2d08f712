//! The review of a pod that is created: finds the migration that waits for it, if one does; prepares it for being moved
//! later, if none does and its policy asks for it. Does I/O through [`Cluster`] only, and only where the cache may be
//! behind.
//!
//! Guarantees: a pod that SHADOW may have to restore is never let through on stale knowledge. Where the cache knows of
//! no migration and the pod's policy asks for migration, or the watch was interrupted, the API server is asked; where
//! it does not answer, the pod is refused for now (its controller tries again), for otherwise its state were lost.
//! Whatever goes wrong with preparing it, the pod is made as it is.

use std::sync::Arc;

use super::cache::{MigrationFacts, OwnerKind, Workload};
use super::cluster::{Cluster, ClusterError};
use super::pod::{Match, NewPod, Wanted, check_marks, matches};
use super::prepare::{judge, prepare_patch};
use super::replacement::replacement_patch;
use super::review::{Response, ReviewError, User, read};
use super::reviews::{Webhook, bad_request, unavailable};
use crate::api::{NodeName, Policy, Prepare, pod_policy};

/// The restore could not be prepared.
#[derive(Debug, thiserror::Error)]
enum ClaimError {
    #[error("whether a migration waits for this pod is not known: {0}; try again")]
    Unknown(ClusterError),
    #[error(
        "the label {} of target node {node} is not known: {problem}; try again",
        super::cache::LABEL_HOSTNAME
    )]
    NoHostname { node: NodeName, problem: String },
}

impl<C: Cluster> Webhook<C> {
    /// A pod is created.
    pub async fn review_pod(&self, body: &[u8]) -> Result<Response, ReviewError> {
        let mut request = match read::<NewPod>(body) {
            Ok(request) => request,
            Err(error) => return bad_request(error),
        };
        let allowed = Response::allow(&request.uid);
        let user = request.user();
        if !request.is_about("", "pods", "")
            || request.operation() != "CREATE"
            || self.settings.is_operator(&user)
        {
            return Ok(allowed);
        }
        let wanted = Wanted::from(request.object.take().unwrap_or_default());
        let namespace = request.namespace();
        let awaited = match self.awaited(namespace, &wanted).await {
            Ok(awaited) => awaited,
            Err(error) => return Ok(unavailable(&request.uid, &ClaimError::Unknown(error).to_string())),
        };
        let ticket = awaited.as_deref().map(MigrationFacts::replacement_ticket);
        if let Err(reserved) = check_marks(&wanted, ticket.as_ref(), &user, false) {
            tracing::warn!(namespace, pod = wanted.name, by = user.name(), %reserved, "pod refused");
            return Ok(Response::deny(&request.uid, 403, "Forbidden", reserved.to_string()));
        }
        let (Some(migration), Some(ticket)) = (awaited, ticket) else {
            return Ok(self.prepared(allowed, namespace, &wanted, &user).await);
        };
        if wanted.brings().is_none() && self.is_taken(&wanted, &migration) {
            return Ok(self.prepared(allowed, namespace, &wanted, &user).await);
        }
        let Some(target) = &migration.target_node else { return Ok(allowed) };
        let hostname = match self.hostname(target).await {
            Ok(hostname) => hostname,
            Err(error) => return Ok(unavailable(&request.uid, &error.to_string())),
        };
        let policy = match self.policy_of(namespace, &wanted).await {
            // Which of them its user wants to run again is told by nobody else.
            Err(error) if !wanted.init_containers.is_empty() => {
                return Ok(unavailable(&request.uid, &ClaimError::Unknown(error).to_string()));
            }
            policy => policy.ok().flatten().unwrap_or_default(),
        };
        let patch = replacement_patch(&wanted, &ticket, target, &hostname, &policy, &migration.restart_fresh);
        tracing::info!(
            namespace,
            pod = wanted.name,
            migration = migration.name,
            target = target.as_str(),
            patched = !patch.is_empty(),
            "pod is a replacement"
        );
        let patched = allowed.with_patch(&patch);
        Ok(patched
            .unwrap_or_else(|error| unavailable(&request.uid, &format!("no patch: {error}; try again"))))
    }

    /// A pod that starts afresh. Only what controllers make is made for good; a pod that somebody writes himself is his.
    async fn prepared(&self, allowed: Response, namespace: &str, wanted: &Wanted, user: &User) -> Response {
        if wanted.owner.is_none() || !user.is_cluster_controller() || !self.cache.nodes.is_synced() {
            return allowed;
        }
        let Ok(Some(policy)) = self.policy_of(namespace, wanted).await else { return allowed };
        if policy.prepare == Prepare::Never {
            return allowed;
        }
        let judgement = judge(wanted, policy.prepare, &self.cache.nodes.read());
        if let Err(why) = &judgement {
            tracing::info!(namespace, pod = wanted.name, %why, "pod is not prepared");
        }
        match allowed.clone().with_patch(&prepare_patch(wanted, &judgement)) {
            Ok(patched) => patched,
            Err(error) => {
                tracing::warn!(namespace, pod = wanted.name, %error, "no patch, pod is left as it is");
                allowed
            }
        }
    }

    /// What the pod's user wants, if he asks for migration; an error where that cannot be told.
    async fn policy_of(&self, namespace: &str, wanted: &Wanted) -> Result<Option<Policy>, ClusterError> {
        let owner = match (self.cache.workload(namespace, wanted.owner.as_ref()), &wanted.owner) {
            (Workload::Seen(owner), _) => Some(owner),
            // Its first pod comes within milliseconds of the owner itself.
            (Workload::Unseen, Some(owner)) => match self.cluster.owner(namespace, owner).await {
                Ok(None) => return Ok(None),
                Ok(Some(owner)) => Some(Arc::new(owner)),
                Err(error) => {
                    tracing::warn!(namespace, pod = wanted.name, %error, "what its user wants is not known");
                    return Err(error);
                }
            },
            _ => None,
        };
        let nothing = std::collections::BTreeMap::new();
        let own = wanted.annotations.as_ref().unwrap_or(&nothing);
        let owners = owner.as_ref().map_or(&nothing, |owner| &owner.annotations);
        Ok(pod_policy(own, owners).unwrap_or_default())
    }

    /// The migration that waits for this pod.
    async fn awaited(
        &self,
        namespace: &str,
        wanted: &Wanted,
    ) -> Result<Option<Arc<MigrationFacts>>, ClusterError> {
        let Some(owner) = &wanted.owner else { return Ok(None) };
        let known = self.cache.migrations.read().of_owner(namespace, &owner.uid, &wanted.name);
        let mut asked = false;
        for migration in known {
            match matches(wanted, &migration) {
                Match::Awaits => return Ok(Some(migration)),
                Match::No => {}
                Match::NotYet => {
                    // The commit may be some milliseconds old.
                    asked = true;
                    if let Some(now) = self.cluster.migration(namespace, &migration.name).await?
                        && matches(wanted, &now) == Match::Awaits
                    {
                        return Ok(Some(Arc::new(now)));
                    }
                }
            }
        }
        let may_be_behind = !asked && self.asks_for_migration(namespace, wanted);
        if may_be_behind || !self.cache.migrations.is_fresh() {
            let found = self.cluster.migrations_of(namespace, &owner.uid).await?;
            return Ok(found.into_iter().find(|m| matches(wanted, m) == Match::Awaits).map(Arc::new));
        }
        Ok(None)
    }

    /// The user wants this pod to be migrated, as far as is known.
    fn asks_for_migration(&self, namespace: &str, wanted: &Wanted) -> bool {
        let nothing = std::collections::BTreeMap::new();
        let own = wanted.annotations.as_ref().unwrap_or(&nothing);
        match self.cache.workload(namespace, wanted.owner.as_ref()) {
            Workload::Unseen => true,
            Workload::None => pod_policy(own, &nothing).map_or(true, |policy| policy.is_some()),
            Workload::Seen(owner) => {
                pod_policy(own, &owner.annotations).map_or(true, |policy| policy.is_some())
            }
        }
    }

    /// Another pod of the ReplicaSet has the ticket. (A StatefulSet has one pod of a name at a time.)
    fn is_taken(&self, wanted: &Wanted, migration: &MigrationFacts) -> bool {
        wanted.owner.as_ref().is_some_and(|owner| owner.kind == OwnerKind::ReplicaSet)
            && self.cache.pods.read().is_claimed(&migration.replacement_ticket())
    }

    async fn hostname(&self, target: &NodeName) -> Result<String, ClaimError> {
        let refuse = |problem: String| ClaimError::NoHostname { node: target.clone(), problem };
        let node = match self.cache.node(target.as_str()) {
            Some(node) => Some(node),
            None => {
                self.cluster.node(target.as_str()).await.map_err(|e| refuse(e.to_string()))?.map(Arc::new)
            }
        };
        let node = node.ok_or_else(|| refuse("there is no such node".to_owned()))?;
        node.hostname.clone().ok_or_else(|| refuse("it has no such label".to_owned()))
    }
}
