//! The namespaces of the new pod's sandbox: which addresses it has, whether anybody lives in it, and what a restore that
//! failed has left there. Enters them with a thread of its own.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::criu::of_namespace;

/// A sandbox's own process, which does nothing.
const PAUSE: usize = 1;
/// Segments that nobody has attached go away by themselves, and at once when this is set.
const ORPHANS: &str = "/proc/sys/kernel/shm_rmid_forced";

/// Addresses of a network namespace, without loopback.
pub fn addresses(network: &Path) -> io::Result<Vec<IpAddr>> {
    within(network, LinkNameSpaceType::Network, || {
        let fib_trie = fs::read_to_string("/proc/thread-self/net/fib_trie")?;
        // Not there in a kernel without IPv6.
        let if_inet6 = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
        Ok(of_namespace(&fib_trie, &if_inet6))
    })
}

/// True if nobody but the sandbox's own process lives in this IPC namespace, and it is not the node's.
pub fn is_empty(ipc: &Path) -> bool {
    let (Ok(wanted), Ok(own)) = (fs::metadata(ipc), fs::metadata("/proc/self/ns/ipc")) else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let id = |metadata: &fs::Metadata| {
        use std::os::unix::fs::MetadataExt as _;
        (metadata.dev(), metadata.ino())
    };
    let inside = processes
        .flatten()
        .filter(|process| process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|process| fs::metadata(process.path().join("ns/ipc")).ok())
        .filter(|namespace| id(namespace) == id(&wanted));
    id(&wanted) != id(&own) && inside.count() <= PAUSE
}

/// Removes System V shared memory, semaphores and queues from an IPC namespace in which nobody lives: CRIU makes those of
/// the source, and cannot where they are. Best effort: what is left, CRIU names.
pub fn clear_ipc(ipc: &Path) {
    let _ = within(ipc, LinkNameSpaceType::InterProcessCommunication, || {
        if !ids("shm")?.is_empty() {
            let before = fs::read_to_string(ORPHANS)?;
            fs::write(ORPHANS, "1")?;
            fs::write(ORPHANS, before.trim())?;
        }
        for (kind, option) in [("sem", "-s"), ("msg", "-q")] {
            for id in ids(kind)? {
                // Started by this thread, so in its namespace.
                let quiet = || Stdio::null();
                Command::new("ipcrm")
                    .args([option, &id])
                    .stdin(quiet())
                    .stdout(quiet())
                    .stderr(quiet())
                    .status()?;
            }
        }
        Ok(())
    });
}

/// Numbers of the objects of one kind in the thread's namespace.
fn ids(kind: &str) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/sysvipc/{kind}"))?;
    let lines = text.lines().skip(1);
    Ok(lines.filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect())
}

/// Does something in a namespace. The thread ends with it: nothing else is ever in there.
fn within<T: Send>(
    namespace: &Path,
    kind: LinkNameSpaceType,
    deed: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let file = File::open(namespace)?;
            move_into_link_name_space(file.as_fd(), Some(kind))?;
            deed()
        });
        inside.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_namespace_is_never_empty_nor_is_one_that_is_not_there() {
        assert!(!is_empty(Path::new("/proc/self/ns/ipc")));
        assert!(!is_empty(Path::new("/proc/self/ns/no-such")));
    }

    #[test]
    fn a_new_network_namespace_has_no_addresses_and_our_own_is_not_left() {
        let before = fs::read_link("/proc/thread-self/ns/net").unwrap();
        // Without the right to enter it there is nothing to see.
        let _ = addresses(Path::new("/proc/self/ns/net"));
        assert!(addresses(Path::new("/proc/self/ns/no-such")).is_err());
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
    }
}
