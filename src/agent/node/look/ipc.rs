//! SysV objects of a pod's IPC namespace. `/proc/sysvipc` shows those of whoever opens it: a thread of its own goes there.

use std::fs;
use std::io;
use std::path::Path;

use rustix::thread::LinkNameSpaceType;

use super::namespace::inside;
use crate::api::FoundIpc;

/// Objects in the namespace.
pub fn objects(namespace: &Path) -> io::Result<FoundIpc> {
    inside(namespace, LinkNameSpaceType::InterProcessCommunication, || {
        let table = |name: &str| fs::read_to_string(format!("/proc/sysvipc/{name}"));
        Ok(count(&table("shm")?, &table("sem")?, &table("msg")?))
    })
}

/// A headline, then a line for each object.
fn count(shm: &str, sem: &str, msg: &str) -> FoundIpc {
    let objects = |table: &str| u32::try_from(table.lines().skip(1).count()).unwrap_or(u32::MAX);
    let bytes = |line: &str| line.split_whitespace().nth(3).and_then(|size| size.parse::<u64>().ok());
    FoundIpc {
        segments: objects(shm),
        segment_bytes: shm.lines().skip(1).filter_map(bytes).sum(),
        semaphores: objects(sem),
        queues: objects(msg),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_counted_with_their_bytes() {
        let shm = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n\
            \x20   1234567          0   600                    56    20    20      6   999   999   999   999\n\
            \x20         0          1   600               4194304    20    20      6   999   999   999   999\n";
        let sem = "       key      semid perms      nsems   uid   gid\n         7          0   600         17   999   999\n";
        let found = count(shm, sem, "       key      msqid perms\n");
        assert_eq!(found, FoundIpc { segments: 2, segment_bytes: 4_194_360, semaphores: 1, queues: 0 });
        assert_eq!(count("", "", ""), FoundIpc::default());
    }
}
