//! What is counted: answers with their outcome, time to answer, why nodes were refused. Bounded labels. No I/O.
//! kube-scheduler exports nothing of the time that its extenders take.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Bounds around the goals of 1 ms at 500 nodes and 5 ms at 5,000.
const BUCKETS: [f64; 9] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.5];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Filter,
    Prioritize,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Prioritize => "prioritize",
        }
    }
}

/// The extender's metrics; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    answers: IntCounterVec,
    seconds: HistogramVec,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self {
            answers: IntCounterVec::new(
                Opts::new("shadow_extender_answers_total", "Answers by verb and outcome"),
                &["verb", "outcome"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("shadow_extender_answer_seconds", "Time from the read body to the answer")
                    .buckets(BUCKETS.to_vec()),
                &["verb"],
            )?,
        })
    }

    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let all: [Box<dyn Collector>; 2] = [Box::new(self.answers.clone()), Box::new(self.seconds.clone())];
        all.into_iter().try_for_each(|metric| registry.register(metric))
    }

    pub fn answered(&self, verb: Verb, outcome: &str, took: Duration) {
        self.answers.with_label_values(&[verb.as_str(), outcome]).inc();
        self.seconds.with_label_values(&[verb.as_str()]).observe(took.as_secs_f64());
    }

    /// How often this verb ended so.
    pub fn answers(&self, verb: Verb, outcome: &str) -> u64 {
        self.answers.with_label_values(&[verb.as_str(), outcome]).get()
    }
}
