//! The archive on the target is not what was dumped: its pages are cut short on the disk as they arrive.

use std::time::Duration;

use shadow::api::Reason;

use super::trouble::{Trouble, blocking_app};
use crate::lab::{Result, on_cluster};

/// Cuts every page file in half for as long as it is let.
const DAMAGE: &str = "end=$(($(date +%s) + 25)); while [ $(date +%s) -lt $end ]; do \
    for f in $(find /var/lib/shadow/archives -name 'pages-*.img' -size +1000k 2>/dev/null); do \
    truncate -s 1000000 $f; done; sleep 0.01; done";

#[test]
fn a_damaged_archive_is_never_restored_to_the_end_and_the_source_goes_on() -> Result {
    on_cluster("damaged", async |lab| {
        let trouble = Trouble::ahead(lab, blocking_app()).await?;
        let target = lab.cluster.nodes.iter().find(|node| **node != trouble.pod.node).ok_or("one node")?;
        let damage = lab.cluster.exec(target, &["sh", "-c", DAMAGE]);
        let attempt = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let drain = trouble.drain()?;
            let causes = [Reason::ArchiveDamaged, Reason::RestoreFailed, Reason::TransferFailed];
            trouble.is_refused_because(drain, &causes).await
        };
        let (damaged, attempted) = tokio::join!(damage, attempt);
        damaged?;
        attempted?;
        trouble.ends_as_if_nothing_had_happened().await
    })
}
