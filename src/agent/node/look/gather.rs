//! Puts together what `/proc`, the bundle and the sandbox say of one container. Reads only: no process is stopped, traced
//! or entered. Blocking; ends a little after its deadline, and says what it had no time or no right to look at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::descriptors::{self, Link};
use super::kept::Kept;
use super::mounts::{self, Config};
use super::proc::Proc;
use super::process::{self, Process};
use super::strangers::strangers;
use super::{ipc, sockets};
use crate::api::{
    DescriptorKind, Entangled, Findings, FoundDescriptor, FoundMount, FoundSocket, MountKind, ProcessName,
    SocketKind, Tie, Visitor,
};
use crate::criu::of_namespace;

/// Processes that are looked at.
const PROCESSES: usize = 1024;
/// Open files of all processes that are looked at.
const DESCRIPTORS: usize = 65_536;
/// Open files between looks at the clock.
const PER_CLOCK: usize = 128;
/// Names of files in /dev/shm that are told.
const SHM_NAMES: usize = 8;
/// Namespaces that CRIU dumps of the first process only.
const NAMESPACES: [&str; 5] = ["pid", "ipc", "uts", "user", "time"];
const BLOCK: u64 = 512;
/// For counting files, of which there may be many: whoever waits for a look waits for that.
const COUNTING: Duration = Duration::from_millis(300);

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All.
    Full,
    /// What may stand against a dump, and nothing that takes long: everybody stands still meanwhile.
    Obstacles,
}

/// What a look is about, all paths as we reach them.
pub struct Scene {
    /// First process of the container, as the node sees it.
    pub init: u32,
    /// All processes of its cgroup, now.
    pub members: Box<dyn Fn() -> Vec<u32> + Send>,
    /// UID of the pod.
    pub pod: String,
    pub config: Config,
    /// The container's changed files.
    pub upper: Option<PathBuf>,
    /// From a path on the node to how we reach it.
    pub reach: Box<dyn Fn(&std::path::Path) -> PathBuf + Send>,
}

/// What is known of the container as a whole while its processes are looked at.
#[derive(Default)]
struct Known {
    rows: HashMap<u64, sockets::Row>,
    /// Mounts of the first process.
    mounts: HashSet<u32>,
    namespaces: BTreeMap<&'static str, String>,
    mount_namespace: Option<String>,
    overlay: Option<u32>,
}

pub fn gather(proc: &Proc, scene: &Scene, depth: Depth, deadline: Instant) -> Findings {
    let mut kept = Kept::default();
    let (within, visitors) = processes(proc, scene, &mut kept);
    let lines = match proc.text(scene.init, "mountinfo") {
        Ok(text) => mounts::lines(&text),
        Err(error) => {
            kept.left_out(format!("mounts: {error}"));
            Vec::new()
        }
    };
    let known = known(proc, scene.init, &lines);
    let mut look = Look {
        proc,
        known: &known,
        kept: &mut kept,
        left: DESCRIPTORS,
        seen: BTreeSet::new(),
        unix: BTreeMap::new(),
        deadline,
    };
    look.all(&within);
    let own = std::mem::take(&mut look.unix);
    // Where not all was seen, what was not seen is no stranger.
    let own = if kept.findings.left_out.is_empty() { own } else { BTreeMap::new() };
    let connected = strangers(proc, scene.init, &own, &visitors, &scene.members, &mut kept);
    for one in visitors.iter().filter(|one| !visitors.iter().any(|other| other.pid == one.parent)) {
        let connected = connected.contains(&one.pid);
        kept.visitor(Visitor { process: one.name.clone(), terminal: one.has_terminal, connected });
    }
    kept.findings.selinux_label = scene.config.selinux_label().map(str::to_owned);
    kept.findings.user_namespace = scene.config.has_user_namespace();
    // A kernel without IPv6 has no such table.
    let table = |name: &str| proc.text(scene.init, name).unwrap_or_default();
    kept.findings.addresses = of_namespace(&table("net/fib_trie"), &table("net/if_inet6"));
    let counting = deadline.min(Instant::now() + COUNTING);
    for mount in &scene.config.mounts {
        let Some(kind) = mounts::kind(mount, &scene.pod) else { continue };
        let wanted = depth == Depth::Full && kind == MountKind::ImageVolume;
        let content = if wanted { kept.tree(&(scene.reach)(&mount.source), 0, counting) } else { None };
        let destination = mount.destination.display().to_string();
        kept.mount(FoundMount { kind, destination, fs_type: mount.fs_type.clone(), content });
    }
    for line in mounts::made_within(&lines, &scene.config) {
        let (destination, fs_type) = (line.at.clone(), line.fs_type.clone());
        kept.mount(FoundMount { kind: MountKind::MadeWithin, destination, fs_type, content: None });
    }
    match ipc::objects(&proc.path(scene.init, "ns/ipc")) {
        Ok(found) => kept.findings.ipc = found,
        Err(error) if depth == Depth::Full => kept.left_out(format!("SysV objects: {error}")),
        Err(_) => {} // CRIU has the last word
    }
    if depth == Depth::Full {
        let shm = scene.config.mounts.iter().find(|mount| mount.destination.ends_with("dev/shm"));
        if let Some(mount) = shm.filter(|mount| mount.source.is_absolute()) {
            kept.findings.shm =
                kept.tree(&(scene.reach)(&mount.source), SHM_NAMES, counting).unwrap_or_default();
        }
        kept.findings.layer = scene.upper.as_ref().and_then(|upper| kept.tree(upper, 0, counting));
    }
    kept.finish()
}

/// Those that are dumped, and those that came from outside.
fn processes(proc: &Proc, scene: &Scene, kept: &mut Kept) -> (Vec<Process>, Vec<Process>) {
    let pids: BTreeSet<u32> = (scene.members)().into_iter().chain([scene.init]).collect();
    if pids.len() > PROCESSES {
        kept.left_out(format!("{} of {} processes", pids.len() - PROCESSES, pids.len()));
    }
    // The first one whatever its number.
    let others = pids.into_iter().filter(|pid| *pid != scene.init);
    let mut all = Vec::new();
    for pid in [scene.init].into_iter().chain(others).take(PROCESSES) {
        match process::read(proc, pid) {
            Ok(found) => all.extend(found),
            Err(error) => kept.left_out(format!("a process: {error}")),
        }
    }
    let (within, visitors) = process::family(scene.init, all);
    for one in &within {
        kept.count(one);
    }
    (within, visitors)
}

fn known(proc: &Proc, init: u32, lines: &[mounts::Line]) -> Known {
    let mut known = Known {
        mounts: lines.iter().map(|line| line.id).collect(),
        overlay: mounts::overlay_without_handles(lines),
        mount_namespace: proc.link(init, "ns/mnt").ok(),
        ..Known::default()
    };
    // A kernel without IPv6 or UDP-Lite has no such table.
    for table in sockets::TABLES {
        known.rows.extend(proc.text(init, table).map(|text| sockets::rows(&text)).unwrap_or_default());
    }
    for kind in NAMESPACES {
        known.namespaces.extend(proc.link(init, &format!("ns/{kind}")).ok().map(|id| (kind, id)));
    }
    known
}

/// A look at processes that are dumped.
struct Look<'a> {
    proc: &'a Proc,
    known: &'a Known,
    kept: &'a mut Kept,
    /// Open files that may still be looked at.
    left: usize,
    /// Sockets that were seen: children inherit them.
    seen: BTreeSet<u64>,
    /// Unix sockets and whose they are.
    unix: BTreeMap<u64, ProcessName>,
    deadline: Instant,
}

impl Look<'_> {
    fn all(&mut self, within: &[Process]) {
        let pids: HashSet<u32> = within.iter().map(|one| one.pid).collect();
        let masters = self.masters(within);
        for (at, one) in within.iter().enumerate() {
            if one.is_zombie {
                continue;
            }
            if self.left == 0 || Instant::now() > self.deadline {
                self.kept.left_out(format!("open files of {} processes", within.len() - at));
                return;
            }
            self.ties(one, &pids);
            if let Err(error) = self.files(one, &masters)
                && !process::is_gone(&error)
            {
                self.kept.left_out(format!("open files of {}: {error}", one.name));
            }
            self.mappings(one);
        }
    }

    /// Terminals whose masters are held within.
    fn masters(&self, within: &[Process]) -> HashSet<u32> {
        let mut found = HashSet::new();
        for one in within {
            let (numbers, _) = self.proc.descriptors(one.pid, self.left).unwrap_or_default();
            for number in numbers {
                let link = self.proc.link(one.pid, &format!("fd/{number}"));
                if link.is_ok_and(|link| Link::of(&link) == Link::TerminalMaster)
                    && let Ok(info) = self.proc.text(one.pid, &format!("fdinfo/{number}"))
                {
                    found.extend(descriptors::terminal_of_master(&info));
                }
            }
        }
        found
    }

    fn ties(&mut self, one: &Process, within: &HashSet<u32>) {
        let tie = match one.tracer {
            0 => None,
            tracer if within.contains(&tracer) => Some(Tie::TracerWithin),
            _ => Some(Tie::TracerOutside),
        };
        let differs = |(kind, first): (&&'static str, &String)| {
            let own = self.proc.link(one.pid, &format!("ns/{kind}")).ok()?;
            (own != *first).then(|| Tie::Namespace((*kind).to_owned()))
        };
        let namespace = self.known.namespaces.iter().find_map(differs);
        for with in tie.into_iter().chain(namespace) {
            self.kept.entangled(Entangled { process: one.name.clone(), with });
        }
    }

    fn files(&mut self, one: &Process, masters: &HashSet<u32>) -> std::io::Result<()> {
        let (numbers, all) = self.proc.descriptors(one.pid, self.left)?;
        self.left -= numbers.len().min(self.left);
        if !all {
            self.kept.left_out(format!("some open files of {}", one.name));
        }
        let own_mounts = self.proc.link(one.pid, "ns/mnt").ok() == self.known.mount_namespace;
        for (at, number) in numbers.into_iter().enumerate() {
            if at % PER_CLOCK == PER_CLOCK - 1 && Instant::now() > self.deadline {
                self.kept.left_out(format!("some open files of {}", one.name));
                return Ok(());
            }
            // Closed meanwhile.
            let Ok(link) = self.proc.link(one.pid, &format!("fd/{number}")) else { continue };
            self.file(one, number, &link, masters, own_mounts);
        }
        Ok(())
    }

    fn file(&mut self, one: &Process, number: u32, link: &str, masters: &HashSet<u32>, own_mounts: bool) {
        let info = || self.proc.text(one.pid, &format!("fdinfo/{number}")).unwrap_or_default();
        let kind = match Link::of(link) {
            Link::Plain | Link::TerminalMaster => None,
            Link::Socket(inode) => return self.socket(one, number, inode),
            Link::IoUring => Some(DescriptorKind::IoUring),
            Link::Anonymous => Some(DescriptorKind::Anonymous),
            Link::Watches => return self.watches(one, &info()),
            Link::Terminal(terminal) => (!masters.contains(&terminal)).then_some(DescriptorKind::Terminal),
            Link::Device => self.is_device(one, number).then_some(DescriptorKind::Device),
            Link::Memfd => Some(DescriptorKind::Memfd),
            Link::Deleted => Some(DescriptorKind::Deleted),
            // Those of a namespace of its own are not known.
            Link::File if !own_mounts || self.known.mounts.is_empty() => None,
            Link::File => {
                let is_outside = |id| !self.known.mounts.contains(&id);
                descriptors::mount_id(&info()).is_some_and(is_outside).then_some(DescriptorKind::Outside)
            }
        };
        let Some(kind) = kind else { return };
        let bytes = match kind {
            DescriptorKind::Memfd | DescriptorKind::Deleted => self.occupied(one, number),
            _ => None,
        };
        self.kept.descriptor(FoundDescriptor {
            kind,
            object: link.to_owned(),
            bytes,
            owner: one.name.clone(),
        });
    }

    /// What is below /dev may be a file like any other.
    fn is_device(&self, one: &Process, number: u32) -> bool {
        use std::os::unix::fs::FileTypeExt as _;
        let metadata = std::fs::metadata(self.proc.path(one.pid, &format!("fd/{number}")));
        metadata.map_or(true, |metadata| {
            metadata.file_type().is_char_device() || metadata.file_type().is_block_device()
        })
    }

    fn occupied(&self, one: &Process, number: u32) -> Option<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(self.proc.path(one.pid, &format!("fd/{number}"))).ok()?;
        Some(metadata.blocks() * BLOCK)
    }

    fn socket(&mut self, one: &Process, number: u32, inode: u64) {
        if !self.seen.insert(inode) {
            return;
        }
        let Some(protocol) = self.proc.protocol(one.pid, number) else { return };
        if protocol.starts_with("UNIX") {
            self.unix.insert(inode, one.name.clone());
            return;
        }
        let row = self.known.rows.get(&inode);
        let Some(kind) = sockets::kind(&protocol, row) else { return };
        let peer = row.map(|row| row.peer).filter(|peer| peer.port() != 0);
        self.kept.socket(FoundSocket {
            kind,
            protocol,
            local: row.map(|row| row.local),
            peer: peer.filter(|_| kind != SocketKind::Mptcp),
            listens: row.is_some_and(|row| row.listens),
            owner: one.name.clone(),
        });
    }

    fn watches(&mut self, one: &Process, info: &str) {
        let Some(overlay) = self.known.overlay else { return };
        let count = descriptors::watches_on(info, overlay);
        if count > 0 {
            let object = format!("{count} watches");
            let (kind, owner) = (DescriptorKind::WatchOnOverlay, one.name.clone());
            self.kept.descriptor(FoundDescriptor { kind, object, bytes: None, owner });
        }
    }

    fn mappings(&mut self, one: &Process) {
        let Ok(maps) = self.proc.text(one.pid, "maps") else { return };
        for name in descriptors::mapped(&maps) {
            let kind = match descriptors::of_mapping(name) {
                Some(Link::IoUring) => DescriptorKind::IoUring,
                Some(Link::Anonymous) => DescriptorKind::Anonymous,
                Some(Link::Device) => DescriptorKind::Device,
                _ => continue,
            };
            let owner: ProcessName = one.name.clone();
            self.kept.descriptor(FoundDescriptor { kind, object: name.to_owned(), bytes: None, owner });
        }
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
