//! The target runs the image that the source runs, or nothing is stopped for it.

use std::time::Duration;

use futures::future::try_join_all;
use serde_json::json;
use shadow::api::{Phase, Reason};

use crate::lab::{
    App, Drain, DrainOptions, Lab, Result, Snapshot, cause_is_told, fail, nothing_left, on_cluster, status_of,
};

const PROGRAM: &str = "localhost/shadow-examples:1";
const ANOTHER: &str = "localhost/pause:1";

/// What is written in the pod, and what of it the other node has.
struct Odd {
    app: &'static str,
    tag: &'static str,
    elsewhere: Option<&'static str>,
    reason: Reason,
    says: &'static str,
}

const ODD: [Odd; 2] = [
    Odd {
        app: "differs",
        tag: "localhost/differs:1",
        elsewhere: Some(ANOTHER),
        reason: Reason::ImageDiffers,
        says: "pin the image by digest",
    },
    // In the kubelet's words.
    Odd {
        app: "missing",
        tag: "localhost/missing:1",
        elsewhere: None,
        reason: Reason::ImageUnavailable,
        says: "missing:1",
    },
];

#[test]
fn where_the_other_node_has_another_image_or_none_it_is_told_and_nothing_is_stopped() -> Result {
    on_cluster("image", async |lab| {
        untag(lab).await?;
        let outcome = refused(lab).await;
        untag(lab).await?;
        outcome
    })
}

async fn refused(lab: &Lab) -> Result {
    let [here, there] = lab.cluster.nodes.as_slice() else { return fail("two nodes are needed") };
    lab.cluster.kubectl(&["cordon", there]).await?;
    let pods = try_join_all(ODD.iter().map(|odd| deployed(lab, odd, here, there))).await?;
    lab.uncordon(there).await?;
    try_join_all(ODD.iter().zip(&pods).map(|(odd, before)| stays(lab, odd, before))).await?;
    nothing_left(lab, &[]).await
}

async fn deployed(lab: &Lab, odd: &Odd, here: &str, there: &str) -> Result<Snapshot> {
    tag(lab, here, PROGRAM, odd.tag).await?;
    if let Some(image) = odd.elsewhere {
        tag(lab, there, image, odd.tag).await?;
    }
    let pod = json!({ "containers": [{ "image": odd.tag, "imagePullPolicy": "Never" }] });
    let app =
        App::counter(odd.app).pod(pod).annotated("policy", "MigrateOrBlock").annotated("deadline", "100s");
    Ok(lab.deploy(&app).await?.remove(0))
}

/// Told twice in the same words, it is not tried a third time.
async fn stays(lab: &Lab, odd: &Odd, before: &Snapshot) -> Result {
    let state = before.state().await?;
    let watch = lab.watch();
    let options = DrainOptions::of(odd.app).timeout(Duration::from_secs(75));
    let drain = Drain::start(&lab.cluster, &before.node, &options)?;
    let ended = watch.ended(&before.uid, Duration::from_secs(80)).await?;
    let status = status_of(&ended);
    assert_eq!((status.phase, status.epoch.0), (Phase::Failed, 2), "{status:?}");
    cause_is_told(lab, &ended, &before.name, &[odd.reason]).await?;
    let said = status.message.unwrap_or_default();
    assert!(said.contains(odd.says) && said.chars().count() <= 200, "{said}");
    drop(drain);
    let after = lab.pod(&before.name).await?;
    assert_eq!((&after.uid, after.restarts), (&before.uid, before.restarts), "the pod was not touched");
    assert_eq!(after.state().await?.cookie, state.cookie);
    Ok(())
}

async fn tag(lab: &Lab, node: &str, image: &str, tag: &str) -> Result {
    let argv = ["ctr", "-n", "k8s.io", "images", "tag", "--force", image, tag];
    let tagged = lab.cluster.exec(node, &argv).await?;
    if tagged.code == 0 { Ok(()) } else { fail(format!("{node}: {}", tagged.stderr)) }
}

async fn untag(lab: &Lab) -> Result {
    for node in &lab.cluster.nodes {
        for odd in &ODD {
            lab.cluster.exec(node, &["ctr", "-n", "k8s.io", "images", "rm", odd.tag]).await?;
        }
    }
    Ok(())
}
