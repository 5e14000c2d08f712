//! `/proc` of the node's processes, read and nothing else. A file that is too long is read to a limit.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::unix;

/// Of one file.
const TEXT_LIMIT: u64 = 4 << 20;

/// Where `/proc` is, and how a socket tells its protocol.
#[derive(Clone)]
pub struct Proc {
    root: PathBuf,
    protocol: fn(&Path) -> Option<String>,
    peers: Peers,
}

/// Unix sockets of a network namespace, with their peers.
type Peers = fn(&Path) -> io::Result<Vec<(u64, u64)>>;

impl Proc {
    /// This machine's.
    pub fn real() -> Self {
        Self { root: PathBuf::from("/proc"), protocol, peers: unix::peers }
    }

    /// A folder that looks like it. For tests.
    #[cfg(test)]
    pub fn at(root: &Path, protocol: fn(&Path) -> Option<String>, peers: Peers) -> Self {
        Self { root: root.to_owned(), protocol, peers }
    }

    pub fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }

    pub fn text(&self, pid: u32, file: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.path(pid, file))?.take(TEXT_LIMIT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn link(&self, pid: u32, file: &str) -> io::Result<String> {
        Ok(fs::read_link(self.path(pid, file))?.to_string_lossy().into_owned())
    }

    /// Numbers of its open files, up to a limit; whether that is all.
    pub fn descriptors(&self, pid: u32, limit: usize) -> io::Result<(Vec<u32>, bool)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path(pid, "fd"))? {
            if found.len() == limit {
                return Ok((found, false));
            }
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok((found, true))
    }

    /// Inodes of connected unix sockets that the process's network has, and of their peers.
    pub fn peers(&self, pid: u32) -> io::Result<Vec<(u64, u64)>> {
        (self.peers)(&self.path(pid, "ns/net"))
    }

    /// The kernel's name for the protocol of a socket.
    pub fn protocol(&self, pid: u32, descriptor: u32) -> Option<String> {
        (self.protocol)(&self.path(pid, &format!("fd/{descriptor}")))
    }
}

/// By the attribute that the kernel gives every socket: `MPTCPv6`, `TCP`, `UNIX-STREAM`.
fn protocol(path: &Path) -> Option<String> {
    let mut name = [0; 64];
    let length = rustix::fs::getxattr(path, "system.sockprotoname", &mut name[..]).ok()?;
    let name = name.get(..length)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_socket_tells_its_protocol_and_its_place_in_the_tables() {
        let (proc, own) = (Proc::real(), std::process::id());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let descriptor = u32::try_from(listener.as_raw_fd()).unwrap();
        assert_eq!(proc.protocol(own, descriptor).as_deref(), Some("TCP"));
        let file = File::open("/dev/null").unwrap();
        assert_eq!(proc.protocol(own, u32::try_from(file.as_raw_fd()).unwrap()), None);
        assert!(proc.descriptors(own, 4096).unwrap().0.contains(&descriptor));
        assert!(!proc.descriptors(own, 1).unwrap().1, "there are more");
    }
}
