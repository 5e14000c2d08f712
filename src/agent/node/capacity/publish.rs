//! Writes the two objects. Does I/O.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::super::engine::Engine;
use super::super::host::Host;
use super::facts::facts;
use super::{LOOK, Meter, is_news, measure};
use crate::agent::store::Store;
use crate::api::{Compatibility, LEASE_SECONDS, NodeCapacity, NodeCapacitySpec, NodeName, lease_of_agent};
use crate::kit::{Shutdown, kube_client};

const CALL_LIMIT: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_secs(5);
/// Programs on the node are upgraded, objects deleted.
const REFRESH: Duration = Duration::from_secs(60);
const FACTS_RETRY: Duration = Duration::from_secs(10);
const MANAGER: &str = "shadow-agent";
/// In the agent's folder: fields of the vector to publish in place of what was found out, for who knows better.
const OVERRIDE: &str = "compatibility.json";

/// What is published, and from what.
pub struct Publisher {
    pub node: NodeName,
    pub namespace: String,
    pub dir: PathBuf,
    pub host: Host,
    pub engine: Engine,
    pub store: Store,
    pub meter: Arc<Meter>,
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Store(#[from] crate::agent::store::StoreError),
    #[error("{}: {source}; write an object with fields of `compatibility`, or remove the file", path.display())]
    Override { path: PathBuf, source: serde_json::Error },
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
}

impl Publisher {
    /// Publishes until asked to stop.
    pub async fn publish(&self, shutdown: Shutdown) {
        match kube_client(CALL_LIMIT).await {
            Ok(client) => tokio::select! {
                () = self.run(client) => {}
                () = shutdown.stopped() => {}
            },
            Err(error) => {
                tracing::error!(%error, "capacity cannot be published: nothing is sent to this node");
            }
        }
    }

    async fn run(&self, client: Client) {
        let mut found = loop {
            match facts(&self.host, &self.engine).await {
                Ok(found) => break found,
                Err(error) => {
                    tracing::error!(%error, "what this node can restore is not known: nothing is sent to it");
                    sleep(FACTS_RETRY).await;
                }
            }
        };
        let capacities: Api<NodeCapacity> = Api::all(client.clone());
        let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
        let mut told: Option<NodeCapacitySpec> = None;
        let (mut renewed, mut refreshed): (Option<Instant>, _) = (None, Instant::now());
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if refreshed.elapsed() >= REFRESH {
                refreshed = Instant::now();
                told = None; // somebody may have deleted or changed it
                match facts(&self.host, &self.engine).await {
                    Ok(now) => found = now,
                    Err(error) => {
                        tracing::warn!(%error, "what this node can restore was not looked up again");
                    }
                }
            }
            if let Err(error) = self.tell(&capacities, &found, &mut told).await {
                tracing::warn!(%error, "capacity not published; tried again");
                continue; // the Lease vouches for what is published
            }
            if renewed.is_none_or(|at| at.elapsed() >= RENEW) {
                match self.renew(&leases).await {
                    Ok(()) => renewed = Some(Instant::now()),
                    Err(error) => tracing::warn!(%error, "lease not renewed; tried again"),
                }
            }
        }
    }

    async fn tell(
        &self,
        api: &Api<NodeCapacity>,
        found: &Compatibility,
        told: &mut Option<NodeCapacitySpec>,
    ) -> Result<(), PublishError> {
        let now = measure(&self.store, &self.overridden(found)?, &self.meter)?;
        if told.as_ref().is_some_and(|told| !is_news(told, &now)) {
            return Ok(());
        }
        *told = None;
        let object = NodeCapacity::new(self.node.as_str(), now.clone());
        api.patch(self.node.as_str(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
        *told = Some(now);
        Ok(())
    }

    fn overridden(&self, found: &Compatibility) -> Result<Compatibility, PublishError> {
        let path = self.dir.join(OVERRIDE);
        match std::fs::read_to_string(&path) {
            Ok(text) => overlay(found, &text).map_err(|source| PublishError::Override { path, source }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(found.clone()),
            Err(source) => Err(PublishError::Unreadable { path, source }),
        }
    }

    async fn renew(&self, api: &Api<Lease>) -> Result<(), PublishError> {
        let name = lease_of_agent(&self.node);
        let lease = Lease {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.node.to_string()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&lease)).await?;
        Ok(())
    }
}

/// Fields of `text` in place of what was found; one that there is not is an error.
fn overlay(found: &Compatibility, text: &str) -> serde_json::Result<Compatibility> {
    let own: BTreeMap<String, Value> = serde_json::from_str(text)?;
    let mut all: BTreeMap<String, Value> = serde_json::from_value(serde_json::to_value(found)?)?;
    for (field, value) in own {
        match all.get_mut(&field) {
            Some(old) => *old = value,
            None => return Err(serde::de::Error::custom(format!("there is no field {field}"))),
        }
    }
    serde_json::from_value(serde_json::to_value(all)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_there_are_can_be_overridden_and_others_are_told() {
        let found = Compatibility { xsave_size: 2440, kernel: "6.1".into(), ..Compatibility::default() };
        let other = overlay(&found, r#"{"xsaveSize": 832}"#).unwrap();
        assert_eq!(other, Compatibility { xsave_size: 832, ..found.clone() });
        assert!(
            overlay(&found, r#"{"xsave_size": 832}"#)
                .unwrap_err()
                .to_string()
                .contains("no field xsave_size")
        );
        assert!(overlay(&found, "[]").is_err());
        assert!(overlay(&found, r#"{"xsaveSize": "much"}"#).is_err());
    }
}
