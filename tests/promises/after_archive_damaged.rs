//! The archive on the target is damaged between the commit and the restore.

use shadow::api::Reason;

use super::after::{After, app};
use crate::lab::{Result, on_cluster};

const DAMAGE: &str = "for f in $(find /var/lib/shadow/archives -name 'pages-*.img' -size +100k); do \
    truncate -s 4096 $f; done";

#[test]
fn where_the_archive_is_damaged_after_the_commit_it_is_told_and_the_pod_is_at_home_with_its_memory() -> Result
{
    on_cluster("after-damaged", async |lab| {
        let after = After::ahead(lab, app("MigrateOrEvict")).await?;
        let drain = after.drained_with(DAMAGE).await?;
        let status = after.is_home(&[Reason::ArchiveDamaged]).await?;
        drain.finish().await?;
        println!("archive damaged: {} ms in all", status.total_ms.unwrap_or_default());
        Ok(())
    })
}
