//! The agent's folder on the node: archives, dumps, tickets, epochs, tombstones. Small blocking file operations.
//!
//! Guarantees: root only (0700, 0600); each record is written beside its place and renamed, so that a crash leaves the
//! old or the new one; no name leaves the folder, because migration UIDs are checked when they are parsed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{CRIU_RESTORE_CONFIG, Epoch, MigrationUid, TicketId};

const ARCHIVES: &str = "archives";
const DUMPS: &str = "dumps";
const TICKETS: &str = "tickets";
const EPOCHS: &str = "epochs";
const CLOSED: &str = "closed";
/// Archives of closed migrations that a person may still want.
const KEPT: &str = "kept";
/// In such an archive: since when.
const KEPT_SINCE: &str = "kept-since.json";
/// The machine's life in which the agent ran last.
const BOOT: &str = "boot.json";
const CRIU_CONFIG: &str = "criu.conf";
/// Connections do not move (`tcp-close`), so nothing has to keep packets away while their state is read: CRIU would
/// start iptables four times for that, and clients would wait for their retransmissions.
const CRIU_SETTINGS: &str = "network-lock skip\n";
/// What is restored stands still until it was checked and is let go.
const CRIU_RESTORE_SETTINGS: &str = "network-lock skip\nleave-stopped\n";
/// Suffix of an archive that is still arriving.
const PARTIAL: &str = ".partial";
/// Suffix of a record that is still being written.
const NEW: &str = ".new";

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct StoreError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Makes what is missing and takes everybody else's access away.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError { path, source }
        };
        fs::create_dir_all(dir).map_err(at(dir))?;
        for dir in [dir.to_owned()]
            .into_iter()
            .chain([ARCHIVES, DUMPS, TICKETS, EPOCHS, CLOSED, KEPT].map(|d| dir.join(d)))
        {
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(at(&dir)(error)),
                _ => {}
            }
            fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .map_err(at(&dir))?;
        }
        let store = Self { dir: dir.to_owned() };
        write_bytes(&store.criu_config(), CRIU_SETTINGS.as_bytes(), Durability::Process)?;
        let restores = dir.join(CRIU_RESTORE_CONFIG);
        write_bytes(&restores, CRIU_RESTORE_SETTINGS.as_bytes(), Durability::Process)?;
        Ok(store)
    }

    /// Of a verified archive.
    pub fn archive(&self, uid: &MigrationUid, epoch: Epoch) -> PathBuf {
        self.dir.join(ARCHIVES).join(format!("{uid}.{epoch}"))
    }

    /// Of an archive that is still arriving; `number` tells several streams apart.
    pub fn partial(&self, uid: &MigrationUid, epoch: Epoch, number: u64) -> PathBuf {
        self.dir.join(ARCHIVES).join(format!("{uid}.{epoch}.{number}{PARTIAL}"))
    }

    /// Of a dump that is made here, and of its report.
    pub fn dump(&self, uid: &MigrationUid, epoch: Epoch) -> PathBuf {
        self.dir.join(DUMPS).join(format!("{uid}.{epoch}"))
    }

    /// CRIU's settings for our own dumps alone; those of /etc/criu are for everybody's.
    pub fn criu_config(&self) -> PathBuf {
        self.dir.join(CRIU_CONFIG)
    }

    /// Of an archive that is kept for a person.
    pub fn kept_archive(&self, uid: &MigrationUid, epoch: Epoch) -> PathBuf {
        self.dir.join(KEPT).join(format!("{uid}.{epoch}"))
    }

    /// The record of such an archive that says since when.
    pub fn kept_since(&self, archive: &Path) -> PathBuf {
        archive.join(KEPT_SINCE)
    }

    pub fn kept_archives(&self) -> Result<Vec<PathBuf>, StoreError> {
        Ok(self.names(KEPT)?.into_iter().map(|name| self.dir.join(KEPT).join(name)).collect())
    }

    pub fn boot(&self) -> PathBuf {
        self.dir.join(BOOT)
    }

    pub fn ticket(&self, id: &TicketId) -> PathBuf {
        self.dir.join(TICKETS).join(format!("{id}.json"))
    }

    pub fn epochs(&self, uid: &MigrationUid) -> PathBuf {
        self.dir.join(EPOCHS).join(format!("{uid}.json"))
    }

    pub fn tombstone(&self, uid: &MigrationUid) -> PathBuf {
        self.dir.join(CLOSED).join(format!("{uid}.json"))
    }

    pub fn tickets(&self) -> Result<Vec<TicketId>, StoreError> {
        let names = self.names(TICKETS)?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    pub fn fences(&self) -> Result<Vec<MigrationUid>, StoreError> {
        self.uids(EPOCHS)
    }

    pub fn tombstones(&self) -> Result<Vec<MigrationUid>, StoreError> {
        self.uids(CLOSED)
    }

    /// Verified archives.
    pub fn archives(&self) -> Result<Vec<(MigrationUid, Epoch)>, StoreError> {
        Ok(self.names(ARCHIVES)?.iter().filter_map(|name| numbered(name)).collect())
    }

    pub fn dumps(&self) -> Result<Vec<(MigrationUid, Epoch)>, StoreError> {
        Ok(self.names(DUMPS)?.iter().filter_map(|name| numbered(name)).collect())
    }

    /// Removes whatever was being written when the process ended.
    pub fn sweep_partial(&self) -> Result<(), StoreError> {
        for folder in [ARCHIVES, TICKETS, EPOCHS, CLOSED, DUMPS] {
            for name in self.names(folder)? {
                if name.ends_with(PARTIAL) || name.ends_with(NEW) {
                    remove(&self.dir.join(folder).join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Free bytes for the archives' file system.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::statvfs(&self.dir);
        let stat = stat.map_err(|e| StoreError { path: self.dir.clone(), source: e.into() })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn uids(&self, folder: &str) -> Result<Vec<MigrationUid>, StoreError> {
        let uids =
            self.names(folder)?.into_iter().filter_map(|name| Some(name.strip_suffix(".json")?.into()));
        Ok(uids.filter(MigrationUid::is_well_formed).collect())
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let path = self.dir.join(folder);
        let names = fs::read_dir(&path)
            .and_then(|entries| entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect());
        names.map_err(|source| StoreError { path, source })
    }
}

/// `<uid>.<epoch>` without a suffix.
fn numbered(name: &str) -> Option<(MigrationUid, Epoch)> {
    let (uid, epoch) = name.rsplit_once('.')?;
    let uid = MigrationUid::from(uid);
    uid.is_well_formed().then_some((uid, Epoch(epoch.parse().ok()?)))
}

/// Whether a record must outlive a power failure or only this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Process,
    Disk,
}

/// Writes a record as JSON.
pub fn write(path: &Path, record: &impl Serialize, durability: Durability) -> Result<(), StoreError> {
    let text = serde_json::to_vec(record)
        .map_err(|error| StoreError { path: path.to_owned(), source: error.into() })?;
    write_bytes(path, &text, durability)
}

fn write_bytes(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), StoreError> {
    let mut new = path.as_os_str().to_owned();
    new.push(NEW);
    let new = PathBuf::from(new);
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        if durability == Durability::Disk {
            file.sync_all()?;
        }
        fs::rename(&new, path)?;
        match path.parent() {
            Some(parent) if durability == Durability::Disk => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    })();
    written.map_err(|source| {
        let _ = fs::remove_file(&new); // half a record, on a disk that may be full
        StoreError { path: path.to_owned(), source }
    })
}

/// Reads a record; nothing if there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let at = |source| StoreError { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| at(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(error)),
    }
}

/// Reads a record of which a machine that lost its power may have left an empty or broken file: then there is none.
pub fn read_intact<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match read(path) {
        Err(error) if matches!(error.source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            tracing::warn!(%error, "a record that cannot be read is removed");
            remove(path).map(|()| None)
        }
        read => read,
    }
}

/// How often a folder is emptied in which something appears meanwhile. Whoever brings an archive to the disk writes one
/// file into it and renames it once, and then finds it gone.
const EMPTYINGS: usize = 4;

/// Removes a file or folder, also a folder that is still being written into; success if it is not there.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => remove_folder(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn remove_folder(path: &Path) -> io::Result<()> {
    for _ in 1..EMPTYINGS {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            done => return done,
        }
    }
    fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn archives_are_named_by_migration_and_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let uid = MigrationUid::from("0b5c-1");
        fs::create_dir(store.archive(&uid, Epoch(2))).unwrap();
        fs::create_dir(store.partial(&uid, Epoch(3), 0)).unwrap();
        assert_eq!(store.archives().unwrap(), [(uid.clone(), Epoch(2))]);
        store.sweep_partial().unwrap();
        assert!(!store.partial(&uid, Epoch(3), 0).exists() && store.archive(&uid, Epoch(2)).exists());
        assert!(store.archive(&uid, Epoch(2)).ends_with("archives/0b5c-1.2"));
    }

    #[test]
    fn records_are_read_back_and_only_root_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = store.tombstone(&"ab".into());
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &7_u32, Durability::Disk).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(7));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(store.tombstones().unwrap(), ["ab".into()]);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn a_record_that_cannot_be_written_leaves_nothing_and_the_old_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        // Renaming a file over a folder fails, as writing does where the disk is full.
        fs::create_dir(&path).unwrap();
        assert!(write(&path, &7_u32, Durability::Process).is_err());
        assert!(path.is_dir() && fs::read_dir(dir.path()).unwrap().count() == 1);
    }

    #[test]
    fn a_broken_record_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, "{").unwrap();
        assert!(read::<u32>(&path).unwrap_err().to_string().contains("x.json"));
    }

    #[test]
    fn what_a_power_failure_left_of_a_record_is_removed_where_it_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        for left in ["", "{", "\0\0\0"] {
            let path = dir.path().join("x.json");
            fs::write(&path, left).unwrap();
            assert_eq!(read_intact::<u32>(&path).unwrap(), None, "{left:?}");
            assert!(!path.exists());
        }
    }
}
