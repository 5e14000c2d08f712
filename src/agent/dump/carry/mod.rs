//! What of a pod's containers moves beside their processes: changed files, the volumes that their images declare, the pod's
//! emptyDir volumes, the sandbox's /dev/shm, and the addresses that their sockets may be bound to. Found in the engine's bundle, in the
//! kubelet's folder of the pod and in /proc. Does I/O.
//!
//! Guarantees: the containers' and the pod's own files and nothing of the node or of volumes that outlive the pod; how much
//! it is can be told before it is copied.

mod addresses;
mod deleted;
mod links;
mod load;
mod places;
mod sparse;
mod survey;
mod tree;
mod writing;

pub use load::{Load, Located};
pub use tree::TreeError;

use std::io;
use std::path::PathBuf;

use crate::agent::failure::Failure;
use crate::api::{IMAGE_VOLUMES_CAP, Objection, Reason, Refusal, sentence};
use crate::criu::ImageError;
use crate::runtime::TreeKind;

/// What is to be carried could not be found, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{}: {source}", path.display())]
    Image { path: PathBuf, source: ImageError },
    #[error(
        "the image declares {0} volumes, more than the {IMAGE_VOLUMES_CAP} that are carried: let it declare fewer"
    )]
    TooManyVolumes(usize),
    #[error(
        "{} is open, and in its volume it has another name than it was opened by: let the program close it",
        name.display()
    )]
    Unlinked { name: PathBuf },
    #[error("{} shows a part of emptyDir volume {volume} that is no folder: mount a folder, or all of it", at.display())]
    NoFolder { at: PathBuf, volume: String },
}

impl From<CarryError> for Failure {
    fn from(error: CarryError) -> Self {
        let message = error.to_string();
        match error {
            CarryError::Unlinked { .. } => Self::objecting(Objection {
                reason: Reason::UnsupportedDescriptor,
                message: sentence(&message),
                passes: true,
            }),
            CarryError::TooManyVolumes(_) | CarryError::NoFolder { .. } => {
                Self::objecting(Objection { reason: Reason::ForeignMount, message, passes: false })
            }
            CarryError::Io { source, .. } | CarryError::Tree(TreeError::Io { source, .. })
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                Self::new(Refusal::NoSpace, message)
            }
            CarryError::Io { .. } | CarryError::Tree(_) | CarryError::Image { .. } => {
                Self::new(Refusal::RuntimeFailed, message)
            }
        }
    }
}

/// So many volumes of an image can be, or an error.
pub fn may_be_carried(image_volumes: usize) -> Result<(), CarryError> {
    if image_volumes > IMAGE_VOLUMES_CAP { Err(CarryError::TooManyVolumes(image_volumes)) } else { Ok(()) }
}

/// A folder of the container or of its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// As we reach it.
    pub root: PathBuf,
    pub kind: TreeKind,
    /// Its name in the archive.
    pub file: String,
}
