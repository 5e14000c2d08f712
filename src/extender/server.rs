//! The HTTP side: two paths, a limit on bodies. What cannot be answered is 200 with `Error` for `filter`, for which
//! kube-scheduler tries again, and no score for `prioritize`; what is no request at all is 4xx. Bodies hold whole pods,
//! environment too: they are never logged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::answers::{AnswerError, filter, prioritize};
use super::metrics::{Metrics, Verb};
use super::protocol::{ExtenderArgs, FilterResult};
use crate::placement::{View, Views};

/// 5,000 names of 253 characters and a pod of 1.5 MiB.
pub const BODY_LIMIT: usize = 8 * 1024 * 1024;
const BODY_TIME: Duration = Duration::from_secs(2);
/// A pod may arrive before the news of its own reservation: its scheduler has it from another watch.
const NEWS: Duration = Duration::from_millis(300);

struct Extender {
    views: Views,
    metrics: Metrics,
}

/// The paths that the scheduler's configuration names.
pub fn router(views: Views, metrics: Metrics) -> Router {
    Router::new()
        .route("/filter", post(serve_filter))
        .route("/prioritize", post(serve_prioritize))
        .fallback(async || problem(StatusCode::NOT_FOUND, "paths are /filter and /prioritize"))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "requests are sent with POST")
        })
        .with_state(Arc::new(Extender { views, metrics }))
}

async fn serve_filter(State(extender): State<Arc<Extender>>, body: Body) -> Response {
    let answer = |args: &ExtenderArgs<'_>, view: &View| json_of(&filter(args, view)?, args);
    let failed = |error: String| match serde_json::to_vec(&FilterResult { error, ..FilterResult::default() })
    {
        Ok(body) => written(body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    respond(&extender, Verb::Filter, body, answer, failed).await
}

async fn serve_prioritize(State(extender): State<Arc<Extender>>, body: Body) -> Response {
    let answer = |args: &ExtenderArgs<'_>, view: &View| json_of(&prioritize(args, view)?, args);
    // Without scores kube-scheduler goes on: `filter` has had the word.
    let failed = |error: String| problem(StatusCode::SERVICE_UNAVAILABLE, &error);
    respond(&extender, Verb::Prioritize, body, answer, failed).await
}

async fn respond(
    extender: &Extender,
    verb: Verb,
    body: Body,
    answer: impl FnOnce(&ExtenderArgs<'_>, &View) -> Result<Vec<u8>, AnswerError>,
    failed: impl FnOnce(String) -> Response,
) -> Response {
    let body = match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is broken off or larger than 8 MiB");
        }
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 2 s"),
    };
    let begun = Instant::now();
    let answered = decide(extender, &body, answer).await;
    let outcome = match &answered {
        Ok(_) => "answered",
        Err(AnswerError::Stale(_)) => "stale",
        Err(AnswerError::Protocol(_)) => "unreadable",
        Err(AnswerError::Unwritable(_)) => "unwritable",
    };
    extender.metrics.answered(verb, outcome, begun.elapsed());
    match answered {
        Ok(answer) => written(answer),
        Err(error) => {
            tracing::warn!(verb = verb.as_str(), %error, "not answered");
            failed(error.to_string())
        }
    }
}

async fn decide(
    extender: &Extender,
    body: &Bytes,
    answer: impl FnOnce(&ExtenderArgs<'_>, &View) -> Result<Vec<u8>, AnswerError>,
) -> Result<Vec<u8>, AnswerError> {
    let args = ExtenderArgs::from_slice(body)?;
    let migration = args.need()?.migration;
    answer(&args, &*extender.views.knowing(&migration, NEWS).await)
}

/// Written into one piece of memory: a name is some tens of bytes, and there are thousands.
fn json_of(answer: &impl Serialize, args: &ExtenderArgs<'_>) -> Result<Vec<u8>, AnswerError> {
    let mut body = Vec::with_capacity(256 + 96 * args.names()?.len());
    serde_json::to_writer(&mut body, answer).map_err(|error| AnswerError::Unwritable(error.to_string()))?;
    Ok(body)
}

fn written(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn problem(status: StatusCode, message: &str) -> Response {
    let body = json!({ "error": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
