//! What every migration's driver shares: clients, caches, settings. No behaviour.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::reflector::Store;

use super::agents::Agents;
use super::metrics::Metrics;
use crate::broker::{Broker, BrokerUrl};
use crate::kit::events::Recorder;

/// Gives the broker at an address, for one migration; connects when it is first used.
pub type Brokers = Arc<dyn Fn(BrokerUrl) -> Arc<dyn Broker> + Send + Sync>;

#[derive(Clone)]
pub struct Context {
    /// For calls: never retries by itself, every call has a time limit.
    pub client: kube::Client,
    /// For watches.
    pub watch_client: kube::Client,
    pub agents: Agents,
    pub brokers: Brokers,
    pub nodes: Store<Node>,
    pub agent_pods: Store<Pod>,
    pub recorder: Arc<Recorder>,
    pub metrics: Arc<Metrics>,
}
