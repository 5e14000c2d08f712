//! Init containers of a shadow: what they have done is in the volumes, so that all of them are completed without running, each
//! with its image. Pure.

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::check::scheduling::Amount;
use crate::api::{ANNOTATION_INIT_CONTAINERS, InitRun, InitRuns};

/// Makes them ask for nothing; the annotation that has them completed, if there are any.
pub fn complete(spec: &mut PodSpec) -> Option<(String, String)> {
    ask_for_init(spec);
    let runs: InitRuns =
        spec.init_containers.iter().flatten().map(|init| (init.name.clone(), InitRun::Skip)).collect();
    (!runs.is_empty()).then(|| (ANNOTATION_INIT_CONTAINERS.to_owned(), json!(runs).to_string()))
}

/// What its init containers ask for is asked for by the container, which gives it up at the commit: they cannot. Their
/// requests stay, as nothing, for quotas that want one of each. A container may not ask for more than its limit.
fn ask_for_init(spec: &mut PodSpec) {
    let Some(container) = spec.containers.first_mut() else { return };
    for init in spec.init_containers.iter_mut().flatten() {
        let requests = init.resources.as_mut().and_then(|resources| resources.requests.as_mut());
        for (name, wanted) in requests.into_iter().flatten() {
            let resources = container.resources.get_or_insert_default();
            let limit = resources.limits.as_ref().and_then(|limits| limits.get(name)).and_then(Amount::of);
            let requests = resources.requests.get_or_insert_default();
            let present = requests.get(name).and_then(Amount::of);
            if let Some(amount) = Amount::of(wanted)
                && limit.is_none_or(|limit| amount <= limit)
                && present.is_none_or(|present| present < amount)
            {
                requests.insert(name.clone(), wanted.clone());
            }
            *wanted = Quantity("0".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;

    use super::*;

    #[test]
    fn what_they_ask_for_is_asked_for_by_the_container_as_far_as_its_limit_goes() {
        let resources = |cpu: &str, memory: &str| json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "memory": "2Gi" } });
        let mut spec: PodSpec = serde_json::from_value(json!({
            "containers": [{ "name": "app", "resources": resources("100m", "1Gi") }],
            "initContainers": [{ "name": "fill", "resources": resources("500m", "3Gi") }, { "name": "small" }],
        }))
        .unwrap();
        let (key, runs) = complete(&mut spec).unwrap();
        assert_eq!(
            (key.as_str(), runs.as_str()),
            (ANNOTATION_INIT_CONTAINERS, r#"{"fill":"Skip","small":"Skip"}"#)
        );
        let asked = |container: &Container| json!(container.resources.as_ref().unwrap().requests);
        assert_eq!(
            asked(&spec.containers[0]),
            json!({ "cpu": "500m", "memory": "1Gi" }),
            "no more than its limit"
        );
        assert_eq!(asked(&spec.init_containers.unwrap()[0]), json!({ "cpu": "0", "memory": "0" }));
    }

    #[test]
    fn a_pod_without_them_stays_as_it_is() {
        let mut spec: PodSpec = serde_json::from_value(json!({ "containers": [{ "name": "app" }] })).unwrap();
        let before = spec.clone();
        assert_eq!((complete(&mut spec), spec), (None, before));
    }
}
