//! Room for two: while the bridge stands, the target holds shadow and replacement. The shadow keeps the source's
//! requests until the commit and then gives them up, so that its own replacement is never Pending for want of them.

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::{EffectError, Performer};
use crate::operator::drive::subject::Journal;
use crate::operator::shadow_pod::shadow_name;
use crate::protocol::Outcome;

impl Performer {
    /// In-place resize (stable since Kubernetes 1.35). Where it is refused the shadow goes as soon as
    /// its replacement is found unschedulable.
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
