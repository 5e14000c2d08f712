//! Takes the stream apart and writes its files below one folder. Blocking writes.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::{BLOCK, IMAGES, MANIFEST, Manifest, is_allowed, padding};

/// A manifest is some hundred bytes.
const MANIFEST_LIMIT: u64 = 64 * 1024;

/// What arrived is no archive, or could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("damaged stream: {0}")]
    Damaged(String),
    #[error("damaged stream: digest {found}, but the sender says {expected}")]
    Digest { found: String, expected: String },
    #[error("the stream ended early")]
    CutOff,
}

impl ReadError {
    /// The disk is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// Reads one stream; feed it, then finish.
pub struct Reader {
    dir: PathBuf,
    hasher: Sha256,
    bytes: u64,
    part: Part,
    manifest: Option<Manifest>,
}

enum Part {
    Header(Vec<u8>),
    File {
        path: PathBuf,
        file: File,
        left: u64,
        padding: u64,
    },
    Manifest {
        text: Vec<u8>,
        left: u64,
        padding: u64,
    },
    Padding(u64),
    /// The two empty blocks after the manifest.
    End(u64),
}

impl Reader {
    /// Writes into `dir`, which is made; it must not exist.
    pub fn new(dir: &Path) -> Result<Self, ReadError> {
        for dir in [dir, &dir.join(IMAGES)] {
            let made = DirBuilder::new().mode(0o700).create(dir);
            made.map_err(|source| ReadError::Io { path: dir.to_owned(), source })?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            hasher: Sha256::new(),
            bytes: 0,
            part: Part::Header(Vec::new()),
            manifest: None,
        })
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ReadError> {
        while !bytes.is_empty() {
            let used = match &mut self.part {
                Part::Header(header) => {
                    let used = bytes.len().min(BLOCK - header.len());
                    header.extend_from_slice(&bytes[..used]);
                    if header.len() == BLOCK {
                        let header = std::mem::take(header);
                        self.part = self.begin(&header)?;
                    }
                    used
                }
                Part::File { path, file, left, padding } => {
                    let used = up_to(bytes, *left);
                    file.write_all(&bytes[..used])
                        .map_err(|source| ReadError::Io { path: path.clone(), source })?;
                    self.hasher.update(&bytes[..used]);
                    self.bytes += used as u64;
                    *left -= used as u64;
                    if *left == 0 {
                        self.part = Part::Padding(*padding);
                    }
                    used
                }
                Part::Padding(left) => {
                    let used = up_to(bytes, *left);
                    self.hasher.update(&bytes[..used]);
                    self.bytes += used as u64;
                    *left -= used as u64;
                    if *left == 0 {
                        self.part = Part::Header(Vec::new());
                    }
                    used
                }
                Part::Manifest { text, left, padding } => {
                    let used = up_to(bytes, *left);
                    text.extend_from_slice(&bytes[..used]);
                    *left -= used as u64;
                    if *left == 0 {
                        let (text, padding) = (std::mem::take(text), *padding);
                        self.check(&text)?;
                        self.part = Part::End(padding + 2 * BLOCK as u64);
                    }
                    used
                }
                Part::End(left) => {
                    let used = up_to(bytes, *left);
                    if used == 0 || bytes[..used].iter().any(|byte| *byte != 0) {
                        return Err(ReadError::Damaged("something follows the manifest".into()));
                    }
                    *left -= used as u64;
                    used
                }
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// The stream is over: gives its manifest if it was whole.
    pub fn finish(self) -> Result<Manifest, ReadError> {
        match (self.part, self.manifest) {
            (Part::End(0), Some(manifest)) => Ok(manifest),
            _ => Err(ReadError::CutOff),
        }
    }

    fn begin(&mut self, block: &[u8]) -> Result<Part, ReadError> {
        let damaged = |what: String| ReadError::Damaged(what);
        let header = Header::from_byte_slice(block);
        let sum: u32 = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(damaged("bad header".into()));
        }
        let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        if header.entry_type() != EntryType::Regular || !is_allowed(&name) {
            return Err(damaged(format!("unexpected entry {name:?}")));
        }
        let size = header.size().map_err(|error| damaged(error.to_string()))?;
        let padding = padding(size);
        if name == MANIFEST {
            if size == 0 || size > MANIFEST_LIMIT {
                return Err(damaged("manifest of wrong size".into()));
            }
            return Ok(Part::Manifest { text: Vec::new(), left: size, padding });
        }
        self.hasher.update(block);
        self.bytes += block.len() as u64;
        let path = self.dir.join(&name);
        let folder = path.parent().unwrap_or(&self.dir);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| ReadError::Io { path: folder.to_owned(), source })?;
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| ReadError::Io { path: path.clone(), source })?;
        Ok(match (size, padding) {
            (0, _) => Part::Header(Vec::new()),
            (left, padding) => Part::File { path, file, left, padding },
        })
    }

    fn check(&mut self, text: &[u8]) -> Result<(), ReadError> {
        let manifest: Manifest =
            serde_json::from_slice(text).map_err(|error| ReadError::Damaged(format!("manifest: {error}")))?;
        let found = hex::encode(self.hasher.clone().finalize());
        if found != manifest.digest.as_str() || self.bytes != manifest.bytes {
            return Err(ReadError::Digest { found, expected: manifest.digest.0 });
        }
        self.manifest = Some(manifest);
        Ok(())
    }
}

fn up_to(bytes: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}
