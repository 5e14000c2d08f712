//! Reads what [`super::verify`] compares: tasks from `/proc`, cgroups, mount tables, the node's own namespaces. And kills what
//! must not live. Does I/O, on the node itself.
//!
//! Guarantees: what cannot be read is an error and never passed over, but for tasks that are gone; nothing is believed that
//! the restored processes could have written; waiting for them to stand still ends by its deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;

use super::granted::{Inside, covered, grants};
use super::mounts;
use super::spec::Spec;
use super::{Findings, KINDS, Kind, Task};

/// CRIU sends SIGSTOP before it lets go of a task; the task stops before its next instruction, but not before CRIU has ended.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_micros(500);

/// What is to be compared cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("process {0} does not stand still: is CRIU's setting leave-stopped in force?")]
    Moves(u32),
}

/// A container as runc has put it on record.
#[derive(Debug)]
pub struct Restored {
    init: u32,
    cgroups: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct State {
    init_process_pid: u32,
    #[serde(default)]
    cgroup_paths: BTreeMap<String, PathBuf>,
}

impl Restored {
    /// Below the folder that runc was given as `--root`.
    pub fn on_record(runc_root: &Path, id: &OsStr) -> Result<Self, LookError> {
        let path = runc_root.join(id).join("state.json");
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let state: State = serde_json::from_str(&text).map_err(|error| at(&path)(error.into()))?;
        let cgroups = state.cgroup_paths.into_values().filter(|path| path.is_dir()).collect::<BTreeSet<_>>();
        Ok(Self { init: state.init_process_pid, cgroups: cgroups.into_iter().collect() })
    }

    /// All its processes, the first one first: its descendants, and what else is in its cgroups.
    fn processes(&self) -> Result<Vec<u32>, LookError> {
        let (mut found, mut waiting) = (Vec::new(), VecDeque::from([self.init]));
        for cgroup in &self.cgroups {
            waiting.extend(below(cgroup)?);
        }
        let mut seen = BTreeSet::new();
        while let Some(pid) = waiting.pop_front() {
            if seen.insert(pid) {
                found.push(pid);
                for thread in threads(pid)? {
                    let path = PathBuf::from(format!("/proc/{pid}/task/{thread}/children"));
                    let children = there(fs::read_to_string(&path)).map_err(at(&path))?.unwrap_or_default();
                    waiting.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
                }
            }
        }
        Ok(found)
    }

    /// Waits until every task stands still; gives them with the text of their status. Those that have ended are left out.
    fn stopped(&self) -> Result<Vec<(u32, u32, String)>, LookError> {
        let until = Instant::now() + STOP_PATIENCE;
        loop {
            let (mut tasks, mut moving) = (Vec::new(), None);
            for pid in self.processes()? {
                for tid in threads(pid)? {
                    let path = PathBuf::from(format!("/proc/{pid}/task/{tid}/status"));
                    let Some(status) = there(fs::read_to_string(&path)).map_err(at(&path))? else { continue };
                    match value(&status, "State").chars().next() {
                        Some('Z' | 'X') => {}
                        Some('T') => tasks.push((pid, tid, status)),
                        _ => moving = Some(tid),
                    }
                }
            }
            match moving {
                None => return Ok(tasks),
                Some(tid) if Instant::now() >= until => return Err(LookError::Moves(tid)),
                Some(_) => thread::sleep(LOOK),
            }
        }
    }

    /// Everything that is to be compared with `spec`, whose bundle lies at `bundle`.
    pub fn look(&self, bundle: &Path, spec: &Spec) -> Result<Findings, LookError> {
        let stopped = self.stopped()?;
        let members: Vec<(&PathBuf, BTreeSet<u32>)> = self
            .cgroups
            .iter()
            .map(|cgroup| Ok((cgroup, below(cgroup)?)))
            .collect::<Result<_, LookError>>()?;
        let mut tasks = Vec::new();
        let mut tables = BTreeMap::new();
        for (pid, tid, status) in stopped {
            let dir = PathBuf::from(format!("/proc/{pid}/task/{tid}"));
            let namespaces = namespaces(&dir)?;
            if let Some(mnt) = namespaces.get("mnt")
                && !tables.contains_key(mnt)
            {
                let path = dir.join("mountinfo");
                tables.insert(*mnt, mounts::parse(&fs::read_to_string(&path).map_err(at(&path))?));
            }
            let outside = members.iter().find(|(_, pids)| !pids.contains(&pid));
            let outside_of = outside.map(|(cgroup, _)| cgroup.display().to_string());
            tasks.push(Task { namespaces, outside_of, label: label(&dir, spec), ..task(pid, tid, &status) });
        }
        let own =
            mounts::parse(&fs::read_to_string("/proc/self/mountinfo").map_err(at("/proc/self/mountinfo"))?);
        let root = PathBuf::from(format!("/proc/{}/root", self.init));
        let inside = Inside::open(&root).map_err(at(&root))?;
        let own_table = tasks.first().and_then(|task| tables.get(task.namespaces.get("mnt")?));
        Ok(Findings {
            grants: grants(spec, bundle, &own, &inside, own_table.map_or(&[], Vec::as_slice)),
            covered: covered(spec, &inside),
            tasks,
            node: namespaces(Path::new("/proc/self"))?,
            named: named(spec)?,
            node_devices: own.into_iter().map(|mount| mount.device).collect(),
            mounts: tables.into_values().collect(),
        })
    }

    /// Kills every process, also one that has left the cgroups. They stand still, and die without another instruction.
    pub fn kill(&self) {
        let processes = self.processes().unwrap_or_else(|_| vec![self.init]);
        for pid in processes.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
    }
}

fn at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> LookError {
    let path = path.as_ref().to_owned();
    move |source| LookError::Io { path, source }
}

/// Nothing of a task, cgroup or file that is gone.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if is(&error, Errno::SRCH) || is(&error, Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn threads(pid: u32) -> Result<Vec<u32>, LookError> {
    let path = PathBuf::from(format!("/proc/{pid}/task"));
    let Some(entries) = there(fs::read_dir(&path)).map_err(at(&path))? else { return Ok(Vec::new()) };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Processes of a cgroup and of those below it.
fn below(cgroup: &Path) -> Result<BTreeSet<u32>, LookError> {
    let (mut pids, mut folders) = (BTreeSet::new(), vec![cgroup.to_owned()]);
    while let Some(folder) = folders.pop() {
        let path = folder.join("cgroup.procs");
        match there(fs::read_to_string(&path)) {
            Ok(text) => {
                pids.extend(text.unwrap_or_default().lines().filter_map(|pid| pid.parse::<u32>().ok()));
            }
            Err(error) if is(&error, Errno::OPNOTSUPP) => {} // threaded: listed further up
            Err(error) => return Err(at(&path)(error)),
        }
        let entries = there(fs::read_dir(&folder)).map_err(at(&folder))?;
        let folders_below = entries.into_iter().flatten().flatten();
        folders.extend(folders_below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    Ok(pids)
}

/// The value of a line of a status file.
fn value<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

fn task(pid: u32, tid: u32, status: &str) -> Task {
    let numbers = |name| value(status, name).split_whitespace().filter_map(|id| id.parse().ok()).collect();
    // What cannot be read counts as everything.
    let set = |name| u64::from_str_radix(value(status, name), 16).unwrap_or(u64::MAX);
    Task {
        pid,
        tid,
        name: value(status, "Name").to_owned(),
        uids: numbers("Uid"),
        gids: numbers("Gid"),
        groups: numbers("Groups"),
        inheritable: set("CapInh"),
        permitted: set("CapPrm"),
        effective: set("CapEff"),
        bounding: set("CapBnd"),
        ambient: set("CapAmb"),
        no_new_privileges: value(status, "NoNewPrivs") == "1",
        seccomp: value(status, "Seccomp").parse().unwrap_or_default(),
        filters: value(status, "Seccomp_filters").parse().ok(),
        ..Task::default()
    }
}

/// The label of the security module that the spec asks for.
fn label(task: &Path, spec: &Spec) -> Option<String> {
    let read = |name: &str| fs::read_to_string(task.join("attr").join(name)).ok();
    let of_apparmor = spec.apparmor.is_some().then(|| read("apparmor/current")).flatten();
    let text = of_apparmor.or_else(|| read("current"))?;
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}

/// Inode numbers of a task's namespaces.
fn namespaces(task: &Path) -> Result<BTreeMap<Kind, u64>, LookError> {
    let mut found = BTreeMap::new();
    for kind in KINDS {
        let path = task.join("ns").join(kind);
        if let Some(namespace) = there(fs::metadata(&path)).map_err(at(&path))? {
            found.insert(kind, namespace.ino());
        }
    }
    Ok(found)
}

fn named(spec: &Spec) -> Result<BTreeMap<Kind, u64>, LookError> {
    let paths = spec.namespaces.iter().filter_map(|(kind, path)| Some((*kind, path.as_ref()?)));
    paths.map(|(kind, path)| Ok((kind, fs::metadata(path).map_err(at(path))?.ino()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file_is_read_field_by_field_and_what_is_missing_counts_as_everything() {
        let status = "Name:\tredis server\nState:\tT (stopped)\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t5 9 \n\
            NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\n\
            CapEff:\t0000000000000001\nCapBnd:\t00000000a80425fb\n";
        let task = task(7, 8, status);
        assert_eq!((task.pid, task.tid, task.name.as_str()), (7, 8, "redis server"));
        assert_eq!((task.uids, task.gids, task.groups), (vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![5, 9]));
        assert_eq!((task.inheritable, task.permitted, task.effective), (0, 0xa804_25fb, 1));
        assert_eq!((task.bounding, task.ambient), (0xa804_25fb, u64::MAX));
        assert_eq!((task.no_new_privileges, task.seccomp, task.filters), (true, 2, Some(3)));
    }

    #[test]
    fn our_own_namespaces_are_found() {
        let ours = namespaces(Path::new("/proc/self")).unwrap();
        assert!(ours.contains_key("mnt") && ours.contains_key("net"));
        assert_eq!(ours["net"], fs::metadata("/proc/self/ns/net").unwrap().ino());
    }
}
