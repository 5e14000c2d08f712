//! A pod of several containers: what its sidecars hold in memory, and what an init container has left in a volume.

use std::time::Duration;

use serde_json::{Value, json};

use super::app::{App, IMAGE};
use super::http::request;
use super::pods::{Snapshot, StateView, state_at};
use super::{Result, fail};

const LIMIT: Duration = Duration::from_secs(5);
const FILLED: &str = "localhost/shadow-carried:1";
/// Ports of the sidecars whose memory moves.
const KEPT: [(&str, u16); 2] = [("proxy", 8081), ("log", 8082)];

/// One more program beside an app, with a state in memory.
pub fn sidecar(name: &str, port: u16) -> Value {
    json!({
        "name": name, "image": IMAGE, "command": ["/counter"],
        "env": [{ "name": "LISTEN", "value": format!("0.0.0.0:{port}") }, { "name": "BALLAST_MB", "value": "4" }],
        "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
    })
}

/// This app with an init container that fills a volume, a native sidecar that the kubelet waits for, and one more.
pub fn whole(app: App) -> App {
    let init = json!({ "name": "fill", "image": FILLED, "command": ["/carried", "--append", "/scratch/appended"],
        "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }] });
    let mut proxy = sidecar("proxy", KEPT[0].1);
    proxy["restartPolicy"] = "Always".into();
    proxy["startupProbe"] = json!({ "httpGet": { "path": "/state", "port": KEPT[0].1 }, "periodSeconds": 1 });
    // It looks into the volume that the init container has filled.
    let mut log = sidecar("log", KEPT[1].1);
    log["livenessProbe"] = json!({ "httpGet": { "path": "/state", "port": KEPT[1].1 }, "periodSeconds": 1, "failureThreshold": 10 });
    app.pod(json!({
        "initContainers": [init, proxy],
        "containers": [{}, log],
        "volumes": [{ "name": "scratch", "emptyDir": {} }],
    }))
}

/// What the sidecars of [`whole`] hold.
pub async fn held(pod: &Snapshot) -> Result<Vec<StateView>> {
    let mut found = Vec::new();
    for (_, port) in KEPT {
        found.push(state_at(&format!("{}:{port}", pod.ip)).await?);
    }
    Ok(found)
}

/// Gives both of them something to hold.
pub async fn give(pod: &Snapshot, text: &str) -> Result {
    for (name, port) in KEPT {
        let to = format!("{}:{port}", pod.ip);
        let answer = request(&to, "POST", "/add", "", text.as_bytes(), LIMIT).await?;
        if answer.status != 200 {
            return fail(format!("{name} of {}: {}", pod.name, answer.status));
        }
    }
    Ok(())
}
