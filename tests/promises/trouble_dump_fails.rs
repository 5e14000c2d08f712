//! The dump fails: CRIU on the source's node is broken.

use std::time::Duration;

use shadow::api::Reason;

use super::trouble::{Trouble, blocking_app};
use crate::lab::{Lab, Result, eventually, on_cluster, status_of};

/// In place of CRIU, until the mount is taken away again.
const BREAK: &str = "mount --bind /bin/false $(readlink -f $(command -v criu))";

#[test]
fn where_the_dump_fails_the_source_goes_on_and_the_drain_is_told_why() -> Result {
    on_cluster("dump-fails", async |lab| {
        let trouble = Trouble::ahead(lab, blocking_app()).await?;
        break_criu(lab, &trouble.pod.node).await?;
        let drain = trouble.drain()?;
        trouble.is_refused_because(drain, &[Reason::DumpFailed]).await?;
        lab.cluster.mend().await?;
        trouble.ends_as_if_nothing_had_happened().await
    })
}

/// The other policy: the drain must not wait for ever.
#[test]
fn after_the_deadline_it_is_evicted_as_ever_where_the_policy_says_so() -> Result {
    on_cluster("dump-fails-evict", async |lab| {
        let trouble = Trouble::ahead(lab, blocking_app().annotated("policy", "MigrateOrEvict")).await?;
        break_criu(lab, &trouble.pod.node).await?;
        let drained = trouble.drain()?.finish().await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let took = drained.took();
        assert!(took > Duration::from_secs(10), "not before it was tried: {took:?}");
        let ended = trouble.scene.watch().ended(&trouble.pod.uid, Duration::from_secs(30)).await?;
        assert_eq!(status_of(&ended).reason.as_deref(), Some(Reason::EvictedInstead.as_str()));
        let fresh = eventually("a fresh pod elsewhere", Duration::from_secs(60), async || {
            let pod = lab.only_pod(&trouble.scene.app).await?;
            Ok((pod.uid != trouble.pod.uid).then_some(pod))
        })
        .await?;
        assert_ne!(fresh.node, trouble.pod.node);
        assert_ne!(fresh.state().await?.cookie, trouble.scene.cookie);
        Ok(())
    })
}

async fn break_criu(lab: &Lab, node: &str) -> Result {
    let broken = lab.cluster.exec(node, &["sh", "-c", BREAK]).await?;
    assert_eq!(broken.code, 0, "{}", broken.stderr);
    Ok(())
}
