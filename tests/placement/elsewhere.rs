//! After the commit the target cannot restore, or its machine is lost, and a third node can.

use shadow::api::Reason;

use super::after::{After, BREAK_CRIU, app};
use super::nodes::three;
use crate::lab::{Lab, Result, on_cluster};

/// A pod to be drained, and the node that is neither its own nor its target: cordoned, so that it does not become it.
async fn with_a_third(lab: &Lab) -> Result<(After<'_>, String)> {
    let nodes = three(lab).await?;
    let after = After::ahead(lab, app("MigrateOrBlock")).await?;
    let others = [&after.trouble.pod.node, &after.target];
    let third = nodes.into_iter().find(|node| !others.contains(&node)).ok_or("two nodes")?;
    lab.cluster.kubectl(&["cordon", &third]).await?;
    Ok((after, third))
}

#[test]
fn where_every_restore_fails_on_the_target_the_pod_lives_on_a_third_node_with_its_memory() -> Result {
    on_cluster("elsewhere", async |lab| {
        let (after, third) = with_a_third(lab).await?;
        let drain = after.drained_with(BREAK_CRIU).await?;
        lab.uncordon(&third).await?;
        let (status, now) = after.lives_on().await?;
        drain.finish().await?;
        assert_eq!(now.node, third, "{status:#?}");
        after.was_caused_by(&[Reason::RestoreFailed])?;
        println!("elsewhere: {} ms in all, {:?}", status.total_ms.unwrap_or_default(), status.phase_timings);
        lab.uncordon(&after.trouble.pod.node).await?;
        after.trouble.unhurt_is(&now).await
    })
}

#[test]
fn where_the_target_is_lost_after_the_commit_the_pod_lives_on_a_third_node_with_its_memory() -> Result {
    on_cluster("elsewhere-lost", async |lab| {
        let (after, third) = with_a_third(lab).await?;
        let drain = after.drained_with_power_lost().await?;
        lab.uncordon(&third).await?;
        let (status, now) = after.lives_on_without_its_target().await?;
        drain.finish().await?;
        assert_eq!(now.node, third, "{status:#?}");
        lab.uncordon(&after.trouble.pod.node).await?;
        after.trouble.unhurt_is(&now).await
    })
}
