//! Pods of annotated owners are made so that they can be moved later: no MPTCP, no io_uring, unless somebody says
//! otherwise or a node could not run them; and they move like any other.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use serde::Deserialize;

use crate::lab::{App, DrainOptions, Lab, MADE_UP, Result, Snapshot, eventually, on_cluster, request};

const READY: &str = "migration.ms2m.io/ready";
/// "Function not implemented".
const ENOSYS: i32 = 38;
/// "Protocol not available", "Protocol not supported".
const NO_PROTOCOL: [i32; 2] = [92, 93];

/// Errors of what was tried; none where it is to be had.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    mptcp: Option<i32>,
    io_uring: Option<i32>,
}

impl Probe {
    async fn of(pod: &Snapshot) -> Result<Self> {
        let to = format!("{}:8080", pod.ip);
        request(&to, "GET", "/probe", "", b"", Duration::from_secs(2)).await?.json()
    }

    fn is_without(&self) -> bool {
        self.mptcp.is_some_and(|error| NO_PROTOCOL.contains(&error)) && self.io_uring == Some(ENOSYS)
    }
}

/// Annotation `prepared`, RuntimeClass, and whether it is bound to nodes that have it.
async fn mark(lab: &Lab, name: &str) -> Result<(String, String, bool)> {
    let pod = Api::<Pod>::namespaced(lab.client.clone(), &lab.namespace).get(name).await?;
    let told = pod.annotations().get("migration.ms2m.io/prepared").cloned().unwrap_or_default();
    let spec = pod.spec.unwrap_or_default();
    let bound = spec.node_selector.is_some_and(|labels| labels.contains_key(READY));
    Ok((told, spec.runtime_class_name.unwrap_or_default(), bound))
}

#[test]
fn a_prepared_pod_has_neither_mptcp_nor_io_uring_and_moves() -> Result {
    on_cluster("prepared", async |lab| {
        let app = App::counter("app");
        let before = lab.deploy(&app).await?.remove(0);
        assert_eq!(mark(lab, &before.name).await?, ("true".into(), "shadow".into(), true));
        let probe = Probe::of(&before).await?;
        assert!(probe.is_without(), "{probe:?}");
        let state = before.state().await?;
        let watch = lab.watch();
        let drained = lab.drain(&before.node, &DrainOptions::of("app")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let ended = watch.ended(&before.uid, Duration::from_secs(60)).await?;
        let status = ended.status.unwrap_or_default();
        assert_eq!(status.phase.as_str(), "Completed", "{status:?}");
        let after = lab.only_pod(&app).await?;
        assert_ne!(after.node, before.node);
        assert_eq!(after.state().await?.cookie, state.cookie, "the same memory");
        assert_eq!(mark(lab, &after.name).await?.0, "restored");
        let probe = Probe::of(&after).await?;
        assert!(probe.is_without(), "its filter and its network came along: {probe:?}");
        // And back, by way of a container that starts afresh where it was restored.
        crash(lab, &after).await?;
        let fresh = lab.only_pod(&app).await?;
        let probe = Probe::of(&fresh).await?;
        assert!(probe.is_without(), "started afresh in a restored pod: {probe:?}");
        lab.uncordon(&before.node).await?;
        let cookie = fresh.state().await?.cookie;
        let drained = lab.drain(&fresh.node, &DrainOptions::of("app")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let home = lab.only_pod(&app).await?;
        assert_eq!((home.state().await?.cookie, home.node), (cookie, before.node));
        Ok(())
    })
}

#[test]
fn who_opts_out_gets_an_ordinary_pod() -> Result {
    on_cluster("unprepared", async |lab| {
        let app = App::counter("app").annotated("prepare", "false");
        let pod = lab.deploy(&app).await?.remove(0);
        assert_eq!(mark(lab, &pod.name).await?, (String::new(), String::new(), false));
        let probe = Probe::of(&pod).await?;
        assert!(!probe.is_without(), "{probe:?}");
        Ok(())
    })
}

#[test]
fn while_a_node_has_no_runtime_pods_stay_as_they_are_and_say_why() -> Result {
    on_cluster("not-everywhere", async |lab| {
        // The operator would label it again at once: a node of its own kind, that nobody starts.
        let other = serde_json::json!({ "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": "elsewhere", "labels": { "kubernetes.io/os": "linux", MADE_UP: "true" } } });
        lab.cluster.apply(&[other]).await?;
        let outcome = stays_as_it_is(lab).await;
        lab.cluster.kubectl(&["delete", "node", "elsewhere", "--ignore-not-found"]).await?;
        outcome?;
        // One restart is enough once that is mended.
        lab.cluster.kubectl(&["-n", &lab.namespace, "delete", "pod", "app-0"]).await?;
        eventually("the pod is prepared", Duration::from_secs(60), async || {
            let pod = lab.only_pod(&App::counter("app")).await?;
            Ok((mark(lab, &pod.name).await?.0 == "true").then_some(()))
        })
        .await
    })
}

async fn stays_as_it_is(lab: &Lab) -> Result {
    // The node lifecycle controller would taint it as not ready: it is no node for anybody then.
    let taints = ["patch", "node", "elsewhere", "--type=merge", "-p", r#"{"spec":{"taints":[]}}"#];
    let app = App::counter("app");
    let why = "false: node elsewhere has no runtime handler";
    lab.cluster.apply(&app.objects(&lab.namespace)).await?;
    let pod = eventually("the pod says why", Duration::from_secs(60), async || {
        lab.cluster.kubectl(&taints).await?;
        let pod = lab.only_pod(&app).await?;
        if mark(lab, &pod.name).await?.0 == why {
            return Ok(Some(pod));
        }
        lab.cluster.kubectl(&["-n", &lab.namespace, "delete", "pod", &pod.name]).await?;
        Ok(None)
    })
    .await?;
    assert_eq!(mark(lab, &pod.name).await?, (why.into(), String::new(), false));
    let path = format!(
        "/api/v1/namespaces/shadow-system/services/shadow-operator:health/proxy/v1/check/{}/{}",
        lab.namespace, pod.name
    );
    let told = lab.cluster.kubectl(&["get", "--raw", &path]).await?;
    assert!(told.contains("node elsewhere has no runtime handler"), "{told}");
    let bound = App::counter("bound")
        .pod(serde_json::json!({ "nodeSelector": { "kubernetes.io/hostname": lab.cluster.nodes[1] } }));
    let pod = lab.deploy(&bound).await?.remove(0);
    assert_eq!(mark(lab, &pod.name).await?.0, "true", "it cannot come to the node without");
    Ok(())
}

/// A hook has run once before the move and does not run again, but does when the container starts afresh.
#[test]
fn a_post_start_command_is_not_run_again() -> Result {
    on_cluster("post-start", async |lab| {
        let hook = serde_json::json!({ "containers": [{ "lifecycle":
            { "postStart": { "exec": { "command": ["/counter", "note", "/noted"] } } } }] });
        let app = App::counter("app").pod(hook);
        let before = lab.deploy(&app).await?.remove(0);
        has_noted(lab, &before).await?;
        let cookie = before.state().await?.cookie;
        let drained = lab.drain(&before.node, &DrainOptions::of("app")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let after = lab.only_pod(&app).await?;
        assert_eq!(after.state().await?.cookie, cookie);
        // The file came along. A hook runs within milliseconds of the start; it is given two seconds.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            assert_eq!(noted(lab, &after).await?, 1, "the hook did not run again");
        }
        crash(lab, &after).await?;
        // A container that starts afresh has a fresh file system too.
        has_noted(lab, &lab.only_pod(&app).await?).await
    })
}

async fn has_noted(lab: &Lab, pod: &Snapshot) -> Result {
    eventually("the hook has run once", Duration::from_secs(20), async || {
        Ok((noted(lab, pod).await? == 1).then_some(()))
    })
    .await
}

/// Lines in the hook's file, read from the node: the image has no shell.
async fn noted(lab: &Lab, pod: &Snapshot) -> Result<usize> {
    let find = "for p in /proc/[0-9]*; do [ \"$(readlink $p/exe)\" = /counter ] && cat $p/root/noted 2>/dev/null && break; done";
    let read = lab.cluster.exec(&pod.node, &["sh", "-c", find]).await?;
    Ok(read.stdout.lines().count())
}

/// Kills its program, and waits until it is back.
async fn crash(lab: &Lab, pod: &Snapshot) -> Result {
    let cookie = pod.state().await?.cookie;
    lab.cluster.kill_program(&pod.node, &["counter"]).await?;
    eventually("it is back with another memory", Duration::from_secs(60), async || {
        let now = lab.pod(&pod.name).await?;
        Ok((now.restarts > pod.restarts && now.state().await?.cookie != cookie).then_some(()))
    })
    .await
}
