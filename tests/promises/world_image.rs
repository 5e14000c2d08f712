//! The target runs the image that the source runs, or nothing is stopped for it.

use std::time::Duration;

use serde_json::json;
use shadow::api::{Phase, Reason};

use crate::lab::{
    App, Drain, DrainOptions, Lab, Result, Snapshot, cause_is_told, fail, nothing_left, on_cluster, status_of,
};

const TAG: &str = "localhost/odd:1";
const PROGRAM: &str = "localhost/shadow-examples:1";
const ANOTHER: &str = "localhost/pause:1";

#[test]
fn a_tag_that_means_another_image_on_the_other_node_is_told_and_nothing_is_stopped() -> Result {
    on_cluster("image-differs", async |lab| {
        let outcome = refused(lab, Some(ANOTHER), Reason::ImageDiffers, "pin the image by digest").await;
        untag(lab).await?;
        outcome
    })
}

#[test]
fn an_image_that_the_other_node_cannot_get_is_told_in_the_kubelets_words() -> Result {
    on_cluster("image-missing", async |lab| {
        let outcome = refused(lab, None, Reason::ImageUnavailable, "odd:1").await;
        untag(lab).await?;
        outcome
    })
}

async fn refused(lab: &Lab, elsewhere: Option<&str>, reason: Reason, says: &str) -> Result {
    let [here, there] = lab.cluster.nodes.as_slice() else { return fail("two nodes are needed") };
    untag(lab).await?;
    tag(lab, here, PROGRAM).await?;
    if let Some(image) = elsewhere {
        tag(lab, there, image).await?;
    }
    lab.cluster.kubectl(&["cordon", there]).await?;
    let odd = json!({ "containers": [{ "image": TAG, "imagePullPolicy": "Never" }] });
    let app =
        App::counter("app").pod(odd).annotated("policy", "MigrateOrBlock").annotated("deadline", "100s");
    let before = lab.deploy(&app).await?.remove(0);
    lab.uncordon(there).await?;
    stays(lab, &before, reason, says).await
}

/// Told twice in the same words, it is not tried a third time.
async fn stays(lab: &Lab, before: &Snapshot, reason: Reason, says: &str) -> Result {
    let state = before.state().await?;
    let watch = lab.watch();
    let options = DrainOptions::of("app").timeout(Duration::from_secs(75));
    let drain = Drain::start(&lab.cluster, &before.node, &options)?;
    let ended = watch.ended(&before.uid, Duration::from_secs(80)).await?;
    let status = status_of(&ended);
    assert_eq!((status.phase, status.epoch.0), (Phase::Failed, 2), "{status:?}");
    cause_is_told(lab, &ended, &before.name, &[reason]).await?;
    let said = status.message.unwrap_or_default();
    assert!(said.contains(says) && said.chars().count() <= 200, "{said}");
    drop(drain);
    let after = lab.pod(&before.name).await?;
    assert_eq!((&after.uid, after.restarts), (&before.uid, before.restarts), "the pod was not touched");
    assert_eq!(after.state().await?.cookie, state.cookie);
    nothing_left(lab, &[]).await
}

async fn tag(lab: &Lab, node: &str, image: &str) -> Result {
    let argv = ["ctr", "-n", "k8s.io", "images", "tag", "--force", image, TAG];
    let tagged = lab.cluster.exec(node, &argv).await?;
    if tagged.code == 0 { Ok(()) } else { fail(format!("{node}: {}", tagged.stderr)) }
}

async fn untag(lab: &Lab) -> Result {
    for node in &lab.cluster.nodes {
        lab.cluster.exec(node, &["ctr", "-n", "k8s.io", "images", "rm", TAG]).await?;
    }
    Ok(())
}
