//! Orders to the agents, over mTLS. Finds a node's agent among the agent pods; does network I/O, no Kubernetes calls
//! (the pods come from a reflector).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{
    AGENT_PORT, AwaitOrder, AwaitedTicket, CloseOrder, ContainerOrder, ContainerRef, DumpOrder, DumpReport,
    Epoch, MigrationUid, NodeName, OpenTicketOrder, OrderError, Refusal, Role, TicketState, tls_name_agent,
};
use crate::kit::tls::TlsStore;

/// Quick orders: the agent answers as soon as runc has.
const ORDER_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("no ready agent on node {0}: is the DaemonSet shadow-agent running there?")]
    NoAgent(NodeName),
    #[error("agent on node {node}: {message}")]
    Unreachable { node: NodeName, message: String },
    #[error("agent on node {node} refused: {}", .error.message)]
    Refused { node: NodeName, error: OrderError },
}

impl AgentError {
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { error, .. } => Some(error.refusal),
            _ => None,
        }
    }
}

/// All agents.
#[derive(Clone)]
pub struct Agents {
    pods: Store<Pod>,
    tls: TlsStore,
    clients: Arc<Mutex<HashMap<NodeName, (SocketAddr, reqwest::Client)>>>,
}

impl Agents {
    pub fn new(pods: Store<Pod>, tls: TlsStore) -> Self {
        Self { pods, tls, clients: Arc::default() }
    }

    /// Address of the ready agent on `node`.
    pub fn address(&self, node: &NodeName) -> Option<IpAddr> {
        self.pods
            .find(|pod| {
                let on_node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node.as_str());
                let ready = pod
                    .status
                    .iter()
                    .flat_map(|s| s.conditions.iter().flatten())
                    .any(|c| c.type_ == "Ready" && c.status == "True");
                on_node && ready && pod.metadata.deletion_timestamp.is_none()
            })
            .and_then(|pod| pod.status.as_ref()?.host_ip.as_ref()?.parse().ok())
    }

    /// The agent on `node`.
    pub fn on(&self, node: &NodeName) -> Result<Agent, AgentError> {
        let ip = self.address(node).ok_or_else(|| AgentError::NoAgent(node.clone()))?;
        let address = SocketAddr::new(ip, AGENT_PORT);
        let mut clients = self.clients.lock();
        if let Some((known, http)) = clients.get(node)
            && *known == address
        {
            return Ok(Agent { node: node.clone(), http: http.clone(), all: self.clone() });
        }
        let http = crate::kit::peer_client(&self.tls, &tls_name_agent(node.as_str()), address)
            .map_err(|error| AgentError::Unreachable { node: node.clone(), message: error.to_string() })?;
        clients.insert(node.clone(), (address, http.clone()));
        Ok(Agent { node: node.clone(), http, all: self.clone() })
    }
}

/// One agent.
pub struct Agent {
    node: NodeName,
    http: reqwest::Client,
    all: Agents,
}

impl Agent {
    pub async fn dump(&self, uid: &MigrationUid, order: &DumpOrder) -> Result<DumpReport, AgentError> {
        let limit = Duration::from_millis(order.timeout_ms) + Duration::from_secs(5);
        self.post(uid, "dump", order, limit).await
    }

    pub async fn freeze(
        &self,
        uid: &MigrationUid,
        epoch: Epoch,
        container: ContainerRef,
    ) -> Result<(), AgentError> {
        self.order(uid, "freeze", &ContainerOrder { epoch, container }).await
    }

    pub async fn thaw(
        &self,
        uid: &MigrationUid,
        epoch: Epoch,
        container: ContainerRef,
    ) -> Result<(), AgentError> {
        self.order(uid, "thaw", &ContainerOrder { epoch, container }).await
    }

    pub async fn kill(
        &self,
        uid: &MigrationUid,
        epoch: Epoch,
        container: ContainerRef,
    ) -> Result<(), AgentError> {
        self.order(uid, "kill", &ContainerOrder { epoch, container }).await
    }

    pub async fn open_ticket(
        &self,
        uid: &MigrationUid,
        role: Role,
        order: &OpenTicketOrder,
    ) -> Result<(), AgentError> {
        self.order(uid, &format!("tickets/{role}"), order).await
    }

    /// Waits up to `patience` for the ticket to get to `at_least`.
    pub async fn await_ticket(
        &self,
        uid: &MigrationUid,
        epoch: Epoch,
        role: Role,
        at_least: TicketState,
        patience: Duration,
    ) -> Result<AwaitedTicket, AgentError> {
        let order = AwaitOrder {
            epoch,
            at_least,
            timeout_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        self.post(uid, &format!("tickets/{role}/await"), &order, patience + ORDER_LIMIT).await
    }

    pub async fn close(&self, uid: &MigrationUid, epoch: Epoch) -> Result<(), AgentError> {
        self.order(uid, "close", &CloseOrder { epoch }).await
    }

    async fn order<B: Serialize + Sync>(
        &self,
        uid: &MigrationUid,
        what: &str,
        body: &B,
    ) -> Result<(), AgentError> {
        let _: serde_json::Value = self.post(uid, what, body, ORDER_LIMIT).await?;
        Ok(())
    }

    async fn post<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        uid: &MigrationUid,
        what: &str,
        body: &B,
        limit: Duration,
    ) -> Result<A, AgentError> {
        let unreachable = |message: String| {
            // The next order connects anew, to where the agent is then and with the authorities of then.
            self.all.clients.lock().remove(&self.node);
            AgentError::Unreachable { node: self.node.clone(), message }
        };
        let host = tls_name_agent(self.node.as_str());
        let url = format!("https://{host}:{AGENT_PORT}/v1/migrations/{uid}/{what}");
        let answer = self
            .http
            .post(url)
            .timeout(limit)
            .json(body)
            .send()
            .await
            .map_err(|error| unreachable(format!("{what}: {}", chain(&error))))?;
        let status = answer.status();
        let bytes =
            answer.bytes().await.map_err(|error| unreachable(format!("{what}: {}", chain(&error))))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| unreachable(format!("{what}: answer not understood: {error}")));
        }
        match serde_json::from_slice::<OrderError>(&bytes) {
            Ok(error) => Err(AgentError::Refused { node: self.node.clone(), error }),
            Err(_) => Err(unreachable(format!("{what}: HTTP {status}"))),
        }
    }
}

/// reqwest's messages name the cause only in their sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
