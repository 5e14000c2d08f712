//! Whether what a user wrote on a StatefulSet or Deployment can be kept: a wrong value is refused when it is written,
//! with its field, the value and what would be right. Pure.
//!
//! An update that leaves a wrong policy as it was is let through with a warning: it may scale the workload or take a
//! finalizer away. Marks of a replacement in a template are refused always: they would be a right to somebody's memory.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::review::{Cause, Details, Request, Response};
use crate::api::{ANNOTATION_PLACED_ON, ANNOTATION_TICKET, RUNTIME_CLASS, pod_policy};

/// The parts of a workload that are read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct WorkloadObject {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    template: Option<Template>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Template {
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    spec: Option<TemplateSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TemplateSpec {
    #[serde(default)]
    runtime_class_name: Option<String>,
}

/// What is wrong with a workload, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub field: String,
    pub message: String,
    /// Refused even if it was there before.
    pub reserved: bool,
}

impl WorkloadObject {
    fn annotations(&self) -> BTreeMap<String, String> {
        self.metadata.as_ref().and_then(|m| m.annotations.clone()).unwrap_or_default()
    }

    fn template(&self) -> Template {
        self.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
    }

    fn is_deleting(&self) -> bool {
        self.metadata.as_ref().is_some_and(|m| m.deletion_timestamp.is_some())
    }

    /// The first thing that is wrong.
    pub fn problem(&self) -> Option<Problem> {
        let (above, template) = (self.annotations(), self.template());
        let within = template.metadata.and_then(|m| m.annotations).unwrap_or_default();
        for key in [ANNOTATION_TICKET, ANNOTATION_PLACED_ON] {
            if within.contains_key(key) {
                return Some(Problem {
                    field: format!("spec.template.metadata.annotations[{key}]"),
                    message: "is reserved: SHADOW puts it on single pods while it migrates them; remove it"
                        .into(),
                    reserved: true,
                });
            }
        }
        if template.spec.and_then(|spec| spec.runtime_class_name).as_deref() == Some(RUNTIME_CLASS) {
            return Some(Problem {
                field: "spec.template.spec.runtimeClassName".into(),
                message: format!(
                    "`{RUNTIME_CLASS}` is reserved: nothing has to be set to be migrated; remove it"
                ),
                reserved: true,
            });
        }
        let error = pod_policy(&within, &above).err()?;
        let place = if within.contains_key(error.annotation) { "spec.template.metadata" } else { "metadata" };
        Some(Problem {
            field: format!("{place}.annotations[{}]", error.annotation),
            message: format!("`{}` is not valid; expected {}", error.value, error.expected),
            reserved: false,
        })
    }
}

/// Answers the review of a StatefulSet or Deployment that is created or updated.
pub fn check(request: &Request<WorkloadObject>) -> Response {
    let Some(workload) = request.object.as_ref().filter(|w| !w.is_deleting()) else {
        return Response::allow(&request.uid);
    };
    let Some(problem) = workload.problem() else { return Response::allow(&request.uid) };
    let Problem { field, message, reserved } = &problem;
    let before = request.old_object.as_ref().and_then(WorkloadObject::problem);
    if !reserved && before.as_ref() == Some(&problem) {
        return Response::allow(&request.uid).with_warning(&format!("{field}: {message}"));
    }
    let details = Details {
        group: "apps",
        kind: workload.kind.clone().unwrap_or_default(),
        name: request.name().to_owned(),
        causes: vec![Cause { field: field.clone(), reason: "FieldValueInvalid", message: message.clone() }],
    };
    Response::deny(&request.uid, 422, "Invalid", format!("{field}: {message}")).with_details(details)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(object: Value, old: Value) -> Request<WorkloadObject> {
        serde_json::from_value(json!({ "uid": "u", "name": "web", "object": object, "oldObject": old }))
            .unwrap()
    }

    fn set(above: Value, within: Value) -> Value {
        json!({ "kind": "StatefulSet", "metadata": { "annotations": above },
                "spec": { "template": { "metadata": { "annotations": within } } } })
    }

    fn refusal(object: Value, old: Value) -> Option<(u16, String)> {
        check(&request(object, old)).status.map(|status| (status.code, status.message))
    }

    #[test]
    fn what_is_right_or_none_of_ours_passes() {
        for object in [
            json!({}),
            json!({ "metadata": null, "spec": null }),
            set(json!({ "a": "b" }), Value::Null),
            set(
                json!({ "migration.ms2m.io/policy": "MigrateOrBlock" }),
                json!({ "migration.ms2m.io/queue": "q" }),
            ),
        ] {
            assert_eq!(refusal(object, Value::Null), None);
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_field_value_and_remedy() {
        let wrong = json!({ "migration.ms2m.io/policy": "Migrate" });
        let (code, message) = refusal(set(wrong.clone(), Value::Null), Value::Null).unwrap();
        assert_eq!(code, 422);
        assert_eq!(
            message,
            "metadata.annotations[migration.ms2m.io/policy]: `Migrate` is not valid; expected MigrateOrEvict, \
             MigrateOrBlock or None"
        );
        let (_, message) = refusal(set(Value::Null, wrong), Value::Null).unwrap();
        assert!(
            message.starts_with("spec.template.metadata.annotations[migration.ms2m.io/policy]"),
            "{message}"
        );
    }

    #[test]
    fn an_update_that_leaves_a_wrong_value_as_it_was_passes_with_a_warning() {
        let wrong = set(json!({ "migration.ms2m.io/policy": "Migrate" }), Value::Null);
        let response = check(&request(wrong.clone(), wrong.clone()));
        assert!(response.allowed);
        assert_eq!(response.warnings.len(), 1);
        let other = set(json!({ "migration.ms2m.io/policy": "Evict" }), Value::Null);
        assert!(refusal(wrong, other).is_some(), "another wrong value is a new one");
    }

    #[test]
    fn reserved_marks_are_refused_in_templates_whatever_was_there_before() {
        let ticket = set(Value::Null, json!({ "migration.ms2m.io/ticket": "ab.1.replacement" }));
        assert_eq!(refusal(ticket.clone(), ticket).unwrap().0, 422);
        let class = json!({ "spec": { "template": { "spec": { "runtimeClassName": "shadow" } } } });
        assert!(refusal(class, Value::Null).unwrap().1.contains("runtimeClassName"));
        let mut going = set(Value::Null, json!({ "migration.ms2m.io/ticket": "x" }));
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(refusal(going, Value::Null), None, "a workload that goes may lose its finalizers");
    }
}
