//! The target's machine loses its power between the commit and the restore, and somebody says that it is gone for good.

use std::time::Duration;

use shadow::api::Reason;

use super::after::{After, app};
use crate::lab::{Result, eventually, on_cluster};

#[test]
fn where_the_target_is_lost_after_the_commit_the_pod_is_at_home_again_with_its_memory() -> Result {
    on_cluster("after-lost", async |lab| {
        let after = After::ahead(lab, app("MigrateOrBlock")).await?;
        let drain = after.drained_with_power_lost().await?;
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
        let (status, now) = after.lives_on_without_its_target().await?;
        drain.finish().await?;
        assert_eq!(now.node, after.trouble.pod.node);
        assert_eq!(status.reason.as_deref(), Some(Reason::ReturnedHome.as_str()), "{status:#?}");
        after.is_told(&now.name, Reason::ReturnedHome).await?;
        lab.uncordon(&now.node).await?;
        after.trouble.unhurt_is(&now).await
    })
}
