//! The API server's side of admission: asks the webhook that runs, applies its patch, fails closed.

use axum::body::Body;
use base64::Engine as _;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::World;
use super::api_server::User;
use super::objects::{Key, Refusal};

/// What came of it.
pub enum Verdict {
    /// The object as it is now.
    Allowed(Value),
    Denied(Refusal),
}

impl World {
    /// Sends an `AdmissionReview` to the webhook. The error is the API server's own.
    pub async fn review(
        &self,
        path: &'static str,
        user: User,
        key: &Key,
        sub: Option<&str>,
        object: &Value,
    ) -> Result<Verdict, Refusal> {
        let review = json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": format!("review-{}", key.name),
            "resource": { "group": if key.plural == "pods" { "" } else { "migration.ms2m.io" }, "version": "v1",
                          "resource": key.plural },
            "subResource": sub, "name": key.name, "namespace": key.namespace, "operation": "CREATE",
            "userInfo": { "username": user.name(), "groups": ["system:authenticated"] },
            "object": object, "oldObject": null, "dryRun": false,
        }});
        let failed = |what: &str| {
            Refusal::new(
                500,
                "InternalError",
                format!("Internal error occurred: failed calling webhook: {what}"),
            )
        };
        let Some(router) = self.webhook.lock().clone() else { return Err(failed("connection refused")) };
        let request = Request::post(path).body(Body::from(review.to_string())).unwrap();
        let what = format!("review {path} {}", key.name);
        let asked = self.api_line.call(&what, async move {
            let response = router.oneshot(request).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            serde_json::from_slice::<Value>(&body).unwrap()
        });
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
        let answer = answer.map_err(|_| failed("timeout"))?.map_err(|_| failed("connection reset"))?;
        let response = &answer["response"];
        if response["allowed"] != json!(true) {
            let code = u16::try_from(response["status"]["code"].as_u64().unwrap_or(403)).unwrap_or(403);
            let message = response["status"]["message"].as_str().unwrap_or_default();
            return Ok(Verdict::Denied(Refusal::new(code, "Denied", message)));
        }
        let mut object = object.clone();
        if let Some(patch) = response["patch"].as_str() {
            let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            json_patch::patch(&mut object, &patch).unwrap();
        }
        Ok(Verdict::Allowed(object))
    }
}
