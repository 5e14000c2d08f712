//! What admission makes of a shadow: quotas, policies and webhooks may refuse it or put containers into it. Network I/O,
//! but for the decisions.

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use super::EffectError;
use crate::api::Reason;
use crate::protocol::Failure;

/// The API server's words for a webhook that takes no rehearsals.
const NO_REHEARSAL: &str = "does not support dry run";

/// Asks admission without making anything. A shadow that is there already counts as admitted.
pub async fn admitted(pods: &Api<Pod>, shadow: &Pod) -> Result<Result<(), Failure>, kube::Error> {
    let mut rehearsed = shadow.clone();
    rehearsed.metadata.owner_references = None; // whom it would belong to is not made either
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match pods.create(&params, &rehearsed).await {
        Ok(made) => Ok(nothing_was_added(&rehearsed, &made).map_err(|error| error.failure)),
        Err(kube::Error::Api(status)) if status.message.contains(NO_REHEARSAL) || status.code == 409 => {
            Ok(Ok(()))
        }
        Err(kube::Error::Api(status)) => match refusal(status.code, &status.message, &shadow.name_any()) {
            Some(failure) => Ok(Err(failure)),
            None => Err(kube::Error::Api(status)),
        },
        Err(error) => Err(error),
    }
}

/// Why the shadow was not admitted, if that is what the answer says. Webhooks that name no code are made 400.
pub(super) fn refusal(code: u16, message: &str, shadow: &str) -> Option<Failure> {
    let reason = match code {
        403 if message.contains("exceeded quota") => Reason::QuotaExceeded,
        400 | 403 | 422 => Reason::NotAdmitted,
        _ => return None,
    };
    // Each attempt has a shadow of another name, and the second refusal is known by its words.
    let said =
        message.replace(&format!("pods \"{shadow}\" is forbidden: "), "").replace(shadow, "the shadow");
    Some(Failure::retryable(reason, format!("the shadow pod is not admitted: {said}")))
}

/// A container that is not its pod's would take the ticket, or wait for what never comes.
pub(super) fn nothing_was_added(asked: &Pod, made: &Pod) -> Result<(), EffectError> {
    let Some(added) = names(made).find(|name| !names(asked).any(|asked| asked == *name)) else {
        return Ok(());
    };
    let message = format!(
        "admission puts container `{added}` into the shadow: leave out pods labelled migration.ms2m.io/role=shadow, or name its opt-out in --shadow-labels"
    );
    Err(EffectError::terminal(Reason::NotAdmitted, message))
}

fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
        .map(|container| container.name.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_refusal_is_told_in_its_own_words_whatever_the_attempt() {
        let quota = |n: u32| {
            let shadow = format!("web-0-shadow-{n}");
            let message = format!(
                "pods \"{shadow}\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
            );
            refusal(403, &message, &shadow).unwrap()
        };
        assert_eq!((quota(1).reason, quota(1).retry), (Reason::QuotaExceeded, true));
        assert_eq!(quota(1), quota(2));
        assert_eq!(
            quota(1).message,
            "the shadow pod is not admitted: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
        );
        let webhook = "admission webhook \"no.example\" denied the request: label team is missing";
        for code in [400, 403, 422] {
            let found = refusal(code, webhook, "web-0-shadow-1").unwrap();
            assert_eq!(found.reason, Reason::NotAdmitted);
            assert!(found.message.ends_with(webhook));
        }
        assert_eq!(
            refusal(500, webhook, "web-0-shadow-1"),
            None,
            "a webhook that does not answer may do so in a moment"
        );
    }

    #[test]
    fn a_container_that_was_put_in_is_named() {
        let pod = |containers: Value, init: Value| -> Pod {
            serde_json::from_value(json!({ "spec": { "containers": containers, "initContainers": init } }))
                .unwrap()
        };
        let asked = pod(json!([{ "name": "app" }]), json!(null));
        assert_eq!(nothing_was_added(&asked, &asked), Ok(()));
        let sidecar = pod(json!([{ "name": "app" }, { "name": "proxy" }]), json!(null));
        let init = pod(json!([{ "name": "app" }]), json!([{ "name": "istio-init" }]));
        for (made, name) in [(sidecar, "`proxy`"), (init, "`istio-init`")] {
            let failure = nothing_was_added(&asked, &made).unwrap_err().failure;
            assert!(
                failure.message.contains(name) && !failure.retry && failure.message.len() <= 200,
                "{}",
                failure.message
            );
        }
    }
}
