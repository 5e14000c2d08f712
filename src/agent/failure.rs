//! How an order fails: the refusal the operator reacts to, and a message for people. No I/O.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::node::containers::ScanError;
use super::node::freezer::FreezerError;
use super::restore::fence::Stale;
use super::store::StoreError;
use crate::api::{Objection, OrderError, Refusal};

/// An order that was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({refusal:?})")]
pub struct Failure {
    pub refusal: Refusal,
    pub message: String,
    /// What stands against it, where that is known.
    pub objection: Option<Box<Objection>>,
}

impl Failure {
    pub fn new(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { refusal, message: message.into(), objection: None }
    }

    /// The container cannot be dumped as it is.
    pub fn objecting(objection: Objection) -> Self {
        let message = objection.message.clone();
        Self { refusal: Refusal::CannotBeDumped, message, objection: Some(Box::new(objection)) }
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
        Refusal::StaleEpoch | Refusal::StillLives | Refusal::NotAsDumped => StatusCode::CONFLICT,
        Refusal::ContainerNotFound | Refusal::NoArchive => StatusCode::NOT_FOUND,
        Refusal::RuntimeFailed => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::TransferFailed | Refusal::DigestMismatch => StatusCode::BAD_GATEWAY,
        Refusal::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Forbidden => StatusCode::FORBIDDEN,
        Refusal::Malformed => StatusCode::BAD_REQUEST,
        Refusal::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Refusal::CannotBeDumped => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let objection = self.objection.map(|found| *found);
        let body = OrderError { refusal: self.refusal, message: self.message, objection };
        (status(self.refusal), Json(body)).into_response()
    }
}
