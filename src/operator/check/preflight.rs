//! Can this pod be carried as it is, and what has to be known of it? Pure: pod, Services and what is known of its claims in, [`Subject`] and
//! [`Plan`] or the reason against it out. What is not understood is refused: nothing is ever moved with a part of its
//! state left behind in silence.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Service, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;

use super::claims::{self, Known};
use super::containers::{Moving, moving, running};
use super::{bridges, properties};
use crate::api::{
    Hold, NodeName, PodIdentity, PodUid, Reason, StateFrom, StatefulMigrationSpec, Strategy, SyncMode,
    revision_of,
};
use crate::operator::drive::subject::{OwnerKind, Subject};
use crate::protocol::{Failure, Plan};

/// What the journal starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub subject: Subject,
    pub plan: Plan,
    /// Warnings for people.
    pub warnings: Vec<String>,
    /// What the move of such a pod costs, for whoever asks before.
    pub costs: Vec<String>,
}

/// Checks the pod against what can be carried.
///
/// # Errors
/// A terminal [`Failure`] whose reason says which property of the pod stands against it.
pub fn preflight(
    pod: &Pod,
    spec: &StatefulMigrationSpec,
    services: &[Service],
    known: &Known,
) -> Result<Accepted, Failure> {
    examine(pod, spec, services, known).map_err(|refused| refused.first)
}

/// Everything that stands against a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What decides.
    pub first: Failure,
    pub further: Vec<Failure>,
}

/// The same, with everything that stands against it.
pub fn examine(
    pod: &Pod,
    spec: &StatefulMigrationSpec,
    services: &[Service],
    known: &Known,
) -> Result<Accepted, Refused> {
    let refuse =
        |(reason, message): Refusal| Failure::terminal(reason, format!("pod {}: {message}", pod.name_any()));
    let alone = |refusal| Refused { first: refuse(refusal), further: Vec::new() };
    let (Some(uid), Some(namespace), Some(pod_spec)) = (pod.uid(), pod.namespace(), pod.spec.as_ref()) else {
        return Err(alone((Reason::NotManaged, "the object is not complete".to_owned())));
    };
    let Some(node) = pod_spec.node_name.clone() else {
        return Err(alone((Reason::NotManaged, "it runs on no node yet".to_owned())));
    };
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let (owner_kind, owner_uid) = match owner {
        Some(owner) if is_apps(owner) && owner.kind == "StatefulSet" => {
            (OwnerKind::StatefulSet, owner.uid.clone())
        }
        Some(owner) if is_apps(owner) && owner.kind == "ReplicaSet" => {
            (OwnerKind::ReplicaSet, owner.uid.clone())
        }
        _ => {
            let why = "no StatefulSet or Deployment would make it again on the other node";
            return Err(alone((Reason::NotManaged, why.to_owned())));
        }
    };
    let wanted = spec.migration_strategy;
    let moving = moving(pod, pod_spec, spec.container_name.as_deref(), &spec.restart_fresh);
    let mut refusals = properties::refusals(pod_spec, &spec.restart_fresh);
    refusals.extend(moving.as_ref().err().cloned());
    refusals.extend(what_stays_behind(pod_spec));
    if let (Strategy::ShadowPod, Some(port)) = (wanted, host_port(pod_spec)) {
        refusals.push((Reason::HostPort, format!("a shadow cannot take hostPort {port} beside it")));
    }
    if spec.sync == SyncMode::Replay {
        let message = "sync Replay is not implemented yet; Auto or Quiesce is".to_owned();
        refusals.push((Reason::StrategyNotSupported, message));
    }
    refusals.extend(claims::refusals(pod_spec, known));
    refusals.extend(claims::forerunners(pod_spec, &spec.init, &spec.restart_fresh));
    let mut refusals = refusals.into_iter().map(refuse);
    if let Some(first) = refusals.next() {
        return Err(Refused { first, further: refusals.collect() });
    }
    let Moving { container, beside, fresh } = moving.map_err(alone)?;
    let queue = spec.message_queue.clone();
    let claims = claims::of(pod_spec, known);
    let held = claims.iter().find(|claim| claim.one_node);
    let outlived = claims::outlived(pod_spec);
    // What goes on beside its volume's next user may write to it.
    let hold = match (spec.state_from, &queue) {
        (StateFrom::Queue, Some(_)) if held.is_none() && !outlived => Hold::Release,
        _ => Hold::Frozen,
    };
    let costs = held.map(|claim| claims::cost(&claim.claim, known)).into_iter().collect();
    let mut warnings = Vec::new();
    // A shadow that answers requests would acknowledge writes that the replacement, restored from the same archive,
    // does not have: it may only answer where requests change nothing.
    let bridge = wanted != Strategy::Sequential && hold == Hold::Release && host_port(pod_spec).is_none();
    if wanted == Strategy::ShadowPod && hold == Hold::Frozen {
        warnings.push(
            "requests may change this pod's state (state-from: Any), or it its volumes: no shadow answers meanwhile"
                .to_owned(),
        );
    }
    if queue.as_ref().is_some_and(|q| q.broker_url.is_some()) {
        warnings
            .push("the broker's URL stands in the migration in plain text; name a Secret instead".to_owned());
    }
    let bridges = if bridge { bridges::of(pod, pod_spec, services) } else { Vec::new() };
    Ok(Accepted {
        plan: Plan { bridge, queue: queue.is_some(), hold, policy: spec.policy, outlived },
        subject: Subject {
            source: PodIdentity { namespace, name: pod.name_any(), uid: PodUid(uid) },
            node: NodeName(node),
            container,
            beside,
            fresh,
            owner_kind,
            owner_uid,
            revision: revision_of(pod.labels()).cloned(),
            queue,
            bridges,
            archive_bytes: None,
            empty_dirs: mounted_empty_dirs(pod_spec),
            claims,
            has_init: pod_spec.init_containers.as_ref().is_some_and(|all| !all.is_empty()),
        },
        warnings,
        costs,
    })
}

type Refusal = (Reason, String);

/// Others have StatefulSets too, whose pods the webhook does not know.
fn is_apps(owner: &OwnerReference) -> bool {
    owner.api_version.starts_with("apps/")
}

/// What of it would be left behind.
fn what_stays_behind(spec: &PodSpec) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if spec.host_network == Some(true) {
        refusals.push((Reason::HostNetwork, "hostNetwork: its sockets belong to the node".into()));
    }
    if spec.host_pid == Some(true) || spec.host_ipc == Some(true) {
        refusals.push((Reason::HostPid, "hostPID or hostIPC: it shares the node's processes".into()));
    }
    if spec.share_process_namespace == Some(true) {
        refusals.push((Reason::SharedProcessNamespace, "shareProcessNamespace is not carried yet".into()));
    }
    if spec.host_users == Some(false) {
        refusals
            .push((Reason::UserNamespace, "hostUsers: false (a user namespace) is not carried yet".into()));
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    refusals.extend(containers.filter_map(device));
    refusals.extend(spec.volumes.iter().flatten().filter_map(volume_refusal));
    refusals
}

fn device(container: &Container) -> Option<Refusal> {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref()).into_iter().flatten();
    if let Some((name, _)) = limits.into_iter().find(|(name, _)| name.contains('/')) {
        return Some((Reason::Devices, format!("resource {name} is a device: its state cannot be carried")));
    }
    let claims = resources.and_then(|r| r.claims.as_ref()).is_some_and(|claims| !claims.is_empty());
    (claims || container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()))
        .then(|| (Reason::Devices, "resource claims and block devices are not carried".into()))
}

/// Volumes whose content the new pod gets by itself are fine, claims come with it ([`claims`]), and emptyDirs are carried;
/// everything else holds state on this node.
fn volume_refusal(volume: &Volume) -> Option<Refusal> {
    let content_comes_from_the_cluster = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.nfs.is_some()
        || volume.persistent_volume_claim.is_some();
    let in_huge_pages = |medium: &str| medium.starts_with("HugePages");
    let huge = volume.empty_dir.as_ref().is_some_and(|dir| dir.medium.as_deref().is_some_and(in_huge_pages));
    if content_comes_from_the_cluster || (volume.empty_dir.is_some() && !huge) {
        return None;
    }
    let name = &volume.name;
    Some(if huge {
        let message =
            format!("emptyDir `{name}` is of huge pages, which are not carried: leave `medium` out");
        (Reason::EmptyDirWithContent, message)
    } else if volume.host_path.is_some() {
        (Reason::VolumeNotSharable, format!("hostPath `{name}` is another folder on another node"))
    } else if volume.ephemeral.is_some() {
        let message =
            format!("ephemeral volume `{name}` is deleted with its pod: make it a claim of its own");
        (Reason::VolumeNotSharable, message)
    } else {
        (Reason::VolumeNotSharable, format!("volume `{name}` is not carried yet"))
    })
}

fn mounted_empty_dirs(spec: &PodSpec) -> Vec<String> {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let is_mounted = |name: &str| {
        containers().flat_map(|c| c.volume_mounts.iter().flatten()).any(|mount| mount.name == name)
    };
    let empty = spec.volumes.iter().flatten().filter(|volume| volume.empty_dir.is_some());
    empty.map(|volume| volume.name.clone()).filter(|name| is_mounted(name)).collect()
}

fn host_port(spec: &PodSpec) -> Option<i32> {
    running(spec)
        .flat_map(|c| c.ports.iter().flatten())
        .find_map(|port| port.host_port.filter(|number| *number != 0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::drive::subject::{Bridge, BridgePort};

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut value = json!({
            "metadata": {"name": "web-0", "namespace": "demo", "uid": "u1", "labels": {"app": "web"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "o1", "controller": true}]},
            "spec": {"nodeName": "n1", "hostname": "web-0", "subdomain": "web",
                "containers": [{"name": "app", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}],
                "volumes": [{"name": "kube-api-access-x", "projected": {"sources": []}}]}
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn spec(change: impl FnOnce(&mut Value)) -> StatefulMigrationSpec {
        let mut value = json!({"sourcePod": "web-0", "messageQueue": {"queue": "q"}, "stateFrom": "Queue"});
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn service(value: &Value) -> Service {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn an_ordinary_pod_is_accepted_with_the_services_that_select_it() {
        let services = [
            service(
                &json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "None", "selector": {"app": "web"},
                "ports": [{"name": "h", "port": 80, "targetPort": "http"}]}}),
            ),
            service(
                &json!({"metadata": {"name": "other"}, "spec": {"selector": {"app": "other"}, "ports": []}}),
            ),
            service(&json!({"metadata": {"name": "manual"}, "spec": {"ports": [{"port": 1}]}})),
        ];
        let accepted = preflight(&pod(|_| ()), &spec(|_| ()), &services, &Known::Nothing).unwrap();
        assert_eq!(accepted.plan.hold, Hold::Release);
        assert!(accepted.plan.bridge && accepted.plan.queue);
        assert_eq!(
            accepted.subject.bridges,
            [Bridge {
                service: "web".into(),
                ports: vec![BridgePort { name: Some("h".into()), protocol: "TCP".into(), port: 8080 }],
                hostname: Some("web-0".into())
            }]
        );
    }

    #[test]
    fn init_containers_and_empty_dirs_are_no_obstacle() {
        let ordinary = pod(|v| {
            v["spec"]["initContainers"] = json!([{"name": "fill"}]);
            v["spec"]["volumes"] =
                json!([{"name": "tmp", "emptyDir": {}}, {"name": "run", "emptyDir": {"medium": "Memory"}}]);
            v["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "tmp", "mountPath": "/tmp"}]);
        });
        let accepted = preflight(&ordinary, &spec(|_| ()), &[], &Known::Nothing).unwrap();
        assert_eq!(
            accepted.subject.empty_dirs,
            ["tmp"],
            "the kubelet makes no folder for what nobody mounts"
        );
        assert!(accepted.subject.has_init);
    }

    #[test]
    fn without_a_queue_it_stands_still_from_the_dump_on() {
        let accepted = preflight(
            &pod(|_| ()),
            &spec(|s| *s = json!({"sourcePod": "web-0", "stateFrom": "Any"})),
            &[],
            &Known::Nothing,
        )
        .unwrap();
        assert_eq!((accepted.plan.queue, accepted.plan.hold), (false, Hold::Frozen));
        assert!(!accepted.plan.bridge, "a shadow must not acknowledge writes");
    }

    #[test]
    fn what_cannot_be_carried_is_refused_with_its_reason() {
        type Case = (Reason, fn(&mut Value));
        let cases: [Case; 12] = [
            (Reason::NotManaged, |v| {
                v["metadata"]["ownerReferences"][0]["apiVersion"] = json!("apps.kruise.io/v1beta1");
            }),
            (Reason::HostPid, |v| v["spec"]["hostIPC"] = json!(true)),
            (Reason::EmptyDirWithContent, |v| {
                v["spec"]["volumes"] = json!([{"name": "tmp", "emptyDir": {"medium": "HugePages-2Mi"}}]);
            }),
            (Reason::VolumeNotSharable, |v| {
                v["spec"]["volumes"] = json!([{"name": "h", "hostPath": {"path": "/x"}}]);
            }),
            (Reason::VolumeNotSharable, |v| {
                v["spec"]["volumes"] =
                    json!([{"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
            }),
            (Reason::HostNetwork, |v| v["spec"]["hostNetwork"] = json!(true)),
            (Reason::HostPid, |v| v["spec"]["hostPID"] = json!(true)),
            (Reason::SharedProcessNamespace, |v| v["spec"]["shareProcessNamespace"] = json!(true)),
            (Reason::UserNamespace, |v| v["spec"]["hostUsers"] = json!(false)),
            (Reason::Devices, |v| {
                v["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}});
            }),
            (Reason::NotManaged, |v| v["metadata"]["ownerReferences"] = json!([])),
            (Reason::NotManaged, |v| v["spec"]["nodeName"] = Value::Null),
        ];
        for (reason, change) in cases {
            let failure = preflight(&pod(change), &spec(|_| ()), &[], &Known::Nothing).unwrap_err();
            assert_eq!((failure.reason, failure.retry), (reason, false), "{}", failure.message);
            assert!(failure.message.contains("web-0"));
        }
    }

    #[test]
    fn a_host_port_needs_the_sequential_way() {
        let with_port = |v: &mut Value| v["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(80);
        assert!(!preflight(&pod(with_port), &spec(|_| ()), &[], &Known::Nothing).unwrap().plan.bridge);
        let failure = preflight(
            &pod(with_port),
            &spec(|s| s["migrationStrategy"] = json!("ShadowPod")),
            &[],
            &Known::Nothing,
        )
        .unwrap_err();
        assert_eq!(failure.reason, Reason::HostPort);
    }

    #[test]
    fn a_pod_whose_volume_only_one_node_can_mount_stands_still_and_says_so() {
        let with_claim = pod(|v| {
            v["spec"]["volumes"] =
                json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}]);
        });
        let accepted = preflight(&with_claim, &spec(|_| ()), &[], &Known::Nothing).unwrap();
        assert!(accepted.plan.hold == Hold::Frozen && !accepted.plan.bridge && accepted.plan.queue);
        assert!(accepted.costs[0].contains("claim `data-web-0`"), "{:?}", accepted.costs);
        assert_eq!(accepted.subject.one_node_volumes().collect::<Vec<_>>(), ["data"]);
    }

    #[test]
    fn everything_that_stands_against_it_can_be_told_at_once() {
        let odd = pod(|v| {
            v["spec"]["hostNetwork"] = json!(true);
            v["spec"]["volumes"] = json!([{"name": "h", "hostPath": {"path": "/x"}},
                {"name": "c", "csi": {"driver": "c"}}]);
        });
        let Refused { first, further } = examine(&odd, &spec(|_| ()), &[], &Known::Nothing).unwrap_err();
        assert_eq!(first.reason, Reason::HostNetwork);
        let further: Vec<_> = further.into_iter().map(|one| one.reason).collect();
        assert_eq!(further, [Reason::VolumeNotSharable; 2]);
    }

    #[test]
    fn a_container_that_is_not_there_is_refused() {
        let failure =
            preflight(&pod(|_| ()), &spec(|s| s["containerName"] = json!("nope")), &[], &Known::Nothing)
                .unwrap_err();
        assert_eq!(failure.reason, Reason::ContainerUnknown);
    }
}
