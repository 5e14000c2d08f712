//! Which containers of a pod run at the same time, which of them move, and which are started anew. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::ResourceExt as _;

use crate::api::{ANNOTATION_RESTART_FRESH, Reason};

/// By it a user says which of several containers is the one to look at.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The names of a pod's containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// The one that the pod is for.
    pub container: String,
    /// The others that move with it.
    pub beside: Vec<String>,
    /// Those that are started anew.
    pub fresh: Vec<String>,
}

/// A native sidecar (KEP-753): an init container that stays.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// All that run at the same time, sidecars first, as the kubelet makes them.
pub fn running(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = spec.init_containers.iter().flatten().filter(|init| is_sidecar(init));
    sidecars.chain(&spec.containers)
}

/// `wanted`: the one that its user names; `fresh`: those that are not to be carried.
pub fn moving(
    pod: &Pod,
    spec: &PodSpec,
    wanted: Option<&str>,
    fresh: &[String],
) -> Result<Moving, (Reason, String)> {
    let unknown = |message: String| Err((Reason::ContainerUnknown, message));
    let regular: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    let told = pod.annotations().get(DEFAULT_CONTAINER).map(String::as_str);
    let moves = |name: &&str| regular.contains(name) && !fresh.iter().any(|one| one == *name);
    let container = match (wanted, told.filter(moves)) {
        (Some(name), _) if !regular.contains(&name) => {
            let names = regular.join("`, `");
            return unknown(format!("it has no container `{name}`, but `{names}`"));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => regular.iter().find(|name| moves(name)).copied().unwrap_or_default(),
    };
    let all: Vec<&str> = running(spec).map(|container| container.name.as_str()).collect();
    if let Some(name) = fresh.iter().find(|name| !all.contains(&name.as_str())) {
        let names = all.join("`, `");
        return unknown(format!(
            "{ANNOTATION_RESTART_FRESH} names `{name}`, and its containers are `{names}`"
        ));
    }
    if container.is_empty() || fresh.iter().any(|name| name == container) {
        return unknown(format!("{ANNOTATION_RESTART_FRESH} leaves nothing to be carried"));
    }
    let is_fresh = |name: &&str| fresh.iter().any(|one| one == *name);
    let names = |of: Vec<&str>| of.into_iter().map(str::to_owned).collect();
    let (fresh, carried): (Vec<&str>, Vec<&str>) = all.into_iter().partition(is_fresh);
    let beside = carried.into_iter().filter(|name| *name != container).collect();
    Ok(Moving { container: container.to_owned(), beside: names(beside), fresh: names(fresh) })
}

/// Its phase says that none of it is ever started again.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn moved(wanted: Option<&str>, fresh: &[&str]) -> Result<Moving, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "annotations": { DEFAULT_CONTAINER: "app" } },
            "spec": { "containers": [{ "name": "log" }, { "name": "app" }], "initContainers": [
                { "name": "fill" }, { "name": "proxy", "restartPolicy": "Always" }] }
        }))
        .unwrap();
        let fresh: Vec<String> = fresh.iter().map(|name| (*name).to_owned()).collect();
        moving(&pod, pod.spec.as_ref().unwrap(), wanted, &fresh).map_err(|(_, message)| message)
    }

    #[test]
    fn sidecars_move_with_it_and_what_its_user_names_is_started_anew() {
        let Moving { container, beside, fresh } = moved(None, &[]).unwrap();
        assert_eq!((container.as_str(), beside, fresh), ("app", vec!["proxy".into(), "log".into()], vec![]));
        let Moving { container, beside, fresh } = moved(Some("log"), &["proxy"]).unwrap();
        assert_eq!((container.as_str(), beside), ("log", vec!["app".into()]));
        assert_eq!(fresh, ["proxy"]);
    }

    #[test]
    fn what_is_not_there_or_would_leave_nothing_is_named() {
        assert_eq!(moved(Some("nope"), &[]).unwrap_err(), "it has no container `nope`, but `log`, `app`");
        assert!(moved(None, &["fill"]).unwrap_err().contains("names `fill`"), "it runs before the others");
        assert!(moved(Some("app"), &["app"]).unwrap_err().contains("nothing to be carried"));
        assert_eq!(moved(None, &["app"]).unwrap().container, "log");
    }
}
