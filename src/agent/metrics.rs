//! What the agent counts. Registered once per process.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts};

use crate::kit::metrics::register;

/// From some ms to a minute.
const BUCKETS: [f64; 11] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];

struct Metrics {
    frozen: Option<Histogram>,
    dump: Option<Histogram>,
    stream: Option<Histogram>,
    bytes: Option<IntCounter>,
    dumps: Option<IntCounterVec>,
    restores: Option<IntCounterVec>,
    let_go: Option<Histogram>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    frozen: histogram("shadow_agent_frozen_seconds", "How long a container stood still for its dump"),
    dump: histogram("shadow_agent_dump_seconds", "CRIU dump of a container"),
    stream: histogram("shadow_agent_stream_seconds", "Sending and verifying an archive"),
    bytes: counter("shadow_agent_archive_bytes_total", "Bytes of archives sent"),
    dumps: by_outcome("shadow_agent_dumps_total", "Dump orders by outcome"),
    restores: by_outcome("shadow_agent_restores_total", "Restores by outcome"),
    let_go: histogram(
        "shadow_agent_let_go_seconds",
        "From the engine's record of a restored container to its first instruction",
    ),
});

fn histogram(name: &str, help: &str) -> Option<Histogram> {
    kept(register(name, Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))))
}

fn counter(name: &str, help: &str) -> Option<IntCounter> {
    kept(register(name, IntCounter::new(name, help)))
}

fn by_outcome(name: &str, help: &str) -> Option<IntCounterVec> {
    kept(register(name, IntCounterVec::new(Opts::new(name, help), &["outcome"])))
}

/// A metric that cannot be registered is logged and missed: no reason not to migrate.
fn kept<T>(metric: Result<T, crate::kit::KitError>) -> Option<T> {
    metric.inspect_err(|error| tracing::error!(%error, "a metric is missing")).ok()
}

/// A dump that went well.
pub fn dumped(frozen: Duration, dump: Duration) {
    if let (Some(f), Some(d)) = (&METRICS.frozen, &METRICS.dump) {
        f.observe(frozen.as_secs_f64());
        d.observe(dump.as_secs_f64());
    }
}

/// A restored container that was let go.
pub fn let_go(took: Duration) {
    if let Some(let_go) = &METRICS.let_go {
        let_go.observe(took.as_secs_f64());
    }
}

/// An archive that arrived.
pub fn streamed(took: Duration, bytes: u64) {
    if let (Some(stream), Some(total)) = (&METRICS.stream, &METRICS.bytes) {
        stream.observe(took.as_secs_f64());
        total.inc_by(bytes);
    }
}

/// End of a dump order: `done` or the refusal.
pub fn dump_ended(outcome: &str) {
    if let Some(dumps) = &METRICS.dumps {
        dumps.with_label_values(&[outcome]).inc();
    }
}

/// End of a claim: `restored`, `failed`, `fresh` or `refused`.
pub fn claim_ended(outcome: &str) {
    if let Some(restores) = &METRICS.restores {
        restores.with_label_values(&[outcome]).inc();
    }
}
