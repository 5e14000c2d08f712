//! The target's machine loses its power between the commit and the restore, and somebody says that it is gone for good.

use std::time::Duration;

use shadow::api::Reason;

use super::after::{After, app};
use crate::lab::{NodeAction, OUT_OF_SERVICE, Result, eventually, on_cluster};

/// The node's kubelet stands still, so that nothing is restored before the power goes.
const STOP_KUBELET: &str = "kill -STOP $(pgrep -x kubelet)";

#[test]
fn where_the_target_is_lost_after_the_commit_the_pod_is_at_home_again_with_its_memory() -> Result {
    on_cluster("after-lost", async |lab| {
        let after = After::ahead(lab, app("MigrateOrBlock")).await?;
        lab.keep_product_off(&after.target).await?;
        let drain = after.drained_with(STOP_KUBELET).await?;
        let uid = &after.trouble.pod.uid;
        after.trouble.scene.watch().reaches(uid, &["Replacing"], Duration::from_secs(30)).await?;
        lab.cluster.node(NodeAction::Kill, &after.target).await?;
        // A machine that is merely silent is not dead, whatever Kubernetes calls it: nothing is decided.
        eventually("it is called NotReady", Duration::from_secs(90), async || {
            let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            let said = lab.cluster.kubectl(&["get", "node", &after.target, "-o", ready]).await?;
            Ok((said.trim() == "Unknown").then_some(()))
        })
        .await?;
        // No wait: whoever took silence for death would act within this.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(after.status()?.step.as_deref(), Some("Replacing"));
        let taint = format!("{OUT_OF_SERVICE}=nodeshutdown:NoExecute");
        lab.cluster.kubectl(&["taint", "node", &after.target, &taint]).await?;
        let home = after.lives_on().await;
        lab.cluster.kubectl(&["taint", "node", &after.target, &format!("{OUT_OF_SERVICE}-")]).await?;
        lab.cluster.node(NodeAction::Start, &after.target).await?;
        let (status, now) = home?;
        drain.finish().await?;
        assert_eq!(now.node, after.trouble.pod.node);
        assert_eq!(status.reason.as_deref(), Some(Reason::ReturnedHome.as_str()), "{status:#?}");
        after.was_caused_by(&[Reason::TargetLost])?;
        after.is_told(&now.name, Reason::ReturnedHome).await?;
        lab.product_ready().await?; // the agent there too: what it kept is closed now
        lab.uncordon(&now.node).await?;
        after.trouble.unhurt_is(&now).await
    })
}
