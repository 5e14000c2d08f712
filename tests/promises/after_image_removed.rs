//! The image is removed on the target between the commit and the restore, and no registry has it.

use shadow::api::Reason;

use super::after::{After, app};
use crate::lab::{Result, on_cluster};

/// All its names, as the engine has them. The kubelet stands still meanwhile, or it might be faster.
const REMOVE: &str = "kill -STOP $(pgrep -x kubelet); digest=$(ctr -n k8s.io images ls | awk '$1 == \"localhost/shadow-examples:1\" {print $3}'); \
    ctr -n k8s.io images rm --sync $(ctr -n k8s.io images ls | awk -v d=$digest '$3 == d {print $1}'); code=$?; \
    kill -CONT $(pgrep -x kubelet); exit $code";

#[test]
fn where_the_image_is_gone_after_the_commit_the_pod_is_at_home_again_with_its_memory() -> Result {
    on_cluster("after-image", async |lab| {
        let after = After::ahead(lab, app("MigrateOrEvict")).await?;
        let outcome: Result<_> = async {
            let drain = after.drained_with(REMOVE).await?;
            let status = after.is_home(&[Reason::RestoreFailed]).await?;
            Ok((drain.finish().await?, status))
        }
        .await;
        lab.reload_examples().await?; // whatever came of it
        let (drained, status) = outcome?;
        assert_eq!(drained.code, 0, "kubectl saw the old pod go: {}", drained.text());
        let told = after.trouble.scene.watch().sightings();
        assert!(told.iter().any(|one| one.message.contains("image")), "{told:#?}");
        println!(
            "image removed: {} ms in all, {:?}",
            status.total_ms.unwrap_or_default(),
            status.phase_timings
        );
        Ok(())
    })
}
