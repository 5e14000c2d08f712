//! Open files whose name is gone while their inode has another: CRIU gives each a name of its own (`link_remap.N`) while
//! it dumps, and expects to find it at the restore. Pure.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::image::{ImageError, split};
use super::wire::Fields;

/// Fields of `remap_file_path_entry`.
const ORIGINAL: u64 = 1;
const REMAPPED: u64 = 2;
const KIND: u64 = 3;
/// `remap_type`, in which the first is a link.
const LINKED: u64 = 0;
/// Fields of `file_entry`.
const FILE_REGULAR: u64 = 3;
/// Fields of `reg_file_entry`.
const FILE_ID: u64 = 1;
const FILE_NAME: u64 = 6;

/// What the kernel puts behind the name of an open file that is gone.
const DELETED: &[u8] = b" (deleted)";

/// Names as the container sees them, without the first slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remap {
    /// By which it was opened, and which is gone.
    pub opened: PathBuf,
    /// That CRIU gave it.
    pub link: PathBuf,
}

/// The links that a restore from these two images (`remap-fpath.img`, `files.img`) will look for.
pub fn remaps(remaps: &[u8], files: &[u8]) -> Result<Vec<Remap>, ImageError> {
    let mut pairs = Vec::new();
    for message in split(remaps)?.1 {
        let (mut original, mut remapped, mut kind) = (0, 0, LINKED);
        for field in Fields::of(message?) {
            let field = field?;
            match (field.number, field.value.number()) {
                (ORIGINAL, Some(id)) => original = id,
                (REMAPPED, Some(id)) => remapped = id,
                (KIND, Some(number)) => kind = number,
                _ => {}
            }
        }
        if kind == LINKED {
            pairs.push((original, remapped));
        }
    }
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let names = names(files)?;
    let found = pairs.into_iter().map(|(original, remapped)| {
        let name = |id: u64| {
            let name = names.get(&id).copied();
            name.ok_or_else(|| ImageError::Malformed(format!("no file {id}, but another name for it")))
        };
        Ok(Remap { opened: path(name(original)?), link: path(name(remapped)?) })
    });
    found.collect()
}

/// Names of regular files by their number.
fn names(files: &[u8]) -> Result<HashMap<u64, &[u8]>, ImageError> {
    let mut names = HashMap::new();
    for message in split(files)?.1 {
        for field in Fields::of(message?) {
            let field = field?;
            let Some(regular) = field.value.bytes().filter(|_| field.number == FILE_REGULAR) else {
                continue;
            };
            let (mut id, mut name) = (None, None);
            for field in Fields::of(regular) {
                let field = field?;
                match field.number {
                    FILE_ID => id = field.value.number(),
                    FILE_NAME => name = field.value.bytes(),
                    _ => {}
                }
            }
            if let (Some(id), Some(name)) = (id, name) {
                names.insert(id, name);
            }
        }
    }
    Ok(names)
}

fn path(name: &[u8]) -> PathBuf {
    let name = name.strip_suffix(DELETED).unwrap_or(name);
    let name = name.strip_prefix(b".").filter(|rest| rest.starts_with(b"/")).unwrap_or(name);
    let begin = name.iter().position(|byte| *byte != b'/').unwrap_or(name.len());
    OsStr::from_bytes(&name[begin..]).into()
}
