//! State goes only into a pod of the template that it came from.

use std::time::Duration;

use shadow::api::{Phase, Reason};

use crate::lab::{
    App, Drain, DrainOptions, Result, cause_is_told, eventually, nothing_left, on_cluster, status_of,
};

/// Under OnDelete the template may change at any time: whatever is deleted comes back as it is then.
#[test]
fn a_template_that_changes_while_the_move_waits_calls_it_off() -> Result {
    on_cluster("revision", async |lab| {
        let app = App::counter("app").annotated("policy", "MigrateOrBlock").annotated("deadline", "90s");
        let before = lab.deploy(&app).await?.remove(0);
        let state = before.state().await?;
        let on_delete = r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}"#;
        lab.cluster
            .kubectl(&["-n", &lab.namespace, "patch", "statefulset/app", "--type=merge", "-p", on_delete])
            .await?;
        for other in lab.cluster.nodes.iter().filter(|other| **other != before.node) {
            lab.cluster.kubectl(&["cordon", other]).await?;
        }
        let watch = lab.watch();
        let options = DrainOptions::of("app").timeout(Duration::from_secs(20));
        let drain = Drain::start(&lab.cluster, &before.node, &options)?;
        eventually("it waits for a node", Duration::from_secs(30), async || {
            let status = watch.latest(&before.name).map(|one| status_of(&one)).unwrap_or_default();
            Ok((status.reason.as_deref() == Some(Reason::NoNodeFits.as_str())).then_some(()))
        })
        .await?;
        lab.cluster.kubectl(&["-n", &lab.namespace, "set", "env", "statefulset/app", "NEW=1"]).await?;
        for other in lab.cluster.nodes.iter().filter(|other| **other != before.node) {
            lab.uncordon(other).await?;
        }
        let ended = watch.ended(&before.uid, Duration::from_secs(60)).await?;
        assert_eq!(status_of(&ended).phase, Phase::Failed);
        cause_is_told(lab, &ended, &before.name, &[Reason::OwnerChanged]).await?;
        assert_ne!(drain.finish().await?.code, 0);
        let after = lab.pod(&before.name).await?;
        assert_eq!((&after.uid, after.restarts), (&before.uid, before.restarts), "the pod was not touched");
        assert_eq!(after.state().await?.cookie, state.cookie);
        nothing_left(lab, &[]).await
    })
}
