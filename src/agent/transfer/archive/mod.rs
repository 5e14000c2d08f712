//! An archive on its way from node to node: a tar stream of plain files, the last of which is the manifest with the
//! SHA-256 of everything before it.
//!
//! Guarantees: a stream that was cut, damaged or holds anything but the expected files is never taken for an archive;
//! memory is bounded whatever its size.

mod reader;
mod writer;

pub use reader::{ReadError, Reader};
pub use writer::{WriteError, length, names, write};

use serde::{Deserialize, Serialize};

use crate::api::{
    ArchiveDigest, CARRIED_FILE, Epoch, IMAGE_VOLUMES, IMAGE_VOLUMES_CAP, MigrationUid, SHM_FILE, VOLUMES,
    image_volume, is_volume_name,
};

/// Folder of CRIU's images in an archive.
pub const IMAGES: &str = "images";
/// Changed files of the container's root file system.
pub const LAYER: &str = "rootfs.tar";
/// Last entry of the stream.
pub const MANIFEST: &str = "manifest.json";

const BLOCK: usize = 512;

/// What the sender says about the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub migration: MigrationUid,
    pub epoch: Epoch,
    /// Name of the container that was dumped.
    pub container: String,
    /// SHA-256 over the stream up to the manifest's own header.
    pub digest: ArchiveDigest,
    /// Length of that part of the stream.
    pub bytes: u64,
}

/// Of which dump an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub migration: MigrationUid,
    pub epoch: Epoch,
    pub container: String,
}

impl From<&Manifest> for Origin {
    fn from(manifest: &Manifest) -> Self {
        let (migration, container) = (manifest.migration.clone(), manifest.container.clone());
        Self { migration, epoch: manifest.epoch, container }
    }
}

/// True for names that an archive may hold: nothing that could lie elsewhere.
fn is_allowed(name: &str) -> bool {
    let image = name.strip_prefix(IMAGES).and_then(|rest| rest.strip_prefix('/'));
    match image {
        Some(file) => {
            !file.starts_with('.')
                && file.len() <= 80
                && !file.is_empty()
                && file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }
        None => [LAYER, MANIFEST, CARRIED_FILE, SHM_FILE].contains(&name) || folder(name).is_some(),
    }
}

/// The folder of a file that is of one of the image's volumes or of one of the pod's.
fn folder(name: &str) -> Option<&'static str> {
    match () {
        () if is_image_volume(name) => Some(IMAGE_VOLUMES),
        () if is_volume(name) => Some(VOLUMES),
        () => None,
    }
}

fn is_volume(name: &str) -> bool {
    let volume = name.strip_prefix(VOLUMES).and_then(|rest| rest.strip_prefix('/')?.strip_suffix(".tar"));
    volume.is_some_and(is_volume_name)
}

/// Of one of the image's volumes, in the one way to write its number.
fn is_image_volume(name: &str) -> bool {
    let number =
        name.strip_prefix(IMAGE_VOLUMES).and_then(|rest| rest.strip_prefix('/')?.strip_suffix(".tar"));
    let number = number.and_then(|number| number.parse::<usize>().ok());
    number.is_some_and(|number| number < IMAGE_VOLUMES_CAP && name == image_volume(number))
}

/// Bytes that fill the last block of a file.
fn padding(size: u64) -> u64 {
    let block = BLOCK as u64;
    (block - size % block) % block
}

#[cfg(test)]
mod tests;
