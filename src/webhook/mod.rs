//! The webhook role: answers evictions and pod creations from what it already knows, and checks what users write.
//!
//! The decisions are pure (`decide_eviction`, `pod`, `replacement`, `prepare`, `policy_check`, `migration_check`) and
//! know four answers to an eviction ([`EvictionAnswer`]); `evict` and `claim` gather their facts from the cache and, where that cannot be
//! right, with one bounded question to the API server ([`Cluster`]). The only object ever written is the
//! `StatefulMigration` that an eviction starts.

mod answers;
pub mod cache;
mod claim;
mod cluster;
mod containers;
mod decide_eviction;
mod evict;
mod metrics;
mod migration_check;
mod pod;
mod policy_check;
mod prepare;
mod replacement;
mod review;
mod reviews;
mod run;
mod server;

pub use answers::{EvictionAnswer, Why};
pub use cluster::{Cluster, ClusterError, KubeCluster, Started};
pub use decide_eviction::{Asked, Decision, Facts, Sight, Verdict, decide_eviction};
pub use metrics::Metrics;
pub use review::{Response, ReviewError, User};
pub use reviews::{Settings, Webhook};
pub use run::{Args, RunError, run};
pub use server::{BODY_LIMIT, router};
