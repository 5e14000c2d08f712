//! The node that the pod is moving to loses its power while the memory is on its way.

use std::time::Duration;

use shadow::api::Reason;

use super::trouble::{Trouble, blocking_app};
use crate::lab::{NodeAction, Result, consuming, on_cluster};

#[test]
fn where_the_target_dies_during_the_transfer_the_source_goes_on() -> Result {
    on_cluster("target-dies", async |lab| {
        // Enough memory for the transfer to take a while.
        let trouble = Trouble::ahead(lab, blocking_app().env("BALLAST_MB", "300")).await?;
        // A webhook on a dead node is another trouble: evictions fail until Kubernetes has noticed (docs/operations.md).
        for node in lab.cluster.nodes.iter().filter(|node| **node != trouble.pod.node) {
            lab.keep_product_off(node).await?;
        }
        let drain = trouble.drain()?;
        let soon = Duration::from_secs(30);
        let at = trouble.scene.watch().reaches(&trouble.pod.uid, &["Dumping"], soon).await?;
        let target = at.target.ok_or("no target is named")?;
        lab.cluster.node(NodeAction::Kill, &target).await?;
        let causes = [Reason::TransferFailed, Reason::RestoreFailed, Reason::NoAgent, Reason::NoNodeFits];
        trouble.is_refused_because(drain, &causes).await?;
        consuming(&lab.pod(&trouble.pod.name).await?).await?;
        lab.cluster.node(NodeAction::Start, &target).await?;
        lab.cluster.mend().await?;
        trouble.ends_as_if_nothing_had_happened().await
    })
}
