//! How an order fails: the refusal the operator reacts to, and a message for people. No I/O.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::containers::ScanError;
use super::fence::Stale;
use super::freezer::FreezerError;
use super::store::StoreError;
use crate::api::{OrderError, Refusal};

/// An order that was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal:?}: {message}")]
pub struct Failure {
    pub refusal: Refusal,
    pub message: String,
}

impl Failure {
    pub fn new(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { refusal, message: message.into() }
    }
}

impl From<Stale> for Failure {
    fn from(stale: Stale) -> Self {
        Self::new(Refusal::StaleEpoch, stale.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let full = error.source.kind() == std::io::ErrorKind::StorageFull;
        Self::new(if full { Refusal::NoSpace } else { Refusal::RuntimeFailed }, error.to_string())
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        Self::new(Refusal::RuntimeFailed, error.to_string())
    }
}

impl From<FreezerError> for Failure {
    fn from(error: FreezerError) -> Self {
        let refusal = match error {
            FreezerError::TimedOut { .. } => Refusal::TimedOut,
            FreezerError::Io { .. } => Refusal::RuntimeFailed,
        };
        Self::new(refusal, error.to_string())
    }
}

/// HTTP status of a refusal.
fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::StaleEpoch => StatusCode::CONFLICT,
        Refusal::ContainerNotFound => StatusCode::NOT_FOUND,
        Refusal::RuntimeFailed => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::TransferFailed | Refusal::DigestMismatch => StatusCode::BAD_GATEWAY,
        Refusal::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Forbidden => StatusCode::FORBIDDEN,
        Refusal::Malformed => StatusCode::BAD_REQUEST,
        Refusal::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = OrderError { refusal: self.refusal, message: self.message };
        (status(self.refusal), Json(body)).into_response()
    }
}
