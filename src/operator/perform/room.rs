//! Room for two: while the bridge stands, the target holds shadow and replacement. The shadow keeps the source's
//! requests until the commit and then gives them up, so that its own replacement is never Pending for want of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
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
        let containers = shadow.and_then(|pod| pod.spec).map(|spec| spec.containers).unwrap_or_default();
        if let Some(patch) = smallest(&containers) {
            let patch = Patch::Strategic(&patch);
            if let Err(error) = pods.patch_subresource("resize", &name, &PatchParams::default(), &patch).await
            {
                tracing::info!(shadow = name, %error, "the shadow keeps its room until the replacement needs it");
            }
        }
        Ok(Outcome::ShadowShrunk)
    }
}

/// The smallest requests that leave the pod's QoS class as it is, which a resize must; `None` where nothing can be given up.
fn smallest(containers: &[Container]) -> Option<Value> {
    if containers.iter().all(is_guaranteed) {
        return None;
    }
    let small: Vec<Value> = containers.iter().filter_map(smallest_of).collect();
    (!small.is_empty()).then(|| json!({"spec": {"containers": small}}))
}

fn is_guaranteed(container: &Container) -> bool {
    let Some(resources) = &container.resources else { return false };
    let of = |amounts: &Option<BTreeMap<String, Quantity>>, name: &str| amounts.as_ref()?.get(name).cloned();
    ["cpu", "memory"].iter().all(|name| {
        let limit = of(&resources.limits, name);
        limit.is_some() && of(&resources.requests, name).is_none_or(|request| Some(request) == limit)
    })
}

fn smallest_of(container: &Container) -> Option<Value> {
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    let mut small = Map::new();
    for (name, least) in [("cpu", "1m"), ("memory", "1Mi")] {
        if requests.contains_key(name) {
            small.insert(name.to_owned(), json!(least));
        }
    }
    (!small.is_empty()).then(|| json!({"name": container.name, "resources": {"requests": small}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resources: &[Value]) -> Vec<Container> {
        let named = |(number, resources): (usize, &Value)| json!({"name": format!("c{number}"), "resources": resources});
        serde_json::from_value(resources.iter().enumerate().map(named).collect()).unwrap()
    }

    #[test]
    fn requests_are_given_up() {
        let patch = smallest(&of(&[json!({"requests": {"cpu": "1500m", "memory": "1Gi"}})])).unwrap();
        assert_eq!(
            patch["spec"]["containers"][0]["resources"]["requests"],
            json!({"cpu": "1m", "memory": "1Mi"})
        );
        let patch = smallest(&of(&[json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})])).unwrap();
        assert_eq!(patch["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1m"}));
    }

    #[test]
    fn a_pod_that_is_guaranteed_or_asks_for_nothing_stays_as_it_is() {
        let same = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(smallest(&of(&[json!({"requests": same, "limits": same})])), None);
        assert_eq!(smallest(&of(&[json!({})])), None);
    }

    #[test]
    fn each_container_gives_up_what_it_has_unless_all_are_guaranteed() {
        let same = json!({"cpu": "1", "memory": "1Gi"});
        let guaranteed = json!({"requests": same, "limits": same});
        assert_eq!(smallest(&of(&[guaranteed.clone(), guaranteed.clone()])), None);
        let patch = smallest(&of(&[guaranteed, json!({}), json!({"requests": {"cpu": "2"}})])).unwrap();
        let names: Vec<_> =
            patch["spec"]["containers"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["c0", "c2"]);
    }
}
