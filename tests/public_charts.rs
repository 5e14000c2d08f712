//! `kubectl shadow check -f` over StatefulSets and Deployments as public Helm charts make them with their default values.
//! `charts/*.jsonl` holds their shapes, one a line: what matters to a move, and nothing else of them.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;
use shadow::api::{ManifestCheck, Reason};
use shadow::operator::check_manifest;

const STATEFUL_SETS: &str = include_str!("charts/statefulsets.jsonl");
const DEPLOYMENTS: &str = include_str!("charts/deployments.jsonl");

#[test]
fn each_is_refused_for_what_is_in_it_and_for_nothing_else() {
    for line in STATEFUL_SETS.lines().chain(DEPLOYMENTS.lines()) {
        let shape: Value = serde_json::from_str(line).unwrap();
        let [found] = &check_manifest(line).unwrap()[..] else { panic!("one workload in {line}") };
        let told: BTreeSet<Reason> =
            found.check.refusal.iter().chain(&found.check.further).map(|one| one.reason).collect();
        assert_eq!(told, against(&shape), "{found:#?}");
        assert_eq!(found.check.movable, told.is_empty());
        assert_eq!(found.meanwhile.is_some(), found.check.movable);
    }
}

/// What this version does not move, told from the shape itself.
fn against(shape: &Value) -> BTreeSet<Reason> {
    let spec = &shape["spec"]["template"]["spec"];
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let sidecars = list(&spec["initContainers"]).into_iter().filter(|init| init["restartPolicy"] == "Always");
    let containers: Vec<Value> = sidecars.chain(list(&spec["containers"])).collect();
    let has_request = |container: &Value| {
        let hook = &container["lifecycle"]["postStart"];
        !hook["httpGet"].is_null() || !hook["tcpSocket"].is_null()
    };
    let is_new_elsewhere = |volume: &Value| {
        ["emptyDir", "configMap", "secret", "projected", "downwardAPI", "nfs", "persistentVolumeClaim"]
            .iter()
            .any(|kind| volume[kind].is_object())
    };
    let stays = !list(&spec["volumes"]).iter().all(is_new_elsewhere);
    [
        (stays, Reason::VolumeNotSharable),
        (spec["hostNetwork"] == true, Reason::HostNetwork),
        (spec["hostPID"] == true || spec["hostIPC"] == true, Reason::HostPid),
        (spec["shareProcessNamespace"] == true, Reason::SharedProcessNamespace),
        (containers.iter().any(has_request), Reason::PostStart),
    ]
    .into_iter()
    .filter_map(|(is, reason)| is.then_some(reason))
    .collect()
}

/// README tells these figures.
#[test]
fn so_many_of_them_can_be_moved() {
    let movable = |lines: &str| {
        let stream = lines.lines().collect::<Vec<_>>().join("\n---\n");
        let found = check_manifest(&stream).unwrap();
        (found.iter().filter(|one| one.check.movable).count(), found.len())
    };
    assert_eq!((movable(STATEFUL_SETS), movable(DEPLOYMENTS)), ((75, 75), (161, 163)));
}

#[test]
fn the_plugin_reads_them_from_files_and_from_standard_input_and_needs_no_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.yaml"), folder.path().join("bad.yaml"));
    let shape = |volume: &str| {
        format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata:\n  name: web\n  annotations: {{migration.ms2m.io/queue: \
             q}}\nspec:\n  template:\n    spec:\n      containers: [{{name: app}}]\n      volumes: [{{name: v, {volume}}}]\n"
        )
    };
    std::fs::write(&good, shape("emptyDir: {}")).unwrap();
    std::fs::write(&bad, shape("hostPath: {path: /x}")).unwrap();
    let run = |arguments: &[&str], input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-shadow"))
            .arg("check")
            .args(arguments)
            .env("KUBECONFIG", "/nowhere")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (good, bad) = (good.display().to_string(), bad.display().to_string());
    let (code, told, _) = run(&["-f", &good], "");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with("StatefulSet web: can be moved; requests are answered meanwhile"), "{told}");
    let (code, told, error) = run(&["-f", &good, "-f", &bad], "");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("cannot be moved: VolumeNotSharable: pod web-0: hostPath `v`"), "{told}");
    assert!(error.contains("1 of 2 cannot be moved as they are"), "{error}");
    let (code, told, _) = run(&["-f", "-", "-o", "json"], &shape("configMap: {name: c}"));
    let checks: Vec<ManifestCheck> = serde_json::from_str(&told).unwrap();
    assert_eq!((code, checks.len(), checks[0].check.movable), (Some(0), 1, true), "{told}");
    let (code, _, error) = run(&["-f", "-"], "kind: ConfigMap\n");
    assert_eq!(code, Some(1));
    assert!(error.contains("no StatefulSet, Deployment or pod is in it"), "{error}");
}
