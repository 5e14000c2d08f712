//! The replacement: the pod that the owner makes again and the webhook turns into a restore.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::super::subject::{Journal, OwnerKind};
use super::{EffectError, Performer};
use crate::api::{PodUid, Reason, Role};
use crate::protocol::{Outcome, Restored};

impl Performer {
    pub(super) async fn restore_replacement(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let ticket = self.redeem(journal, Role::Replacement).await?;
        let pod = ticket.pod.ok_or_else(|| {
            EffectError::transient(Reason::RestoreFailed, "the restored container's pod is not known")
        })?;
        let name = self.replacement_name(journal, &pod).await?;
        Ok(Outcome::ReplacementRestored(Restored { pod, name, ip: ticket.pod_ip }))
    }

    /// True where the pod that was restored is gone again, or another one has its name.
    pub(super) async fn is_replacement_gone(&self, journal: &Journal) -> Result<bool, EffectError> {
        let Some(replacement) = &journal.state.replacement else { return Ok(false) };
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &journal.subject.source.namespace);
        let live = pods.get_opt(&replacement.name).await.map_err(EffectError::api("get replacement"))?;
        Ok(live.is_none_or(|pod| pod.uid().as_deref() != Some(replacement.pod.as_str())))
    }

    /// A StatefulSet gives the name back, a ReplicaSet makes up a new one.
    async fn replacement_name(&self, journal: &Journal, uid: &PodUid) -> Result<String, EffectError> {
        let source = &journal.subject.source;
        if journal.subject.owner_kind == OwnerKind::StatefulSet {
            return Ok(source.name.clone());
        }
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &source.namespace);
        let list = pods.list(&ListParams::default()).await.map_err(EffectError::api("list pods"))?;
        list.items
            .iter()
            .find(|pod| pod.uid().as_deref() == Some(uid.as_str()))
            .map(ResourceExt::name_any)
            .ok_or_else(|| EffectError::transient(Reason::RestoreFailed, format!("pod {uid} is gone again")))
    }
}
