//! A port of the host stays reserved: a pod is stopped only for a node on which its port is free.

use std::time::Duration;

use serde_json::json;
use shadow::api::Reason;

use crate::lab::{App, Drain, DrainOptions, Result, eventually, fail, on_cluster, status_of};

#[test]
fn a_pod_whose_port_is_taken_elsewhere_runs_on_and_moves_once_it_is_free() -> Result {
    on_cluster("port-taken", async |lab| {
        let port = json!({ "containers": [{ "ports": [{ "hostPort": 18080 }] }] });
        let app =
            App::counter("app").pod(port).annotated("policy", "MigrateOrBlock").annotated("deadline", "100s");
        let two = lab.deploy(&app.clone().replicas(2)).await?;
        let Some(before) = two.into_iter().find(|pod| pod.name == "app-0") else { return fail("no app-0") };
        let state = before.state().await?;
        let watch = lab.watch();
        let drain = Drain::start(&lab.cluster, &before.node, &DrainOptions::of("app"))?;
        eventually("it is told that the port is taken", Duration::from_secs(40), async || {
            let status = watch.latest(&before.name).map(|one| status_of(&one)).unwrap_or_default();
            let (reason, said) = (status.reason.unwrap_or_default(), status.message.unwrap_or_default());
            let told = reason == Reason::NoNodeFits.as_str() && said.contains("free ports");
            if told { Ok(Some(())) } else { fail(format!("{reason}: {said}")) }
        })
        .await?;
        assert_eq!(lab.pod(&before.name).await?.uid, before.uid, "nothing was stopped");
        lab.cluster.kubectl(&["-n", &lab.namespace, "scale", "statefulset/app", "--replicas=1"]).await?;
        let drained = drain.finish().await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let status = status_of(&watch.ended(&before.uid, Duration::from_secs(60)).await?);
        assert_eq!(status.phase.as_str(), "Completed", "{status:?}");
        let after = lab.only_pod(&app).await?;
        assert_ne!(after.node, before.node);
        assert_eq!(after.state().await?.cookie, state.cookie, "the same memory");
        Ok(())
    })
}
