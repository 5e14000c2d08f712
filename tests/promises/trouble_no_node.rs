//! No other node can take the pod.

use shadow::api::Reason;

use super::trouble::{Trouble, blocking_app};
use crate::lab::{Lab, Result, on_cluster};

#[test]
fn where_no_node_takes_the_pod_it_stays_as_it_is_and_the_drain_is_told_why() -> Result {
    on_cluster("no-node", async |lab| {
        let trouble = Trouble::ahead(lab, blocking_app()).await?;
        cordon_all_but(lab, &trouble.pod.node).await?;
        let drain = trouble.drain()?;
        trouble.is_refused_because(drain, &[Reason::NoNodeFits]).await?;
        trouble.ends_as_if_nothing_had_happened().await
    })
}

/// The first attempt finds no node; one comes back before the deadline.
#[test]
fn once_a_node_can_take_it_the_same_drain_goes_through() -> Result {
    on_cluster("node-comes-back", async |lab| {
        let trouble = Trouble::ahead(lab, blocking_app().annotated("deadline", "90s")).await?;
        cordon_all_but(lab, &trouble.pod.node).await?;
        let drain = trouble.drain_patiently()?;
        let soon = std::time::Duration::from_secs(60);
        trouble.scene.watch().reaches(&trouble.pod.uid, &["BackingOff"], soon).await?;
        for node in &lab.cluster.nodes {
            if *node != trouble.pod.node {
                lab.uncordon(node).await?;
            }
        }
        trouble.ends_exact_on_another_node(drain).await
    })
}

async fn cordon_all_but(lab: &Lab, node: &str) -> Result {
    for other in lab.cluster.nodes.iter().filter(|other| *other != node) {
        lab.cluster.kubectl(&["cordon", other]).await?;
    }
    Ok(())
}
