//! Archives and a machine that loses its power. Nothing waits for an archive to be on the disk: that would be a part of
//! the pause. It is brought there afterwards and marked; what has no mark when the machine comes back is removed, because
//! its files may be there by name and hold nothing. Blocking file operations.
//!
//! Guarantees: no archive of an earlier life of the machine stays unless every byte of it was on the disk; a restart of
//! the agent alone removes none; an archive that takes another's place meanwhile does not get the other's mark.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use crate::agent::store::{self, Durability, Store, StoreError};
use crate::agent::transfer::archive::MANIFEST;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// In an archive all of which is on the disk: the text of its manifest, so that it is no mark of one that came later.
const MARK: &str = "settled";

/// An archive that is to be forced to the disk, held by its folder and not by its name: the name may belong to another
/// archive by then.
pub struct Unsettled {
    folder: File,
    path: PathBuf,
}

impl Unsettled {
    pub fn hold(archive: &Path) -> Result<Self, StoreError> {
        let path = archive.to_owned();
        match File::open(archive) {
            Ok(folder) => Ok(Self { folder, path }),
            Err(source) => Err(StoreError { path, source }),
        }
    }

    /// Does [`Self::settle`] in the background.
    pub fn settle_behind(self) {
        tokio::task::spawn_blocking(move || match self.settle() {
            Err(error) if error.source.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "an archive is not safe from a power failure");
            }
            _ => {} // on the disk, or not needed any more
        });
    }

    /// Forces it to the disk and marks it; an error of kind `NotFound` if it is removed meanwhile.
    pub fn settle(&self) -> Result<(), StoreError> {
        let folder = PathBuf::from(format!("/proc/self/fd/{}/.", self.folder.as_raw_fd()));
        let settled = fs::read_to_string(folder.join(MANIFEST))
            .and_then(|manifest| force(&folder).map(|()| manifest))
            .map_err(|source| StoreError { path: folder.clone(), source })
            .and_then(|manifest| store::write(&folder.join(MARK), &manifest, Durability::Disk));
        settled.map_err(|error| StoreError { path: self.path.clone(), source: error.source })
    }
}

/// Forces to the disk what an agent before this one has not got to.
pub fn settle_all(store: &Store) -> Result<(), StoreError> {
    for (uid, epoch) in store.archives()? {
        let archive = store.archive(&uid, epoch);
        if is_settled(&archive)? {
            continue;
        }
        match Unsettled::hold(&archive).and_then(|archive| archive.settle()) {
            Err(error) if error.source.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // on the disk, or closed meanwhile
        }
    }
    Ok(())
}

/// All of it is on the disk.
pub fn is_settled(archive: &Path) -> Result<bool, StoreError> {
    let manifest = fs::read_to_string(archive.join(MANIFEST)).unwrap_or_default();
    Ok(!manifest.is_empty() && store::read_intact::<String>(&archive.join(MARK))? == Some(manifest))
}

fn force(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            force(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// Removes what the machine may have lost since its last life; to be called once, before anything else is read.
pub fn remove_unsettled(store: &Store) -> Result<(), StoreError> {
    let boot = fs::read_to_string(BOOT_ID)
        .map_err(|source| StoreError { path: BOOT_ID.into(), source })?
        .trim()
        .to_owned();
    remove_unsettled_before(store, &boot)
}

fn remove_unsettled_before(store: &Store, boot: &str) -> Result<(), StoreError> {
    let path = store.boot();
    let known = store::read_intact::<String>(&path)?;
    if known.as_deref() == Some(boot) {
        return Ok(());
    }
    if known.is_none() {
        // The first agent that keeps this: nothing says that the machine was restarted.
        return store::write(&path, &boot, Durability::Disk);
    }
    for (uid, epoch) in store.archives()? {
        let archive = store.archive(&uid, epoch);
        if !is_settled(&archive)? {
            tracing::warn!(migration = %uid, %epoch, "the machine was restarted before this archive was on the disk: removed");
            store::remove(&archive)?;
        }
    }
    store::write(&path, &boot, Durability::Disk)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::Epoch;

    #[test]
    fn only_archives_that_are_on_the_disk_outlive_a_restart_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        remove_unsettled_before(&store, "first").unwrap(); // notes it
        let [safe, unsafe_one] = [1, 2].map(|epoch| {
            let archive = store.archive(&"ab".into(), Epoch(epoch));
            fs::create_dir_all(archive.join("images")).unwrap();
            fs::write(archive.join("images/pages-1.img"), "x").unwrap();
            fs::write(archive.join(MANIFEST), "{}").unwrap();
            archive
        });
        Unsettled::hold(&safe).unwrap().settle().unwrap();
        remove_unsettled_before(&store, "first").unwrap();
        assert!(safe.exists() && unsafe_one.exists(), "only the agent was restarted");
        remove_unsettled_before(&store, "second").unwrap();
        assert!(safe.exists() && !unsafe_one.exists());
    }

    #[test]
    fn the_first_agent_that_looks_removes_nothing_and_what_was_not_settled_is_settled_later() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let archive = store.archive(&"ab".into(), Epoch(1));
        fs::create_dir_all(&archive).unwrap();
        fs::write(archive.join(MANIFEST), "{}").unwrap();
        remove_unsettled_before(&store, "first").unwrap();
        assert!(archive.exists());
        settle_all(&store).unwrap();
        remove_unsettled_before(&store, "second").unwrap();
        assert!(archive.exists());
    }

    #[test]
    fn the_mark_of_an_earlier_archive_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), "old").unwrap();
        Unsettled::hold(dir.path()).unwrap().settle().unwrap();
        assert!(is_settled(dir.path()).unwrap());
        fs::write(dir.path().join(MANIFEST), "new").unwrap();
        assert!(!is_settled(dir.path()).unwrap());
    }

    #[test]
    fn an_archive_that_went_meanwhile_gets_no_mark_and_the_one_in_its_place_neither() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        let arrive = || {
            fs::create_dir(&archive).unwrap();
            fs::write(archive.join(MANIFEST), "the same").unwrap();
            Unsettled::hold(&archive).unwrap()
        };
        let first = arrive();
        store::remove(&archive).unwrap();
        assert_eq!(first.settle().unwrap_err().source.kind(), io::ErrorKind::NotFound);
        assert!(!archive.exists());
        let second = arrive();
        assert!(first.settle().is_err() && !is_settled(&archive).unwrap());
        second.settle().unwrap();
        assert!(is_settled(&archive).unwrap());
    }

    #[test]
    fn an_archive_is_removed_while_it_is_brought_to_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        for round in 0..400 {
            fs::create_dir_all(archive.join("images")).unwrap();
            fs::write(archive.join(MANIFEST), "{}").unwrap();
            let held = Unsettled::hold(&archive).unwrap();
            std::thread::scope(|scope| {
                let settling = scope.spawn(|| held.settle());
                // A little later each time, so that some removal falls into every moment of it.
                std::thread::sleep(Duration::from_micros(10 * round));
                store::remove(&archive).unwrap();
                if let Err(error) = settling.join().unwrap() {
                    assert_eq!(error.source.kind(), io::ErrorKind::NotFound, "{error}");
                }
            });
            assert!(!archive.exists());
        }
    }
}
