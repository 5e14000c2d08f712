//! What cannot be carried is refused before anything is touched, with the reason; then the drain gets what the policy
//! says.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use shadow::api::{Phase, Reason};

use crate::lab::{
    App, Drain, DrainOptions, IMAGE, Lab, Result, Snapshot, cause_is_told, eventually, fail, nothing_left,
    on_cluster, status_of,
};

/// Beside each other on one stage: none of them moves.
#[test]
fn what_cannot_be_carried_is_refused_before_it_is_touched() -> Result {
    on_cluster("refused", async |lab| {
        let queues = [
            ("auto-delete", json!({ "durable": true, "auto_delete": true })),
            ("stream", json!({ "durable": true, "arguments": { "x-queue-type": "stream" } })),
        ];
        for (queue, properties) in &queues {
            // Nobody consumes it: an auto-delete queue that was never consumed stays.
            lab.broker.declare_queue(queue, properties).await?;
        }
        let apps: Vec<(App, Reason)> =
            specs().into_iter().map(|(app, reason)| (blocking(&app), reason)).collect();
        let deployed = apps.iter().map(async |(app, _)| lab.deploy(app).await);
        let pods = try_join_all(deployed).await?;
        let cases: Vec<_> = apps
            .into_iter()
            .zip(pods)
            .map(|((app, reason), mut pods)| (app, pods.remove(0), reason))
            .collect();
        are_refused(lab, &cases).await?;
        nothing_left(lab, &queues.map(|(queue, _)| queue.to_owned())).await
    })
}

/// Each with the reason that it is refused for.
fn specs() -> Vec<(App, Reason)> {
    let with = |name: &str, pod: Value| App::counter(name).pod(pod);
    let of_queue = |name: &str| App::counter(name).queue(name).annotated("broker-secret", "broker");
    let host_path = json!({ "hostPath": { "path": "/tmp", "type": "Directory" } });
    let host_port = json!({ "containers": [{ "ports": [{ "hostPort": 18080 }] }] });
    // To the kubelet itself, which sends it: it must succeed, or the container does not come up.
    let request = json!({ "path": "/healthz", "port": 10248, "host": "127.0.0.1" });
    let hook = json!({ "containers": [{ "lifecycle": { "postStart": { "httpGet": request } } }] });
    vec![
        (App::counter("no-shipper").annotated("restart-fresh", "ship"), Reason::ContainerUnknown),
        (App::counter("no-container").annotated("container", "other"), Reason::ContainerUnknown),
        (with("host-path", mounted(host_path)), Reason::VolumeNotSharable),
        (with("host-network", json!({ "hostNetwork": true })), Reason::HostNetwork),
        (with("host-pid", json!({ "hostPID": true })), Reason::HostPid),
        (with("shared-pids", json!({ "shareProcessNamespace": true })), Reason::SharedProcessNamespace),
        (with("host-port", host_port).annotated("strategy", "ShadowPod"), Reason::HostPort),
        (with("post-start-request", hook), Reason::PostStart),
        (App::counter("replay").annotated("sync", "Replay"), Reason::StrategyNotSupported),
        (of_queue("auto-delete"), Reason::QueueNotSupported),
        (of_queue("stream"), Reason::QueueNotSupported),
    ]
}

#[test]
fn devices() -> Result {
    on_cluster("devices", async |lab| {
        for node in &lab.cluster.nodes {
            let capacity = r#"[{"op":"add","path":"/status/capacity/example.com~1gpu","value":"2"}]"#;
            let patch = ["patch", "node", node, "--subresource=status", "--type=json", "-p", capacity];
            lab.cluster.kubectl(&patch).await?;
        }
        let limits = json!({ "containers": [{ "resources": { "limits": { "example.com/gpu": "1" } } }] });
        let app = App::counter("app").pod(limits);
        let outcome = is_refused(lab, app, Reason::Devices).await;
        for node in &lab.cluster.nodes {
            let away = r#"[{"op":"remove","path":"/status/capacity/example.com~1gpu"}]"#;
            let patch = ["patch", "node", node, "--subresource=status", "--type=json", "-p", away];
            lab.cluster.kubectl(&patch).await?;
        }
        outcome
    })
}

#[test]
fn another_runtime() -> Result {
    on_cluster("runtime", async |lab| {
        let class = json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": { "name": "lab-other" }, "handler": "runc" });
        lab.cluster.apply(&[class]).await?;
        let app = App::counter("app").pod(json!({ "runtimeClassName": "lab-other" }));
        let outcome = is_refused(lab, app, Reason::RuntimeNotSupported).await;
        lab.cluster.kubectl(&["delete", "runtimeclass", "lab-other"]).await?;
        outcome
    })
}

#[test]
fn a_debug_container_is_waited_for_while_it_runs() -> Result {
    on_cluster("debugged", async |lab| {
        let app = App::counter("app");
        debug(lab, &app, "15", "running").await?;
        let before = lab.only_pod(&app).await?;
        let cookie = before.state().await?.cookie;
        let drained = lab.drain(&before.node, &DrainOptions::of("app")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        assert_eq!(lab.only_pod(&app).await?.state().await?.cookie, cookie, "it moved");
        let events = lab
            .cluster
            .kubectl(&["-n", &lab.namespace, "get", "events", "-o", "jsonpath={..note}{..message}"])
            .await?;
        assert!(events.contains("ephemeral container `debug` is running in it: end its program"), "{events}");
        Ok(())
    })
}

#[test]
fn a_debug_container_that_has_ended_is_in_nobodys_way() -> Result {
    on_cluster("debugged-before", async |lab| {
        let app = App::counter("app");
        debug(lab, &app, "0", "terminated").await?;
        let before = lab.only_pod(&app).await?;
        let cookie = before.state().await?.cookie;
        let drained = lab.drain(&before.node, &DrainOptions::of("app")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let after = lab.only_pod(&app).await?;
        assert_eq!(after.state().await?.cookie, cookie, "it moved");
        assert_ne!(after.node, before.node);
        Ok(())
    })
}

/// Somebody has looked into the pod with `kubectl debug`.
async fn debug(lab: &Lab, app: &App, seconds: &str, state: &str) -> Result {
    let pod = lab.deploy(app).await?.remove(0);
    let image = format!("--image={IMAGE}");
    let argv = ["-n", &lab.namespace, "debug", &pod.name, &image, "--image-pull-policy=IfNotPresent"];
    let program = ["--container=debug", "--profile=general", "--", "/counter", "wait", seconds];
    lab.cluster.kubectl(&[&argv[..], &program[..]].concat()).await?;
    eventually("the debug container is as it is to be", Duration::from_secs(60), async || {
        let path = "-o=jsonpath={.status.ephemeralContainerStatuses[0].state}";
        let found = lab.cluster.kubectl(&["-n", &lab.namespace, "get", "pod", &pod.name, path]).await?;
        Ok(found.contains(state).then_some(()))
    })
    .await
}

/// The pod runs without its user namespace where the kernel cannot map it: then there is nothing to test.
#[test]
fn a_user_namespace() -> Result {
    on_cluster("user-namespace", async |lab| {
        let app = App::counter("app").pod(json!({ "hostUsers": false }));
        lab.cluster.apply(&blocking(&app).objects(&lab.namespace)).await?;
        match lab.ready(&app, Duration::from_secs(20)).await {
            Ok(_) => is_refused(lab, app, Reason::UserNamespace).await,
            Err(_) => {
                println!("this kernel or runtime has no user namespaces for pods: nothing to refuse");
                Ok(())
            }
        }
    })
}

/// A bare pod would not be made again by anybody.
#[test]
fn a_pod_that_nobody_would_make_again_is_evicted_as_ever() -> Result {
    on_cluster("bare-pod", async |lab| {
        let template = App::counter("bare").objects(&lab.namespace).remove(2)["spec"]["template"].take();
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
            "metadata": { "name": "bare", "namespace": lab.namespace, "labels": { "app": "bare" } } });
        pod["metadata"]["annotations"] = template["metadata"]["annotations"].clone();
        lab.cluster.apply(&[pod]).await?;
        let before = lab.ready(&App::counter("bare"), Duration::from_secs(60)).await?.remove(0);
        let (program, config) = lab.cluster.kubectl_argv();
        let drained = tokio::process::Command::new(program)
            .args([
                &config,
                "drain",
                &before.node,
                "--ignore-daemonsets",
                "--force",
                "--pod-selector=app=bare",
            ])
            .args(["--timeout=30s"])
            .output()
            .await?;
        assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
        Ok(())
    })
}

/// The other policy: evicted as ever, at once, with the reason told.
#[test]
fn under_migrate_or_evict_the_pod_is_evicted_with_the_reason() -> Result {
    on_cluster("refused-evict", async |lab| {
        let app = App::counter("app").pod(json!({ "shareProcessNamespace": true }));
        let before = lab.deploy(&app).await?.remove(0);
        let cookie = before.state().await?.cookie;
        let watch = lab.watch();
        let drained = lab.drain(&before.node, &DrainOptions::of("app")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        assert!(drained.took() < Duration::from_secs(20), "at once, not after the deadline");
        let ended = watch.ended(&before.uid, Duration::from_secs(30)).await?;
        cause_is_told(lab, &ended, &before.name, &[Reason::SharedProcessNamespace]).await?;
        let fresh = eventually("a fresh pod", Duration::from_secs(60), async || {
            let pod = lab.only_pod(&app).await?;
            Ok((pod.uid != before.uid).then_some(pod))
        })
        .await?;
        assert_ne!(fresh.state().await?.cookie, cookie);
        Ok(())
    })
}

fn blocking(app: &App) -> App {
    app.clone().annotated("policy", "MigrateOrBlock")
}

/// All at the same time; whatever is wrong with one of them, the others are tried too.
pub async fn are_refused(lab: &Lab, cases: &[(App, Snapshot, Reason)]) -> Result {
    let drains = cases.iter().map(async |(app, before, reason)| {
        let refused = AssertUnwindSafe(is_refused_in_place(lab, app, before, *reason)).catch_unwind().await;
        match refused {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{}: {error}", app.name)),
            Err(_) => Some(format!("{}: see the panic above", app.name)),
        }
    });
    let wrong: Vec<String> = join_all(drains).await.into_iter().flatten().collect();
    if wrong.is_empty() { Ok(()) } else { fail(wrong.join("\n")) }
}

/// Under MigrateOrBlock: the migration fails at once with the reason, a drain gets it, the pod is untouched.
pub async fn is_refused(lab: &Lab, app: App, reason: Reason) -> Result {
    let app = blocking(&app);
    let before = lab.deploy(&app).await?.remove(0);
    is_refused_in_place(lab, &app, &before, reason).await?;
    nothing_left(lab, &[]).await
}

async fn is_refused_in_place(lab: &Lab, app: &App, before: &Snapshot, reason: Reason) -> Result {
    let state = before.state().await?;
    let watch = lab.watch();
    let options = DrainOptions {
        // Else kubectl itself refuses pods with an emptyDir.
        delete_empty_dir: true,
        ..DrainOptions::of(&app.name).timeout(Duration::from_secs(4))
    };
    let drained = Drain::start(&lab.cluster, &before.node, &options)?.finish().await?;
    assert_ne!(drained.code, 0, "{}", drained.text());
    let ended = watch.ended(&before.uid, Duration::from_secs(10)).await?;
    let status = status_of(&ended);
    assert_eq!((status.phase, status.reason.as_deref()), (Phase::Failed, Some(reason.as_str())));
    let movable = status.conditions.iter().find(|condition| condition.type_ == "Movable");
    assert_eq!(movable.map(|c| (c.status.as_str(), c.reason.as_str())), Some(("False", reason.as_str())));
    assert!(status.phase_timings.is_empty(), "nothing was begun: {:?}", status.phase_timings);
    cause_is_told(lab, &ended, &before.name, &[reason]).await?;
    let again = Drain::start(&lab.cluster, &before.node, &options)?.finish().await?;
    let told = status.message.unwrap_or_default();
    if told.is_empty() || !again.text().contains(&told) {
        return fail(format!("the drain is not told {told:?}:\n{}", again.text()));
    }
    let after = lab.only_pod(app).await?;
    assert_eq!(after, *before, "the pod was not touched");
    assert_eq!(after.state().await?.cookie, state.cookie);
    Ok(())
}

fn mounted(volume: Value) -> Value {
    let mut volume = volume;
    volume["name"] = "data".into();
    json!({ "volumes": [volume],
        "containers": [{ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }] })
}
