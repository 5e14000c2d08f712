//! `kubectl drain --dry-run=server` writes nothing: the API server's own audit log says so.

use std::io::{Read as _, Seek as _, SeekFrom};

use serde_json::Value;

use crate::lab::{App, DrainOptions, Result, on_cluster};

#[test]
fn a_dry_run_writes_nothing() -> Result {
    on_cluster("dry-run", async |lab| {
        let app = App::counter("counter");
        let pods = lab.deploy(&app).await?;
        let before = pods.first().ok_or("no pod")?;
        let state = before.state().await?;
        let mut log = std::fs::File::open(&lab.cluster.audit_log)?;
        let start = log.seek(SeekFrom::End(0))?;

        let options = DrainOptions { dry_run: true, ..DrainOptions::of(&app.name) };
        let drained = lab.drain(&before.node, &options).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        assert!(drained.text().contains("server dry run"), "{}", drained.text());
        // Not a wait: a write that follows would have to come within this.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;

        log.seek(SeekFrom::Start(start))?;
        let mut lines = String::new();
        log.read_to_string(&mut lines)?;
        let asked = lines.lines().filter(|line| line.contains("/eviction")).count();
        assert!(asked > 0, "the drain asked for an eviction, and the audit log has it");
        let writes: Vec<&str> = lines.lines().filter(|line| is_write(line, &lab.namespace)).collect();
        assert_eq!(writes, Vec::<&str>::new());
        assert_eq!(&lab.only_pod(&app).await?, before);
        assert_eq!(before.state().await?, state);
        Ok(())
    })
}

/// A write that was meant: in our namespace, to a node by kubectl, or by one of SHADOW's parts to what is in no namespace of an
/// earlier test, which may still be on its way out. Kubernetes' own controllers may still be writing down that the pod is
/// ready, and agents how much room there is.
fn is_write(line: &str, namespace: &str) -> bool {
    let Ok(event) = serde_json::from_str::<Value>(line) else { return false };
    let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let dry = text("/requestURI").contains("dryRun=All") || text("/objectRef/subresource") == "eviction";
    let part = text("/user/username").starts_with("system:serviceaccount:shadow-system:");
    let of_a_test = !["", "shadow-system"].contains(&text("/objectRef/namespace"));
    let ours = text("/objectRef/namespace") == namespace
        || (part && !of_a_test && text("/objectRef/resource") != "nodecapacities")
        || (text("/objectRef/resource") == "nodes" && text("/userAgent").starts_with("kubectl"));
    let by_cluster = ["system:node:", "system:serviceaccount:kube-system:"];
    !dry && ours && !by_cluster.iter().any(|part| text("/user/username").starts_with(part))
}
