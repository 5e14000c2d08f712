//! Properties of a pod that speak against a move, each by itself: its RuntimeClass, people's debug containers, hooks that
//! would run again; and what its user should know before. Pure.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, SecurityContext};
use kube::ResourceExt as _;

use super::containers::{is_sidecar, running};
use crate::api::{
    ANNOTATION_INIT, ANNOTATION_PREPARED, InitRun, InitRuns, NOT_PREPARED, PREPARED, PREPARED_RESTORED,
    Prepare, RUNTIME_CLASS, Reason, init_run,
};
use crate::protocol::Failure;

/// Those that last.
pub fn refusals(spec: &PodSpec, fresh: &[String]) -> Vec<(Reason, String)> {
    foreign_runtime(spec).into_iter().chain(repeated_hook(spec, fresh)).collect()
}

/// One that passes: whoever debugs will have done.
pub fn obstacle(pod: &Pod) -> Option<Failure> {
    let (reason, message) = running_debugger(pod, pod.spec.as_ref()?)?;
    Some(Failure::retryable(reason, format!("pod {}: {message}", pod.name_any())))
}

fn foreign_runtime(spec: &PodSpec) -> Option<(Reason, String)> {
    let class =
        spec.runtime_class_name.as_deref().filter(|class| !class.is_empty() && *class != RUNTIME_CLASS)?;
    let message = format!(
        "runtimeClassName `{class}`: only what runs under the nodes' ordinary runc can be moved; leave it out"
    );
    Some((Reason::RuntimeNotSupported, message))
}

/// Ephemeral containers stay in the spec for ever. Only one that runs is in the way.
fn running_debugger(pod: &Pod, spec: &PodSpec) -> Option<(Reason, String)> {
    let statuses = pod.status.as_ref().and_then(|status| status.ephemeral_container_statuses.as_deref());
    let state = |name: &str| {
        let is_of = |status: &&ContainerStatus| status.name == name;
        statuses.unwrap_or_default().iter().find(is_of)?.state.as_ref()
    };
    let running = spec.ephemeral_containers.iter().flatten().find(|debug| match state(&debug.name) {
        Some(state) => state.running.is_some(),
        None => true, // not told: it may
    })?;
    let name = &running.name;
    Some((
        Reason::SeveralContainers,
        format!("ephemeral container `{name}` is running in it: end its program"),
    ))
}

/// A command is kept from running twice; a request that the kubelet itself sends cannot be. What starts anew needs it.
fn repeated_hook(spec: &PodSpec, fresh: &[String]) -> Option<(Reason, String)> {
    let hooked = running(spec).filter(|container| !fresh.contains(&container.name)).find(|container| {
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        hook.is_some_and(|hook| hook.http_get.is_some() || hook.tcp_socket.is_some())
    })?;
    let name = &hooked.name;
    let message =
        format!("the postStart request of container `{name}` would be sent again; make it a command (exec)");
    Some((Reason::PostStart, message))
}

/// What is not against a move, but may make it fail, or need to be known.
pub fn warnings(pod: &Pod, prepare: Prepare, init: &InitRuns) -> Vec<String> {
    let of_spec = pod.spec.iter().flat_map(|spec| guarded(spec).into_iter().chain(runs_again(spec, init)));
    unprepared(pod, prepare).into_iter().chain(of_spec).collect()
}

/// Init containers whose work is not in the volumes.
fn runs_again(spec: &PodSpec, wished: &InitRuns) -> Option<String> {
    let runs = |init: &&Container| {
        init_run(wished, &init.name, init.security_context.as_ref()) == InitRun::Run && !is_sidecar(init)
    };
    let names: Vec<_> =
        spec.init_containers.iter().flatten().filter(runs).map(|init| init.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "init containers that run again, as they set up network or node: {}; set {ANNOTATION_INIT}: NAME=Skip if they \
             need not",
            names.join(", ")
        )
    })
}

/// Why the pod was not made so that it can be moved, unless that was the user's wish.
fn unprepared(pod: &Pod, prepare: Prepare) -> Option<String> {
    if prepare == Prepare::Never {
        return None;
    }
    let why = match pod.annotations().get(ANNOTATION_PREPARED).map(String::as_str) {
        Some(PREPARED | PREPARED_RESTORED) => return None,
        Some(told) => told.strip_prefix(NOT_PREPARED).unwrap_or(told),
        None => "it was made before SHADOW prepared pods",
    };
    Some(format!("not prepared: {why}; apart from that one restart keeps MPTCP and io_uring from it"))
}

/// Labels and profiles are restored as they were; the other node must know them.
fn guarded(spec: &PodSpec) -> Option<String> {
    let of_pod = spec.security_context.as_ref();
    let contexts = || running(spec).filter_map(|container| container.security_context.as_ref());
    let selinux = of_pod.is_some_and(|context| context.se_linux_options.is_some())
        || contexts().any(|context| context.se_linux_options.is_some());
    let is_local = |kind: &str| kind == "Localhost";
    let in_container = |context: &SecurityContext| {
        context.app_armor_profile.as_ref().is_some_and(|profile| is_local(&profile.type_))
    };
    let apparmor = of_pod
        .and_then(|context| context.app_armor_profile.as_ref())
        .is_some_and(|profile| is_local(&profile.type_))
        || contexts().any(in_container);
    match (selinux, apparmor) {
        (true, _) => Some(
            "seLinuxOptions: a pod that has an SELinux label is not moved; where the engine gives it none they do nothing"
                .to_owned(),
        ),
        (_, true) => Some(
            "its AppArmor profile must be loaded on the other node, or the restore there fails".to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut value = json!({ "metadata": { "name": "web-0", "annotations": {} },
            "spec": { "containers": [{ "name": "app" }] }, "status": {} });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn found(change: impl FnOnce(&mut Value)) -> Option<(Reason, String)> {
        refusals(&pod(change).spec.unwrap(), &[]).pop()
    }

    #[test]
    fn another_runtime_is_refused_by_its_name() {
        let under = |class: Value| found(|v| v["spec"]["runtimeClassName"] = class);
        assert_eq!(under(Value::Null), None);
        assert_eq!(under(json!("shadow")), None);
        let (reason, message) = under(json!("gvisor")).unwrap();
        assert_eq!(reason, Reason::RuntimeNotSupported);
        assert!(message.contains("`gvisor`"), "{message}");
    }

    #[test]
    fn a_debug_container_is_in_the_way_only_while_it_runs() {
        let debugged = |state: Value| {
            obstacle(&pod(|v| {
                v["spec"]["ephemeralContainers"] = json!([{ "name": "debug" }]);
                v["status"]["ephemeralContainerStatuses"] = state;
            }))
        };
        let with = |state: Value| {
            debugged(json!([{ "name": "debug", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state }]))
        };
        assert_eq!(with(json!({ "terminated": { "exitCode": 1 } })), None);
        assert_eq!(with(json!({ "waiting": { "reason": "ErrImagePull" } })), None);
        for running in [with(json!({ "running": {} })), debugged(json!([])), debugged(Value::Null)] {
            let Failure { reason, message, retry } = running.unwrap();
            assert_eq!((reason, retry), (Reason::SeveralContainers, true));
            assert!(message.contains("`debug` is running"), "{message}");
        }
    }

    #[test]
    fn a_hook_is_refused_only_where_it_cannot_be_kept_from_running() {
        let hooked =
            |hook: Value| found(|v| v["spec"]["containers"][0]["lifecycle"] = json!({ "postStart": hook }));
        assert_eq!(hooked(json!({ "exec": { "command": ["x"] } })), None);
        assert_eq!(hooked(json!({ "sleep": { "seconds": 1 } })), None);
        let (reason, message) = hooked(json!({ "httpGet": { "port": 80 } })).unwrap();
        assert_eq!(reason, Reason::PostStart);
        assert!(message.contains("`app`"), "{message}");
    }

    #[test]
    fn a_pod_that_is_not_prepared_says_why_and_what_helps() {
        let told = |mark: &str, prepare| {
            let marked = pod(|v| v["metadata"]["annotations"][ANNOTATION_PREPARED] = mark.into());
            warnings(&marked, prepare, &InitRuns::new()).join("; ")
        };
        assert_eq!(told("true", Prepare::Auto), "");
        assert_eq!(told("restored", Prepare::Auto), "");
        assert_eq!(told("false: node n3 has no runtime handler", Prepare::Never), "");
        let why = told("false: node n3 has no runtime handler", Prepare::Auto);
        assert!(why.contains("node n3 has no runtime handler") && why.contains("one restart"), "{why}");
        assert!(warnings(&pod(|_| ()), Prepare::Auto, &InitRuns::new())[0].contains("made before SHADOW"));
    }

    #[test]
    fn init_containers_that_run_again_are_named() {
        let pod = pod(|v| {
            v["spec"]["initContainers"] = json!([{ "name": "fill" }, { "name": "istio-init" },
                { "name": "sysctl", "securityContext": { "privileged": true } }]);
        });
        let told = |wished: &str| {
            warnings(&pod, Prepare::Never, &crate::api::parse_init_runs(wished).unwrap_or_default())
                .join("; ")
        };
        assert!(told("").contains("istio-init, sysctl;"), "{}", told(""));
        assert_eq!(told("istio-init=Skip,sysctl=Skip"), "");
    }

    #[test]
    fn labels_and_profiles_of_the_node_are_told() {
        let under = |context: Value| {
            let guarded = pod(|v| v["spec"]["containers"][0]["securityContext"] = context);
            warnings(&guarded, Prepare::Never, &InitRuns::new()).join("; ")
        };
        assert_eq!(under(json!({ "appArmorProfile": { "type": "RuntimeDefault" } })), "");
        assert!(
            under(json!({ "appArmorProfile": { "type": "Localhost", "localhostProfile": "p" } }))
                .contains("AppArmor")
        );
        assert!(under(json!({ "seLinuxOptions": { "level": "s0:c1" } })).contains("SELinux"));
    }
}
