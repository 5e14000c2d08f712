//! `kubectl shadow check POD`: can it move, where to, and if not, why, node by node; nothing is touched.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::nodes::{deploy_on, fill, pretend, three};
use crate::lab::{App, Lab, Load, Result, Scene, TAINT, eventually, on_cluster};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn each_node_is_told_with_its_reason_and_nothing_is_touched() -> Result {
    on_cluster("check", async |lab| {
        let [first, second, third] = three(lab).await?;
        let (app, load) = (App::consumer("consumer"), Load::steady(60));
        let pod = deploy_on(lab, &first, std::slice::from_ref(&app)).await?.remove(0);
        let scene = Scene::open(lab, app, &load, None).await?;
        let queues = lab.broker.queues().await?;
        let (code, found) = check(lab, &pod.name, &[]).await?;
        assert_eq!(
            (code, &found["movable"], &found["sourceNode"]),
            (0, &true.into(), &first.as_str().into())
        );
        assert!(found["archiveBytes"].as_u64() > Some(1 << 20), "{found}");
        assert_eq!(reason(&found, &first), "the pod is there");
        assert_eq!(
            (reason(&found, &second), reason(&found, &third)),
            (String::new(), String::new()),
            "{found}"
        );

        fill(lab, &second).await?;
        pretend(lab, &third, r#"{"ociRuntime": "crun 1.20"}"#).await?;
        let (code, found) = check(lab, &pod.name, &[]).await?;
        assert_eq!((code, &found["movable"]), (1, &false.into()));
        assert!(reason(&found, &second).starts_with("archive "), "{found}");
        assert!(reason(&found, &third).starts_with("OCI runtime crun 1.20, source runc"), "{found}");
        lab.cluster.kubectl(&["cordon", &second]).await?;
        let (_, found) = check(lab, &pod.name, &["--to", &second]).await?;
        assert_eq!(reason(&found, &third), "another node was asked for");
        let (code, found) = check(lab, &pod.name, &["--to", "nowhere"]).await?;
        assert!(code == 1 && found["warnings"].to_string().contains("there is no node nowhere"), "{found}");

        let migrations =
            lab.cluster.kubectl(&["-n", &lab.namespace, "get", "statefulmigrations", "-o", "name"]).await?;
        assert_eq!(migrations, "");
        crate::lab::unhurt(&scene, &pod, &queues).await
    })
}

#[test]
fn a_pod_that_cannot_be_moved_as_it_is_is_told_why() -> Result {
    on_cluster("check-refused", async |lab| {
        three(lab).await?;
        let app = App::consumer("consumer")
            .pod(json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" }));
        lab.cluster.apply(&app.objects(&lab.namespace)).await?;
        let name = format!("{}-0", app.name);
        let (code, found) = eventually("it is bound to a node", LIMIT, async || {
            let (code, found) = check(lab, &name, &[]).await?;
            Ok((found["refusal"]["reason"] == "HostNetwork").then_some((code, found)))
        })
        .await?;
        assert_eq!((code, &found["movable"]), (1, &false.into()));
        let plain = check(lab, "nobody", &[]).await;
        assert!(plain.is_err_and(|error| error.to_string().contains("there is no pod")));
        Ok(())
    })
}

#[test]
fn what_the_scheduler_has_against_a_node_is_told_too() -> Result {
    on_cluster("check-scheduling", async |lab| {
        let [first, second, third] = three(lab).await?;
        let memory = format!("{}Ki", allocatable_kib(lab, &second).await? * 6 / 10); // two of them are too much
        let containers = json!([{ "resources": { "requests": { "memory": memory } } }]);
        let names = json!({ "key": "kubernetes.io/hostname", "operator": "NotIn", "values": [third] });
        let terms = json!({ "nodeSelectorTerms": [{ "matchExpressions": [names] }] });
        let affinity = json!({ "requiredDuringSchedulingIgnoredDuringExecution": terms });
        let app = App::counter("counter")
            .pod(json!({ "affinity": { "nodeAffinity": affinity }, "containers": containers.clone() }));
        let pod = deploy_on(lab, &first, &[app]).await?.remove(0);
        let (code, found) = check(lab, &pod.name, &[]).await?;
        assert_eq!((code, reason(&found, &second)), (0, String::new()), "{found}");
        assert_eq!(reason(&found, &third), "required node affinity does not match");

        lab.cluster.kubectl(&["taint", "node", &second, &format!("{TAINT}=other:NoSchedule")]).await?;
        let tainted = format!("taint {TAINT}=other:NoSchedule is not tolerated");
        told(lab, &pod.name, &second, |why| why == tainted).await?;
        lab.cluster.kubectl(&["taint", "node", &second, &format!("{TAINT}-")]).await?;
        told(lab, &pod.name, &second, str::is_empty).await?;

        let there = json!({ "nodeName": second, "containers": containers });
        let ballast = App::counter("ballast").unannotated().pod(there);
        lab.cluster.apply(&ballast.objects(&lab.namespace)).await?;
        lab.only_pod(&ballast).await?;
        told(lab, &pod.name, &second, |why| why.starts_with("requests ") && why.contains(" Gi memory, free "))
            .await
    })
}

/// Waits until a check says so of a node.
async fn told(lab: &Lab, pod: &str, node: &str, wanted: impl Fn(&str) -> bool) -> Result {
    eventually("the check says so", LIMIT, async || {
        let (code, found) = check(lab, pod, &[]).await?;
        let why = reason(&found, node);
        Ok((wanted(&why) && (code == 0) == why.is_empty()).then_some(()))
    })
    .await
}

async fn allocatable_kib(lab: &Lab, node: &str) -> Result<u64> {
    let text =
        lab.cluster.kubectl(&["get", "node", node, "-o", "jsonpath={.status.allocatable.memory}"]).await?;
    Ok(text.trim().trim_end_matches("Ki").parse()?)
}

/// Exit code and answer.
async fn check(lab: &Lab, pod: &str, options: &[&str]) -> Result<(i32, Value)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-shadow"));
    command.args(["-n", &lab.namespace, "check", pod, "-o", "json"]).args(options);
    command.env("KUBECONFIG", &lab.cluster.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await??;
    let answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("no answer: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code().unwrap_or(-1), answer))
}

fn reason(found: &Value, node: &str) -> String {
    let nodes = found["nodes"].as_array().into_iter().flatten();
    let of = nodes.into_iter().find(|one| one["node"] == node);
    of.map_or_else(|| "not told".to_owned(), |one| one["reason"].as_str().unwrap_or_default().to_owned())
}
