//! The extender role: tells kube-scheduler which nodes can take a shadow's checkpoint, and which of them best.
//!
//! Guarantees: no request calls the API server or waits for a lock; what it answers rests on one consistent view; a view
//! that may be old is an error, never a refusal; a refusal says why, node by node. It never binds, reserves or preempts.

mod answers;
mod metrics;
mod protocol;
mod run;
mod server;

pub use answers::{AnswerError, filter, prioritize};
pub use metrics::Metrics;
pub use protocol::{ExtenderArgs, FilterResult, HostPriority, ProtocolError};
pub use run::{Args, RunError, run};
pub use server::{BODY_LIMIT, router};

/// Threads that the role runs on.
pub const THREADS: usize = 1;
