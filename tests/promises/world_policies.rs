//! What is said of a pod by its labels holds for its move: NetworkPolicies, and budgets of disruption.

use std::time::Duration;

use serde_json::json;
use shadow::api::Reason;

use crate::lab::{App, Drain, DrainOptions, Load, Result, Scene, eventually, fail, on_cluster, status_of};

/// Readers that were led to a shadow which the policy does not know would wait in vain.
#[test]
fn where_a_network_policy_tells_the_shadow_from_its_pod_there_is_no_bridge() -> Result {
    on_cluster("network-policy", async |lab| {
        let policy = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": "readers-of-consumer", "namespace": lab.namespace },
            "spec": { "podSelector": { "matchLabels": { "app": "consumer" } }, "ingress": [{}] } });
        lab.cluster.apply(&[policy]).await?;
        let load = Load::steady(60);
        let scene = Scene::open(lab, App::consumer("consumer"), &load, None).await?;
        let before = lab.only_pod(&scene.app).await?;
        scene.drain(&load, &DrainOptions::of("consumer")).await?.must_be_exact()?;
        let ended = scene.watch().ended(&before.uid, Duration::from_secs(30)).await?;
        let timings = status_of(&ended).phase_timings;
        assert!(!timings.contains_key("Bridging"), "{timings:?}");
        eventually("the policy is named", Duration::from_secs(10), async || {
            let events = lab.events_of(&before.name).await?;
            let named = events.iter().any(|(_, note)| note.contains("NetworkPolicy readers-of-consumer"));
            if named { Ok(Some(())) } else { fail(format!("{events:?}")) }
        })
        .await
    })
}

/// Without a bridge a move is a disruption, and asks as an eviction would.
#[test]
fn where_a_budget_allows_no_disruption_a_pod_without_a_bridge_waits() -> Result {
    on_cluster("budget", async |lab| {
        let app = App::counter("app").annotated("policy", "MigrateOrBlock").annotated("deadline", "100s");
        let before = lab.deploy(&app).await?.remove(0);
        let cookie = before.state().await?.cookie;
        let n = lab.namespace.as_str();
        lab.cluster
            .kubectl(&["-n", n, "create", "pdb", "none", "--selector=app=app", "--max-unavailable=0"])
            .await?;
        let watch = lab.watch();
        let drain = Drain::start(&lab.cluster, &before.node, &DrainOptions::of("app"))?;
        eventually("it waits for the budget", Duration::from_secs(30), async || {
            let status = watch.latest(&before.name).map(|one| status_of(&one)).unwrap_or_default();
            let (reason, said) = (status.reason.unwrap_or_default(), status.message.unwrap_or_default());
            let told =
                reason == Reason::BudgetExhausted.as_str() && said.contains("PodDisruptionBudget none");
            if told { Ok(Some(())) } else { fail(format!("{reason}: {said}")) }
        })
        .await?;
        assert_eq!(lab.pod(&before.name).await?.uid, before.uid, "nothing was stopped");
        lab.cluster.kubectl(&["-n", n, "delete", "pdb", "none"]).await?;
        let drained = drain.finish().await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let status = status_of(&watch.ended(&before.uid, Duration::from_secs(60)).await?);
        assert_eq!(status.phase.as_str(), "Completed", "{status:?}");
        assert_eq!(lab.only_pod(&app).await?.state().await?.cookie, cookie, "the same memory");
        Ok(())
    })
}
