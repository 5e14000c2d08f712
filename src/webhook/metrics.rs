//! What is counted: answers with their reasons, outcomes, time to answer. Bounded labels. No I/O.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Bounds around the goal of 5 ms.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 4.0];

/// The review that a metric is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Evict,
    Pod,
    Policy,
    Migration,
}

impl Endpoint {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evict => "evict",
            Self::Pod => "pod",
            Self::Policy => "policy",
            Self::Migration => "migration",
        }
    }
}

/// The webhook's metrics; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    evictions: IntCounterVec,
    reviews: IntCounterVec,
    seconds: HistogramVec,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self {
            evictions: IntCounterVec::new(
                Opts::new("shadow_webhook_evictions_total", "Evictions by answer and reason"),
                &["answer", "why", "dry_run"],
            )?,
            reviews: IntCounterVec::new(
                Opts::new("shadow_webhook_reviews_total", "Reviews by endpoint and outcome"),
                &["endpoint", "outcome"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("shadow_webhook_review_seconds", "Time from the read body to the answer")
                    .buckets(BUCKETS.to_vec()),
                &["endpoint"],
            )?,
        })
    }

    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let all: [Box<dyn Collector>; 3] = [
            Box::new(self.evictions.clone()),
            Box::new(self.reviews.clone()),
            Box::new(self.seconds.clone()),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))
    }

    pub fn eviction(&self, answer: &str, why: &str, dry_run: bool) {
        self.evictions.with_label_values(&[answer, why, if dry_run { "true" } else { "false" }]).inc();
    }

    pub fn reviewed(&self, endpoint: Endpoint, outcome: &str, took: Duration) {
        self.reviews.with_label_values(&[endpoint.as_str(), outcome]).inc();
        self.seconds.with_label_values(&[endpoint.as_str()]).observe(took.as_secs_f64());
    }

    /// How often evictions got this answer for this reason.
    pub fn evictions_answered(&self, answer: &str, why: &str) -> u64 {
        ["true", "false"].iter().map(|dry| self.evictions.with_label_values(&[answer, why, dry]).get()).sum()
    }
}
