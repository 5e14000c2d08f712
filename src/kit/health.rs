//! Liveness, readiness and metrics of a role. Readiness is a set of named gates, so that `/readyz` says what is
//! missing. No I/O.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use parking_lot::RwLock;

/// Ready once every gate is open; without gates it is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    gates: Arc<RwLock<BTreeMap<String, bool>>>,
}

/// One condition of readiness; closed until opened.
#[derive(Clone, Debug)]
pub struct Gate {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closed gate; a gate of that name that exists stays as it is.
    #[must_use]
    pub fn gate(&self, name: &str) -> Gate {
        self.gates.write().entry(name.to_owned()).or_insert(false);
        Gate { name: name.to_owned(), readiness: self.clone() }
    }

    pub fn is_ready(&self) -> bool {
        self.gates.read().values().all(|open| *open)
    }

    /// Names of the gates still closed.
    pub fn missing(&self) -> Vec<String> {
        self.gates.read().iter().filter(|(_, open)| !**open).map(|(name, _)| name.clone()).collect()
    }
}

impl Gate {
    pub fn open(&self) {
        self.set(true);
    }

    pub fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        self.readiness.gates.write().insert(self.name.clone(), open);
    }
}

/// `/healthz` (the process answers), `/readyz` (503 names what is missing), `/metrics` (Prometheus text).
pub fn health_router(ready: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async || super::metrics::render()))
        .with_state(ready)
}

async fn readyz(State(ready): State<Readiness>) -> impl IntoResponse {
    let missing = ready.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing_until_the_last_gate_opens() {
        let ready = Readiness::new();
        let (cache, tls) = (ready.gate("cache"), ready.gate("certificate"));
        assert_eq!(ready.missing(), ["cache", "certificate"]);
        cache.open();
        assert_eq!(ready.missing(), ["certificate"]);
        tls.open();
        assert!(ready.is_ready());
        cache.close();
        assert!(!ready.is_ready());
    }

    #[test]
    fn asking_for_an_open_gate_again_does_not_close_it() {
        let ready = Readiness::new();
        ready.gate("cache").open();
        let _again = ready.gate("cache");
        assert!(ready.is_ready());
    }
}
