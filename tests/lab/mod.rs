//! The laboratory: a real cluster, the product on it, an application under load, and instruments that measure it from
//! outside. The tests, the demo and the benchmark all stand on it.
//!
//! Everything runs inside the control plane's network namespace, where Services, pods, API server and broker answer.

#![allow(dead_code, unused_imports)] // three programs use this, none of them all of it

mod app;
mod broker;
mod check;
mod cluster;
mod disks;
mod drain;
mod http;
mod load;
mod migrations;
mod pods;
mod probe;
mod product;
mod scene;
mod shell;
mod stage;
mod unhurt;
mod whole;

pub use app::{App, IMAGE, Kind, Program};
pub use broker::Broker;
pub use check::{Verdict, eventually};
pub use cluster::{Cluster, MADE_UP, NodeAction, OUT_OF_SERVICE, TAINT};
pub use disks::{Volume, mounts};
pub use drain::{Drain, DrainOptions, Drained};
pub use http::{Answer, request};
pub use load::{Load, Producer, QueueType, Writer, Written};
pub use migrations::{Sighting, Watch, status_of};
pub use pods::{Snapshot, StateView, state_at};
pub use probe::{Probe, Reads};
pub use product::{kill_leader, leader, webhooks};
pub use scene::{Figures, Narrator, Scene, StepTime, consuming, quiesce};
pub use shell::{Output, capture};
pub use stage::{Lab, on_cluster, on_cluster_leaving_it};
pub use unhurt::{cause_is_told, nothing_left, unhurt};
pub use whole::{give, held, sidecar, whole};

/// What went wrong, for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// `Err` with a sentence.
pub fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(message.into().into())
}
