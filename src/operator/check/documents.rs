//! The documents of a stream of YAML or JSON, as kubectl reads them. Pure.

use serde::Deserialize as _;
use serde_json::Value;

/// Which document of the stream.
#[derive(Debug, thiserror::Error)]
#[error("document {0} is no YAML: {1}")]
pub struct NotYaml(usize, serde_yaml_ng::Error);

/// Fields of a pod that hold a file's mode.
const MODES: [&str; 2] = ["defaultMode", "mode"];
/// Fields of a pod that are true or false.
const TRUTHS: [&str; 15] = [
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "optional",
    "privileged",
    "readOnly",
    "readOnlyRootFilesystem",
    "runAsNonRoot",
    "shareProcessNamespace",
    "stdin",
    "tty",
];

/// What is in lists stands by itself.
pub fn of(text: &str) -> Result<Vec<Value>, NotYaml> {
    let mut found = Vec::new();
    for (number, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let unread = |error| NotYaml(number + 1, error);
        let mut document = serde_yaml_ng::Value::deserialize(document).map_err(unread)?;
        document.apply_merge().map_err(unread)?;
        let mut document = serde_yaml_ng::from_value::<Value>(document).map_err(unread)?;
        as_kubectl_reads(&mut document);
        match document["items"].as_array() {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                found.extend(items.iter().cloned());
            }
            _ => found.push(document),
        }
    }
    Ok(found)
}

/// kubectl reads YAML 1.1: there a number that begins with 0 is octal, and `yes` is true. Only where Kubernetes takes a number
/// or a truth: what is quoted elsewhere is a text in both.
fn as_kubectl_reads(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(as_kubectl_reads),
        Value::Object(fields) => {
            for (key, value) in fields {
                let text = value.as_str().map(str::to_ascii_lowercase);
                let read = match text.as_deref() {
                    Some(text) if MODES.contains(&key.as_str()) => {
                        let digits = text.strip_prefix("0o").unwrap_or(text);
                        i64::from_str_radix(digits, 8).ok().map(Value::from)
                    }
                    Some("yes" | "on" | "y") if TRUTHS.contains(&key.as_str()) => Some(Value::Bool(true)),
                    Some("no" | "off" | "n") if TRUTHS.contains(&key.as_str()) => Some(Value::Bool(false)),
                    _ => None,
                };
                match read {
                    Some(read) => *value = read,
                    None => as_kubectl_reads(value),
                }
            }
        }
        _ => {}
    }
}
