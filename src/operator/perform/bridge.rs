//! The bridge: `EndpointSlice`s of our own that lead readers of a Service to the shadow, later to the replacement.
//! Consumers of `EndpointSlice`s aggregate all slices of a Service, so the controller's own slices stay untouched.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};

use super::{EffectError, Performer, target};
use crate::api::{LABEL_MIGRATION, MANAGER, Reason};
use crate::operator::check::policies;
use crate::operator::drive::subject::{Bridge, Journal};
use crate::operator::shadow_pod::shadow_name;
use crate::protocol::Outcome;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The API server's words for it; the machine-readable cause is not in kube's `Status`.
const TERMINATING: &str = "because it is being terminated";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

impl Performer {
    pub(super) async fn add_bridge(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let ip = journal.state.shadow.as_ref().and_then(|shadow| shadow.ip.clone());
        let ip = ip.ok_or_else(|| EffectError::failed(Reason::RestoreFailed, "the shadow has no address"))?;
        match self.policy_against_it(journal).await? {
            // Made since the migration was accepted. Nobody is led to where he would wait in vain.
            Some(policy) => {
                tracing::warn!(migration = %self.uid, why = policies::warning(&policy), "no bridge");
            }
            None => self.lead_readers_to(journal, &ip).await?,
        }
        Ok(Outcome::BridgeAdded)
    }

    /// A NetworkPolicy that tells the shadow from its pod.
    async fn policy_against_it(&self, journal: &Journal) -> Result<Option<NetworkPolicy>, EffectError> {
        if journal.subject.bridges.is_empty() {
            return Ok(None); // no Service leads anybody to the pod
        }
        let (client, source) = (&self.ctx.client, &journal.subject.source);
        let pods: Api<Pod> = Api::namespaced(client.clone(), &source.namespace);
        let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &source.namespace);
        let (name, all) = (shadow_name(&source.name, journal.state.epoch), ListParams::default());
        let asked = tokio::join!(policies.list(&all), pods.get_opt(&source.name), pods.get_opt(&name));
        let listed = asked.0.map_err(EffectError::api("list NetworkPolicies"))?.items;
        let pod = asked.1.map_err(EffectError::api("get source pod"))?;
        let shadow = asked.2.map_err(EffectError::api("get shadow pod"))?;
        let (Some(pod), Some(shadow)) = (pod, shadow) else { return Ok(None) };
        Ok(policies::telling_apart(&listed, pod.labels(), shadow.labels()).cloned())
    }

    /// Points every slice of the bridge at `ip`, creating those that are missing.
    pub(super) async fn lead_readers_to(&self, journal: &Journal, ip: &str) -> Result<(), EffectError> {
        let slices: Api<EndpointSlice> =
            Api::namespaced(self.ctx.client.clone(), &journal.subject.source.namespace);
        for bridge in &journal.subject.bridges {
            let slice = self.slice(journal, bridge, ip)?;
            match slices.create(&PostParams::default(), &slice).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    self.point_anew(&slices, slice).await?;
                }
                // The namespace is being deleted: nobody reads there any more.
                Err(kube::Error::Api(status))
                    if status.code == 403 && status.message.contains(TERMINATING) => {}
                Err(error) => return Err(EffectError::api("create EndpointSlice")(error)),
            }
        }
        Ok(())
    }

    /// Replaces the slice of that name if it is this migration's.
    async fn point_anew(
        &self,
        slices: &Api<EndpointSlice>,
        mut slice: EndpointSlice,
    ) -> Result<(), EffectError> {
        let name = slice.metadata.name.clone().unwrap_or_default();
        let live = slices.get(&name).await.map_err(EffectError::api("get EndpointSlice"))?;
        if !self.leads_for_us(&live) {
            let message = format!("EndpointSlice {name} is somebody else's: remove it");
            return Err(EffectError::transient(Reason::RestoreFailed, message));
        }
        slice.metadata.resource_version = live.metadata.resource_version;
        let replaced = slices.replace(&name, &PostParams::default(), &slice).await;
        replaced.map(drop).map_err(EffectError::api("replace EndpointSlice"))
    }

    fn leads_for_us(&self, slice: &EndpointSlice) -> bool {
        slice.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_MIGRATION)).map(String::as_str)
            == Some(self.uid.as_str())
    }

    /// Removes the bridge; what is gone is gone, and what is somebody else's stays.
    pub(super) async fn remove_bridge(&self, journal: &Journal) -> Result<(), EffectError> {
        let slices: Api<EndpointSlice> =
            Api::namespaced(self.ctx.client.clone(), &journal.subject.source.namespace);
        for bridge in &journal.subject.bridges {
            let name = self.slice_name(bridge);
            let live = slices.get_opt(&name).await.map_err(EffectError::api("get EndpointSlice"))?;
            let Some(live) = live.filter(|slice| self.leads_for_us(slice)) else { continue };
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: live.metadata.uid, resource_version: None }),
                ..DeleteParams::default()
            };
            match slices.delete(&name, &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => return Err(EffectError::api("delete EndpointSlice")(error)),
            }
        }
        Ok(())
    }

    fn slice_name(&self, bridge: &Bridge) -> String {
        let short: String = self.uid.as_str().chars().take(8).collect();
        format!("{}-shadow-{short}", bridge.service)
    }

    fn slice(&self, journal: &Journal, bridge: &Bridge, ip: &str) -> Result<EndpointSlice, EffectError> {
        let address_type = if ip.contains(':') { "IPv6" } else { "IPv4" };
        Ok(EndpointSlice {
            address_type: address_type.to_owned(),
            metadata: ObjectMeta {
                name: Some(self.slice_name(bridge)),
                namespace: Some(journal.subject.source.namespace.clone()),
                labels: Some(BTreeMap::from([
                    (SERVICE_LABEL.to_owned(), bridge.service.clone()),
                    (MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned()),
                    (LABEL_MIGRATION.to_owned(), self.uid.to_string()),
                ])),
                owner_references: Some(vec![self.owner_reference()]),
                ..ObjectMeta::default()
            },
            endpoints: Some(vec![Endpoint {
                addresses: vec![ip.to_owned()],
                conditions: Some(EndpointConditions {
                    ready: Some(true),
                    serving: Some(true),
                    terminating: Some(false),
                }),
                hostname: bridge.hostname.clone(),
                node_name: Some(target(journal)?.to_string()),
                ..Endpoint::default()
            }]),
            ports: Some(
                bridge
                    .ports
                    .iter()
                    .map(|port| EndpointPort {
                        name: port.name.clone(),
                        port: Some(port.port),
                        protocol: Some(port.protocol.clone()),
                        app_protocol: None,
                    })
                    .collect(),
            ),
        })
    }
}
