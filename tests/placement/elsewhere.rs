//! After the commit the target cannot restore, and a third node can.

use shadow::api::Reason;

use super::after::{After, BREAK_CRIU, app};
use super::nodes::three;
use crate::lab::{Result, on_cluster};

#[test]
fn where_every_restore_fails_on_the_target_the_pod_lives_on_a_third_node_with_its_memory() -> Result {
    on_cluster("elsewhere", async |lab| {
        let nodes = three(lab).await?;
        let after = After::ahead(lab, app("MigrateOrBlock")).await?;
        let source = &after.trouble.pod.node;
        let third = nodes.iter().find(|node| *node != source && **node != after.target).ok_or("two nodes")?;
        // Cordoned until the commit, so that it is not the target.
        lab.cluster.kubectl(&["cordon", third]).await?;
        let drain = after.drained_with(BREAK_CRIU).await?;
        lab.uncordon(third).await?;
        let (status, now) = after.lives_on().await?;
        drain.finish().await?;
        assert_eq!(now.node, *third, "{status:#?}");
        after.was_caused_by(&[Reason::RestoreFailed])?;
        println!("elsewhere: {} ms in all, {:?}", status.total_ms.unwrap_or_default(), status.phase_timings);
        lab.uncordon(source).await?;
        after.trouble.unhurt_is(&now).await
    })
}
