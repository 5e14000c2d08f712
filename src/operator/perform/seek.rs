//! Another node for a pod that could not be restored on its target. The scheduler is not asked: there is no pod that it
//! could place before the archive is there, so its filters are applied here as far as they are known.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::owner::template;
use super::ticket::archive;
use super::{EffectError, Performer};
use crate::api::{ANNOTATION_PLACED_ON, NodeName, Reason};
use crate::operator::check::answer::ask_scheduling;
use crate::operator::check::claims::whereabouts;
use crate::operator::drive::subject::Journal;
use crate::operator::drive::volumes::known;
use crate::operator::lead::placing::{Placing, Unfit, Verdicts, explain};
use crate::operator::shadow_pod::{HOSTNAME_LABEL, shadow_name};
use crate::operator::shadow_volumes::stay_within;
use crate::placement::{Need, score};
use crate::protocol::Outcome;

impl Performer {
    /// The best node that has room, is neither home nor the one that failed, and that the scheduler has nothing against;
    /// its room is taken.
    pub(super) async fn choose_node(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let state = &journal.state;
        let view = self.ctx.views.newest();
        let unknown = |why: String| EffectError::transient(Reason::NoNodeFits, why);
        view.must_be_current().map_err(|stale| unknown(stale.to_string()))?;
        let bytes = archive(journal)?.bytes;
        let need = Need { migration: self.uid.clone(), source: journal.subject.node.clone(), bytes };
        let all = self.ctx.nodes.state();
        let placing = Placing::new(all.clone(), view.snapshot.clone(), &[], &self.ctx.bookings);
        let mut verdicts = placing.verdicts(&need, None);
        for (node, found) in &mut verdicts {
            if Some(&*node) == state.target.as_ref() {
                *found = Err(Unfit::Tried);
            }
        }
        if let Some(spec) = self.wanted_spec(journal).await? {
            let asked = ask_scheduling(&self.ctx, &self.uid, &spec, &all, &mut verdicts).await;
            asked.map_err(EffectError::api("list pods"))?;
        }
        let node = best(&verdicts, &state.left)
            .ok_or_else(|| EffectError::failed(Reason::NoNodeFits, explain(&verdicts, None)))?;
        let since = Timestamp::now().to_string();
        let booked = self.ctx.bookings.book(&need, &node, &since, &view);
        booked.map_err(|error| unknown(error.to_string()))?;
        Ok(Outcome::NodeChosen(node))
    }

    /// What its owner's pod asks of a node: read off the replacement that failed, else off the shadow, else off its owner.
    async fn wanted_spec(&self, journal: &Journal) -> Result<Option<PodSpec>, EffectError> {
        let source = &journal.subject.source;
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &source.namespace);
        let list = pods.list(&ListParams::default()).await.map_err(EffectError::api("list pods"))?.items;
        let shadow = shadow_name(&source.name, journal.state.epoch);
        let failed = list.iter().find(|pod| self.shown_life(journal, pod).is_some());
        let Some(pod) = failed.or_else(|| list.iter().find(|pod| pod.name_any() == shadow)) else {
            return template(&self.ctx.client, &journal.subject).await;
        };
        let volumes = known(&self.ctx.client, pod).await.map_err(EffectError::api("get the pod's claims"))?;
        Ok({
            let mut spec = pod.spec.clone();
            if pod.annotations().contains_key(ANNOTATION_PLACED_ON)
                && let Some(selector) = spec.as_mut().and_then(|spec| spec.node_selector.as_mut())
            {
                selector.remove(HOSTNAME_LABEL); // ours
            }
            if let Some(spec) = &mut spec {
                stay_within(spec, &whereabouts(&volumes));
            }
            spec
        })
    }
}

/// The highest score; a node that was a target before only where there is no other.
fn best(verdicts: &Verdicts, left: &[NodeName]) -> Option<NodeName> {
    let rooms: Vec<_> = verdicts.iter().map(|(_, found)| found.as_ref().ok().copied()).collect();
    let scored = verdicts.iter().zip(score(&rooms)).filter(|((_, found), _)| found.is_ok());
    let best = scored.max_by_key(|((node, _), score)| {
        (!left.contains(node), *score, std::cmp::Reverse(node.as_str().to_owned()))
    });
    best.map(|((node, _), _)| node.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Room;

    #[test]
    fn the_best_node_is_taken_and_one_that_was_left_before_is_the_last_resort() {
        let room = |free| Ok(Room { free, bytes: 10, transfers: 1, stream: None });
        let verdicts = vec![
            ("n1".into(), Err(Unfit::Tried)),
            ("n2".into(), room(9_000)),
            ("n3".into(), room(100)),
            ("n4".into(), room(100)),
        ];
        assert_eq!(best(&verdicts, &[]), Some("n2".into()));
        assert_eq!(best(&verdicts, &["n2".into()]), Some("n3".into()));
        assert_eq!(best(&verdicts[..2].to_vec(), &["n2".into()]), Some("n2".into()));
        assert_eq!(best(&verdicts[..1].to_vec(), &[]), None);
    }
}
