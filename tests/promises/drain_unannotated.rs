//! Who asks for nothing gets nothing: a pod without annotations is evicted as ever, in an opted-in namespace too.

use std::time::Duration;

use crate::lab::{App, DrainOptions, Result, eventually, on_cluster};

#[test]
fn a_pod_without_annotations_is_evicted_as_ever() -> Result {
    on_cluster("unannotated", async |lab| {
        let app = App::counter("plain").unannotated();
        let pods = lab.deploy(&app).await?;
        let before = pods.first().ok_or("no pod")?;
        let cookie = before.state().await?.cookie;
        let drained = lab.drain(&before.node, &DrainOptions::of(&app.name)).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let after = eventually("a new pod", Duration::from_secs(60), async || {
            let pod = lab.only_pod(&app).await?;
            Ok((pod.uid != before.uid).then_some(pod))
        })
        .await?;
        assert_ne!(after.state().await?.cookie, cookie, "it started afresh");
        let migrations = lab.cluster.kubectl(&["-n", &lab.namespace, "get", "smig", "-o", "name"]).await?;
        assert_eq!(migrations.trim(), "", "no migration was started");
        Ok(())
    })
}
