//! Every restore on the target fails after the commit, or every restore anywhere.

use std::time::Duration;

use shadow::api::{Phase, Reason};

use super::after::{ALL_WAYS, After, BREAK_CRIU, app, kubectl_shadow};
use crate::lab::{Lab, Result, Snapshot, eventually, on_cluster, status_of};

#[test]
fn where_every_restore_fails_on_the_target_the_pod_is_at_home_again_with_its_memory() -> Result {
    on_cluster("after-restores", async |lab| {
        let after = After::ahead(lab, app("MigrateOrEvict")).await?;
        let drain = after.drained_with(BREAK_CRIU).await?;
        let status = after.is_home(&[Reason::RestoreFailed]).await?;
        drain.finish().await?;
        println!("restores fail: {} ms in all", status.total_ms.unwrap_or_default());
        // It can be moved again once the target is whole.
        lab.cluster.mend().await?;
        let again = lab.only_pod(&after.trouble.scene.app).await?;
        let drained = lab.drain(&again.node, &crate::lab::DrainOptions::of("consumer")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let ended = after.trouble.scene.watch().ended(&again.uid, Duration::from_secs(60)).await?;
        assert_eq!(status_of(&ended).phase, Phase::Completed);
        let moved = lab.only_pod(&after.trouble.scene.app).await?;
        assert_ne!(moved.node, again.node);
        lab.uncordon(&again.node).await?;
        after.trouble.unhurt_is(&moved).await
    })
}

/// CRIU is broken on both nodes once the pod has left: no way is left.
async fn nowhere<'a>(lab: &'a Lab, policy: &str) -> Result<After<'a>> {
    let after = After::ahead(lab, app(policy)).await?;
    let drain = after.drained_with(BREAK_CRIU).await?;
    let broken = lab.cluster.exec(&after.trouble.pod.node, &["sh", "-c", BREAK_CRIU]).await?;
    assert_eq!(broken.code, 0, "{}", broken.stderr);
    drain.finish().await?;
    Ok(after)
}

async fn fresh(after: &After<'_>) -> Result<Snapshot> {
    let lab = after.lab();
    let ended = after.trouble.scene.watch().ended(&after.trouble.pod.uid, ALL_WAYS).await?;
    let status = status_of(&ended);
    assert_eq!(status.reason.as_deref(), Some(Reason::StateLost.as_str()), "{status:#?}");
    after.is_told(&after.trouble.pod.name, Reason::StateLost).await?;
    let now = lab.only_pod(&after.trouble.scene.app).await?;
    let state = now.state().await?;
    assert_ne!(state.cookie, after.trouble.scene.cookie, "it started fresh");
    let migration = ended.metadata.name.clone().unwrap_or_default();
    eventually("its finalizer is off", Duration::from_secs(20), async || {
        let argv = ["-n", &lab.namespace, "get", "smig", &migration, "-o", "jsonpath={.metadata.finalizers}"];
        Ok(lab.cluster.kubectl(&argv).await?.trim().is_empty().then_some(()))
    })
    .await?;
    eventually("it consumes", Duration::from_secs(30), async || {
        let state = now.state().await?;
        Ok((state.connected && !state.parked).then_some(()))
    })
    .await?;
    // Its own: others may have been kept here within a day.
    let uid = ended.metadata.uid.clone().unwrap_or_default();
    let own = format!("/var/lib/shadow/kept/{uid}.*/*");
    let mut kept = String::new();
    for node in &lab.cluster.nodes {
        let find = ["find", "/var/lib/shadow/kept", "-path", &own, "-name", "pages-1.img"];
        kept += &lab.cluster.exec(node, &find).await?.stdout;
    }
    assert!(!kept.is_empty(), "what was saved of it is kept on no node");
    println!("kept: {kept}");
    lab.uncordon(&after.trouble.pod.node).await?;
    Ok(now)
}

#[test]
fn where_it_can_live_nowhere_it_starts_fresh_with_a_loud_event_and_the_archive_is_kept() -> Result {
    on_cluster("after-nowhere", async |lab| {
        let after = nowhere(lab, "MigrateOrEvict").await?;
        fresh(&after).await?;
        lab.cluster.mend().await
    })
}

/// It waits, and both commands are named.
async fn strands(after: &After<'_>) -> Result {
    let pod = &after.trouble.pod.name;
    let stranded =
        after.trouble.scene.watch().reaches(&after.trouble.pod.uid, &["Stranded"], ALL_WAYS).await?;
    assert_eq!(stranded.reason, Reason::Stranded.as_str());
    for command in [format!("kubectl shadow retry {pod}"), format!("kubectl shadow give-up {pod}")] {
        assert!(stranded.message.contains(&command), "{}", stranded.message);
    }
    after.is_told(pod, Reason::Stranded).await
}

#[test]
fn where_the_policy_blocks_somebody_mends_the_nodes_and_tries_again_with_the_same_memory() -> Result {
    on_cluster("after-retry", async |lab| {
        let after = nowhere(lab, "MigrateOrBlock").await?;
        strands(&after).await?;
        let (code, said) = kubectl_shadow(lab, &["retry", "nobody-0"]).await?;
        assert!(code != 0 && said.contains("nobody-0"), "{code}: {said}");
        // In vain once more: it waits again.
        let (code, said) = kubectl_shadow(lab, &["retry", &after.trouble.pod.name]).await?;
        assert_eq!(code, 0, "{said}");
        eventually("it was tried again in vain", ALL_WAYS, async || {
            let status = after.status()?;
            let waits = status.step.as_deref() == Some("Stranded") && status.retries == 1;
            Ok(waits.then_some(()))
        })
        .await?;
        lab.cluster.mend().await?;
        let (code, said) = kubectl_shadow(lab, &["retry", &after.trouble.pod.name]).await?;
        assert_eq!(code, 0, "{said}");
        let (_, now) = after.lives_on().await?;
        after.trouble.unhurt_is(&now).await
    })
}

#[test]
fn where_the_policy_blocks_somebody_gives_up_and_it_starts_fresh() -> Result {
    on_cluster("after-give-up", async |lab| {
        let after = nowhere(lab, "MigrateOrBlock").await?;
        strands(&after).await?;
        let (code, said) = kubectl_shadow(lab, &["give-up", &after.trouble.pod.name]).await?;
        assert_eq!(code, 0, "{said}");
        fresh(&after).await?;
        let (code, said) = kubectl_shadow(lab, &["give-up", &after.trouble.pod.name]).await?;
        assert!(code != 0 && said.contains("waits"), "{code}: {said}");
        lab.cluster.mend().await
    })
}
