//! What every migration's driver shares: clients, caches, settings. No behaviour.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::reflector::Store;

use super::agents::Agents;
use super::metrics::Metrics;
use crate::kit::events::Recorder;

#[derive(Clone)]
pub struct Context {
    /// For calls: never retries by itself, every call has a time limit.
    pub client: kube::Client,
    /// For watches.
    pub watch_client: kube::Client,
    pub agents: Agents,
    pub nodes: Store<Node>,
    pub agent_pods: Store<Pod>,

    pub recorder: Arc<Recorder>,
    pub metrics: Arc<Metrics>,
}
