//! What a node keeps of a migration that is no more: its agent was silent when the migration was taken back.

use std::time::Duration;

use crate::lab::{Lab, Result, eventually, fail, on_cluster};

/// No migration ever had this UID.
const ORPHAN: &str = "/var/lib/shadow/archives/00000000-0000-4000-8000-000000000000.2";
/// More than the operator's period.
const SOON: Duration = Duration::from_secs(100);

#[test]
fn the_memory_image_of_a_migration_that_is_gone_does_not_stay() -> Result {
    on_cluster("orphaned-archive", async |lab| {
        for node in &lab.cluster.nodes {
            let command = format!("mkdir -p {ORPHAN}/images && echo memory > {ORPHAN}/images/pages-1.img");
            let made = lab.cluster.exec(node, &["sh", "-c", &command]).await?;
            assert_eq!(made.code, 0, "{}", made.stderr);
        }
        for node in &lab.cluster.nodes {
            is_gone(lab, node).await?;
        }
        Ok(())
    })
}

async fn is_gone(lab: &Lab, node: &str) -> Result {
    eventually(&format!("the archive on {node} is gone"), SOON, async || {
        match lab.cluster.exec(node, &["test", "-e", ORPHAN]).await?.code {
            0 => fail("it is still there"),
            _ => Ok(Some(())),
        }
    })
    .await
}
