//! What a pod holds beside its memory moves with it, there and back: sockets on its own address, /dev/shm, open files that
//! have lost their names, volumes of its image, emptyDir volumes, files with holes; and what its init container has done.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::lab::{App, DrainOptions, Lab, Result, Snapshot, fail, on_cluster, request};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn everything_that_a_pod_holds_moves_there_and_back() -> Result {
    on_cluster("carried", async |lab| {
        let mounts = json!([
            { "name": "scratch", "mountPath": "/scratch" },
            { "name": "quick", "mountPath": "/scratch/quick" },
            { "name": "parts", "mountPath": "/part", "subPath": "a/b" },
            { "name": "parts", "mountPath": "/other", "subPath": "c" },
        ]);
        let container =
            json!({ "image": "localhost/shadow-carried:1", "command": ["/carried"], "volumeMounts": mounts });
        let init = json!({ "name": "fill", "image": "localhost/shadow-carried:1", "imagePullPolicy": "Never",
            "command": ["/carried", "--append", "/scratch/appended"],
            "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }] });
        let again = json!({ "name": "again", "image": "localhost/shadow-carried:1", "imagePullPolicy": "Never",
            "command": ["/carried", "--append", "/dev/stdout"] });
        let app = App::counter("carried")
            .annotated("init", "again=Run")
            .pod(json!({
                "initContainers": [init, again],
                "containers": [container],
                "securityContext": { "fsGroup": 2000 },
                "volumes": [
                    { "name": "scratch", "emptyDir": {} },
                    { "name": "quick", "emptyDir": { "medium": "Memory", "sizeLimit": "8Mi" } },
                    { "name": "parts", "emptyDir": { "sizeLimit": "64Mi" } },
                ],
            }))
            .env("VOLUMES", "/volume,/scratch,/scratch/quick,/part,/other")
            .env("APPENDED", "/scratch/appended")
            .env("PEER", &format!("{}:9", lab.cluster.broker_ip));
        lab.deploy(&app).await?;
        let watch = lab.watch();
        let first = state(&lab.only_pod(&app).await?).await?;
        for round in 1..=2 {
            let pod = lab.only_pod(&app).await?;
            add(&pod, &format!("{round};")).await?;
            let before = state(&pod).await?;
            assert_eq!(before["cookie"], first["cookie"]);
            must_be_of(&before, &pod, lab);
            // Else kubectl leaves pods with an emptyDir alone.
            let options = DrainOptions { delete_empty_dir: true, ..DrainOptions::of(&app.name) };
            let drained = lab.drain(&pod.node, &options).await?;
            assert_eq!(drained.code, 0, "{}", drained.text());
            let ended = watch.ended(&pod.uid, Duration::from_secs(60)).await?;
            let status = ended.status.unwrap_or_default();
            assert_eq!(status.phase.as_str(), "Completed", "{status:?}");
            let moved = lab.only_pod(&app).await?;
            let after = state(&moved).await?;
            assert_ne!((&moved.node, &moved.uid, &moved.ip), (&pod.node, &pod.uid, &pod.ip));
            assert_eq!(after["appended"], "once\n", "the init container did not run again");
            let logs = async |init| {
                lab.cluster.kubectl(&["-n", &lab.namespace, "logs", &moved.name, "-c", init]).await
            };
            assert_eq!(logs("again").await?, "once\n", "this one did, by its user's wish");
            assert_eq!(logs("fill").await?, "");
            for what in ["cookie", "files", "sparse"] {
                assert_eq!(after[what], before[what], "round {round}");
            }
            must_be_of(&after, &moved, lab);
            let said = greeting(&moved).await?;
            assert_eq!(said, after.to_string().len().to_string(), "it listens on its new address");
            println!("round {round}: drain {} ms", drained.took().as_millis());
            lab.uncordon(&pod.node).await?;
        }
        let last = state(&lab.only_pod(&app).await?).await?;
        for files in last["files"].as_array().ok_or("no files")? {
            for what in ["open", "openByName", "renamed", "second", "nameless"] {
                let content = files[what].as_str().unwrap_or_default();
                assert!(content.ends_with(":1;2;"), "{what} in {}: {content}", files["place"]);
            }
        }
        Ok(())
    })
}

/// Its sockets are bound to the address of this pod and to no other, and all that it can find is right.
fn must_be_of(state: &Value, pod: &Snapshot, lab: &Lab) {
    for socket in ["listener", "connected", "bound", "own", "ownPeer"] {
        assert_eq!(state["sockets"][socket], pod.ip.as_str(), "{socket}");
    }
    assert_eq!(state["sockets"]["peer"], format!("{}:9", lab.cluster.broker_ip));
    assert_eq!(state["sockets"]["talksToItself"], true);
    assert_eq!(
        state["sparse"],
        json!({ "size": 200_u64 << 30, "isSmall": true, "marks": [true, true, true] })
    );
    for files in state["files"].as_array().into_iter().flatten() {
        assert_eq!(
            (&files["renamedIsSecond"], &files["namelessLinks"]),
            (&json!(true), &json!(0)),
            "{files}"
        );
        assert_eq!(files["renamed"], files["second"]);
        let names: Vec<&str> =
            files["names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert!(
            !names.iter().any(|name| name.starts_with("link_remap") || name.contains(".ghost")),
            "{names:?}"
        );
    }
}

async fn state(pod: &Snapshot) -> Result<Value> {
    request(&format!("{}:8080", pod.ip), "GET", "/state", "", b"", LIMIT).await?.json()
}

async fn add(pod: &Snapshot, text: &str) -> Result {
    let answer = request(&format!("{}:8080", pod.ip), "POST", "/add", "", text.as_bytes(), LIMIT).await?;
    if answer.status == 200 { Ok(()) } else { fail(String::from_utf8_lossy(&answer.body)) }
}

async fn greeting(pod: &Snapshot) -> Result<String> {
    let mut stream = tokio::time::timeout(LIMIT, TcpStream::connect((pod.ip.as_str(), 8081))).await??;
    let mut said = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut said)).await??;
    Ok(said)
}
