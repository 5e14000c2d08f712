//! AdmissionReview on the wire: reads what the API server sends, writes what it expects. Pure.
//!
//! Reading never panics and never guesses: either there is a request whose object makes sense, or a request that can
//! at least be answered, or nothing but an HTTP error will do. Unknown fields and `null`s are accepted everywhere.

use std::collections::BTreeMap;

use json_patch::Patch;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

const KIND: &str = "AdmissionReview";
const API_VERSION: &str = "admission.k8s.io/v1";
/// The API server cuts longer ones.
const WARNING_LIMIT: usize = 256;

/// What the API server asks about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: DeserializeOwned"))]
pub struct Request<T> {
    pub uid: String,
    #[serde(default)]
    pub resource: Option<ResourceName>,
    #[serde(default)]
    pub sub_resource: Option<String>,
    #[serde(default)]
    pub operation: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    user_info: Option<User>,
    #[serde(default = "Option::default")]
    pub object: Option<T>,
    #[serde(default = "Option::default")]
    pub old_object: Option<T>,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
pub struct ResourceName {
    #[serde(default)]
    pub group: Option<String>,
    #[serde(default)]
    pub resource: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct User {
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub uid: Option<String>,
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    #[serde(default)]
    pub extra: Option<BTreeMap<String, Vec<String>>>,
}

impl User {
    pub fn name(&self) -> &str {
        self.username.as_deref().unwrap_or_default()
    }

    /// A controller of the cluster itself: a service account in kube-system, or the controller manager where its
    /// controllers share one identity.
    pub fn is_cluster_controller(&self) -> bool {
        self.name().starts_with("system:serviceaccount:kube-system:")
            || self.name() == "system:kube-controller-manager"
    }
}

impl<T> Request<T> {
    /// Empty where the server is to make the name.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    pub fn user(&self) -> User {
        self.user_info.clone().unwrap_or_default()
    }

    pub fn dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }

    pub fn operation(&self) -> &str {
        self.operation.as_deref().unwrap_or_default()
    }

    /// True for `resource` or `resource/subresource` of that API group.
    pub fn is_about(&self, group: &str, resource: &str, sub_resource: &str) -> bool {
        let asked = self.resource.as_ref();
        asked.and_then(|r| r.resource.as_deref()) == Some(resource)
            && asked.and_then(|r| r.group.as_deref()).unwrap_or_default() == group
            && self.sub_resource.as_deref().unwrap_or_default() == sub_resource
    }
}

/// The body is not what an API server sends.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("the body is empty; expected an AdmissionReview of admission.k8s.io/v1 as JSON")]
    Empty,
    #[error("the body is no AdmissionReview: {0}")]
    Malformed(serde_json::Error),
    #[error("the body is a {kind} of {api_version}; expected an AdmissionReview of admission.k8s.io/v1")]
    WrongKind { kind: String, api_version: String },
    #[error("the AdmissionReview has no request with a uid")]
    NoRequest,
    /// There is a request to answer, but its object is not of the kind that is reviewed here.
    #[error("the object of the request cannot be read: {problem}")]
    Object { uid: String, problem: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: DeserializeOwned"))]
struct Envelope<T> {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default = "Option::default")]
    request: Option<T>,
}

/// Just enough of a request to answer it.
#[derive(Deserialize)]
struct Answerable {
    uid: String,
}

/// Reads a review whose objects are `T`.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<Request<T>, ReviewError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(ReviewError::Empty);
    }
    match serde_json::from_slice::<Envelope<Request<T>>>(body) {
        Ok(envelope) => {
            check_kind(&envelope)?;
            envelope.request.filter(|request| !request.uid.is_empty()).ok_or(ReviewError::NoRequest)
        }
        Err(error) => Err(blame(body, error)),
    }
}

/// Finds out whether the review can be answered although it could not be read.
fn blame(body: &[u8], error: serde_json::Error) -> ReviewError {
    match serde_json::from_slice::<Envelope<Answerable>>(body) {
        Ok(envelope) => match (check_kind(&envelope), envelope.request) {
            (Err(wrong), _) => wrong,
            (Ok(()), Some(Answerable { uid })) if !uid.is_empty() => {
                ReviewError::Object { uid, problem: error.to_string() }
            }
            _ => ReviewError::NoRequest,
        },
        Err(_) if serde_json::from_slice::<IgnoredAny>(body).is_ok() => ReviewError::NoRequest,
        Err(_) => ReviewError::Malformed(error),
    }
}

fn check_kind<T>(envelope: &Envelope<T>) -> Result<(), ReviewError> {
    let kind = envelope.kind.clone().unwrap_or_default();
    let api_version = envelope.api_version.clone().unwrap_or_default();
    if kind == KIND && api_version == API_VERSION {
        Ok(())
    } else {
        Err(ReviewError::WrongKind { kind: shorten(&kind, 64), api_version: shorten(&api_version, 64) })
    }
}

/// What the API server is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    uid: String,
    pub allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// Base64 of a JSON patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Why it is refused: what the client of the API server sees.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    #[serde(rename = "status")]
    summary: &'static str,
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// Which fields of which object are wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Details {
    pub group: &'static str,
    pub kind: String,
    pub name: String,
    pub causes: Vec<Cause>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cause {
    pub field: String,
    pub reason: &'static str,
    pub message: String,
}

impl Response {
    pub fn allow(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            allowed: true,
            status: None,
            patch_type: None,
            patch: None,
            warnings: Vec::new(),
        }
    }

    /// `code` must be an HTTP error: the API server makes 400 of anything else.
    pub fn deny(uid: &str, code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let status = Status { summary: "Failure", code, reason, message: message.into(), details: None };
        Self { allowed: false, status: Some(status), ..Self::allow(uid) }
    }

    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        if let Some(status) = &mut self.status {
            status.details = Some(details);
        }
        self
    }

    #[must_use]
    pub fn with_warning(mut self, warning: &str) -> Self {
        self.warnings.push(shorten(warning, WARNING_LIMIT));
        self
    }

    /// An empty patch is none.
    pub fn with_patch(mut self, patch: &Patch) -> Result<Self, serde_json::Error> {
        use base64::Engine as _;
        if !patch.is_empty() {
            self.patch = Some(base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(patch)?));
            self.patch_type = Some("JSONPatch");
        }
        Ok(self)
    }

    pub fn has_patch(&self) -> bool {
        self.patch.is_some()
    }

    /// The whole review as JSON.
    pub fn into_body(self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Review {
            kind: &'static str,
            api_version: &'static str,
            response: Response,
        }
        serde_json::to_vec(&Review { kind: KIND, api_version: API_VERSION, response: self })
    }
}

/// The longest start within `limit` bytes that ends at a character.
fn shorten(text: &str, limit: usize) -> String {
    let end = (0..=limit.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn review(request: &Value) -> Vec<u8> {
        serde_json::to_vec(&json!({ "kind": KIND, "apiVersion": API_VERSION, "request": request })).unwrap()
    }

    fn error(body: &[u8]) -> ReviewError {
        read::<BTreeMap<String, u32>>(body).unwrap_err()
    }

    #[test]
    fn nulls_and_missing_fields_are_read_as_nothing() {
        for request in [
            json!({ "uid": "u" }),
            json!({ "uid": "u", "name": null, "namespace": null, "userInfo": null, "object": null, "dryRun": null }),
        ] {
            let read = read::<Value>(&review(&request)).unwrap();
            assert_eq!((read.name(), read.namespace(), read.user().name()), ("", "", ""));
            assert!(!read.dry_run() && read.object.is_none());
        }
    }

    #[test]
    fn what_can_be_answered_keeps_its_uid_and_the_rest_says_what_is_wrong() {
        assert!(matches!(error(b""), ReviewError::Empty));
        assert!(matches!(error(b" \n"), ReviewError::Empty));
        assert!(matches!(error(b"{"), ReviewError::Malformed(_)));
        assert!(matches!(error(b"[]"), ReviewError::WrongKind { .. }));
        assert!(matches!(error(b"7"), ReviewError::NoRequest));
        assert!(matches!(error(&b"[".repeat(100_000)), ReviewError::Malformed(_)));
        assert!(matches!(error(br#"{"kind":"Pod","apiVersion":"v1"}"#), ReviewError::WrongKind { .. }));
        assert!(matches!(error(&review(&Value::Null)), ReviewError::NoRequest));
        assert!(matches!(error(&review(&json!({ "uid": "" }))), ReviewError::NoRequest));
        let object = error(&review(&json!({ "uid": "u", "object": { "a": "text" } })));
        assert!(matches!(object, ReviewError::Object { uid, .. } if uid == "u"));
    }

    #[test]
    fn an_answer_is_a_review_with_the_uid_and_a_base64_patch() {
        let patch: Patch =
            serde_json::from_value(json!([{ "op": "add", "path": "/a", "value": 1 }])).unwrap();
        let body = Response::allow("u").with_patch(&patch).unwrap().with_warning("w").into_body().unwrap();
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["kind"], KIND);
        assert_eq!(value["response"]["uid"], "u");
        assert_eq!(value["response"]["patchType"], "JSONPatch");
        assert_eq!(value["response"]["patch"], "W3sib3AiOiJhZGQiLCJwYXRoIjoiL2EiLCJ2YWx1ZSI6MX1d");
        assert_eq!(value["response"]["warnings"], json!(["w"]));
    }

    #[test]
    fn long_warnings_are_cut_at_a_character() {
        let cut = Response::allow("u").with_warning(&"ä".repeat(300)).warnings;
        assert_eq!(cut[0].len(), 256);
    }
}
