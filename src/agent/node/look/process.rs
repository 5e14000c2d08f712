//! What `status` and `stat` say of a process, and which processes of a container came from outside. Pure but for
//! [`read`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::proc::Proc;
use crate::api::{FoundMemory, ProcessName};

/// Of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// As the node sees it.
    pub pid: u32,
    /// As the container sees it.
    pub name: ProcessName,
    pub parent: u32,
    pub tracer: u32,
    pub threads: u32,
    /// It has ended, and its parent has not asked how.
    pub is_zombie: bool,
    pub has_terminal: bool,
    pub memory: FoundMemory,
}

/// Nothing for one that is gone.
pub fn read(proc: &Proc, pid: u32) -> io::Result<Option<Process>> {
    match (proc.text(pid, "status"), proc.text(pid, "stat")) {
        (Ok(status), Ok(stat)) => Ok(Some(parse(pid, &status, &stat))),
        (Err(error), _) | (_, Err(error)) if is_gone(&error) => Ok(None),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// A process may end at any moment.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn parse(pid: u32, status: &str, stat: &str) -> Process {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let number = |name: &str| field(name).and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    let bytes = |name: &str| {
        let kib = field(name).and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or_default() << 10
    };
    let inner = field("NSpid").and_then(|pids| pids.split_whitespace().next_back()?.parse().ok());
    // The name in parentheses may hold anything; after it come state, parent, group, session and terminal.
    let mut after = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let state = after.next().unwrap_or_default();
    let terminal = after.nth(3).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    Process {
        pid,
        name: ProcessName {
            pid: inner.unwrap_or(pid),
            name: field("Name").unwrap_or_default().chars().take(16).collect(),
        },
        parent: number("PPid"),
        tracer: number("TracerPid"),
        threads: number("Threads"),
        is_zombie: matches!(state, "Z" | "X"),
        has_terminal: terminal != 0,
        memory: FoundMemory {
            anonymous: bytes("RssAnon"),
            shared: bytes("RssShmem"),
            swapped: bytes("VmSwap"),
            huge: bytes("HugetlbPages"),
            locked: bytes("VmLck"),
        },
    }
}

/// The processes that CRIU dumps, those below `init`, and the others.
pub fn family(init: u32, all: Vec<Process>) -> (Vec<Process>, Vec<Process>) {
    let parents: BTreeMap<u32, u32> = all.iter().map(|one| (one.pid, one.parent)).collect();
    let mut within = BTreeSet::from([init]);
    for one in &all {
        // Up to somebody who is known, or out of the container. No circle is longer than the table.
        let mut way = vec![one.pid];
        while let Some(&last) = way.last()
            && !within.contains(&last)
            && way.len() <= all.len()
        {
            match parents.get(&last) {
                Some(parent) => way.push(*parent),
                None => break,
            }
        }
        if way.last().is_some_and(|last| within.contains(last)) {
            within.extend(way);
        }
    }
    all.into_iter().partition(|one| within.contains(&one.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tpostgres\nUmask:\t0077\nState:\tS (sleeping)\nTgid:\t4100\nNgid:\t0\nPid:\t4100\nPPid:\t4077\n\
        TracerPid:\t0\nUid:\t999\t999\t999\t999\nFDSize:\t64\nNStgid:\t4100\t31\nNSpid:\t4100\t31\nVmPeak:\t  220000 kB\n\
        VmLck:\t       4 kB\nVmRSS:\t   20000 kB\nRssAnon:\t    1024 kB\nRssFile:\t   10000 kB\nRssShmem:\t    2048 kB\n\
        VmSwap:\t      12 kB\nHugetlbPages:\t    2048 kB\nThreads:\t3\nSeccomp:\t2\n";
    const STAT: &str = "4100 (post) gres)) S 4077 4100 4100 34816 -1 4194560 1 0 0 0 1 1 0 0 20 0 3 0 9 9 9";

    #[test]
    fn a_process_is_told_as_its_container_sees_it() {
        let found = parse(4100, STATUS, STAT);
        assert_eq!(found.name, ProcessName { pid: 31, name: "postgres".into() });
        assert_eq!((found.parent, found.tracer, found.threads), (4077, 0, 3));
        assert!(found.has_terminal && !found.is_zombie);
        let memory = FoundMemory {
            anonymous: 1 << 20,
            shared: 2 << 20,
            swapped: 12 << 10,
            huge: 2 << 20,
            locked: 4 << 10,
        };
        assert_eq!(found.memory, memory);
        assert!(parse(7, "Name:\tx\n", "7 (x) Z 1 1 1 0 -1").is_zombie);
        assert!(!parse(7, "", "").has_terminal, "what is not there is nothing");
    }

    #[test]
    fn who_descends_from_init_is_dumped_whatever_the_order() {
        let of = |pid, parent| Process { pid, parent, ..Process::default() };
        // 20 and its child 21 came by exec; 9 is outside the container.
        let all = vec![of(12, 11), of(10, 9), of(20, 8), of(11, 10), of(21, 20)];
        let (within, others) = family(10, all);
        let pids = |list: &[Process]| list.iter().map(|one| one.pid).collect::<Vec<_>>();
        assert_eq!((pids(&within), pids(&others)), (vec![12, 10, 11], vec![20, 21]));
        let (_, others) = family(10, vec![of(10, 9), of(5, 6), of(6, 5)]);
        assert_eq!(pids(&others), [5, 6], "a circle ends");
    }

    #[test]
    fn who_is_gone_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&Proc::at(dir.path(), |_| None, |_| Ok(vec![])), 7).unwrap(), None);
        assert!(read(&Proc::real(), std::process::id()).unwrap().is_some());
    }
}
