//! After the commit its owner cannot make the pod for a while: its state is not given up, and nobody else waits for its slot.

use std::time::Duration;

use shadow::api::SYSTEM_NAMESPACE;

use super::after::{After, app};
use crate::lab::{Lab, Result, eventually, leader, on_cluster};

#[test]
fn a_pod_that_its_owner_cannot_make_yet_is_waited_for_without_a_slot() -> Result {
    on_cluster("after-not-made", async |lab| {
        let after = After::ahead(lab, app("MigrateOrEvict")).await?;
        let (uid, watch) = (&after.trouble.pod.uid, after.trouble.scene.watch());
        let drain = after.trouble.drain_patiently()?;
        watch.reaches(uid, &["Parking", "Dumping"], Duration::from_secs(60)).await?;
        lab.cluster.kubectl(&["-n", &lab.namespace, "create", "quota", "none", "--hard=pods=0"]).await?;
        watch.reaches(uid, &["Replacing"], Duration::from_secs(60)).await?;
        eventually("its slot is given back", Duration::from_secs(60), async || {
            Ok((slots_held(lab).await? == 0).then_some(()))
        })
        .await?;
        assert!(
            !watch.has_reached(uid, "Spending") && !watch.has_reached(uid, "Switching"),
            "it is waited for"
        );
        lab.cluster.kubectl(&["-n", &lab.namespace, "delete", "quota", "none"]).await?;
        let (status, now) = after.lives_on().await?;
        assert_ne!(now.node, after.trouble.pod.node);
        assert_eq!(drain.finish().await?.code, 0);
        after.trouble.unhurt_is(&now).await?;
        println!("not made for a while: {} ms in all", status.total_ms.unwrap_or_default());
        Ok(())
    })
}

/// As the leading operator counts them.
async fn slots_held(lab: &Lab) -> Result<u64> {
    let (pod, _) = leader(&lab.client).await?;
    let path = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{pod}:8080/proxy/metrics");
    let told = lab.cluster.kubectl(&["get", "--raw", &path]).await?;
    let line = told.lines().find_map(|line| line.strip_prefix("shadow_migrations_active "));
    Ok(line.ok_or("it does not count them")?.parse()?)
}
