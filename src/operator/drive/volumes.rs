//! What the cluster says of a pod's claims. Reads the API server.
//!
//! Guarantees: nothing is remembered; a claim, a volume or a driver that does not exist is no error.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::operator::check::claims::{Claimed, Known, names};
use crate::operator::check::containers::has_ended;

/// Of all claims of this pod.
pub async fn known(client: &Client, pod: &Pod) -> Result<Known, kube::Error> {
    let Some(spec) = pod.spec.as_ref().filter(|spec| names(spec).next().is_some()) else {
        return Ok(Known::All(BTreeMap::new()));
    };
    let namespace = pod.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let others = pods.list(&ListParams::default()).await?.items;
    let asked = names(spec).map(async |(_, name)| {
        let Some(claim) = claims.get_opt(name).await? else { return Ok(None) };
        let (volume, attaches) = bound(client, &claim).await?;
        let is_deleted = claim.metadata.deletion_timestamp.is_some();
        let also_of = others.iter().find(|other| holds(other, pod, name)).map(ResourceExt::name_any);
        Ok(Some((name.to_owned(), Claimed { volume, attaches, also_of, is_deleted })))
    });
    let found: Result<Vec<_>, kube::Error> = try_join_all(asked).await;
    Ok(Known::All(found?.into_iter().flatten().collect()))
}

/// What the claim is bound to, and whether that is attached before it is mounted.
async fn bound(
    client: &Client,
    claim: &PersistentVolumeClaim,
) -> Result<(Option<PersistentVolume>, bool), kube::Error> {
    let Some(name) = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) else {
        return Ok((None, true));
    };
    let Some(volume) = Api::<PersistentVolume>::all(client.clone()).get_opt(name).await? else {
        return Ok((None, true));
    };
    let driver = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()).map(|csi| csi.driver.clone());
    let attaches = match driver {
        Some(driver) => {
            let known = Api::<CSIDriver>::all(client.clone()).get_opt(&driver).await?;
            known.and_then(|driver| driver.spec.attach_required).unwrap_or(true)
        }
        None => true,
    };
    Ok((Some(volume), attaches))
}

/// Another pod that has the claim mounted, on whatever node.
fn holds(other: &Pod, pod: &Pod, claim: &str) -> bool {
    mounts(other, claim) && other.uid() != pod.uid()
}

/// It has that claim, and has not ended.
pub fn mounts(pod: &Pod, claim: &str) -> bool {
    !has_ended(pod) && pod.spec.iter().flat_map(names).any(|(_, name)| name == claim)
}
