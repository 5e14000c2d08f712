//! A pod without a queue, which was only rehearsed before the commit: its restores fail on the target afterwards, and it is at
//! home again with every write that it acknowledged.

use std::time::Duration;

use shadow::api::{Phase, Reason};

use super::after::{ALL_WAYS, BREAK_CRIU, harmed_once_committed};
use crate::lab::{App, Drain, DrainOptions, Result, Writer, eventually, nothing_left, on_cluster, status_of};

#[test]
fn where_a_rehearsed_pod_cannot_be_restored_after_the_commit_it_is_at_home_with_its_writes() -> Result {
    on_cluster("after-no-queue", async |lab| {
        let app = App::counter("counter").annotated("policy", "MigrateOrBlock");
        let before = lab.deploy(&app).await?.remove(0);
        let first = before.state().await?;
        let writer = Writer::start(lab.service(&app).await?, &first, Duration::from_millis(20))?;
        let target = lab.cluster.nodes.iter().find(|node| **node != before.node).ok_or("one node")?;
        let watch = lab.watch();
        let drained = async { Drain::start(&lab.cluster, &before.node, &DrainOptions::of(&app.name)) };
        let drain = harmed_once_committed(lab, target, BREAK_CRIU, drained).await?;
        let status = status_of(&watch.ended(&before.uid, ALL_WAYS).await?);
        drain.finish().await?;
        assert_eq!(status.phase, Phase::Completed, "{status:#?}");
        assert_eq!(status.reason.as_deref(), Some(Reason::ReturnedHome.as_str()), "{status:#?}");
        let after = lab.only_pod(&app).await?;
        assert_eq!(after.node, before.node, "it is at home");
        assert_ne!(after.uid, before.uid, "in another pod");
        // It answers in its new pod.
        let counted = after.state().await?.count;
        eventually("writes are acknowledged again", Duration::from_secs(30), async || {
            Ok((after.state().await?.count > counted).then_some(()))
        })
        .await?;
        let mut written = writer.finish().await?;
        let last = after.state().await?;
        written.must_be_in(&first, &last)?;
        lab.uncordon(&before.node).await?;
        nothing_left(lab, &[]).await
    })
}
