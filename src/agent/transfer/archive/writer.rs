//! Turns the folder of a finished dump into the stream. Blocking reads; the bytes go to a callback, so that hashing
//! and sending overlap.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::{BLOCK, IMAGES, LAYER, MANIFEST, Manifest, Origin, container_folder, is_allowed, padding};
use crate::api::{CARRIED_FILE, IMAGE_VOLUMES, SHM_FILE, VOLUMES};

/// Bytes handed on at once.
const CHUNK: usize = 256 * 1024;

/// The stream could not be written to its end.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: not a file that an archive can hold", path.display())]
    Unexpected { path: PathBuf },
    #[error("the receiver broke off")]
    BrokenOff,
}

/// Streams the dump in `dir`; `send` gives false when nobody listens any more.
pub fn write(
    dir: &Path,
    origin: &Origin,
    send: &mut impl FnMut(Bytes) -> bool,
) -> Result<Manifest, WriteError> {
    let mut stream = Stream { send, hasher: Sha256::new(), bytes: 0 };
    for name in names(dir)? {
        stream.file(dir, &name)?;
    }
    let manifest = Manifest {
        migration: origin.migration.clone(),
        epoch: origin.epoch,
        container: origin.container.clone(),
        beside: origin.beside.clone(),
        digest: hex::encode(stream.hasher.clone().finalize()).into(),
        bytes: stream.bytes,
    };
    let at_manifest = |source: io::Error| WriteError::Io { path: MANIFEST.into(), source };
    let text = serde_json::to_vec(&manifest).map_err(|e| at_manifest(e.into()))?;
    stream.header(MANIFEST, text.len() as u64).map_err(at_manifest)??;
    let zeros = usize::try_from(padding(text.len() as u64)).unwrap_or(0) + 2 * BLOCK;
    stream.send([text, vec![0; zeros]].concat().into())?;
    Ok(manifest)
}

/// Names of all files that an archive of that folder holds, in their order in the stream.
pub fn names(dir: &Path) -> Result<Vec<String>, WriteError> {
    let mut names = of_container(dir, "")?;
    names.extend([SHM_FILE.to_owned()].into_iter().filter(|name| dir.join(name).exists()));
    names.extend(files(dir, VOLUMES)?.unwrap_or_default());
    for number in 0.. {
        let folder = container_folder(number);
        if !dir.join(&folder).exists() {
            break;
        }
        names.extend(of_container(dir, &format!("{folder}/"))?);
    }
    names.sort();
    Ok(names)
}

/// Files of one container, whose part lies below `dir` under this prefix.
fn of_container(dir: &Path, prefix: &str) -> Result<Vec<String>, WriteError> {
    let images = format!("{prefix}{IMAGES}");
    let missing = || WriteError::Io { path: dir.join(&images), source: io::ErrorKind::NotFound.into() };
    let mut names = files(dir, &images)?.ok_or_else(missing)?;
    names.extend(files(dir, &format!("{prefix}{IMAGE_VOLUMES}"))?.unwrap_or_default());
    names.push(format!("{prefix}{LAYER}"));
    let carried = format!("{prefix}{CARRIED_FILE}");
    names.extend(Some(carried).filter(|name| dir.join(name).exists()));
    Ok(names)
}

/// Names of all files in a folder, if it is there.
fn files(dir: &Path, folder: &str) -> Result<Option<Vec<String>>, WriteError> {
    let path = dir.join(folder);
    let at = |source| WriteError::Io { path: path.clone(), source };
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(at)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at)?;
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if !is_allowed(&name) || !entry.file_type().map_err(at)?.is_file() {
            return Err(WriteError::Unexpected { path: entry.path() });
        }
        names.push(name);
    }
    Ok(Some(names))
}

/// How long that folder's stream is up to its manifest, by the lengths of its files: what was cut short is noticed
/// without being read.
pub fn length(dir: &Path) -> Result<u64, WriteError> {
    let mut length = 0;
    for name in names(dir)? {
        let path = dir.join(name);
        let size = fs::metadata(&path).map_err(|source| WriteError::Io { path, source })?.len();
        length += BLOCK as u64 + size + padding(size);
    }
    Ok(length)
}

struct Stream<'a, S> {
    send: &'a mut S,
    hasher: Sha256,
    bytes: u64,
}

impl<S: FnMut(Bytes) -> bool> Stream<'_, S> {
    fn send(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        if bytes.is_empty() {
            return Ok(()); // an empty chunk would end an HTTP body
        }
        self.hasher.update(&bytes);
        self.bytes += bytes.len() as u64;
        if (self.send)(bytes) { Ok(()) } else { Err(WriteError::BrokenOff) }
    }

    fn header(&mut self, name: &str, size: u64) -> io::Result<Result<(), WriteError>> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_path(name)?;
        header.set_mode(0o600);
        header.set_size(size);
        header.set_cksum();
        Ok(self.send(Bytes::copy_from_slice(header.as_bytes())))
    }

    fn file(&mut self, dir: &Path, name: &str) -> Result<(), WriteError> {
        let path = dir.join(name);
        let at = |source| WriteError::Io { path: path.clone(), source };
        let mut file = File::open(&path).map_err(at)?;
        let size = file.metadata().map_err(at)?.len();
        self.header(name, size).map_err(at)??;
        let mut left = size;
        while left > 0 {
            let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            file.read_exact(&mut chunk).map_err(at)?;
            left -= chunk.len() as u64;
            self.send(chunk.into())?;
        }
        self.send(vec![0; usize::try_from(padding(size)).unwrap_or(0)].into())
    }
}
