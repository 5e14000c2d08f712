//! Files that processes have open or mapped and whose name is gone. Reads `/proc`; whatever vanishes meanwhile is not there.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::sparse::BLOCK;

/// What the kernel puts behind the name of an open file that is gone.
const DELETED: &[u8] = b" (deleted)";
/// `statfs` of tmpfs: files in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// One of them, however often it is open.
#[derive(Debug)]
pub struct Deleted {
    /// By which it was opened, without the first slash.
    pub name: PathBuf,
    /// Where it can be reached.
    pub handle: PathBuf,
    pub file: Metadata,
}

/// Those of all these processes. Files that once had the same name are as many files.
pub fn deleted(pids: &[Pid]) -> Vec<Deleted> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for pid in pids {
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let folders = ["fd", "map_files"].map(|folder| fs::read_dir(process.join(folder)));
        let handles = folders.into_iter().flatten().flatten().flatten().map(|entry| entry.path());
        for handle in handles.chain([process.join("exe")]) {
            let Ok(link) = fs::read_link(&handle) else { continue };
            let link = link.as_os_str().as_bytes();
            let Some(name) = link.strip_prefix(b"/").and_then(|name| name.strip_suffix(DELETED)) else {
                continue;
            };
            let Ok(file) = fs::metadata(&handle) else { continue };
            if file.is_file() && seen.insert((file.dev(), file.ino())) {
                found.push(Deleted { name: OsStr::from_bytes(name).into(), handle, file });
            }
        }
    }
    found
}

/// That CRIU puts into its images for those which have no name at all any more. Files in memory count as memory.
pub fn bytes(deleted: &[Deleted]) -> u64 {
    let lost = deleted.iter().filter(|one| one.file.nlink() == 0 && !is_in_memory(&one.handle));
    lost.map(|one| one.file.len().min(one.file.blocks().saturating_mul(BLOCK))).sum()
}

fn is_in_memory(handle: &Path) -> bool {
    rustix::fs::statfs(handle).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// /tmp may be in memory.
    const ON_DISK: &str = "/var/tmp";

    fn mine(below: &Path) -> Vec<Deleted> {
        let mut found = deleted(&[rustix::process::getpid()]);
        found.retain(|one| Path::new("/").join(&one.name).starts_with(below));
        found
    }

    #[test]
    fn each_file_without_a_name_counts_once_by_what_it_occupies() {
        let dir = tempfile::tempdir_in(ON_DISK).unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("full"), vec![1; 300_000]).unwrap();
        File::create(at("sparse")).unwrap().set_len(200 << 30).unwrap();
        fs::write(at("linked"), vec![1; 300_000]).unwrap();
        fs::hard_link(at("linked"), at("other")).unwrap();
        let names = ["full", "sparse", "linked"];
        let open: Vec<_> = names.iter().chain(&["full"]).map(|name| File::open(at(name)).unwrap()).collect();
        assert_eq!(bytes(&mine(dir.path())), 0, "they have names");
        for name in names {
            fs::remove_file(at(name)).unwrap();
        }
        let found = mine(dir.path());
        assert_eq!(found.len(), 3, "one is open twice");
        assert!((300_000..310_000).contains(&bytes(&found)), "{found:?}");
        drop(open);
    }

    #[test]
    fn files_of_one_name_are_told_apart() {
        let dir = tempfile::tempdir_in(ON_DISK).unwrap();
        let path = dir.path().join("log");
        let open: Vec<_> = (0..2)
            .map(|_| {
                fs::write(&path, "x").unwrap();
                let open = File::open(&path).unwrap();
                fs::remove_file(&path).unwrap();
                open
            })
            .collect();
        assert_eq!(mine(dir.path()).len(), 2);
        drop(open);
    }
}
