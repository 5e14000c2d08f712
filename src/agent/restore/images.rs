//! The operator compares images before anything is stopped, those of the shadow; what the other containers of a replacement
//! are made from is compared here, when their turn comes: its kubelet may have asked the registry anew. Asks the engine.
//!
//! Guarantees: none of several containers is restored from the memory of another image, as far as engines tell; an engine that
//! does not answer is no obstacle, as the kubelet has made the container by it just now.

use std::path::Path;

use crate::agent::node::cri;
use crate::agent::node::engine::Engine;
use crate::agent::node::host::Host;
use crate::agent::store;
use crate::api::{CARRIED_FILE, Carried, ClaimRequest, ContainerRef, PodIdentity};

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Images {
    pub host: Host,
    pub engine: Engine,
}

impl Images {
    /// Why the container that asks cannot be restored from the part of an archive in that folder.
    pub async fn another(&self, request: &ClaimRequest, folder: &Path) -> Option<String> {
        let carried = store::read_intact::<Carried>(&folder.join(CARRIED_FILE)).ok().flatten()?;
        let wanted = carried.image?;
        let pod = PodIdentity { uid: request.pod.clone(), namespace: String::new(), name: String::new() };
        let of = ContainerRef { pod, container: request.container.clone() };
        let found = cri::image(&self.host, &self.engine, &of).await;
        let found = found.inspect_err(|error| tracing::warn!(%error, "image not compared")).ok().flatten()?;
        (found != wanted).then(|| {
            format!("it is made from another image here ({found}) than its source ({wanted}): pin the image by digest")
        })
    }
}
