//! Unix sockets whose other end is not dumped: of somebody who came in by exec, or outside of the container. Reads only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use super::descriptors::Link;
use super::kept::Kept;
use super::proc::Proc;
use super::process::Process;
use crate::api::{FoundSocket, ProcessName, SocketKind};

/// Open files of one process that are looked at.
const DESCRIPTORS: usize = 65_536;

/// Keeps those that lead out of the container. Gives the visitors that `own` ones lead to, by the PID of who came in.
/// `members` are the container's processes, asked for again: a peer may have come since its other end was seen.
pub fn strangers(
    proc: &Proc,
    init: u32,
    own: &BTreeMap<u64, ProcessName>,
    visitors: &[Process],
    members: impl Fn() -> Vec<u32>,
    kept: &mut Kept,
) -> BTreeSet<u32> {
    let mut connected = BTreeSet::new();
    let suspects = match suspects(proc, init, own) {
        Ok(suspects) => suspects,
        Err(error) => {
            kept.left_out(format!("peers of unix sockets: {error}"));
            return connected;
        }
    };
    if suspects.is_empty() {
        return connected;
    }
    let theirs = held(proc, visitors.iter().map(|one| one.pid));
    let now = held(proc, members().into_iter());
    let parents: HashMap<u32, u32> = visitors.iter().map(|one| (one.pid, one.parent)).collect();
    for (owner, peer) in suspects {
        if let Some(pid) = theirs.get(&peer) {
            connected.insert(root(*pid, &parents));
        } else if !now.contains_key(&peer) {
            kept.socket(FoundSocket {
                kind: SocketKind::UnixToOutside,
                protocol: "UNIX".to_owned(),
                local: None,
                peer: None,
                listens: false,
                owner: owner.clone(),
            });
        }
    }
    connected
}

/// Owners of sockets whose peer was not seen, with that peer's inode.
fn suspects<'a>(
    proc: &Proc,
    init: u32,
    own: &'a BTreeMap<u64, ProcessName>,
) -> io::Result<Vec<(&'a ProcessName, u64)>> {
    if own.is_empty() {
        return Ok(Vec::new());
    }
    let suspect = |(inode, peer): (u64, u64)| {
        let owner = own.get(&inode)?;
        // One that nobody has accepted yet has no inode.
        (peer != 0 && !own.contains_key(&peer)).then_some((owner, peer))
    };
    Ok(proc.peers(init)?.into_iter().filter_map(suspect).collect())
}

/// Inodes of the sockets that these processes have, with the process.
fn held(proc: &Proc, pids: impl Iterator<Item = u32>) -> HashMap<u64, u32> {
    let mut found = HashMap::new();
    for pid in pids {
        let (numbers, _) = proc.descriptors(pid, DESCRIPTORS).unwrap_or_default();
        for number in numbers {
            if let Ok(link) = proc.link(pid, &format!("fd/{number}"))
                && let Link::Socket(inode) = Link::of(&link)
            {
                found.insert(inode, pid);
            }
        }
    }
    found
}

/// Who came in is told, not what he started.
fn root(pid: u32, parents: &HashMap<u32, u32>) -> u32 {
    let mut root = pid;
    for _ in 0..parents.len() {
        match parents.get(&root).filter(|parent| parents.contains_key(parent)) {
            Some(parent) => root = *parent,
            None => break,
        }
    }
    root
}
