//! Metrics of the operator. Labels are enums of ours, so their number is bounded.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};

use crate::api::Reason;
use crate::protocol::{Effect, Step};

pub struct Metrics {
    effects: HistogramVec,
    steps: HistogramVec,
    ended: IntCounterVec,
    pub active: IntGauge,
    archive: Histogram,
}

impl Metrics {
    /// Registers everything with `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = exponential_buckets(0.005, 2.0, 14)?;
        let histogram = |name: &str, help: &str, label: &str| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.clone()), &[label, "outcome"])
        };
        let metrics = Self {
            effects: histogram("shadow_effect_seconds", "Time an effect took", "effect")?,
            steps: HistogramVec::new(
                HistogramOpts::new("shadow_step_seconds", "Time spent in a step").buckets(buckets.clone()),
                &["step"],
            )?,
            ended: IntCounterVec::new(
                Opts::new("shadow_migrations_ended_total", "Attempts and migrations by how they ended"),
                &["reason"],
            )?,
            active: IntGauge::new("shadow_migrations_active", "Migrations that hold a slot")?,
            archive: Histogram::with_opts(
                HistogramOpts::new(
                    "shadow_archive_size_ratio",
                    "Size of an archive as a part of what was expected",
                )
                .buckets(vec![0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0]),
            )?,
        };
        registry.register(Box::new(metrics.effects.clone()))?;
        registry.register(Box::new(metrics.steps.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        registry.register(Box::new(metrics.active.clone()))?;
        registry.register(Box::new(metrics.archive.clone()))?;
        Ok(metrics)
    }

    pub fn effect(&self, effect: Effect, succeeded: bool, seconds: f64) {
        let outcome = if succeeded { "done" } else { "failed" };
        self.effects.with_label_values(&[effect.as_str(), outcome]).observe(seconds);
    }

    pub fn step(&self, step: Step, seconds: f64) {
        self.steps.with_label_values(&[step.as_str()]).observe(seconds);
    }

    /// An archive was expected to be so large, and is so large; sizes in bytes.
    #[allow(clippy::cast_precision_loss)] // a ratio for people
    pub fn archive(&self, expected: u64, actual: u64) {
        if expected > 0 {
            self.archive.observe(actual as f64 / expected as f64);
        }
    }

    pub fn ended(&self, reason: Reason) {
        self.ended.with_label_values(&[reason.as_str()]).inc();
    }
}
