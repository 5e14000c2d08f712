//! What an agent finds in a container without touching it: the answer to `POST /v1/look`. Facts only; whether they stand
//! against a move is for `judgement` to say. Lists are bounded: what was left out is told in [`Findings::left_out`].
//! Nothing of the content of memory, files or command lines is among them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Reason;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Findings {
    pub processes: u32,
    pub threads: u32,
    pub memory: FoundMemory,
    pub sockets: Vec<FoundSocket>,
    pub descriptors: Vec<FoundDescriptor>,
    /// Processes that came from outside: `kubectl exec`, an exec probe.
    pub visitors: Vec<Visitor>,
    pub entangled: Vec<Entangled>,
    pub mounts: Vec<FoundMount>,
    /// Addresses of the pod's network namespace, but loopback ones.
    pub addresses: Vec<IpAddr>,
    /// Files in the sandbox's /dev/shm.
    pub shm: FoundTree,
    pub ipc: FoundIpc,
    /// The engine gave it an SELinux label of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
    /// It runs in a user namespace: `hostUsers: false`.
    pub user_namespace: bool,
    /// The container's changed files; nothing where there was no time to count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<FoundTree>,
    /// What was not looked at, and why.
    pub left_out: Vec<String>,
}

/// Sums over all processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FoundMemory {
    /// Resident, private.
    pub anonymous: u64,
    /// Resident, of shared memory; counted once for each process that has it.
    pub shared: u64,
    pub swapped: u64,
    pub huge: u64,
    pub locked: u64,
}

/// A process by its PID in the container and its name (`comm`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessName {
    pub pid: u32,
    pub name: String,
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PID {} ({})", self.pid, self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SocketKind {
    Mptcp,
    /// TCP listener or UDP socket on an address of the pod: carried, its address is rewritten.
    OwnAddress,
    Raw,
    Packet,
    /// A unix socket whose other end is outside the container.
    UnixToOutside,
    /// Of a protocol that CRIU does not know.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundSocket {
    pub kind: SocketKind,
    /// The kernel's name of the protocol: `TCP`, `MPTCPv6`, `PING`.
    pub protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    pub listens: bool,
    pub owner: ProcessName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DescriptorKind {
    IoUring,
    /// An object of the kernel that CRIU does not know: userfaultfd, bpf program, perf event.
    Anonymous,
    /// inotify or fanotify on a file of the container's overlay, whose handle cannot be opened.
    WatchOnOverlay,
    /// A terminal whose other end is outside the container.
    Terminal,
    Device,
    /// A file outside the container's mounts.
    Outside,
    /// Without a name any more: carried, up to a limit.
    Deleted,
    /// A file in memory: carried.
    Memfd,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundDescriptor {
    pub kind: DescriptorKind,
    /// What it leads to, as /proc shows it.
    pub object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    pub owner: ProcessName,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Visitor {
    pub process: ProcessName,
    /// Somebody sits before it (`kubectl exec -it`).
    pub terminal: bool,
    /// By a unix socket, with a process that is dumped.
    #[serde(default)]
    pub connected: bool,
}

/// A process that is tied to something else than its container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entangled {
    pub process: ProcessName,
    pub with: Tie,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tie {
    /// Traced by a process of the container itself.
    TracerWithin,
    /// Traced from outside: a debugger, strace.
    TracerOutside,
    /// In a namespace of its own of this kind.
    Namespace(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountKind {
    /// A folder that the image declares as VOLUME: carried.
    ImageVolume,
    /// Writable, and neither the pod's spec nor the engine nor the kubelet has it.
    Foreign,
    /// The same, but read-only.
    ForeignReadOnly,
    /// Mounted by the container's own processes.
    MadeWithin,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundMount {
    pub kind: MountKind,
    /// In the container.
    pub destination: String,
    pub fs_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<FoundTree>,
}

/// Files below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FoundTree {
    pub files: u64,
    /// The sum of their lengths.
    pub apparent_bytes: u64,
    /// What they occupy.
    pub allocated_bytes: u64,
    /// Some of their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// SysV objects of the pod's IPC namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FoundIpc {
    pub segments: u32,
    pub segment_bytes: u64,
    pub semaphores: u32,
    pub queues: u32,
}

/// Something that stands against a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Objection {
    pub reason: Reason,
    /// The cause with its object, then the remedy.
    pub message: String,
    /// It goes away by itself: another attempt may succeed.
    #[serde(default)]
    pub passes: bool,
}
