//! Findings in, what stands against a move out.

use std::net::IpAddr;

use crate::api::{
    DescriptorKind, Entangled, Findings, FoundDescriptor, FoundMount, FoundSocket, MountKind, Objection,
    Reason, SocketKind, Tie, Visitor, sentence,
};

use super::Circumstances;
use crate::criu::alternatives;

/// CRIU keeps open files without a name in its images up to this size (`ghost-limit`).
const LARGEST_DELETED: u64 = 256 << 20;
pub(super) const MPTCP_REMEDY: &str =
    "set GODEBUG=multipathtcp=0, or let SHADOW prepare the pod (restart it once)";
pub(super) const IO_URING_REMEDY: &str =
    "set seccompProfile RuntimeDefault, or let SHADOW prepare the pod (restart it once)";

/// What to make of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What stands against a move; what stands against it for good comes first.
    pub refusals: Vec<Objection>,
    /// It can be moved, but somebody may want to know.
    pub warnings: Vec<String>,
}

/// Every refusal names its object and a remedy in at most 200 characters; each sentence is told once.
pub fn judge(findings: &Findings, circumstances: &Circumstances) -> Judgement {
    let mut refusals: Vec<Objection> = Vec::new();
    refusals.extend(findings.sockets.iter().filter_map(of_socket));
    refusals.extend(findings.sockets.iter().filter_map(|socket| of_address(socket, &findings.addresses)));
    refusals.extend(findings.descriptors.iter().filter_map(of_descriptor));
    refusals.extend(findings.entangled.iter().map(of_entangled));
    refusals.extend(findings.mounts.iter().filter_map(of_mount));
    refusals.extend(findings.visitors.iter().filter_map(of_visitor));
    refusals.extend(of_label(findings).into_iter().chain(of_user_namespace(findings)));
    for refusal in &mut refusals {
        refusal.message = sentence(&refusal.message);
    }
    // A hundred connections of one listener, a hundred descriptors of one process: one sentence each would do.
    refusals.sort_by(|one, other| {
        (one.passes, one.reason, &one.message).cmp(&(other.passes, other.reason, &other.message))
    });
    refusals.dedup_by(|one, other| one.message == other.message);
    let mut warnings = circumstances.warnings(findings);
    // CRIU leaves it out: the pod moves, the session ends. One without a terminal may be a probe, which comes and goes.
    let sessions = findings.visitors.iter().filter(|visitor| visitor.terminal && !visitor.connected);
    warnings.extend(sessions.map(|visitor| {
        sentence(&format!("kubectl exec of {} is open: the session ends when the pod moves", visitor.process))
    }));
    warnings.extend(findings.mounts.iter().filter(|mount| mount.kind == MountKind::ForeignReadOnly).map(
        |mount| {
            sentence(&format!(
                "mount {} is neither the pod's nor the engine's: it is not moved",
                mount.destination
            ))
        },
    ));
    warnings.extend(findings.left_out.iter().map(|what| sentence(&format!("not looked at: {what}"))));
    warnings.dedup();
    Judgement { refusals, warnings }
}

fn lasting(reason: Reason, message: String) -> Objection {
    Objection { reason, message, passes: false }
}

fn passing(reason: Reason, message: String) -> Objection {
    Objection { reason, message, passes: true }
}

fn object(socket: &FoundSocket) -> String {
    let role = if socket.listens { "listener" } else { "socket" };
    match (socket.local, &socket.owner) {
        (Some(local), _) => format!("{role} {}", shown(local)),
        (None, owner) => format!("{role} of {owner}"),
    }
}

/// Of several addresses of a kind it cannot be told which of the new pod's each becomes.
fn of_address(socket: &FoundSocket, all: &[IpAddr]) -> Option<Objection> {
    let local = socket.local.filter(|_| socket.kind == SocketKind::OwnAddress)?;
    let alternatives = alternatives(all, local.ip());
    let others: Vec<_> =
        alternatives.iter().filter(|other| **other != local.ip()).map(ToString::to_string).collect();
    let object = object(socket);
    let all = if local.is_ipv6() { "::" } else { "0.0.0.0" };
    (!others.is_empty()).then(|| {
        let why = format!(
            "{object} is bound to one of the pod's addresses and there is another ({}): let it listen on {all}",
            others.join(", ")
        );
        lasting(Reason::UnsupportedSocket, why)
    })
}

fn of_socket(socket: &FoundSocket) -> Option<Objection> {
    let object = object(socket);
    match socket.kind {
        SocketKind::Mptcp => Some(lasting(Reason::MptcpSocket, format!("{object} is MPTCP: {MPTCP_REMEDY}"))),
        SocketKind::Unknown => Some(lasting(
            Reason::UnsupportedSocket,
            format!(
                "{object} is {}, which CRIU cannot dump: let {} use TCP, UDP or a unix socket",
                socket.protocol, socket.owner
            ),
        )),
        SocketKind::UnixToOutside => Some(lasting(
            Reason::UnsupportedSocket,
            format!("unix {object} leads out of the container: let the program close it"),
        )),
        SocketKind::OwnAddress | SocketKind::Raw | SocketKind::Packet => None,
    }
}

/// As people write it: `:::8080`, `10.0.0.1:53`.
fn shown(address: std::net::SocketAddr) -> String {
    match address {
        std::net::SocketAddr::V6(v6) => format!("{}:{}", v6.ip(), v6.port()),
        std::net::SocketAddr::V4(v4) => v4.to_string(),
    }
}

fn of_descriptor(found: &FoundDescriptor) -> Option<Objection> {
    let FoundDescriptor { object, owner, .. } = found;
    match found.kind {
        DescriptorKind::IoUring => {
            Some(lasting(Reason::IoUring, format!("io_uring of {owner} cannot be dumped: {IO_URING_REMEDY}")))
        }
        DescriptorKind::Anonymous => Some(lasting(
            Reason::UnsupportedDescriptor,
            format!("{object} of {owner} cannot be dumped by CRIU: switch off what uses it"),
        )),
        DescriptorKind::WatchOnOverlay => Some(lasting(
            Reason::UnsupportedDescriptor,
            format!(
                "{owner} watches files of its image ({object}), which CRIU cannot dump: let it watch a mounted volume, or \
                 poll"
            ),
        )),
        DescriptorKind::Terminal => Some(lasting(
            Reason::Terminal,
            format!("terminal {object} of {owner} has its other end outside the container: set tty: false"),
        )),
        DescriptorKind::Device => Some(lasting(
            Reason::Devices,
            format!(
                "device {object} is open in {owner}: its state stays on the node; let the program close it"
            ),
        )),
        DescriptorKind::Outside => Some(lasting(
            Reason::UnsupportedDescriptor,
            format!(
                "{owner} has {object} open, which is in none of the container's mounts: let it close the file"
            ),
        )),
        DescriptorKind::Deleted if found.bytes.unwrap_or(0) > LARGEST_DELETED => Some(lasting(
            Reason::UnsupportedDescriptor,
            format!(
                "{object} of {owner} is deleted but open, {} MiB; at most {} MiB are carried: let the program close it",
                found.bytes.unwrap_or(0) >> 20,
                LARGEST_DELETED >> 20
            ),
        )),
        DescriptorKind::Deleted | DescriptorKind::Memfd => None,
    }
}

fn of_entangled(found: &Entangled) -> Objection {
    let process = &found.process;
    match &found.with {
        Tie::TracerWithin => lasting(
            Reason::UnsupportedProcess,
            format!("{process} is traced by another process of the container: run it without the tracer"),
        ),
        Tie::TracerOutside => passing(
            Reason::UnsupportedProcess,
            format!(
                "{process} is traced from outside (a debugger, strace): it can be moved once that has ended"
            ),
        ),
        Tie::Namespace(kind) => lasting(
            Reason::UnsupportedProcess,
            format!(
                "{process} has a {kind} namespace of its own, which CRIU cannot dump: switch off its sandbox"
            ),
        ),
    }
}

fn of_mount(mount: &FoundMount) -> Option<Objection> {
    let FoundMount { destination, fs_type, .. } = mount;
    match mount.kind {
        MountKind::Foreign => Some(lasting(
            Reason::ForeignMount,
            format!(
                "mount {destination} is neither the pod's nor the engine's, and writable: its content would stay behind"
            ),
        )),
        MountKind::MadeWithin => Some(lasting(
            Reason::ForeignMount,
            format!("{fs_type} is mounted on {destination} by the container itself: unmount it"),
        )),
        MountKind::ImageVolume | MountKind::ForeignReadOnly => None,
    }
}

/// A restore gives the processes the label that they had, and the engine gives the files of each new pod another one: its
/// own files would be closed to it, another pod's perhaps open.
fn of_label(findings: &Findings) -> Option<Objection> {
    let label = findings.selinux_label.as_ref()?;
    Some(lasting(
        Reason::SelinuxLabel,
        format!(
            "SELinux label {label} would not fit the new pod's files: run it where containerd has enable_selinux off"
        ),
    ))
}

fn of_user_namespace(findings: &Findings) -> Option<Objection> {
    findings.user_namespace.then(|| {
        let message = "it runs in a user namespace, which is not carried yet: leave hostUsers: false out";
        lasting(Reason::UserNamespace, message.to_owned())
    })
}

fn of_visitor(visitor: &Visitor) -> Option<Objection> {
    visitor.connected.then(|| {
        passing(
            Reason::ExecSession,
            format!(
                "kubectl exec of {} has a unix socket to the pod's program open: it can be moved once that session has ended",
                visitor.process
            ),
        )
    })
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
