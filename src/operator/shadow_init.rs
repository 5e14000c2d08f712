//! Containers of a shadow that do not run: what init containers have done is in the volumes, and what its user has started
//! anew is started with the replacement. All of them are completed, each with its image and its volumes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::check::containers::{is_sidecar, running};
use super::check::scheduling::Amount;
use super::drive::subject::Subject;
use crate::api::{ANNOTATION_INIT_CONTAINERS, InitRun, InitRuns};

/// Begins the name of a container that has an image fetched; a number follows.
const IMAGE_CONTAINER: &str = "shadow-image-";

/// Makes init containers ask for nothing; the annotation that has them and the fresh ones completed, if there are any.
pub fn complete(spec: &mut PodSpec, subject: &Subject) -> Option<(String, String)> {
    ask_for_init(spec);
    fetch_images(spec, subject);
    let init = spec.init_containers.iter().flatten().map(|init| &init.name);
    let runs: InitRuns = init.chain(&subject.fresh).map(|name| (name.clone(), InitRun::Skip)).collect();
    (!runs.is_empty()).then(|| (ANNOTATION_INIT_CONTAINERS.to_owned(), json!(runs).to_string()))
}

/// For each container, that of the source first and of its shadow second: by the latter the image is seen that the former is
/// restored with, or started anew. `spec` is the source's.
pub fn images(spec: &PodSpec, subject: &Subject) -> Vec<(String, String)> {
    let init = spec.init_containers.iter().flatten().filter(|init| !is_sidecar(init));
    let mut there: Vec<(&Option<String>, String)> =
        spec.containers.iter().take(1).chain(init).map(|one| (&one.image, one.name.clone())).collect();
    let all = [&subject.container].into_iter().chain(&subject.beside).chain(&subject.fresh);
    let shown = all.enumerate().filter_map(|(number, name)| {
        let image = &running(spec).find(|one| one.name == *name)?.image;
        let by = there.iter().find(|(known, _)| *known == image).map(|(_, by)| by.clone());
        let by = by.unwrap_or_else(|| {
            let by = format!("{IMAGE_CONTAINER}{number}");
            there.push((image, by.clone()));
            by
        });
        Some((name.clone(), by))
    });
    shown.collect()
}

/// The kubelet gets a container's image only when it is that one's turn, and the first one's turn ends when the source stands
/// still already. So that all images are there, and can be compared, before anything is stopped, each that nobody else has
/// has an init container, which is completed like the others.
fn fetch_images(spec: &mut PodSpec, subject: &Subject) {
    let none = |amounts: &BTreeMap<String, Quantity>| {
        amounts.keys().map(|key| (key.clone(), Quantity("0".to_owned()))).collect()
    };
    let more: Vec<Container> = images(spec, subject)
        .into_iter()
        .filter(|(_, by)| by.starts_with(IMAGE_CONTAINER))
        .filter_map(|(name, by)| {
            let container = spec.containers.iter().find(|one| one.name == name)?;
            let resources = container.resources.clone().map(|resources| ResourceRequirements {
                requests: resources.requests.as_ref().map(none),
                claims: None,
                ..resources
            });
            Some(Container {
                name: by,
                image: container.image.clone(),
                image_pull_policy: container.image_pull_policy.clone(),
                // Not every image says one, and an engine wants it before it is replaced.
                command: container.command.clone(),
                args: container.args.clone(),
                security_context: container.security_context.clone(),
                resources,
                ..Container::default()
            })
        })
        .collect();
    if !more.is_empty() {
        spec.init_containers.get_or_insert_default().extend(more);
    }
}

/// What its init containers ask for is asked for by the first container, as far as the others do not already, which gives it up
/// at the commit: they cannot. Their requests stay, as nothing, for quotas that want one of each. A container may not ask for
/// more than its limit.
fn ask_for_init(spec: &mut PodSpec) {
    let Some((container, others)) = spec.containers.split_first_mut() else { return };
    let requested = |of: &Container, name: &String| {
        let requests = of.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        requests.and_then(|requests| requests.get(name)).and_then(Amount::of).unwrap_or_default()
    };
    for init in spec.init_containers.iter_mut().flatten() {
        let requests = init.resources.as_mut().and_then(|resources| resources.requests.as_mut());
        for (name, wanted) in requests.into_iter().flatten() {
            let present = requested(container, name);
            let resources = container.resources.get_or_insert_default();
            let limit = resources.limits.as_ref().and_then(|limits| limits.get(name)).and_then(Amount::of);
            let by_others = others.iter().fold(Amount::default(), |sum, one| sum + requested(one, name));
            if let Some(amount) = Amount::of(wanted)
                && limit.is_none_or(|limit| amount.saturating_sub(by_others) <= limit)
                && present + by_others < amount
            {
                let missing = if by_others == Amount::default() {
                    wanted.clone()
                } else {
                    amount.saturating_sub(by_others).quantity()
                };
                resources.requests.get_or_insert_default().insert(name.clone(), missing);
            }
            *wanted = Quantity("0".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_they_ask_for_is_asked_for_by_the_container_as_far_as_its_limit_goes() {
        let resources = |cpu: &str, memory: &str| json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "memory": "2Gi" } });
        let mut spec: PodSpec = serde_json::from_value(json!({
            "containers": [{ "name": "app", "resources": resources("100m", "1Gi") }],
            "initContainers": [{ "name": "fill", "resources": resources("500m", "3Gi") }, { "name": "small" }],
        }))
        .unwrap();
        let (key, runs) = complete(&mut spec, &Subject::example("web-0")).unwrap();
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
        assert_eq!((complete(&mut spec, &Subject::example("web-0")), spec), (None, before));
    }

    #[test]
    fn images_of_containers_that_come_later_are_fetched_before_the_first_one_waits() {
        let mut spec: PodSpec =
            serde_json::from_value(json!({ "containers": [{ "name": "app", "image": "a" },
            { "name": "log", "image": "l", "command": ["x"], "imagePullPolicy": "Always",
                "securityContext": { "runAsUser": 7 }, "resources": { "requests": { "cpu": "1" } },
                "livenessProbe": {}, "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }] }))
            .unwrap();
        let subject =
            Subject { beside: vec!["log".into()], fresh: vec!["ship".into()], ..Subject::example("web-0") };
        let (_, runs) = complete(&mut spec, &subject).unwrap();
        assert_eq!(runs, r#"{"shadow-image-1":"Skip","ship":"Skip"}"#);
        let init = json!(spec.init_containers.unwrap());
        assert_eq!(
            init,
            json!([{ "name": "shadow-image-1", "image": "l", "imagePullPolicy": "Always", "command": ["x"],
                "securityContext": { "runAsUser": 7 }, "resources": { "requests": { "cpu": "0" } } }])
        );
    }

    #[test]
    fn what_others_ask_for_is_not_asked_for_again() {
        let resources = |cpu: &str| json!({ "requests": { "cpu": cpu } });
        let mut spec: PodSpec = serde_json::from_value(json!({
            "containers": [{ "name": "app", "resources": resources("100m") }, { "name": "log", "resources": resources("600m") }],
            "initContainers": [{ "name": "fill", "resources": resources("1") }],
        }))
        .unwrap();
        complete(&mut spec, &Subject::example("web-0"));
        let asked = json!(spec.containers[0].resources.as_ref().unwrap().requests);
        assert_eq!(asked, json!({ "cpu": "400m" }));
    }

    #[test]
    fn an_image_that_is_there_anyway_is_fetched_by_nobody_else() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{ "name": "log", "image": "l" }, { "name": "app", "image": "a" }, { "name": "ship", "image": "l" },
                { "name": "same", "image": "a" }],
            "initContainers": [{ "name": "fill", "image": "f" }, { "name": "proxy", "image": "f", "restartPolicy": "Always" }],
        }))
        .unwrap();
        let beside = ["proxy", "log", "ship", "same"].map(str::to_owned).to_vec();
        let shown = images(&spec, &Subject { beside, ..Subject::example("web-0") });
        let shown: Vec<_> = shown.iter().map(|(name, by)| (name.as_str(), by.as_str())).collect();
        let app = "shadow-image-0";
        assert_eq!(shown, [("app", app), ("proxy", "fill"), ("log", "log"), ("ship", "log"), ("same", app)]);
    }
}
