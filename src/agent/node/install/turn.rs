//! Whose turn it is to restart its containerd: one node of the cluster at a time, by a Lease that whoever's turn it is
//! holds. Calls the Kubernetes API.
//!
//! Guarantees: a holder begins at once and is done before anybody else may take the Lease, even if it cannot renew it; one
//! that died holds it for [`LEASE`] at most, its successor on the same node takes it at once; nobody waits longer than
//! [`PATIENCE`] without saying so.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::timeout;

use super::restart::RESTART_LIMIT;
use crate::api::LEASE_RESTART;
use crate::kit::lease::{Leadership, Lease};
use crate::kit::{KitError, Shutdown, kube_client, kube_watch_client};

const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Others wait for so long after the last sign of life of a holder: its restart, and a call before it.
const LEASE: Duration = RESTART_LIMIT.saturating_add(Duration::from_secs(30));
/// For the turn: a restart takes about a second, and many nodes may want one. Then the install says why it waits, and begins
/// anew.
const PATIENCE: Duration = Duration::from_secs(600);

/// It is not this node's turn.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error(
        "not this node's turn to restart containerd for {} s, as one node does so at a time: see who holds Lease \
         {LEASE_RESTART} in namespace {namespace}, and whether the API server answers",
        patience.as_secs()
    )]
    Late { namespace: String, patience: Duration },
}

/// Who waits.
#[derive(Clone, Debug)]
pub struct Turns {
    pub namespace: String,
    pub node: String,
}

/// This node's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    campaign: Shutdown,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.campaign.stop_now();
    }
}

impl Turns {
    /// Waits for this node's turn.
    pub async fn wait(&self) -> Result<Turn, TurnError> {
        let (calls, watches) = (kube_client(CALL_LIMIT).await?, kube_watch_client().await?);
        self.campaign(calls, watches, LEASE, PATIENCE).await
    }

    async fn campaign(
        &self,
        calls: Client,
        watches: Client,
        duration: Duration,
        patience: Duration,
    ) -> Result<Turn, TurnError> {
        let lease = Lease {
            namespace: self.namespace.clone(),
            name: LEASE_RESTART.to_owned(),
            identity: self.node.clone(),
            duration,
        };
        let turn = Turn { campaign: Shutdown::with_lag(Duration::ZERO) };
        let mut leads: watch::Receiver<Option<Leadership>> =
            lease.campaign(calls, watches, turn.campaign.clone());
        match timeout(patience, leads.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(TurnError::Late { namespace: self.namespace.clone(), patience }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::lease::fake::Server;

    fn node(name: &str) -> Turns {
        Turns { namespace: "shadow-system".into(), node: name.into() }
    }

    async fn wait(server: &Server, name: &str, patience: Duration) -> Result<Turn, TurnError> {
        let client = server.client(name);
        node(name).campaign(client.clone(), client, Duration::from_secs(1), patience).await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn one_node_at_a_time_and_the_next_as_soon_as_it_is_done() {
        let server = Server::new();
        let first = wait(&server, "n1", LONG).await.unwrap();
        let why = wait(&server, "n2", Duration::from_secs(3)).await.unwrap_err().to_string();
        assert!(why.contains(LEASE_RESTART) && why.contains("at a time"), "{why}");
        let second = {
            let server = server.clone();
            tokio::spawn(async move { wait(&server, "n2", LONG).await })
        };
        drop(first);
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_node_that_died_with_its_turn_blocks_nobody_for_ever() {
        let server = Server::new();
        let dead = wait(&server, "n1", LONG).await.unwrap();
        server.cut_off("n1");
        wait(&server, "n2", LONG).await.unwrap();
        drop(dead);
    }

    #[tokio::test]
    async fn of_many_nodes_no_two_have_their_turn_at_once() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};
        let (server, at_once) = (Server::new(), Arc::new(AtomicU32::new(0)));
        let nodes: Vec<_> = (0..5)
            .map(|number| {
                let (server, at_once) = (server.clone(), Arc::clone(&at_once));
                tokio::spawn(async move {
                    let turn = wait(&server, &format!("n{number}"), LONG).await.unwrap();
                    assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    tokio::time::sleep(Duration::from_millis(20)).await; // the restart
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    drop(turn);
                })
            })
            .collect();
        for node in nodes {
            node.await.unwrap();
        }
    }
}
