//! Room for two: while the bridge stands, the target holds shadow and replacement. The shadow keeps the source's
//! requests until the commit and then gives them up, so that its own replacement is never Pending for want of them.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Map, Value, json};

use super::super::shadow_pod::shadow_name;
use super::super::subject::{Journal, OwnerKind};
use super::{EffectError, Performer};
use crate::api::{ANNOTATION_TICKET, Life, Reason, StatefulMigration, TicketId};
use crate::protocol::{Failure, Outcome};

/// A replacement that is unschedulable this long after it could have been made needs the shadow's room.
const SCHEDULING_GRACE: Duration = Duration::from_millis(1500);

impl Performer {
    /// In-place resize (stable since Kubernetes 1.35). Where it is refused the shadow goes if its room is needed, see
    /// [`Self::making_room`].
    pub(super) async fn shrink_shadow(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &journal.subject.source.namespace);
        let name = shadow_name(&journal.subject.source.name, journal.state.epoch);
        let shadow = pods.get_opt(&name).await.map_err(EffectError::api("get shadow pod"))?;
        let container = shadow.and_then(|pod| pod.spec).and_then(|spec| spec.containers.into_iter().next());
        if let Some(patch) = container.as_ref().and_then(smallest) {
            let patch = Patch::Strategic(&patch);
            if let Err(error) = pods.patch_subresource("resize", &name, &PatchParams::default(), &patch).await
            {
                tracing::info!(shadow = name, %error, "the shadow keeps its room until the replacement needs it");
            }
        }
        Ok(Outcome::ShadowShrunk)
    }

    /// Waits as asked; if meanwhile the replacement is found unschedulable, drops the bridge and the shadow.
    pub(super) async fn making_room<T>(
        &self,
        journal: &Journal,
        waited: impl Future<Output = T> + Send,
    ) -> Result<T, EffectError> {
        tokio::pin!(waited);
        tokio::select! {
            done = &mut waited => return Ok(done),
            () = tokio::time::sleep(SCHEDULING_GRACE) => {}
        }
        match self.standing(journal).await? {
            Standing::Unschedulable if journal.state.plan.bridge => {
                let pod = &journal.subject.source.name;
                tracing::warn!(pod, "the replacement needs its shadow's room: bridge dropped");
                self.withdraw_shadow(journal).await?;
            }
            Standing::Stranger => return Err(forsaken("a fresh pod took the place", journal)),
            Standing::NeverComes => return Err(forsaken("its owner makes it no more", journal)),
            Standing::Unschedulable | Standing::OnItsWay => {}
        }
        Ok(waited.await)
    }

    async fn is_deleted(&self) -> Result<bool, EffectError> {
        let namespace = self.migration.namespace().unwrap_or_default();
        let migrations: Api<StatefulMigration> = Api::namespaced(self.ctx.client.clone(), &namespace);
        let live = migrations
            .get_opt(&self.migration.name_any())
            .await
            .map_err(EffectError::api("get migration"))?;
        Ok(live.is_none_or(|migration| migration.metadata.deletion_timestamp.is_some()))
    }

    async fn standing(&self, journal: &Journal) -> Result<Standing, EffectError> {
        let source = &journal.subject.source;
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &source.namespace);
        let ticket = TicketId::replacement(self.uid.clone(), journal.state.epoch, Life::FIRST);
        let is_ours = |pod: &Pod| pod.annotations().get(ANNOTATION_TICKET) == Some(&ticket.to_string());
        let found = match journal.subject.owner_kind {
            OwnerKind::StatefulSet => pods.get_opt(&source.name).await,
            // Under a name that only its ticket tells.
            OwnerKind::ReplicaSet => {
                pods.list(&ListParams::default()).await.map(|list| list.items.into_iter().find(is_ours))
            }
        };
        let Some(pod) = found.map_err(EffectError::api("get replacement"))? else {
            let never = self.is_deleted().await? || self.is_pod_unwanted(journal).await?;
            return Ok(if never { Standing::NeverComes } else { Standing::OnItsWay });
        };
        if !is_ours(&pod) && pod.uid().as_deref() != Some(source.uid.as_str()) {
            return Ok(Standing::Stranger);
        }
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let waits = conditions.into_iter().any(|c| c.type_ == "PodScheduled" && c.status == "False");
        Ok(if waits { Standing::Unschedulable } else { Standing::OnItsWay })
    }
}

/// How far the replacement is.
enum Standing {
    OnItsWay,
    Unschedulable,
    /// A pod without our ticket has a StatefulSet's name: it started fresh and consumes already.
    Stranger,
    /// Nobody makes it: its owner is gone or was scaled down, or the migration itself was deleted with its namespace.
    NeverComes,
}

fn forsaken(why: &str, journal: &Journal) -> EffectError {
    let pod = &journal.subject.source.name;
    let message = format!("pod {pod} will not be restored: {why} after the commit of its migration");
    EffectError { failure: Failure::terminal(Reason::SourceGone, message), transient: false }
}

/// The smallest requests that leave the QoS class as it is, which a resize must; `None` where nothing can be given up.
fn smallest(container: &Container) -> Option<Value> {
    let resources = container.resources.as_ref()?;
    let requests = resources.requests.as_ref()?;
    let limits = resources.limits.as_ref();
    let is_guaranteed = ["cpu", "memory"].iter().all(|name| {
        let limit = limits.and_then(|limits| limits.get(*name));
        limit.is_some() && requests.get(*name).is_none_or(|request| Some(request) == limit)
    });
    if is_guaranteed {
        return None;
    }
    let mut small = Map::new();
    for (name, least) in [("cpu", "1m"), ("memory", "1Mi")] {
        if requests.contains_key(name) {
            small.insert(name.to_owned(), json!(least));
        }
    }
    (!small.is_empty()).then(
        || json!({"spec": {"containers": [{"name": container.name, "resources": {"requests": small}}]}}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(resources: &Value) -> Container {
        serde_json::from_value(json!({"name": "app", "resources": resources})).unwrap()
    }

    #[test]
    fn requests_are_given_up() {
        let patch = smallest(&container(&json!({"requests": {"cpu": "1500m", "memory": "1Gi"}}))).unwrap();
        assert_eq!(
            patch["spec"]["containers"][0]["resources"]["requests"],
            json!({"cpu": "1m", "memory": "1Mi"})
        );
        let patch = smallest(&container(&json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}))).unwrap();
        assert_eq!(patch["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1m"}));
    }

    #[test]
    fn a_pod_that_is_guaranteed_or_asks_for_nothing_stays_as_it_is() {
        let same = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(smallest(&container(&json!({"requests": same, "limits": same}))), None);
        assert_eq!(smallest(&container(&json!({}))), None);
    }
}
