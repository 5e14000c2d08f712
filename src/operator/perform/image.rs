//! What is restored must find the image that the source runs: a tag may mean another one elsewhere, or by now, and memory of
//! one program is nothing to another. Asks the agents, whose engines know what each container was made from. Network I/O.
//!
//! Guarantees: no ticket opens for a container that was made from another image, as far as engines tell: of shadows always,
//! of replacements wherever it may be another one than the shadow's; of several containers those that are not there yet are
//! compared by the agent (`agent::restore::images`). An agent that does not answer is asked again.

use futures::future::{try_join, try_join_all};
use k8s_openapi::api::core::v1::Pod;

use super::{EffectError, Performer};
use crate::api::{AwaitedTicket, ContainerRef, Life, NodeName, PodIdentity, PodUid, Reason};
use crate::operator::agents::client::{Agent, AgentError};
use crate::operator::drive::subject::Journal;
use crate::operator::lead::placing::Placing;
use crate::operator::shadow_init::images;
use crate::placement::Need;

/// Shown of a digest.
const SHORT: usize = 19;

impl Performer {
    /// What the source and its shadow were made from, where the source's engine tells; fails where it is not the same. What
    /// an engine does not tell is not compared.
    pub(super) async fn same_image(
        &self,
        journal: &Journal,
        node: &NodeName,
        shadow: &PodUid,
        source: &Pod,
    ) -> Result<Option<String>, EffectError> {
        let unknown = |error: AgentError| {
            EffectError::transient(
                Reason::NoAgent,
                format!("what image it is made from is not told: {error}"),
            )
        };
        let (of_source, of_shadow) = (journal.subject.source_container(), of_pod(journal, shadow));
        let shown = source.spec.as_ref().map(|spec| images(spec, &journal.subject)).unwrap_or_default();
        let asked = shown.into_iter().map(async |(container, by)| {
            let source = ContainerRef { container, ..of_source.clone() };
            let container = ContainerRef { container: by, ..of_shadow.clone() };
            let (here, there) =
                try_join(self.image(&journal.subject.node, &source), self.image(node, &container)).await?;
            Ok((differs(journal, node, here.as_deref(), there.as_deref()), here))
        });
        let found = try_join_all(asked).await.map_err(unknown)?;
        let here = found.first().and_then(|(_, here)| here.clone());
        if let Some(message) = found.into_iter().find_map(|(differs, _)| differs) {
            let mut error = EffectError::failed(Reason::ImageDiffers, message).final_if_again(journal);
            error.failure.retry &= !self.unlike.lock().note(node);
            return Err(error);
        }
        Ok(here)
    }

    /// On the shadow's node its replacement finds the same image, unless the kubelet asks the registry anew.
    pub(super) fn may_be_another_image(journal: &Journal) -> bool {
        let pulls_always = journal.state.shadow.as_ref().is_some_and(|shadow| shadow.pulls_always);
        journal.state.life > Life::FIRST || pulls_always
    }

    /// Why the container that waits for this ticket cannot be restored from the archive.
    pub(super) async fn not_the_sources_image(
        &self,
        journal: &Journal,
        node: &NodeName,
        agent: &Agent,
        ticket: &AwaitedTicket,
    ) -> Result<Option<EffectError>, AgentError> {
        let wanted = journal.state.shadow.as_ref().and_then(|shadow| shadow.image.as_deref());
        let (Some(_), Some(pod)) = (wanted, &ticket.pod) else { return Ok(None) };
        let found = agent.image(&of_pod(journal, pod)).await?.image;
        let message = differs(journal, node, wanted, found.as_deref());
        Ok(message.map(|message| EffectError::failed(Reason::ImageDiffers, message)))
    }

    /// Nodes that the next shadow keeps away from, because their image is another one and other nodes fit.
    pub(super) fn unlike_nodes(&self, need: &Need) -> Vec<NodeName> {
        if !self.unlike.lock().knows_any() {
            return Vec::new();
        }
        let view = self.ctx.views.newest();
        let placing = Placing::new(self.ctx.nodes.state(), view.snapshot.clone(), &[], &self.ctx.bookings);
        let verdicts = placing.verdicts(need, None).into_iter();
        let fitting: Vec<_> = verdicts.filter_map(|(node, found)| found.is_ok().then_some(node)).collect();
        self.unlike.lock().avoided(&fitting)
    }

    async fn image(&self, node: &NodeName, container: &ContainerRef) -> Result<Option<String>, AgentError> {
        Ok(self.ctx.agents.on(node)?.image(container).await?.image)
    }
}

/// The pod's kubelet asks the registry at each start of this container.
pub(super) fn pulls_always(pod: &Pod, container: &str) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut of_name = containers.filter(|found| found.name == container);
    of_name.any(|found| found.image_pull_policy.as_deref() == Some("Always"))
}

/// The container of that pod, whatever its name: engines know it by the UID.
fn of_pod(journal: &Journal, pod: &PodUid) -> ContainerRef {
    let source = journal.subject.source_container();
    ContainerRef { pod: PodIdentity { uid: pod.clone(), ..source.pod }, container: source.container }
}

/// The sentence for people, where both are known and not the same.
fn differs(journal: &Journal, node: &NodeName, wanted: Option<&str>, found: Option<&str>) -> Option<String> {
    let (wanted, found) = (wanted?, found?);
    let from = &journal.subject.node;
    (wanted != found).then(|| {
        format!(
            "node {node} has another image under the same name ({} there, {} on {from}): pin the image by digest",
            short(found),
            short(wanted)
        )
    })
}

fn short(image: &str) -> &str {
    image.char_indices().nth(SHORT).map_or(image, |(at, _)| &image[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pulled_at_each_start_is_known_by_the_containers_policy() {
        let pod = |policy: &str| -> Pod {
            let container = serde_json::json!({"name": "app", "image": "i", "imagePullPolicy": policy});
            serde_json::from_value(serde_json::json!({"spec": {"containers": [container]}})).unwrap()
        };
        assert!(pulls_always(&pod("Always"), "app"));
        assert!(!pulls_always(&pod("IfNotPresent"), "app") && !pulls_always(&pod("Always"), "other"));
    }

    #[test]
    fn a_digest_is_shown_by_its_beginning() {
        assert_eq!(short("sha256:0123456789abcdef0123"), "sha256:0123456789ab");
        assert_eq!(short("sha256:01"), "sha256:01");
    }
}
