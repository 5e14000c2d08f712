//! The four reviews: reads the request, gathers what is known, lets the pure parts decide, does what they ask for.
//! Does I/O through [`Cluster`] only.
//!
//! Guarantees: an eviction that can be answered gets one of the four answers within [`EVICTION_LIMIT`], whatever
//! fails; at most one object is written for it, and none for a dry run.

use std::sync::Arc;
use std::time::Duration;

use super::cache::Cache;
use super::cluster::Cluster;
use super::metrics::Metrics;
use super::migration_check::{self, Check, MigrationObject};
use super::policy_check::{self, WorkloadObject};
use super::review::{Response, ReviewError, User, read};

/// Within the 5 s that the webhook configuration gives.
pub(super) const EVICTION_LIMIT: Duration = Duration::from_millis(3500);

/// Who is who.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Service account of the operator, as a user name.
    pub operator: String,
    /// Service account of the webhook, as a user name.
    pub webhook: String,
    /// Users whose evictions are meant as they are.
    pub pass_users: Vec<String>,
}

impl Settings {
    /// SHADOW in this namespace, with the service accounts `shadow-operator` and `shadow-webhook`.
    pub fn in_namespace(namespace: &str, pass_users: Vec<String>) -> Self {
        let account = |name: &str| format!("system:serviceaccount:{namespace}:{name}");
        Self { operator: account("shadow-operator"), webhook: account("shadow-webhook"), pass_users }
    }

    pub fn is_operator(&self, user: &User) -> bool {
        user.name() == self.operator
    }

    pub fn is_own(&self, user: &User) -> bool {
        self.is_operator(user) || user.name() == self.webhook
    }

    pub fn means_it(&self, user: &User) -> bool {
        self.is_operator(user) || self.pass_users.iter().any(|name| name == user.name())
    }
}

/// Everything that the reviews share.
pub struct Webhook<C> {
    pub cache: Arc<Cache>,
    pub cluster: C,
    pub settings: Settings,
    pub metrics: Metrics,
}

impl<C: Cluster> Webhook<C> {
    /// A StatefulSet or Deployment is written.
    pub fn review_policy(&self, body: &[u8]) -> Result<Response, ReviewError> {
        match read::<WorkloadObject>(body) {
            Ok(request) => Ok(policy_check::check(&request)),
            Err(error) => bad_request(error),
        }
    }

    /// A StatefulMigration is written.
    pub async fn review_migration(&self, body: &[u8]) -> Result<Response, ReviewError> {
        let request = match read::<MigrationObject>(body) {
            Ok(request) => request,
            Err(error) => return bad_request(error),
        };
        let user = request.user();
        Ok(match migration_check::check(&request, self.settings.is_own(&user)) {
            Check::Fine => Response::allow(&request.uid),
            Check::Refused(wrong) => migration_check::refused(&request, wrong),
            Check::IfMayEvict { pod } => {
                match self.cluster.may_evict(&user, request.namespace(), &pod).await {
                    Ok(true) => Response::allow(&request.uid),
                    Ok(false) => migration_check::forbidden(&request, &user, &pod),
                    Err(error) => {
                        unavailable(&request.uid, &format!("rights cannot be checked now: {error}"))
                    }
                }
            }
        })
    }
}

/// Refuses an object that cannot be read; other errors are HTTP's.
pub(super) fn bad_request(error: ReviewError) -> Result<Response, ReviewError> {
    match error {
        ReviewError::Object { ref uid, .. } => Ok(Response::deny(uid, 400, "BadRequest", error.to_string())),
        error => Err(error),
    }
}

/// Refuses for now: whoever asks is to ask again.
pub(super) fn unavailable(uid: &str, message: &str) -> Response {
    Response::deny(uid, 503, "ServiceUnavailable", message)
}
