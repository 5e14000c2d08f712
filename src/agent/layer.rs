//! Writes the changed files of a container (its overlay's upper folder) as a layer tar with OCI whiteouts, as
//! `shadow-runc` applies it. Blocking I/O; the container must stand still meanwhile.
//!
//! Guarantees: what cannot be carried (a renamed lower folder, a name that would be read as a whiteout) is an error,
//! never left out in silence. Sockets are left out: CRIU makes those of living processes itself.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::runtime::{OPAQUE, WHITEOUT_PREFIX};

/// More extended attributes than this on one file are an error.
const XATTR_LIMIT: usize = 64 * 1024;

/// The changed files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("changed file {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("changed file {}: {why}", path.display())]
    CannotCarry { path: PathBuf, why: String },
}

/// Writes everything below `upper` to the new file `layer`.
pub fn write(upper: &Path, layer: &Path) -> Result<(), LayerError> {
    let at_layer = |source| LayerError::Io { path: layer.to_owned(), source };
    let file = File::options().write(true).create_new(true).mode(0o600).open(layer).map_err(at_layer)?;
    let mut writer =
        Writer { upper, tar: Builder::new(BufWriter::with_capacity(1 << 18, file)), seen: HashMap::new() };
    writer.folder(Path::new(""))?;
    writer.tar.into_inner().and_then(|mut file| file.flush()).map_err(at_layer)
}

/// Bytes that [`write`] would have to write, roughly. Files may vanish meanwhile.
pub fn size(upper: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    for entry in fs::read_dir(upper)? {
        let entry = entry?;
        let there =
            entry.metadata().and_then(|now| if now.is_dir() { size(&entry.path()) } else { Ok(now.len()) });
        match there {
            Ok(more) => bytes = bytes.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

struct Writer<'a, W: Write> {
    upper: &'a Path,
    tar: Builder<W>,
    /// First name of each file with several.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Writer<'_, W> {
    fn folder(&mut self, folder: &Path) -> Result<(), LayerError> {
        let path = self.upper.join(folder);
        let at = |source| LayerError::Io { path: folder.to_owned(), source };
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
                Err(source) => return Err(LayerError::Io { path: relative, source }),
            }
        }
        Ok(())
    }

    fn entry(&mut self, relative: &Path, name: &OsStr, metadata: &Metadata) -> Result<(), LayerError> {
        let at = |source| LayerError::Io { path: relative.to_owned(), source };
        let cannot = |why: &str| LayerError::CannotCarry { path: relative.to_owned(), why: why.to_owned() };
        if name.as_bytes().starts_with(WHITEOUT_PREFIX) {
            return Err(cannot("its name would be read as a whiteout"));
        }
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            let whiteout = OsString::from_vec([WHITEOUT_PREFIX, name.as_bytes()].concat());
            return self.marker(&relative.with_file_name(whiteout)).map_err(at);
        }
        if kind.is_socket() {
            return Ok(());
        }
        let full = self.upper.join(relative);
        let overlay = Overlay::of(&full).map_err(at)?;
        if overlay.renamed {
            return Err(cannot(
                "a folder or file of the image that was renamed in place (overlay redirect or metacopy)",
            ));
        }
        if !kind.is_dir() && metadata.nlink() > 1 {
            if let Some(first) = self.seen.get(&(metadata.dev(), metadata.ino())) {
                let mut header = header(metadata, EntryType::Link);
                return self.tar.append_link(&mut header, relative, first).map_err(at);
            }
            self.seen.insert((metadata.dev(), metadata.ino()), relative.to_owned());
        }
        let attributes = overlay.kept.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value));
        let attributes: Vec<(String, &Vec<u8>)> = attributes.collect();
        if !attributes.is_empty() {
            let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            self.tar.append_pax_extensions(attributes).map_err(at)?;
        }
        if kind.is_dir() {
            let mut header = header(metadata, EntryType::Directory);
            self.tar.append_data(&mut header, relative, io::empty()).map_err(at)?;
            if overlay.opaque {
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
        if kind.is_file() {
            let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let file = File::options().read(true).custom_flags(flags).open(&full).map_err(at)?;
            let mut header = header(metadata, EntryType::Regular);
            header.set_size(metadata.len());
            let content = io::Read::take(file, metadata.len());
            return self.tar.append_data(&mut header, relative, content).map_err(at);
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

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
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
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn carried(upper: &Path, lower: &Path) -> Result<(), LayerError> {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("rootfs.tar");
        write(upper, &layer)?;
        crate::runtime::apply_layer(&layer, lower).unwrap();
        Ok(())
    }

    #[test]
    fn what_is_written_is_what_shadow_runc_puts_in_place() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let long = format!("d/{}", "n".repeat(180));
        fs::create_dir(upper.path().join("d")).unwrap();
        fs::write(upper.path().join(&long), vec![7; 100_000]).unwrap();
        fs::set_permissions(upper.path().join(&long), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(upper.path().join(&long), upper.path().join("d/other")).unwrap();
        symlink("/etc/passwd", upper.path().join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(upper.path().join("socket")).unwrap();
        carried(upper.path(), lower.path()).unwrap();
        let file = fs::metadata(lower.path().join(&long)).unwrap();
        assert_eq!((file.len(), file.nlink(), file.mode() & 0o7777), (100_000, 2, 0o4711));
        assert_eq!(fs::read_link(lower.path().join("link")).unwrap(), Path::new("/etc/passwd"));
        assert!(!lower.path().join("socket").exists());
    }

    #[test]
    fn whiteouts_of_the_overlay_remove_files_on_the_other_side() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let char_0_0 = rustix::fs::mknodat(
            rustix::fs::CWD,
            upper.path().join("gone"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        );
        if char_0_0.is_err() {
            return; // not root
        }
        fs::create_dir(upper.path().join("opaque")).unwrap();
        let opaque = fs::File::open(upper.path().join("opaque")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        let marked = rustix::fs::fsetxattr(&opaque, "trusted.overlay.opaque", b"y", flags).is_ok();
        fs::write(lower.path().join("gone"), "").unwrap();
        fs::create_dir(lower.path().join("opaque")).unwrap();
        fs::write(lower.path().join("opaque/x"), "").unwrap();
        carried(upper.path(), lower.path()).unwrap();
        assert!(!lower.path().join("gone").exists());
        assert_eq!(lower.path().join("opaque/x").exists(), !marked);
    }

    #[test]
    fn a_name_that_would_be_read_as_a_whiteout_is_refused() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(upper.path().join(".wh.x"), "").unwrap();
        assert!(matches!(carried(upper.path(), lower.path()), Err(LayerError::CannotCarry { .. })));
    }
}
