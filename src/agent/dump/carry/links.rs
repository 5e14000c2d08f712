//! Names that CRIU gives to open files while it dumps (`link_remap.N`) and takes away again: a restore looks for them, so
//! they are added to the trees afterwards. Blocking I/O; the container must stand still meanwhile.
//!
//! Guarantees: each link that the images name is in its tree, or is an error (in a volume that is not carried, where CRIU takes
//! it away again), as one more name of the file that it stands for; what a
//! CRIU that was killed has left is removed only while the file has another name, and never through a symbolic link.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::process::Pid;

use super::deleted::{Deleted, deleted};
use super::tree::Open;
use super::{CarryError, Tree};
use crate::criu::{FILES_IMAGE, REMAPS_IMAGE, Remap, remaps};

/// Adds the links that a restore from `images` will look for. `tree_of` finds the tree that a file of the container is in
/// and its name there: nothing for a mount that is not carried.
pub fn add<'a>(
    images: &Path,
    pids: &[Pid],
    tree_of: impl Fn(&Path) -> Option<(usize, &'a Tree, PathBuf)>,
    open: &mut [Open],
) -> Result<(), CarryError> {
    let Some(wanted) = wanted(images)? else { return Ok(()) };
    let opened = deleted(pids);
    for Remap { opened: name, link } in wanted {
        let at = |source| CarryError::Io { path: name.clone(), source };
        let Some((number, tree, link)) = tree_of(&Path::new("/").join(&link)) else {
            return Err(CarryError::Unlinked { name });
        };
        let Some(open) = open.get_mut(number) else { continue };
        let Deleted { handle, file, .. } =
            only_one(&opened, &name).map_err(|why| at(io::Error::other(why)))?;
        match named(&tree.root, Path::new(""), file).map_err(at)? {
            Some(target) => open.link(&link, &target, file)?,
            // Of the image's own files: what is open is what counts.
            None => open.file(&link, File::open(handle).map_err(at)?)?,
        }
    }
    Ok(())
}

fn wanted(images: &Path) -> Result<Option<Vec<Remap>>, CarryError> {
    let read = |name: &str| {
        let path = images.join(name);
        fs::read(&path).map_err(|source| CarryError::Io { path, source })
    };
    let links = match read(REMAPS_IMAGE) {
        Err(CarryError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        links => links?,
    };
    let wanted = remaps(&links, &read(FILES_IMAGE)?);
    let wanted = wanted.map_err(|source| CarryError::Image { path: images.join(REMAPS_IMAGE), source })?;
    Ok(Some(wanted).filter(|wanted| !wanted.is_empty()))
}

/// The file of that name which still has another: CRIU's images do not say which, where there are several.
fn only_one<'a>(opened: &'a [Deleted], name: &Path) -> Result<&'a Deleted, &'static str> {
    let mut linked = opened.iter().filter(|one| one.name == name && one.file.nlink() > 0);
    let first = linked.next().ok_or("deleted, and open in no process")?;
    match linked.next() {
        None => Ok(first),
        Some(_) => Err(
            "several deleted files of that name are open, and cannot be told apart: let the program close them",
        ),
    }
}

/// A name that this file has below `root`.
fn named(root: &Path, folder: &Path, file: &Metadata) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let name = folder.join(entry.file_name());
        if metadata.is_dir() {
            if let Some(found) = named(root, &name, file)? {
                return Ok(Some(found));
            }
        } else if is_same(&metadata, file) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// An overlay shows the inode of its upper folder, but not its device.
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let facts = |file: &Metadata| {
        (file.ino(), file.mode(), file.uid(), file.gid(), file.len(), file.mtime(), file.mtime_nsec())
    };
    facts(one) == facts(other)
}

/// Removes links that a CRIU has left in the container whose root folder is `root`; `stale` are names in it.
pub fn remove_stale(root: &Path, stale: &[PathBuf]) -> Result<(), CarryError> {
    if stale.is_empty() {
        return Ok(());
    }
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, root, flags, Mode::empty());
    let folder = folder.map_err(|error| CarryError::Io { path: root.to_owned(), source: error.into() })?;
    for link in stale {
        let removed = (|| {
            let (Some(parent), Some(name)) = (link.parent(), link.file_name()) else { return Ok(false) };
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let parent = rustix::fs::openat2(&folder, parent, flags, Mode::empty(), resolve)?;
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink < 2 {
                return Ok(false);
            }
            rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map(|()| true)
        })();
        match removed {
            Ok(true) => tracing::info!(link = %link.display(), "removed a link that a CRIU has left"),
            Ok(false) | Err(rustix::io::Errno::NOENT) => {}
            // If it is in CRIU's way, CRIU says so.
            Err(error) => tracing::warn!(link = %link.display(), %error, "a link that a CRIU has left stays"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tree::write;
    use super::*;
    use crate::runtime::{TreeKind, apply_tree};

    #[test]
    fn an_open_file_that_lost_its_name_is_found_and_its_other_name_too() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("a"), "state").unwrap();
        fs::write(at("b"), "state").unwrap();
        let _open = File::open(at("a")).unwrap();
        fs::hard_link(at("a"), at("d/other")).unwrap();
        fs::remove_file(at("a")).unwrap();
        let me = rustix::process::getpid();
        let opened = deleted(&[me]);
        let name = at("a").strip_prefix("/").unwrap().to_owned();
        let file = &only_one(&opened, &name).unwrap().file;
        assert_eq!(named(dir.path(), Path::new(""), file).unwrap().unwrap(), Path::new("d/other"));
        fs::write(at("a"), "another").unwrap();
        let _other = File::open(at("a")).unwrap();
        fs::rename(at("a"), at("moved")).unwrap();
        fs::hard_link(at("moved"), at("a")).unwrap();
        fs::remove_file(at("a")).unwrap();
        assert!(only_one(&deleted(&[me]), &name).is_ok(), "one of that name was renamed");
        fs::write(at("a"), "a third").unwrap();
        let _third = File::open(at("a")).unwrap();
        fs::hard_link(at("a"), at("d/third")).unwrap();
        fs::remove_file(at("a")).unwrap();
        assert!(only_one(&deleted(&[me]), &name).unwrap_err().contains("several"));
        fs::remove_file(at("d/other")).unwrap();
        assert_eq!(named(dir.path(), Path::new(""), file).unwrap(), None);
    }

    #[test]
    fn a_link_that_was_added_is_one_more_name_wherever_the_copy_saw_it_first() {
        let (from, to, tars) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("other"), "state").unwrap();
        let file = fs::metadata(from.path().join("other")).unwrap();
        // Half of the time the copy meets CRIU's link while it is there.
        for with_link in [false, true] {
            let tar = tars.path().join(with_link.to_string());
            if with_link {
                fs::hard_link(from.path().join("other"), from.path().join("link_remap.9")).unwrap();
            }
            let mut open = write(from.path(), TreeKind::Plain, &tar).unwrap();
            open.link(Path::new("link_remap.9"), Path::new("other"), &file).unwrap();
            open.finish().unwrap();
            apply_tree(&tar, to.path(), TreeKind::Plain).unwrap();
            let ino = |name: &str| fs::metadata(to.path().join(name)).unwrap().ino();
            assert_eq!(ino("other"), ino("link_remap.9"));
            assert_eq!(fs::read_to_string(to.path().join("link_remap.9")).unwrap(), "state");
        }
    }

    #[test]
    fn what_is_stale_is_removed_but_never_a_last_name_nor_through_a_link() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        for name in ["a", "link_remap.1"] {
            fs::write(at(name), "").unwrap();
        }
        fs::hard_link(at("a"), at("d/link_remap.2")).unwrap();
        fs::write(outside.path().join("x"), "").unwrap();
        fs::hard_link(outside.path().join("x"), outside.path().join("link_remap.3")).unwrap();
        std::os::unix::fs::symlink(outside.path(), at("l")).unwrap();
        let stale = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        remove_stale(dir.path(), &stale(&["/d/link_remap.2", "/link_remap.1", "/link_remap.4"])).unwrap();
        assert!(!at("d/link_remap.2").exists() && at("a").exists() && at("link_remap.1").exists());
        remove_stale(dir.path(), &stale(&["/l/link_remap.3"])).unwrap();
        assert!(outside.path().join("link_remap.3").exists());
    }
}
