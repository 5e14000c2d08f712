//! Effects on the shadow: place it, fence it, remove it.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};

use super::admitted::{nothing_was_added, refusal};
use super::budget::budget_allows;
use super::image::pulls_always;
use super::limits::outlives_its_probes;
use super::owner::{owner_keeps, owner_makes_at_once, says_ready};
use super::volumes::stand_against;
use super::wake::Waker;
use super::{EffectError, Performer, target};
use crate::api::{LABEL_MIGRATION, NodeName, PodIdentity, PodOrder, PodUid, Reason};
use crate::operator::agents::client::AgentError;
use crate::operator::check::claims::whereabouts;
use crate::operator::check::properties;
use crate::operator::drive::subject::Journal;
use crate::operator::drive::volumes::known;
use crate::operator::lead::bookings::BookingError;
use crate::operator::shadow_pod::{Placement, shadow_name, shadow_pod};
use crate::placement::Need;
use crate::protocol::{Outcome, ShadowAt};

/// A pod that no node takes right now may fit in a moment; after this long the scheduler's reason is reported.
const SCHEDULING_PATIENCE: Duration = Duration::from_secs(15);
/// Between looks whether a node has room again.
const LOOK: Duration = Duration::from_millis(300);
/// The replacement has its own readiness probe to pass before the bridge may go.
const READY_PATIENCE: Duration = Duration::from_secs(25);

impl Performer {
    fn pods(&self, journal: &Journal) -> Api<Pod> {
        Api::namespaced(self.ctx.client.clone(), &journal.subject.source.namespace)
    }

    pub(super) async fn place_shadow(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let pods = self.pods(journal);
        let source = &journal.subject.source;
        let live = pods.get(&source.name).await.map_err(EffectError::api("get source pod"))?;
        if live.uid().as_deref() != Some(source.uid.as_str()) {
            return Err(EffectError::failed(Reason::SourceGone, "another pod has the source's name"));
        }
        // Pod and template may have changed while it waited.
        if let Some(failure) = properties::obstacle(&live) {
            return Err(EffectError { failure, transient: false });
        }
        owner_keeps(&self.ctx.client, &journal.subject).await?;
        owner_makes_at_once(&self.ctx.client, &journal.subject).await?;
        budget_allows(&self.ctx.client, &journal.state.plan, &live).await?;
        let view = self.ctx.views.newest();
        let alike =
            view.snapshot.nodes.get(&journal.subject.node).map(|node| node.capacity.compatibility.labels());
        let wanted = self.migration.spec.target_node.as_deref();
        // One that was asked for is where it goes, or nowhere.
        let avoided = if wanted.is_some() { Vec::new() } else { self.unlike_nodes(&self.need(journal)) };
        let volumes =
            known(&self.ctx.client, &live).await.map_err(EffectError::api("get the pod's claims"))?;
        stand_against(&live, &volumes)?;
        let placement = Placement {
            wanted,
            alike: alike.as_ref().map_or(&[], |labels| labels.as_slice()),
            scheduler: self.ctx.scheduler.as_deref(),
            // It goes before its replacement comes.
            host_ports: !journal.state.plan.bridge,
            kept: &self.ctx.shadow_labels,
            avoided: &avoided,
            within: &whereabouts(&volumes),
        };
        let owner = self.owner_reference();
        let pod = shadow_pod(&live, &journal.subject, &self.uid, owner, journal.state.epoch, &placement);
        let name = pod.name_any();
        match pods.create(&PostParams::default(), &pod).await {
            Ok(made) => nothing_was_added(&pod, &made)?,
            Err(kube::Error::Api(status)) if status.code == 409 => self.is_ours(&pods, &pod).await?,
            Err(kube::Error::Api(status)) => {
                return Err(match refusal(status.code, &status.message, &name) {
                    Some(failure) if failure.reason == Reason::QuotaExceeded => {
                        EffectError { failure, transient: false }
                    }
                    Some(failure) => EffectError { failure, transient: false }.final_if_again(journal),
                    None => EffectError::api("create shadow pod")(kube::Error::Api(status)),
                });
            }
            Err(error) => return Err(EffectError::api("create shadow pod")(error)),
        }
        let (node, uid) = self.scheduled(journal, &name).await.inspect_err(|error| {
            if !(avoided.is_empty() || error.transient) {
                self.unlike.lock().avoided_in_vain();
            }
        })?;
        let uid = PodUid(uid);
        self.book(journal, &node)?;
        self.ends_in_time(journal, &node)?;
        outlives_its_probes(journal, &live)?;
        let ticket = self.at_its_ticket(journal, &node, &name, uid.as_str()).await?;
        let image = self.same_image(journal, &node, &uid, &live).await?;
        let pulls_always = pulls_always(&live, &journal.subject.container);
        Ok(Outcome::ShadowPlaced(ShadowAt { node, pod: uid, ip: ticket.pod_ip, image, pulls_always }))
    }

    fn need(&self, journal: &Journal) -> Need {
        let bytes = journal.subject.archive_bytes.unwrap_or_default();
        Need { migration: self.uid.clone(), source: journal.subject.node.clone(), bytes }
    }

    /// Nobody is stopped for a node that cannot take the archive, or that was given to somebody else meanwhile.
    fn book(&self, journal: &Journal, node: &NodeName) -> Result<(), EffectError> {
        let view = self.ctx.views.newest();
        let since = Timestamp::now().to_string();
        // Whoever has just ended may still be counted.
        let refused = |error: BookingError| EffectError::transient(Reason::NoNodeFits, error.to_string());
        self.ctx.bookings.book(&self.need(journal), node, &since, &view).map_err(refused)
    }

    async fn is_ours(&self, pods: &Api<Pod>, wanted: &Pod) -> Result<(), EffectError> {
        let name = wanted.name_any();
        let there = pods.get(&name).await.map_err(EffectError::api("get shadow pod"))?;
        if there.labels().get(LABEL_MIGRATION).map(String::as_str) == Some(self.uid.as_str()) {
            nothing_was_added(wanted, &there)
        } else {
            Err(EffectError::failed(
                Reason::NoNodeFits,
                format!("a pod {name} that is not ours is in the way"),
            ))
        }
    }

    /// Watches the pod until it has a node.
    async fn scheduled(&self, journal: &Journal, name: &str) -> Result<(NodeName, String), EffectError> {
        let namespace = &journal.subject.source.namespace;
        let pods: Api<Pod> = Api::namespaced(self.ctx.watch_client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut stream = std::pin::pin!(watcher(pods, config).default_backoff().applied_objects());
        let mut refused = None;
        let mut waker = Waker::new(&self.ctx, self.need(journal));
        let mut looks = tokio::time::interval(LOOK);
        let patience = tokio::time::sleep(SCHEDULING_PATIENCE);
        tokio::pin!(patience);
        loop {
            let pod = tokio::select! {
                () = &mut patience => {
                    let why = refused.unwrap_or_else(|| format!("shadow {name} was not scheduled"));
                    return Err(EffectError::failed(Reason::NoNodeFits, why));
                }
                _ = looks.tick() => {
                    // Only what the scheduler has put aside needs waking.
                    if refused.is_some() {
                        waker.look().await;
                    }
                    continue;
                }
                next = stream.next() => match next {
                    Some(Ok(pod)) => pod,
                    Some(Err(error)) => {
                        tracing::debug!(%error, "watch of the shadow interrupted");
                        continue;
                    }
                    None => {
                        let why = format!("the watch of shadow {name} ended");
                        return Err(EffectError::transient(Reason::NoNodeFits, why));
                    }
                },
            };
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            if let (Some(node), Some(uid)) = (node, pod.uid()) {
                return Ok((NodeName(node), uid));
            }
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let condition = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
            refused = condition.and_then(|c| c.message.clone()).or(refused);
        }
    }

    /// Readers are led to the replacement; then the shadow is made unable to answer, so that nobody who still holds its
    /// address reads a state older than one he saw.
    pub(super) async fn switch_readers(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        if let Some(ip) = journal.state.replacement.as_ref().and_then(|r| r.ip.as_ref()) {
            self.lead_readers_to(journal, ip).await?;
        }
        let fenced = self.order_fence(journal).await;
        let target = target(journal)?;
        let stays = journal.state.shadow.as_ref().is_none_or(|shadow| shadow.node == *target);
        // Its agent did as it was told, so the machine is there.
        if !(stays && fenced.is_ok()) && self.is_out_of_service(target).await? {
            let why = format!("node {target} is down for good: it is gone, or tainted out-of-service");
            return Err(EffectError::terminal(Reason::TargetLost, why));
        }
        self.is_fenced(journal, fenced).await?;
        Ok(Outcome::ReadersSwitched)
    }

    async fn fence_shadow(&self, journal: &Journal) -> Result<(), EffectError> {
        let fenced = self.order_fence(journal).await;
        self.is_fenced(journal, fenced).await
    }

    async fn is_fenced(&self, journal: &Journal, fenced: Result<(), AgentError>) -> Result<(), EffectError> {
        match &journal.state.shadow {
            Some(shadow) => self.or_gone(&shadow.node, fenced).await,
            None => Ok(()),
        }
    }

    async fn order_fence(&self, journal: &Journal) -> Result<(), AgentError> {
        let Some(shadow) = &journal.state.shadow else { return Ok(()) };
        let containers = journal.subject.containers().in_pod(PodIdentity {
            namespace: journal.subject.source.namespace.clone(),
            name: shadow_name(&journal.subject.source.name, journal.state.epoch),
            uid: shadow.pod.clone(),
        });
        let order = PodOrder { epoch: journal.state.epoch, containers, as_dumped: false };
        // Not frozen before: a freeze is refused once the tickets are closed, a kill never.
        self.ctx.agents.on(&shadow.node)?.kill(&self.uid, &order).await
    }

    /// The shadow goes at once, the bridge when the replacement is ready by itself.
    pub(super) async fn remove_shadow(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        self.delete_shadow(journal).await?;
        if !journal.subject.bridges.is_empty()
            && let Some(replacement) = &journal.state.replacement
        {
            self.ready(journal, &replacement.name, replacement.pod.as_str()).await;
        }
        self.remove_bridge(journal).await?;
        Ok(Outcome::ShadowRemoved)
    }

    /// Rollback: no reader reaches the shadow any more, then it goes.
    pub(super) async fn withdraw_shadow(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        self.remove_bridge(journal).await?;
        if let Err(error) = self.fence_shadow(journal).await {
            let unreachable = journal.state.shadow.as_ref().is_some_and(|s| !self.is_reporting(&s.node));
            let never_served = journal.state.archive.is_none();
            if !unreachable && !never_served {
                return Err(error);
            }
        }
        self.delete_shadow(journal).await?;
        Ok(Outcome::ShadowWithdrawn)
    }

    pub(super) async fn delete_shadow(&self, journal: &Journal) -> Result<(), EffectError> {
        let source = &journal.subject.source;
        let name = shadow_name(&source.name, journal.state.epoch);
        let pods = self.pods(journal);
        let found = pods.get_opt(&name).await.map_err(EffectError::api("get shadow pod"))?;
        let Some(uid) = found
            .filter(|pod| pod.labels().get(LABEL_MIGRATION).map(String::as_str) == Some(self.uid.as_str()))
            .and_then(|pod| pod.uid())
        else {
            return Ok(());
        };
        self.delete_pod(&source.namespace, &name, &uid).await
    }

    /// Waits until the replacement is ready, or for [`READY_PATIENCE`]: a pod that is not ready has no endpoint by its
    /// own fault.
    async fn ready(&self, journal: &Journal, name: &str, uid: &str) {
        let pods: Api<Pod> =
            Api::namespaced(self.ctx.watch_client.clone(), &journal.subject.source.namespace);
        let is_ready =
            |pod: Option<&Pod>| pod.is_none_or(|pod| pod.uid().as_deref() != Some(uid) || says_ready(pod));
        let waited = kube::runtime::wait::await_condition(pods, name, is_ready);
        if !matches!(tokio::time::timeout(READY_PATIENCE, waited).await, Ok(Ok(_))) {
            tracing::warn!(pod = name, "the replacement is not ready; its bridge goes all the same");
        }
    }
}
