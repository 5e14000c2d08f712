//! Wrong annotations get a clear answer, when they are written and, where one slipped through, when the pod is drained.

use std::time::Duration;

use kube::Api;
use serde_json::json;
use shadow::api::{Phase, StatefulMigration};

use crate::lab::{App, DrainOptions, Lab, Result, eventually, fail, on_cluster};

/// Annotation, wrong value, what the answer must speak of beside both.
const WRONG: [(&str, &str, &str); 9] = [
    ("policy", "Maybe", "MigrateOrEvict"),
    ("queue", "", "queue"),
    ("state-from", "Disk", "Queue or Any"),
    ("strategy", "Magic", "Sequential"),
    ("sync", "Later", "Quiesce"),
    ("max-pause", "soon", "duration"),
    ("deadline", "700s", "600s"),
    ("deadline", "-1s", "600s"),
    ("priority", "high", "integer"),
];

#[test]
fn a_wrong_annotation_is_refused_when_it_is_written_and_the_answer_says_what_would_be_right() -> Result {
    on_cluster("wrong-annotations", async |lab| {
        for (annotation, value, hint) in WRONG {
            let app = App::consumer("app").annotated(annotation, value);
            let Err(refusal) = lab.cluster.apply(&app.objects(&lab.namespace)[2..]).await else {
                return fail(format!("{annotation}: {value:?} was accepted"));
            };
            let refusal = refusal.to_string();
            for said in [annotation, value, hint] {
                assert!(
                    refusal.contains(said),
                    "{annotation}: {value:?} is refused without {said:?}: {refusal}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn a_wrong_annotation_that_slipped_through_blocks_or_evicts_as_the_policy_says_with_a_warning() -> Result {
    on_cluster("slipped", async |lab| {
        let opt_in = |value: &str| format!("migration.ms2m.io/enabled={value}");
        label(lab, &opt_in("false")).await?;
        let wrong = |name: &str| App::counter(name).annotated("deadline", "tomorrow");
        let blocking = wrong("blocking").annotated("policy", "MigrateOrBlock");
        let evicting = wrong("evicting");
        let blocked = lab.deploy(&blocking).await?.remove(0);
        let evicted = lab.deploy(&evicting).await?.remove(0);
        label(lab, &opt_in("true")).await?;

        let short = DrainOptions::of("blocking").timeout(Duration::from_secs(4));
        let drained = lab.drain(&blocked.node, &short).await?;
        assert_ne!(drained.code, 0, "{}", drained.text());
        for said in ["migration.ms2m.io/deadline", "tomorrow"] {
            assert!(drained.text().contains(said), "not told {said}: {}", drained.text());
        }
        assert_eq!(lab.only_pod(&blocking).await?, blocked);
        lab.uncordon(&blocked.node).await?;

        let drained = lab.drain(&evicted.node, &DrainOptions::of("evicting")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        for said in ["Warning", "migration.ms2m.io/deadline", "tomorrow"] {
            assert!(drained.text().contains(said), "not told {said}: {}", drained.text());
        }
        eventually("a fresh pod", Duration::from_secs(60), async || {
            Ok((lab.only_pod(&evicting).await?.uid != evicted.uid).then_some(()))
        })
        .await
    })
}

/// Reserved for SHADOW: a ticket is a right to somebody's memory.
#[test]
fn nobody_else_may_write_a_ticket_on_a_pod() -> Result {
    on_cluster("tickets", async |lab| {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "thief", "namespace": lab.namespace,
                "annotations": { "migration.ms2m.io/ticket": "0f0e0d0c-0000-4000-8000-000000000000.1.shadow" } },
            "spec": { "containers": [{ "name": "app", "image": "localhost/pause:1" }] } });
        match lab.cluster.apply(&[pod]).await {
            Ok(()) => fail("a pod with a stolen ticket was accepted"),
            Err(refusal) if refusal.to_string().contains("migration.ms2m.io/ticket") => Ok(()),
            Err(refusal) => fail(format!("refused without a clear reason: {refusal}")),
        }
    })
}

async fn label(lab: &Lab, label: &str) -> Result {
    lab.cluster.kubectl(&["label", "--overwrite", "namespace", &lab.namespace, label]).await?;
    Ok(())
}

/// Written by hand, or its pod went before the operator came to it.
#[test]
fn a_migration_of_a_pod_that_is_not_there_ends_at_once_and_says_why() -> Result {
    on_cluster("pod-not-there", async |lab| {
        let migration = json!({ "apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
            "metadata": { "name": "nobody", "namespace": lab.namespace }, "spec": { "sourcePod": "nobody-0" } });
        lab.cluster.apply(&[migration]).await?;
        let api: Api<StatefulMigration> = Api::namespaced(lab.client.clone(), &lab.namespace);
        eventually("it has failed, with its conditions and an Event", Duration::from_secs(30), async || {
            let status = api.get("nobody").await?.status.unwrap_or_default();
            let succeeded = status.conditions.iter().find(|condition| condition.type_ == "Succeeded");
            let told = succeeded.is_some_and(|c| c.status == "False" && c.reason == "SourceGone");
            let events = lab.events_of("nobody-0").await?;
            let known = events.iter().any(|(reason, _)| reason == "SourceGone");
            match (status.phase, told, known) {
                (Phase::Failed, true, true) => Ok(Some(())),
                seen => fail(format!("{seen:?}, {status:?}, {events:?}")),
            }
        })
        .await
    })
}
