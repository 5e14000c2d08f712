//! Orders to the agents. Finds a node's agent among the agent pods (they come from a reflector) and leaves the way there
//! to a [`Transport`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::transport::Transport;
use crate::api::{
    AGENT_PORT, ArchiveSize, AwaitOrder, AwaitedTicket, CarryOrder, CloseOrder, ContainerRef, DumpOrder,
    DumpReport, Epoch, Findings, ImageUsed, Kept, MigrationUid, NodeName, Objection, OpenTicketOrder,
    OrderError, PodContainers, PodOrder, Refusal, Role, SpendOrder,
};

/// Quick orders: the agent answers as soon as runc has.
const ORDER_LIMIT: Duration = Duration::from_secs(10);

/// Files of the container are counted; whoever asks waits for it.
const SIZE_LIMIT: Duration = Duration::from_secs(5);

/// The agent gives itself less.
const LOOK_LIMIT: Duration = Duration::from_secs(4);

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("no ready agent on node {0}: is the DaemonSet shadow-agent running there?")]
    NoAgent(NodeName),
    #[error("{message} (agent on node {node})")]
    Unreachable { node: NodeName, message: String },
    #[error("{} (agent on node {node})", .error.message)]
    Refused { node: NodeName, error: OrderError },
}

impl AgentError {
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { error, .. } => Some(error.refusal),
            Self::NoAgent(_) | Self::Unreachable { .. } => None,
        }
    }

    /// What the agent has against the container, if that is why.
    pub fn objection(&self) -> Option<&Objection> {
        match self {
            Self::Refused { error, .. } => error.objection.as_ref(),
            Self::NoAgent(_) | Self::Unreachable { .. } => None,
        }
    }
}

/// All agents.
#[derive(Clone)]
pub struct Agents {
    pods: Store<Pod>,
    transport: Arc<dyn Transport>,
}

impl Agents {
    pub fn new(pods: Store<Pod>, transport: Arc<dyn Transport>) -> Self {
        Self { pods, transport }
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
        Ok(Agent { node: node.clone(), address, transport: self.transport.clone() })
    }
}

/// One agent.
pub struct Agent {
    node: NodeName,
    address: SocketAddr,
    transport: Arc<dyn Transport>,
}

impl Agent {
    pub async fn dump(&self, uid: &MigrationUid, order: &DumpOrder) -> Result<DumpReport, AgentError> {
        let limit = Duration::from_millis(order.timeout_ms) + Duration::from_secs(5);
        self.post(uid, "dump", order, limit).await
    }

    pub async fn freeze(&self, uid: &MigrationUid, order: &PodOrder) -> Result<(), AgentError> {
        self.order(uid, "freeze", order).await
    }

    pub async fn thaw(&self, uid: &MigrationUid, order: &PodOrder) -> Result<(), AgentError> {
        self.order(uid, "thaw", order).await
    }

    pub async fn kill(&self, uid: &MigrationUid, order: &PodOrder) -> Result<(), AgentError> {
        self.order(uid, "kill", order).await
    }

    /// The archive may have to be read before: whoever asks knows how long that takes.
    pub async fn open_ticket(
        &self,
        uid: &MigrationUid,
        role: Role,
        order: &OpenTicketOrder,
        limit: Duration,
    ) -> Result<(), AgentError> {
        let _: serde_json::Value = self.post(uid, &format!("tickets/{role}"), order, limit).await?;
        Ok(())
    }

    /// Waits as long as the order says, and as an agent waits at a time, for the ticket to get as far as it says.
    pub async fn await_ticket(
        &self,
        uid: &MigrationUid,
        role: Role,
        order: &AwaitOrder,
    ) -> Result<AwaitedTicket, AgentError> {
        let limit = Duration::from_millis(order.timeout_ms) + ORDER_LIMIT;
        self.post(uid, &format!("tickets/{role}/await"), order, limit).await
    }

    /// Done once nothing is restored by that ticket any more, and nothing that was lives. Repeat it if it times out: a
    /// restore that runs is waited for.
    pub async fn spend(&self, uid: &MigrationUid, role: Role, order: &SpendOrder) -> Result<(), AgentError> {
        self.order(uid, &format!("tickets/{role}/spend"), order).await
    }

    /// Has what lies there of a dump brought to where it can be restored, and verified there.
    pub async fn carry(&self, uid: &MigrationUid, order: &CarryOrder) -> Result<DumpReport, AgentError> {
        let limit = Duration::from_millis(order.timeout_ms) + Duration::from_secs(5);
        self.post(uid, "carry", order, limit).await
    }

    pub async fn close(&self, uid: &MigrationUid, epoch: Epoch) -> Result<(), AgentError> {
        self.order(uid, "close", &CloseOrder { epoch, keep: false }).await
    }

    /// Closes, and keeps the archive there a day.
    pub async fn close_and_keep(&self, uid: &MigrationUid, epoch: Epoch) -> Result<(), AgentError> {
        self.order(uid, "close", &CloseOrder { epoch, keep: true }).await
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

    /// How large an archive of the container would be now.
    pub async fn size(&self, containers: &PodContainers) -> Result<ArchiveSize, AgentError> {
        self.ask("size", "/v1/size", containers, SIZE_LIMIT).await
    }

    /// What is in the container now; nothing is touched.
    pub async fn look(&self, container: &ContainerRef) -> Result<Findings, AgentError> {
        self.ask("look", "/v1/look", container, LOOK_LIMIT).await
    }

    /// What the container was made from.
    pub async fn image(&self, container: &ContainerRef) -> Result<ImageUsed, AgentError> {
        self.ask("image", "/v1/image", container, ORDER_LIMIT).await
    }

    /// What lies there and was not closed, and which pods are to be deleted.
    pub async fn kept(&self) -> Result<Kept, AgentError> {
        self.ask("kept", "/v1/kept", &serde_json::json!({}), ORDER_LIMIT).await
    }

    async fn post<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        uid: &MigrationUid,
        what: &str,
        body: &B,
        limit: Duration,
    ) -> Result<A, AgentError> {
        self.ask(what, &format!("/v1/migrations/{uid}/{what}"), body, limit).await
    }

    async fn ask<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        body: &B,
        limit: Duration,
    ) -> Result<A, AgentError> {
        let unreachable = |message: String| AgentError::Unreachable {
            node: self.node.clone(),
            message: format!("{what}: {message}"),
        };
        let body = serde_json::to_vec(body).map_err(|error| unreachable(error.to_string()))?;
        let answer =
            self.transport.carry(&self.node, self.address, path, body, limit).await.map_err(unreachable)?;
        if answer.status.is_success() {
            return serde_json::from_slice(&answer.body)
                .map_err(|error| unreachable(format!("answer not understood: {error}")));
        }
        match serde_json::from_slice::<OrderError>(&answer.body) {
            Ok(error) => Err(AgentError::Refused { node: self.node.clone(), error }),
            Err(_) => Err(unreachable(format!("HTTP {}", answer.status))),
        }
    }
}
