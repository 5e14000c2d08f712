//! The way of an order to an agent and of its answer back: HTTPS, each side proving its name. Does network I/O.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, header};
use parking_lot::Mutex;

use crate::api::{NodeName, tls_name_agent};
use crate::kit::peer_client;
use crate::kit::tls::TlsStore;

/// What an agent answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderAnswer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Brings orders to agents.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends `body` (JSON) once to `path` of the agent on `node`, which listens at `address`, and waits for its answer
    /// no longer than `limit`. The error says for people why there is none; whether the order arrived is not known then.
    async fn carry(
        &self,
        node: &NodeName,
        address: SocketAddr,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<OrderAnswer, String>;
}

/// mTLS, with one pool of connections a node.
pub struct MtlsTransport {
    tls: TlsStore,
    clients: Mutex<HashMap<NodeName, (SocketAddr, reqwest::Client)>>,
}

impl MtlsTransport {
    pub fn new(tls: TlsStore) -> Self {
        Self { tls, clients: Mutex::default() }
    }

    fn client(&self, node: &NodeName, address: SocketAddr) -> Result<reqwest::Client, String> {
        let mut clients = self.clients.lock();
        if let Some((known, client)) = clients.get(node)
            && *known == address
        {
            return Ok(client.clone());
        }
        let client = peer_client(&self.tls, &tls_name_agent(node.as_str()), address);
        let client = client.map_err(|error| error.to_string())?;
        clients.insert(node.clone(), (address, client.clone()));
        Ok(client)
    }
}

#[async_trait]
impl Transport for MtlsTransport {
    async fn carry(
        &self,
        node: &NodeName,
        address: SocketAddr,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<OrderAnswer, String> {
        let url = format!("https://{}:{}{path}", tls_name_agent(node.as_str()), address.port());
        let order = self.client(node, address)?.post(url).timeout(limit);
        let order = order.header(header::CONTENT_TYPE, "application/json").body(body);
        let answered = async {
            let answer = order.send().await?;
            Ok(OrderAnswer { status: answer.status(), body: answer.bytes().await? })
        };
        answered.await.map_err(|error: reqwest::Error| {
            // The next order connects anew, to where the agent is then and with the authorities of then.
            self.clients.lock().remove(node);
            chain(&error)
        })
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
