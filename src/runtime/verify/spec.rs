//! What a container's `config.json` allows its processes. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::Kind;
use super::capabilities::set;

/// The most that a process of the container may be.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of config.json by itself")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Of the first process, as the node counts.
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub bounding: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub no_new_privileges: bool,
    pub has_seccomp: bool,
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    /// Its namespaces; those without a path are its own.
    pub namespaces: BTreeMap<Kind, Option<PathBuf>>,
    pub mounts: Vec<SpecMount>,
    pub masked: Vec<String>,
    pub readonly: Vec<String>,
    pub devices: Vec<String>,
    pub rootfs: PathBuf,
    pub rootfs_readonly: bool,
    /// The first process starts as root of its user namespace.
    starts_as_root: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SpecMount {
    pub destination: String,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub source: PathBuf,
    #[serde(default)]
    pub options: Vec<String>,
}

impl SpecMount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|has| has == option)
    }

    pub fn is_bind(&self) -> bool {
        self.kind == "bind" || self.has("bind") || self.has("rbind")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    process: Process,
    root: Root,
    #[serde(default)]
    mounts: Vec<SpecMount>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    #[serde(default)]
    user: User,
    #[serde(default)]
    capabilities: Capabilities,
    #[serde(default)]
    no_new_privileges: bool,
    #[serde(default)]
    apparmor_profile: String,
    #[serde(default)]
    selinux_label: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default)]
    additional_gids: Vec<u32>,
}

#[derive(Default, Deserialize)]
struct Capabilities {
    #[serde(default)]
    bounding: Vec<String>,
    #[serde(default)]
    permitted: Vec<String>,
    #[serde(default)]
    inheritable: Vec<String>,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
    #[serde(default)]
    readonly: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default)]
    uid_mappings: Vec<Mapping>,
    #[serde(default)]
    gid_mappings: Vec<Mapping>,
    seccomp: Option<Seccomp>,
    #[serde(default)]
    masked_paths: Vec<String>,
    #[serde(default)]
    readonly_paths: Vec<String>,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
    size: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    #[serde(default)]
    default_action: String,
    #[serde(default)]
    syscalls: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Device {
    path: String,
}

impl Spec {
    /// Reads the text of a `config.json`.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        let config: Config = serde_json::from_str(text)?;
        let (process, linux) = (config.process, config.linux);
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let kinds = linux.namespaces.iter().filter_map(|namespace| {
            let path = Some(namespace.path.clone()).filter(|path| !path.as_os_str().is_empty());
            Some((kind(&namespace.kind)?, path))
        });
        let gid = |id| on_node(&linux.gid_mappings, id);
        Ok(Self {
            uid: on_node(&linux.uid_mappings, process.user.uid),
            gid: gid(process.user.gid),
            groups: process.user.additional_gids.iter().map(|id| gid(*id)).collect(),
            bounding: set(&process.capabilities.bounding),
            permitted: set(&process.capabilities.permitted),
            inheritable: set(&process.capabilities.inheritable),
            no_new_privileges: process.no_new_privileges,
            // runc makes no filter that would allow everything.
            has_seccomp: linux
                .seccomp
                .is_some_and(|s| s.default_action != "SCMP_ACT_ALLOW" || !s.syscalls.is_empty()),
            apparmor: some(process.apparmor_profile).filter(|profile| profile != "unconfined"),
            selinux: some(process.selinux_label),
            namespaces: kinds.collect(),
            mounts: config.mounts,
            masked: linux.masked_paths,
            readonly: linux.readonly_paths,
            devices: linux.devices.into_iter().map(|device| device.path).collect(),
            rootfs: config.root.path,
            rootfs_readonly: config.root.readonly,
            starts_as_root: process.user.uid == 0,
        })
    }

    /// A process of the container may come to have this capability.
    pub fn may(&self, capability: u64) -> bool {
        self.reachable() & capability != 0
    }

    /// Capabilities that a process may come to have: those it is given, and where it may gain privileges (by a program that
    /// belongs to root, or has them in its file) all of the bounding set.
    pub fn reachable(&self) -> u64 {
        if self.no_new_privileges { self.permitted } else { self.permitted | self.bounding }
    }

    /// A process may take any ID by this capability. One that does not start as root is given none when it starts, and gets
    /// it only by a program that gives privileges.
    pub fn reaches_any(&self, capability: u64) -> bool {
        self.may(capability) && (self.starts_as_root || !self.no_new_privileges)
    }
}

fn kind(name: &str) -> Option<Kind> {
    match name {
        "network" => Some("net"),
        "mount" => Some("mnt"),
        other => super::KINDS.into_iter().find(|kind| *kind == other),
    }
}

/// In a user namespace the node counts otherwise.
fn on_node(mappings: &[Mapping], id: u32) -> u32 {
    let mapping = mappings.iter().find(|m| id >= m.container && id - m.container < m.size);
    mapping.map_or(id, |m| m.host.saturating_add(id - m.container))
}
