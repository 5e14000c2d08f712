//! Readers: they are answered at any time, parked or not, connected or not.

use axum::extract::State as Extract;
use axum::routing::get;
use axum::{Json, Router};

use crate::state::{Shared, View};

pub fn router(state: Shared) -> Router {
    Router::new().route("/state", get(show)).route("/healthz", get(|| async { "ok" })).with_state(state)
}

async fn show(Extract(state): Extract<Shared>) -> Json<View> {
    Json(state.lock().view())
}
