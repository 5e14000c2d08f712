//! Writes a folder as a tar, as `shadow-runc` puts it in place: the changed files of a container (its overlay's upper folder)
//! with OCI whiteouts, or a plain tree. Blocking I/O; the container must stand still meanwhile.
//!
//! Guarantees: what cannot be carried (a renamed lower folder, a name that would be read as a whiteout) is an error,
//! never left out in silence; holes take no room. Sockets are left out: CRIU makes those of living processes itself.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::sparse;
use crate::runtime::{OPAQUE, TreeKind, WHITEOUT_PREFIX};

/// More extended attributes than this on one file are an error.
const XATTR_LIMIT: usize = 64 * 1024;

/// The files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("carried file {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("carried file {}: {why}", path.display())]
    CannotCarry { path: PathBuf, why: String },
}

/// A tar to which something may still be added.
pub struct Open {
    path: PathBuf,
    tar: Builder<BufWriter<File>>,
}

/// Writes everything below `root` to the new file `path`.
pub fn write(root: &Path, kind: TreeKind, path: &Path) -> Result<Open, TreeError> {
    let at_path = |source| TreeError::Io { path: path.to_owned(), source };
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(at_path)?;
    let tar = Builder::new(BufWriter::with_capacity(1 << 18, file));
    let mut writer = Writer { root, kind, tar, seen: HashMap::new() };
    if kind == TreeKind::Plain {
        writer.top()?;
    }
    writer.folder(Path::new(""))?;
    Ok(Open { path: path.to_owned(), tar: writer.tar })
}

impl Open {
    /// One more name for a file that is in it; in place of whatever is there under that name.
    pub fn link(&mut self, name: &Path, target: &Path, metadata: &Metadata) -> Result<(), TreeError> {
        let linked = self.tar.append_link(&mut header(metadata, EntryType::Link), name, target);
        linked.map_err(|source| TreeError::Io { path: name.to_owned(), source })
    }

    /// One more file.
    pub fn file(&mut self, name: &Path, file: File) -> Result<(), TreeError> {
        let at = |source| TreeError::Io { path: name.to_owned(), source };
        let metadata = file.metadata().map_err(at)?;
        content(&mut self.tar, name, file, &metadata, &[]).map_err(at)
    }

    /// All of it is written.
    pub fn finish(self) -> Result<(), TreeError> {
        let finished = self.tar.into_inner().and_then(|mut file| file.flush());
        finished.map_err(|source| TreeError::Io { path: self.path, source })
    }
}

struct Writer<'a, W: Write> {
    root: &'a Path,
    kind: TreeKind,
    tar: Builder<W>,
    /// First name of each file with several.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Writer<'_, W> {
    /// Owner and mode of the root itself.
    fn top(&mut self) -> Result<(), TreeError> {
        let written = fs::metadata(self.root).and_then(|metadata| {
            self.tar.append_data(&mut header(&metadata, EntryType::Directory), ".", io::empty())
        });
        written.map_err(|source| TreeError::Io { path: self.root.to_owned(), source })
    }

    fn folder(&mut self, folder: &Path) -> Result<(), TreeError> {
        let path = self.root.join(folder);
        let at = |source| TreeError::Io { path: folder.to_owned(), source };
        let mut names: Vec<OsString> = fs::read_dir(&path)
            .and_then(|entries| entries.map(|e| Ok(e?.file_name())).collect())
            .map_err(at)?;
        names.sort();
        for name in names {
            let relative = folder.join(&name);
            match fs::symlink_metadata(path.join(&name)) {
                Ok(metadata) => self.entry(&relative, &name, &metadata)?,
                // All processes stand still; only CRIU takes away what it put there (`link_remap.N`).
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(TreeError::Io { path: relative, source }),
            }
        }
        Ok(())
    }

    fn entry(&mut self, relative: &Path, name: &OsStr, metadata: &Metadata) -> Result<(), TreeError> {
        let at = |source| TreeError::Io { path: relative.to_owned(), source };
        let cannot = |why: &str| TreeError::CannotCarry { path: relative.to_owned(), why: why.to_owned() };
        let is_layer = self.kind == TreeKind::Layer;
        if is_layer && name.as_bytes().starts_with(WHITEOUT_PREFIX) {
            return Err(cannot("its name would be read as a whiteout"));
        }
        let kind = metadata.file_type();
        if is_layer && kind.is_char_device() && metadata.rdev() == 0 {
            let whiteout = OsString::from_vec([WHITEOUT_PREFIX, name.as_bytes()].concat());
            return self.marker(&relative.with_file_name(whiteout)).map_err(at);
        }
        if kind.is_socket() {
            return Ok(());
        }
        let full = self.root.join(relative);
        let overlay = Overlay::of(&full).map_err(at)?;
        if is_layer && overlay.renamed {
            return Err(cannot(
                "a folder or file of the image that was renamed in place (overlay redirect or metacopy)",
            ));
        }
        let id = (metadata.dev(), metadata.ino());
        let has_names = !kind.is_dir() && metadata.nlink() > 1;
        if let Some(first) = self.seen.get(&id).filter(|_| has_names) {
            let mut header = header(metadata, EntryType::Link);
            return self.tar.append_link(&mut header, relative, first).map_err(at);
        }
        let attributes: Vec<(String, Vec<u8>)> =
            overlay.kept.into_iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value)).collect();
        if kind.is_file() {
            let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            return match File::options().read(true).custom_flags(flags).open(&full) {
                Ok(file) => {
                    if has_names {
                        self.seen.insert(id, relative.to_owned());
                    }
                    content(&mut self.tar, relative, file, metadata, &attributes).map_err(at)
                }
                // As in `folder`.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(at(error)),
            };
        }
        if has_names {
            self.seen.insert(id, relative.to_owned());
        }
        extensions(&mut self.tar, &attributes).map_err(at)?;
        if kind.is_dir() {
            let mut header = header(metadata, EntryType::Directory);
            self.tar.append_data(&mut header, relative, io::empty()).map_err(at)?;
            if is_layer && overlay.opaque {
                self.marker(&relative.join(OsStr::from_bytes(OPAQUE))).map_err(at)?;
            }
            return self.folder(relative);
        }
        if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(at)?;
            return self
                .tar
                .append_link(&mut header(metadata, EntryType::Symlink), relative, target)
                .map_err(at);
        }
        let kind = if kind.is_fifo() {
            EntryType::Fifo
        } else if kind.is_char_device() {
            EntryType::Char
        } else {
            EntryType::Block
        };
        let mut header = header(metadata, kind);
        header.set_device_major(rustix::fs::major(metadata.rdev())).map_err(at)?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev())).map_err(at)?;
        self.tar.append_data(&mut header, relative, io::empty()).map_err(at)
    }

    fn marker(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_size(0);
        self.tar.append_data(&mut header, path, io::empty())
    }
}

/// A regular file with its attributes; of one with holes only the data.
fn content(
    tar: &mut Builder<impl Write>,
    name: &Path,
    file: File,
    metadata: &Metadata,
    attributes: &[(String, Vec<u8>)],
) -> io::Result<()> {
    let Some(map) = sparse::map(&file, metadata)? else {
        extensions(tar, attributes)?;
        let mut header = header(metadata, EntryType::Regular);
        header.set_size(metadata.len());
        return tar.append_data(&mut header, name, io::Read::take(file, metadata.len()));
    };
    extensions(tar, &[attributes, map.attributes().as_slice()].concat())?;
    // GNU tar knows this form of holes in POSIX archives only.
    let mut header = dressed(Header::new_ustar(), metadata, EntryType::Regular);
    header.set_size(map.stored_bytes());
    tar.append_data(&mut header, name, map.reader(file))
}

fn extensions(tar: &mut Builder<impl Write>, attributes: &[(String, Vec<u8>)]) -> io::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    tar.append_pax_extensions(attributes.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    dressed(Header::new_gnu(), metadata, kind)
}

fn dressed(mut header: Header, metadata: &Metadata, kind: EntryType) -> Header {
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header
}

/// What the overlay noted about a file, and the attributes that are the container's own.
#[derive(Default)]
struct Overlay {
    opaque: bool,
    renamed: bool,
    kept: Vec<(String, Vec<u8>)>,
}

impl Overlay {
    fn of(path: &Path) -> io::Result<Self> {
        let mut names = vec![0; XATTR_LIMIT];
        let length = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NOTSUP | Errno::NOENT) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut found = Self::default();
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0; XATTR_LIMIT];
            let length = rustix::fs::lgetxattr(path, name.as_str(), value.as_mut_slice())?;
            value.truncate(length);
            match name.as_str() {
                "trusted.overlay.opaque" | "user.overlay.opaque" => found.opaque = value == b"y",
                "trusted.overlay.redirect"
                | "trusted.overlay.metacopy"
                | "user.overlay.redirect"
                | "user.overlay.metacopy" => found.renamed = true,
                "security.capability" => found.kept.push((name, value)),
                _ if name.starts_with("user.") && !name.starts_with("user.overlay.") => {
                    found.kept.push((name, value));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
