//! Who is at the other end of each unix socket: only the kernel's `unix_diag` tells. Asked over netlink inside the
//! container's network namespace.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use rustix::thread::LinkNameSpaceType;

use super::namespace::inside;

/// For one answer of the kernel.
const LIMIT: Duration = Duration::from_millis(200);
/// Of one answer; the kernel gives as much as there is room for.
const ANSWER: usize = 64 << 10;
/// Answers that are read at most: some hundred thousand sockets.
const ANSWERS: usize = 512;

/// Inodes of connected unix sockets of that namespace and of their peers.
pub fn peers(namespace: &Path) -> io::Result<Vec<(u64, u64)>> {
    inside(namespace, LinkNameSpaceType::Network, || {
        let kernel = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        set_socket_timeout(&kernel, Timeout::Recv, Some(LIMIT))?;
        send(&kernel, &question(), SendFlags::empty())?;
        let mut found = Vec::new();
        let mut answer = vec![0; ANSWER];
        for _ in 0..ANSWERS {
            let (length, _) = recv(&kernel, answer.as_mut_slice(), RecvFlags::empty())?;
            if !read(&answer[..length], &mut found)? {
                break;
            }
        }
        Ok(found)
    })
}

const REQUEST: u16 = 20; // SOCK_DIAG_BY_FAMILY
const DUMP: u16 = 0x301; // NLM_F_REQUEST | NLM_F_DUMP
const DONE: u16 = 3;
const ERROR: u16 = 2;
const FAMILY: u8 = 1; // AF_UNIX
const SHOW_PEER: u32 = 4; // UDIAG_SHOW_PEER
const PEER: u16 = 2; // UNIX_DIAG_PEER
/// `nlmsghdr`, `unix_diag_msg` and a header of an attribute.
const HEADER: usize = 16;
const MESSAGE: usize = 16;
const ATTRIBUTE: usize = 4;

/// `nlmsghdr`, then `unix_diag_req`: all states, with peers.
fn question() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend(40_u32.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]); // sequence, port
    bytes.extend([FAMILY, 0, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes()); // states
    bytes.extend(0_u32.to_ne_bytes()); // inode
    bytes.extend(SHOW_PEER.to_ne_bytes());
    bytes.extend([0; 8]); // cookie
    bytes
}

/// Adds what an answer tells; whether more is to come.
fn read(mut answer: &[u8], found: &mut Vec<(u64, u64)>) -> io::Result<bool> {
    while answer.len() >= HEADER {
        let length = word(answer, 0).map_or(0, |length| length as usize);
        let Some(message) = answer.get(..length).filter(|message| message.len() >= HEADER) else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        match half(message, 4) {
            Some(DONE) => return Ok(false),
            Some(ERROR) => {
                let code = word(message, HEADER).map_or(0, |code| i32::from_ne_bytes(code.to_ne_bytes()));
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => found.extend(connected(message)),
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn connected(message: &[u8]) -> Option<(u64, u64)> {
    let own = word(message, HEADER + 4)?;
    let mut attributes = message.get(HEADER + MESSAGE..)?;
    while attributes.len() >= ATTRIBUTE {
        let length = usize::from(half(attributes, 0)?);
        if half(attributes, 2)? == PEER {
            return Some((own.into(), word(attributes, ATTRIBUTE)?.into()));
        }
        attributes = attributes.get(length.max(ATTRIBUTE).next_multiple_of(4)..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn socket(inode: u32, attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut body = vec![FAMILY, 1, 1, 0];
        body.extend(inode.to_ne_bytes());
        body.extend([0; 8]);
        for (kind, value) in attributes {
            body.extend(8_u16.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value.to_ne_bytes());
        }
        message(REQUEST, &body)
    }

    #[test]
    fn peers_are_read_from_an_answer() {
        let mut found = Vec::new();
        let answer = [socket(7, &[(6, 9), (PEER, 8)]), socket(9, &[]), socket(8, &[(PEER, 7)])].concat();
        assert!(read(&answer, &mut found).unwrap());
        assert_eq!(found, [(7, 8), (8, 7)]);
        assert!(!read(&message(DONE, &[0; 4]), &mut found).unwrap());
        let refused = message(ERROR, &(-13_i32).to_ne_bytes());
        assert_eq!(read(&refused, &mut found).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn whatever_bytes_come_it_ends() {
        let mut found = Vec::new();
        for answer in [vec![0; 40], vec![255; 40], socket(7, &[(PEER, 8)])[..30].to_vec(), vec![]] {
            let _ = read(&answer, &mut found);
        }
        let mut zero_length = socket(7, &[(1, 2)]);
        let at = HEADER + MESSAGE;
        zero_length[at..at + 2].fill(0);
        assert!(read(&zero_length, &mut found).unwrap());
        assert_eq!(found, []);
    }
}
