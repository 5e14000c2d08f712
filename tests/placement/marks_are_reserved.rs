//! What makes a pod a shadow, and what redeems a ticket, is put on pods by SHADOW alone: whoever else could, would take a
//! node's room away, or restore somebody's memory.

use serde_json::{Value, json};

use crate::lab::{Lab, Result, on_cluster};

#[test]
fn nobody_else_marks_pods_as_shadows() -> Result {
    on_cluster("marks", async |lab| {
        create(lab, json!({}), json!({})).await?;
        for (metadata, spec, what) in [
            (
                json!({ "labels": { "migration.ms2m.io/role": "shadow" } }),
                json!({}),
                "migration.ms2m.io/role",
            ),
            (json!({ "annotations": { "migration.ms2m.io/ticket": "a.1.shadow" } }), json!({}), "ticket"),
            (json!({}), json!({ "runtimeClassName": "shadow" }), "runtimeClassName"),
        ] {
            let refused = create(lab, metadata, spec).await.expect_err(what).to_string();
            assert!(refused.contains("reserved") && refused.contains(what), "{refused}");
        }
        Ok(())
    })
}

/// As far as the API server would go with it.
async fn create(lab: &Lab, metadata: Value, spec: Value) -> Result {
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
    pod["metadata"]["name"] = "marked".into();
    pod["spec"]["containers"] = json!([{ "name": "app", "image": "localhost/pause:1" }]);
    let argv = ["-n", &lab.namespace, "create", "--dry-run=server", "-f", "-"];
    lab.cluster.kubectl_with(&argv, Some(&pod.to_string())).await.map(drop)
}
