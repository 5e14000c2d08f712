//! Who may write a StatefulMigration, and what may change in it: pure, but for the question whether the user may
//! evict the pod, which the caller asks the API server.

use serde::Deserialize;

use super::review::{Cause, Details, Request, Response, User};
use crate::api::{GROUP, StatefulMigrationSpec, migration_name};

const NAME_OF_EVICTIONS: &str = "evict-";

/// The parts of a migration that are read.
#[derive(Debug, Deserialize)]
pub struct MigrationObject {
    spec: StatefulMigrationSpec,
}

/// What a review comes to.
#[derive(Debug, PartialEq)]
pub enum Check {
    Fine,
    /// Fine if the user may evict this pod.
    IfMayEvict {
        pod: String,
    },
    Refused(Wrong),
}

/// A field that may not be so.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub field: &'static str,
    pub message: String,
}

/// `own` is true for SHADOW's own service accounts.
pub fn check(request: &Request<MigrationObject>, own: bool) -> Check {
    let Some(MigrationObject { spec }) = &request.object else { return Check::Fine };
    if let Some(MigrationObject { spec: old }) = &request.old_object {
        return match changed(old, spec, own) {
            Some(wrong) => Check::Refused(wrong),
            None if own || old == spec => Check::Fine,
            None => Check::IfMayEvict { pod: spec.source_pod.clone() },
        };
    }
    let name = request.name();
    let misnamed = name.starts_with(NAME_OF_EVICTIONS)
        && spec.source_pod_uid.as_ref().is_none_or(|uid| migration_name(uid) != name);
    if misnamed {
        // Such a name would stand for the migration of another pod when that is evicted.
        let message =
            format!("names that begin with `{NAME_OF_EVICTIONS}` end with the UID in spec.sourcePodUid");
        return Check::Refused(Wrong { field: "metadata.name", message });
    }
    if own { Check::Fine } else { Check::IfMayEvict { pod: spec.source_pod.clone() } }
}

/// The spec is settled when it is written; what may change is `abort` and `giveUp`, once, and `retry`, upwards; and the
/// UID of the pod may be filled in.
fn changed(old: &StatefulMigrationSpec, new: &StatefulMigrationSpec, own: bool) -> Option<Wrong> {
    if old.abort && !new.abort {
        let message = "an abort cannot be taken back; delete the migration and make another".to_owned();
        return Some(Wrong { field: "spec.abort", message });
    }
    if old.give_up && !new.give_up {
        let message = "giving up cannot be taken back".to_owned();
        return Some(Wrong { field: "spec.giveUp", message });
    }
    if new.retry < old.retry {
        let message = format!("each try is a larger number: at least {}", old.retry);
        return Some(Wrong { field: "spec.retry", message });
    }
    let mut settled =
        StatefulMigrationSpec { abort: old.abort, give_up: old.give_up, retry: old.retry, ..new.clone() };
    if own && old.source_pod_uid.is_none() {
        settled.source_pod_uid = None;
    }
    (settled != *old).then(|| Wrong {
        field: "spec",
        message:
            "cannot be changed, but for `abort` and `giveUp` to true and `retry` to a larger number; delete \
                  the migration and make another"
                .to_owned(),
    })
}

/// The user may not.
pub fn forbidden(request: &Request<MigrationObject>, user: &User, pod: &str) -> Response {
    let message = format!(
        "user \"{}\" may not create pods/eviction for pod \"{}/{pod}\": whoever migrates a pod needs the right to \
         evict it",
        user.name(),
        request.namespace()
    );
    Response::deny(&request.uid, 403, "Forbidden", message)
}

pub fn refused(request: &Request<MigrationObject>, wrong: Wrong) -> Response {
    let Wrong { field, message } = wrong;
    let details = Details {
        group: GROUP,
        kind: "StatefulMigration".to_owned(),
        name: request.name().to_owned(),
        causes: vec![Cause {
            field: field.to_owned(),
            reason: "FieldValueInvalid",
            message: message.clone(),
        }],
    };
    Response::deny(&request.uid, 422, "Invalid", format!("{field}: {message}")).with_details(details)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn review(name: &str, spec: &Value, old: Option<&Value>) -> Request<MigrationObject> {
        let old = old.map(|spec| json!({ "spec": spec }));
        let object = json!({ "spec": spec });
        serde_json::from_value(json!({ "uid": "u", "name": name, "object": object, "oldObject": old }))
            .unwrap()
    }

    fn field(check: Check) -> &'static str {
        match check {
            Check::Refused(wrong) => wrong.field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whoever_makes_one_must_be_allowed_to_evict_the_pod_but_for_ourselves() {
        let spec = json!({ "sourcePod": "web-0" });
        let asked = check(&review("mine", &spec, None), false);
        assert_eq!(asked, Check::IfMayEvict { pod: "web-0".into() });
        assert_eq!(check(&review("mine", &spec, None), true), Check::Fine);
    }

    #[test]
    fn nobody_takes_the_name_of_another_pods_eviction() {
        let spec = json!({ "sourcePod": "web-0", "sourcePodUid": "ab" });
        assert_eq!(field(check(&review("evict-cd", &spec, None), false)), "metadata.name");
        assert_eq!(
            field(check(&review("evict-ab", &json!({ "sourcePod": "web-0" }), None), false)),
            "metadata.name"
        );
        assert!(matches!(check(&review("evict-ab", &spec, None), false), Check::IfMayEvict { .. }));
    }

    #[test]
    fn a_person_who_is_waited_for_may_try_again_or_give_up_and_neither_is_taken_back() {
        let spec = json!({ "sourcePod": "web-0", "retry": 1 });
        let retried = json!({ "sourcePod": "web-0", "retry": 2 });
        let given_up = json!({ "sourcePod": "web-0", "retry": 1, "giveUp": true });
        let from = |old: &Value, new: &Value| check(&review("m", new, Some(old)), false);
        assert!(matches!(from(&spec, &retried), Check::IfMayEvict { .. }));
        assert!(matches!(from(&spec, &given_up), Check::IfMayEvict { .. }));
        assert_eq!(field(from(&retried, &spec)), "spec.retry");
        assert_eq!(field(from(&given_up, &spec)), "spec.giveUp");
        let smuggled = json!({ "sourcePod": "web-1", "retry": 2 });
        assert_eq!(field(from(&spec, &smuggled)), "spec");
    }

    #[test]
    fn only_abort_changes_and_only_to_true() {
        let spec = json!({ "sourcePod": "web-0" });
        let aborted = json!({ "sourcePod": "web-0", "abort": true });
        let other = json!({ "sourcePod": "web-1" });
        let known = json!({ "sourcePod": "web-0", "sourcePodUid": "ab" });
        let from = |old: &Value, new: &Value, own| check(&review("m", new, Some(old)), own);
        assert_eq!(from(&spec, &spec, false), Check::Fine, "labels and finalizers may change");
        assert!(matches!(from(&spec, &aborted, false), Check::IfMayEvict { .. }));
        assert_eq!(field(from(&aborted, &spec, false)), "spec.abort");
        assert_eq!(field(from(&spec, &other, false)), "spec");
        assert_eq!(field(from(&spec, &known, false)), "spec");
        assert_eq!(from(&spec, &known, true), Check::Fine, "the operator fills in the UID");
        assert_eq!(field(from(&known, &json!({ "sourcePod": "web-0", "sourcePodUid": "cd" }), true)), "spec");
    }
}
