//! Admission that denies the shadow is told in its own words, by a check and by a drain, and nothing is stopped for it.

use std::time::Duration;

use serde_json::{Value, json};
use shadow::api::{Phase, Reason, StatefulMigrationStatus};

use crate::lab::{
    App, Drain, DrainOptions, Lab, Result, Snapshot, cause_is_told, eventually, fail, nothing_left,
    on_cluster, status_of,
};

const POLICY: &str = "lab-needs-team";

#[test]
fn a_quota_without_room_for_the_shadow_is_told_until_the_deadline() -> Result {
    on_cluster("quota", async |lab| {
        let app = App::counter("app").annotated("policy", "MigrateOrBlock").annotated("deadline", "8s");
        let before = lab.deploy(&app).await?.remove(0);
        lab.cluster.kubectl(&["-n", &lab.namespace, "create", "quota", "q", "--hard=pods=1"]).await?;
        eventually("the quota counts", Duration::from_secs(20), async || {
            checked(lab, &before, Reason::QuotaExceeded, "exceeded quota: q").await.map(Some)
        })
        .await?;
        is_refused(lab, &before, Reason::QuotaExceeded).await.map(drop)
    })
}

/// In its own words, and not for ever.
#[test]
fn a_policy_that_the_shadow_does_not_meet_is_told_and_tried_no_third_time() -> Result {
    on_cluster("needs-team", async |lab| {
        let app = App::counter("app").annotated("policy", "MigrateOrBlock").annotated("deadline", "100s");
        let before = lab.deploy(&app).await?.remove(0);
        lab.cluster.apply(&policy(&lab.namespace)).await?;
        let outcome = async {
            eventually("the policy is in force", Duration::from_secs(30), async || {
                checked(lab, &before, Reason::NotAdmitted, "the label team is missing").await.map(Some)
            })
            .await?;
            let status = is_refused(lab, &before, Reason::NotAdmitted).await?;
            assert_eq!(status.epoch.0, 2, "{status:?}");
            Ok(())
        }
        .await;
        let both = ["validatingadmissionpolicybinding", "validatingadmissionpolicy"];
        for kind in both {
            lab.cluster.kubectl(&["delete", kind, POLICY, "--ignore-not-found"]).await?;
        }
        outcome
    })
}

fn policy(namespace: &str) -> Vec<Value> {
    let here = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
    let group = "admissionregistration.k8s.io/v1";
    vec![
        json!({ "apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": { "name": POLICY }, "spec": {
            "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["pods"] }] },
            "validations": [{ "expression": "has(object.metadata.labels) && 'team' in object.metadata.labels",
                "message": "the label team is missing" }] } }),
        json!({ "apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": POLICY },
            "spec": { "policyName": POLICY, "validationActions": ["Deny"],
                "matchResources": { "namespaceSelector": here } } }),
    ]
}

/// `kubectl shadow check` says so without anything being made.
async fn checked(lab: &Lab, pod: &Snapshot, reason: Reason, says: &str) -> Result {
    let path = format!(
        "/api/v1/namespaces/shadow-system/services/shadow-operator:health/proxy/v1/check/{}/{}",
        lab.namespace, pod.name
    );
    let said: Value = serde_json::from_str(&lab.cluster.kubectl(&["get", "--raw", &path]).await?)?;
    let refusal = &said["refusal"];
    let told = refusal["message"].as_str().unwrap_or_default();
    if refusal["reason"] == reason.as_str() && told.contains(says) { Ok(()) } else { fail(said.to_string()) }
}

async fn is_refused(lab: &Lab, before: &Snapshot, reason: Reason) -> Result<StatefulMigrationStatus> {
    let state = before.state().await?;
    let watch = lab.watch();
    let options = DrainOptions::of("app").timeout(Duration::from_secs(75));
    let drain = Drain::start(&lab.cluster, &before.node, &options)?;
    let ended = watch.ended(&before.uid, Duration::from_secs(80)).await?;
    let status = status_of(&ended);
    assert_eq!(status.phase, Phase::Failed);
    cause_is_told(lab, &ended, &before.name, &[reason]).await?;
    drop(drain);
    let after = lab.pod(&before.name).await?;
    assert_eq!((&after.uid, after.restarts), (&before.uid, before.restarts), "the pod was not touched");
    assert_eq!(after.state().await?.cookie, state.cookie);
    nothing_left(lab, &[]).await?;
    Ok(status)
}
