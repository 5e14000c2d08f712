//! The HTTP side: four paths, a limit on bodies, and for what is no review an error that says what was expected.
//! Serves; nothing here panics and nothing is answered with 5xx.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::post;
use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::json;

use super::cluster::Cluster;
use super::metrics::Endpoint;
use super::review::{Response, ReviewError};
use super::reviews::Webhook;

/// An object is at most 1.5 MiB in etcd, and a review may hold two.
pub const BODY_LIMIT: usize = 8 * 1024 * 1024;
const BODY_TIME: Duration = Duration::from_secs(5);

/// The paths that the webhook configurations name.
pub fn router<C: Cluster>(webhook: Arc<Webhook<C>>) -> Router {
    Router::new()
        .route("/evict", post(evict::<C>))
        .route("/pod", post(pod::<C>))
        .route("/policy", post(policy::<C>))
        .route("/migration", post(migration::<C>))
        .fallback(async || problem(StatusCode::NOT_FOUND, "paths are /evict, /pod, /policy and /migration"))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "reviews are sent with POST")
        })
        .with_state(webhook)
}

async fn evict<C: Cluster>(State(webhook): State<Arc<Webhook<C>>>, body: Body) -> HttpResponse {
    let review = async |body: Bytes| webhook.review_eviction(&body).await;
    respond(&webhook, Endpoint::Evict, body, review).await
}

async fn pod<C: Cluster>(State(webhook): State<Arc<Webhook<C>>>, body: Body) -> HttpResponse {
    let review = async |body: Bytes| webhook.review_pod(&body).await;
    respond(&webhook, Endpoint::Pod, body, review).await
}

async fn policy<C: Cluster>(State(webhook): State<Arc<Webhook<C>>>, body: Body) -> HttpResponse {
    let review = async |body: Bytes| webhook.review_policy(&body);
    respond(&webhook, Endpoint::Policy, body, review).await
}

async fn migration<C: Cluster>(State(webhook): State<Arc<Webhook<C>>>, body: Body) -> HttpResponse {
    let review = async |body: Bytes| webhook.review_migration(&body).await;
    respond(&webhook, Endpoint::Migration, body, review).await
}

/// Reads the body, reviews it, counts and writes the answer.
async fn respond<C, F>(
    webhook: &Webhook<C>,
    endpoint: Endpoint,
    body: Body,
    review: impl FnOnce(Bytes) -> F,
) -> HttpResponse
where
    F: Future<Output = Result<Response, ReviewError>>,
{
    let body = match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is broken off or larger than 8 MiB");
        }
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 5 s"),
    };
    let begun = Instant::now();
    let reviewed = review(body).await;
    let outcome = match &reviewed {
        Ok(response) if !response.allowed => "refused",
        Ok(response) if response.has_patch() => "patched",
        Ok(_) => "allowed",
        Err(_) => "unreadable",
    };
    webhook.metrics.reviewed(endpoint, outcome, begun.elapsed());
    match reviewed {
        Ok(response) => match response.into_body() {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => problem(StatusCode::BAD_REQUEST, &format!("the answer cannot be written: {error}")),
        },
        Err(error) => {
            tracing::warn!(endpoint = endpoint.as_str(), %error, "a body that is no review");
            problem(StatusCode::BAD_REQUEST, &error.to_string())
        }
    }
}

fn problem(status: StatusCode, message: &str) -> HttpResponse {
    let body = json!({ "error": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
