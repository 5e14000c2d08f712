//! Metrics of the operator. Labels are enums of ours, so their number is bounded.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets};

use crate::api::Reason;
use crate::protocol::{Effect, Step};

pub struct Metrics {
    effects: HistogramVec,
    steps: HistogramVec,
    ended: IntCounterVec,
    pub active: IntGauge,
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
        };
        registry.register(Box::new(metrics.effects.clone()))?;
        registry.register(Box::new(metrics.steps.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        registry.register(Box::new(metrics.active.clone()))?;
        Ok(metrics)
    }

    pub fn effect(&self, effect: Effect, succeeded: bool, seconds: f64) {
        let outcome = if succeeded { "done" } else { "failed" };
        self.effects.with_label_values(&[effect.as_str(), outcome]).observe(seconds);
    }

    pub fn step(&self, step: Step, seconds: f64) {
        self.steps.with_label_values(&[step.as_str()]).observe(seconds);
    }

    pub fn ended(&self, reason: Reason) {
        self.ended.with_label_values(&[reason.as_str()]).inc();
    }
}
