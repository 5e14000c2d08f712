//! An archive on its way from node to node: a tar stream of plain files, the last of which is the manifest with the
//! SHA-256 of everything before it.
//!
//! Guarantees: a stream that was cut, damaged or holds anything but the expected files is never taken for an archive;
//! memory is bounded whatever its size.

mod reader;
mod writer;

pub use reader::{ReadError, Reader};
pub use writer::{WriteError, length, names, write};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::api::{
    ArchiveDigest, CARRIED_FILE, Epoch, IMAGE_VOLUMES, IMAGE_VOLUMES_CAP, MigrationUid, PodContainers,
    SHM_FILE, VOLUMES, image_volume, is_volume_name,
};

/// Folder of CRIU's images in an archive.
pub const IMAGES: &str = "images";
/// Changed files of the container's root file system.
pub const LAYER: &str = "rootfs.tar";
/// Folder of the containers beside the first, each in a folder of its number.
const CONTAINERS: &str = "containers";
/// No pod has more.
const CONTAINERS_CAP: usize = 100;
/// Last entry of the stream.
pub const MANIFEST: &str = "manifest.json";

const BLOCK: usize = 512;

/// What the sender says about the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub migration: MigrationUid,
    pub epoch: Epoch,
    /// Name of the container that was dumped, whose part of the archive is at its root.
    pub container: String,
    /// Of the others that were dumped with it; the n-th has [`container_folder`] n.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// SHA-256 over the stream up to the manifest's own header.
    pub digest: ArchiveDigest,
    /// Length of that part of the stream.
    pub bytes: u64,
}

impl Manifest {
    /// All that were dumped.
    pub fn containers(&self) -> impl Iterator<Item = &String> {
        [&self.container].into_iter().chain(&self.beside)
    }

    /// Where in the archive the part of that container lies.
    pub fn folder_of(&self, container: &str) -> Option<PathBuf> {
        if self.container == container {
            return Some(PathBuf::new());
        }
        let number = self.beside.iter().position(|name| name == container)?;
        Some(container_folder(number).into())
    }
}

/// Of which dump an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub migration: MigrationUid,
    pub epoch: Epoch,
    pub container: String,
    pub beside: Vec<String>,
}

impl Origin {
    pub fn of(migration: &MigrationUid, epoch: Epoch, containers: PodContainers) -> Self {
        let PodContainers { container, beside, .. } = containers;
        Self { migration: migration.clone(), epoch, container, beside }
    }
}

impl From<&Manifest> for Origin {
    fn from(manifest: &Manifest) -> Self {
        let (migration, container) = (manifest.migration.clone(), manifest.container.clone());
        Self { migration, epoch: manifest.epoch, container, beside: manifest.beside.clone() }
    }
}

/// Where in an archive the part of the n-th container beside the first lies.
pub fn container_folder(number: usize) -> String {
    format!("{CONTAINERS}/{number}")
}

/// True for names that an archive may hold: nothing that could lie elsewhere.
fn is_allowed(name: &str) -> bool {
    match name.strip_prefix(CONTAINERS).and_then(|rest| rest.strip_prefix('/')) {
        Some(below) => below
            .split_once('/')
            .is_some_and(|(number, name)| is_container_number(number) && is_of_container(name)),
        None => is_of_container(name) || [MANIFEST, SHM_FILE].contains(&name) || is_volume(name),
    }
}

fn is_of_container(name: &str) -> bool {
    match name.strip_prefix(IMAGES).and_then(|rest| rest.strip_prefix('/')) {
        Some(file) => {
            !file.starts_with('.')
                && file.len() <= 80
                && !file.is_empty()
                && file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }
        None => [LAYER, CARRIED_FILE].contains(&name) || is_image_volume(name),
    }
}

/// In the one way to write it.
fn is_container_number(text: &str) -> bool {
    let number = text.parse::<usize>().ok();
    number.is_some_and(|number| number < CONTAINERS_CAP && text == number.to_string())
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
