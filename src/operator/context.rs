//! What every migration's driver shares: clients, caches, settings. No behaviour.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::reflector::Store;

use super::agents::client::Agents;
use super::lead::bookings::Bookings;
use super::metrics::Metrics;
use crate::broker::{Broker, BrokerUrl};
use crate::kit::events::Recorder;
use crate::placement::Views;

/// Gives the broker at an address, for one migration; connects when it is first used.
pub type Brokers = Arc<dyn Fn(BrokerUrl) -> Arc<dyn Broker> + Send + Sync>;

#[derive(Clone)]
pub struct Context {
    /// That SHADOW is installed in.
    pub namespace: String,
    /// For calls: never retries by itself, every call has a time limit.
    pub client: kube::Client,
    /// For watches.
    pub watch_client: kube::Client,
    pub agents: Agents,
    pub brokers: Brokers,
    pub nodes: Store<Node>,
    pub agent_pods: Store<Pod>,
    /// What agents publish of their nodes, and what migrations have reserved.
    pub views: Views,
    pub bookings: Bookings,
    /// Of shadow pods; the cluster's own where there is none.
    pub scheduler: Option<Arc<str>>,
    /// Labels and annotations that shadows have from their pods.
    pub shadow_labels: Arc<[String]>,
    pub recorder: Arc<Recorder>,
    pub metrics: Arc<Metrics>,
}
