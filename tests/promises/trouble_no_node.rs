//! No other node can take the pod.

use std::time::Duration;

use shadow::api::Reason;

use super::trouble::{Trouble, blocking_app};
use crate::lab::{Lab, Result, eventually, on_cluster, status_of};

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

/// No attempt is made while there is no node; one comes back before the deadline.
#[test]
fn once_a_node_can_take_it_the_same_drain_goes_through() -> Result {
    on_cluster("node-comes-back", async |lab| {
        let trouble = Trouble::ahead(lab, blocking_app().annotated("deadline", "90s")).await?;
        cordon_all_but(lab, &trouble.pod.node).await?;
        let drain = trouble.drain_patiently()?;
        eventually("it waits for a node", Duration::from_secs(30), async || {
            let status = trouble.scene.watch().latest(&trouble.pod.name).map(|one| status_of(&one));
            Ok(status.filter(|status| status.reason.as_deref() == Some(Reason::NoNodeFits.as_str())))
        })
        .await?;
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
