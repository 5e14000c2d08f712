//! Restored processes held against their container's `config.json`, before they run their first instruction. CRIU takes
//! credentials, seccomp filters, labels, namespaces and mounts from the images, and those come from another node: what the
//! spec allows is the most that a process may have. The comparison is pure; [`node`] reads what is compared.
//!
//! Guarantees: less than the spec allows is always right (a process may have dropped what it was given); more never is,
//! unless the spec gives the right to get there (CAP_SETUID, CAP_SETGID, CAP_SYS_ADMIN for namespaces and mounts).

mod capabilities;
mod granted;
mod mounts;
pub mod node;
mod spec;

use std::collections::{BTreeMap, BTreeSet};

pub use mounts::{Grant, Mount};
pub use spec::Spec;

use capabilities::{SETGID, SETUID, SYS_ADMIN, names};

/// Kind of a namespace, as `/proc/PID/ns` names it.
pub type Kind = &'static str;
/// All kinds that a spec can name.
pub const KINDS: [Kind; 8] = ["pid", "net", "mnt", "ipc", "uts", "user", "cgroup", "time"];

/// One restored thread, from its files in `/proc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    pub pid: u32,
    pub tid: u32,
    pub name: String,
    /// Real, effective, saved, of files.
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
    pub groups: Vec<u32>,
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub no_new_privileges: bool,
    pub seccomp: u32,
    /// Unknown to kernels before 5.9.
    pub filters: Option<u32>,
    /// Label of the security module, where it has one.
    pub label: Option<String>,
    pub namespaces: BTreeMap<Kind, u64>,
    /// A cgroup of the container in which its process is not.
    pub outside_of: Option<String>,
}

/// What was found of a restored container and around it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The first one is the container's first process.
    pub tasks: Vec<Task>,
    /// The node's own namespaces.
    pub node: BTreeMap<Kind, u64>,
    /// Those that the spec names by a path.
    pub named: BTreeMap<Kind, u64>,
    /// Of each mount namespace that they are in.
    pub mounts: Vec<Vec<Mount>>,
    pub grants: Vec<Grant>,
    /// File systems that the node itself has mounted (`major:minor`).
    pub node_devices: BTreeSet<String>,
    /// Masked and read-only paths of the spec that exist in the container, and whether they must be read-only mounts.
    pub covered: Vec<(String, bool)>,
}

/// Restored processes are more than their spec allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    #[error("{task} has {what} {found}, and its spec gives no way there")]
    Id { task: String, what: &'static str, found: u32 },
    #[error("{task} has {set} capabilities beyond its spec: {extra}")]
    Capabilities { task: String, set: &'static str, extra: String },
    #[error("{task} may gain privileges, which its spec forbids")]
    NewPrivileges { task: String },
    #[error("{task} has no seccomp filter, and its spec has one")]
    Seccomp { task: String },
    #[error("{task} runs under {found:?}, its spec says {expected:?}")]
    Label { task: String, found: String, expected: String },
    #[error("{task} is in a {kind} namespace that is not its container's")]
    Namespace { task: String, kind: Kind },
    #[error("{task} is not in its container's cgroup {cgroup}")]
    Cgroup { task: String, cgroup: String },
    #[error("mount {point} ({kind}) is not what its spec has there: {why}")]
    Mount { point: String, kind: String, why: &'static str },
    #[error("{path} is not covered as its spec says")]
    Uncovered { path: String },
    #[error("nothing of the restored container was found")]
    Nothing,
}

/// Everything against the spec; the first excess ends it.
pub fn verify(spec: &Spec, found: &Findings) -> Result<(), Excess> {
    let Some(first) = found.tasks.first() else { return Err(Excess::Nothing) };
    for task in &found.tasks {
        identity(spec, task)?;
        privileges(spec, task)?;
        label(spec, task)?;
        namespaces(spec, found, first, task)?;
        if let Some(cgroup) = &task.outside_of {
            return Err(Excess::Cgroup { task: shown(task), cgroup: cgroup.clone() });
        }
    }
    // Whoever may mount has what is mounted.
    if spec.may(SYS_ADMIN) {
        return Ok(());
    }
    found.mounts.iter().try_for_each(|table| mounts::compare(table, found))
}

fn shown(task: &Task) -> String {
    format!("process {} ({})", task.tid, task.name)
}

fn identity(spec: &Spec, task: &Task) -> Result<(), Excess> {
    let refuse = |what, found| Err(Excess::Id { task: shown(task), what, found });
    if !spec.reaches_any(SETUID)
        && let Some(uid) = task.uids.iter().find(|uid| **uid != spec.uid)
    {
        return refuse("uid", *uid);
    }
    if !spec.reaches_any(SETGID) {
        let is_given = |gid: &&u32| **gid == spec.gid || spec.groups.contains(gid);
        if let Some(gid) = task.gids.iter().find(|gid| !is_given(gid)) {
            return refuse("gid", *gid);
        }
        if let Some(gid) = task.groups.iter().find(|gid| !is_given(gid)) {
            return refuse("group", *gid);
        }
    }
    Ok(())
}

fn privileges(spec: &Spec, task: &Task) -> Result<(), Excess> {
    let reachable = spec.reachable();
    let sets = [
        ("bounding", task.bounding, spec.bounding),
        ("permitted", task.permitted, reachable),
        ("effective", task.effective, reachable),
        ("ambient", task.ambient, reachable),
        ("inheritable", task.inheritable, reachable | spec.inheritable),
    ];
    for (set, has, allowed) in sets {
        let extra = has & !allowed;
        if extra != 0 {
            return Err(Excess::Capabilities { task: shown(task), set, extra: names(extra) });
        }
    }
    if spec.no_new_privileges && !task.no_new_privileges {
        return Err(Excess::NewPrivileges { task: shown(task) });
    }
    if spec.has_seccomp && (task.seccomp != 2 || task.filters == Some(0)) {
        return Err(Excess::Seccomp { task: shown(task) });
    }
    Ok(())
}

/// AppArmor writes its mode behind the profile, and lets a process go into a profile below its own. SELinux labels are equal
/// or not.
fn label(spec: &Spec, task: &Task) -> Result<(), Excess> {
    let found = task.label.as_deref().unwrap_or_default();
    let refuse = |expected: &str| {
        Err(Excess::Label { task: shown(task), found: found.to_owned(), expected: expected.to_owned() })
    };
    if let Some(profile) = &spec.apparmor {
        let name = found.rsplit_once(" (").map_or(found, |(name, _)| name);
        if name != profile && !name.strip_prefix(profile.as_str()).is_some_and(|rest| rest.starts_with("//"))
        {
            return refuse(profile);
        }
    }
    match &spec.selinux {
        Some(expected) if found != expected => refuse(expected),
        _ => Ok(()),
    }
}

fn namespaces(spec: &Spec, found: &Findings, first: &Task, task: &Task) -> Result<(), Excess> {
    for (kind, path) in &spec.namespaces {
        let Some(is_in) = task.namespaces.get(kind) else { continue }; // the kernel has none of that kind
        let is_of_node = found.node.get(kind) == Some(is_in);
        let is_right = match path {
            // Named by the spec, be it the node's.
            Some(_) if found.named.get(kind) == Some(is_in) => true,
            Some(_) => spec.may(SYS_ADMIN) && !is_of_node,
            None => !is_of_node && (first.namespaces.get(kind) == Some(is_in) || spec.may(SYS_ADMIN)),
        };
        if !is_right {
            return Err(Excess::Namespace { task: shown(task), kind });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
