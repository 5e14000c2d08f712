//! The images that CRIU restores from: the archive's own, or a folder that looks like it but for the addresses of sockets.
//! Does I/O.
//!
//! Guarantees: the archive's files are never changed; the folder goes away with the restore, at the latest with the
//! archive.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::carried::CarriedError;
use crate::criu::{FILES_IMAGE, Moves, rewrite_addresses};

/// A folder of images, for as long as it is needed.
#[derive(Debug)]
pub struct Images {
    dir: PathBuf,
    is_own: bool,
}

impl Images {
    /// The images in `archive` as they are, or with other addresses by way of the folder `own`, which must be on the same
    /// file system: CRIU opens images from within the container's root, where no symbolic link leads out.
    pub fn of(archive: &Path, own: &Path, moves: &Moves) -> Result<Self, CarriedError> {
        let as_they_are = Self { dir: archive.to_owned(), is_own: false };
        if moves.is_empty() {
            return Ok(as_they_are);
        }
        let path = archive.join(FILES_IMAGE);
        let image = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(as_they_are),
            image => image.map_err(at(&path))?,
        };
        let rewritten = rewrite_addresses(&image, moves);
        let Some(rewritten) = rewritten.map_err(|source| CarriedError::Image { path, source })? else {
            return Ok(as_they_are);
        };
        match fs::remove_dir_all(own) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(own)(error)),
            _ => {} // of an attempt that was broken off
        }
        DirBuilder::new().mode(0o700).create(own).map_err(at(own))?;
        let images = Self { dir: own.to_owned(), is_own: true };
        for entry in fs::read_dir(archive).map_err(at(archive))? {
            let entry = entry.map_err(at(archive))?;
            let link = own.join(entry.file_name());
            if entry.file_name() == FILES_IMAGE {
                fs::write(&link, &rewritten).map_err(at(&link))?;
            } else {
                fs::hard_link(entry.path(), &link).map_err(at(&link))?;
            }
        }
        Ok(images)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        if self.is_own {
            // What is left goes with the archive.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> CarriedError {
    move |source| CarriedError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A magic and one socket on 10.0.0.1.
    const IMAGE: &[u8] =
        b"\x19\x43\x56\x54\x38\x31\x30\x56\x0a\0\0\0\x08\x04\x22\x06\x5a\x04\x8a\x80\x80\x08";

    fn moves(old: &str, new: &str) -> Moves {
        Moves::between(&[old.parse().unwrap()], &[new.parse().unwrap()])
    }

    #[test]
    fn the_archive_stays_and_criu_sees_the_new_address_until_the_restore_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (archive, own) = (dir.path().join("images"), dir.path().join("own"));
        fs::create_dir(&archive).unwrap();
        fs::write(archive.join(FILES_IMAGE), IMAGE).unwrap();
        fs::write(archive.join("pages-1.img"), "pages").unwrap();
        fs::create_dir(&own).unwrap();
        fs::write(own.join("left"), "by an attempt before").unwrap();
        let images = Images::of(&archive, &own, &moves("10.0.0.1", "10.0.0.2")).unwrap();
        assert_eq!(images.dir(), own);
        assert_eq!(fs::read_to_string(own.join("pages-1.img")).unwrap(), "pages");
        let new = fs::read(own.join(FILES_IMAGE)).unwrap();
        assert_ne!(new, IMAGE);
        assert_eq!(rewrite_addresses(&new, &moves("10.0.0.2", "10.0.0.1")).unwrap().as_deref(), Some(IMAGE));
        assert_eq!(fs::read_dir(&own).unwrap().count(), 2);
        drop(images);
        assert!(!own.exists());
        assert_eq!(fs::read(archive.join(FILES_IMAGE)).unwrap(), IMAGE);
    }

    #[test]
    fn without_an_address_that_moves_the_archives_own_images_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        fs::write(dir.path().join(FILES_IMAGE), IMAGE).unwrap();
        for moves in [Moves::default(), moves("10.0.0.9", "10.0.0.2")] {
            assert_eq!(Images::of(dir.path(), &own, &moves).unwrap().dir(), dir.path());
        }
        fs::write(dir.path().join(FILES_IMAGE), &IMAGE[..20]).unwrap();
        assert!(Images::of(dir.path(), &own, &moves("10.0.0.1", "10.0.0.2")).is_err());
    }
}
