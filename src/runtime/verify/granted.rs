//! What a spec has mounted, in the terms of a mount table. Reads the node's own mounts and looks into the container's root.
//!
//! Guarantees: nothing is granted that the node does not have at that very place; no name leads out of the container.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};

use super::mounts::{DEVICES, Grant, Mount, RESTRICTIONS, Same};
use super::spec::{Spec, SpecMount};

/// The container's root, in which no name leads out.
pub struct Inside {
    root: OwnedFd,
}

impl Inside {
    pub fn open(root: &Path) -> io::Result<Self> {
        File::open(root).map(|root| Self { root: root.into() })
    }

    fn find(&self, path: &str) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()
    }
}

/// The mount in which a file lies.
fn mount_of(file: impl AsFd) -> Option<u64> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID).then_some(found.stx_mnt_id)
}

/// What a bind mount of this path of the node shows; nothing where the kernel cannot tell.
fn same(path: &Path, own: &[Mount]) -> Option<(PathBuf, Same)> {
    let path = fs::canonicalize(path).ok()?;
    let file = rustix::fs::openat(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let id = mount_of(file)?;
    let mount = own.iter().find(|mount| mount.id == id)?;
    let rest = path.strip_prefix(&mount.point).ok()?;
    let root = Path::new(&mount.root).join(rest);
    let root = root.to_str()?.trim_end_matches('/');
    let root = if root.is_empty() { "/" } else { root };
    Some((path, Same { device: mount.device.clone(), root: root.to_owned() }))
}

fn restrictions(mount: &SpecMount) -> Vec<&'static str> {
    RESTRICTIONS.into_iter().filter(|option| mount.has(option)).collect()
}

fn tidy(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// All that the spec has mounted, and what runc mounts by itself.
pub fn grants(spec: &Spec, bundle: &Path, own: &[Mount], inside: &Inside, table: &[Mount]) -> Vec<Grant> {
    let kinds = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
    let rootfs = same(&bundle.join(&spec.rootfs), own).map(|(_, same)| same);
    let options = if spec.rootfs_readonly { vec!["ro"] } else { Vec::new() };
    let mut grants = vec![Grant { point: "/".to_owned(), same: rootfs, options, ..Grant::default() }];
    for mount in &spec.mounts {
        let destination = tidy(&mount.destination);
        let mut points = vec![destination.clone()];
        // Through symbolic links of the image (/var/run).
        let seen = inside.find(&mount.destination).and_then(mount_of);
        points.extend(table.iter().filter(|m| Some(m.id) == seen && m.point != "/").map(|m| m.point.clone()));
        points.dedup();
        let options = restrictions(mount);
        let shown = if mount.is_bind() { same(&mount.source, own) } else { None };
        for point in &points {
            let wanted = match mount.kind.as_str() {
                _ if mount.is_bind() => Vec::new(),
                "cgroup" => kinds(&["cgroup", "cgroup2"]),
                kind => kinds(&[kind]),
            };
            let same = shown.as_ref().map(|(_, same)| same.clone());
            grants.push(Grant { point: point.clone(), same, kinds: wanted, options: options.clone() });
            if mount.kind == "cgroup" {
                let below = table.iter().filter(|m| m.point.starts_with(&format!("{point}/")));
                let of_one = kinds(&["cgroup"]);
                grants.extend(below.map(|m| Grant {
                    point: m.point.clone(),
                    kinds: of_one.clone(),
                    options: options.clone(),
                    ..Grant::default()
                }));
                // With cgroup v1 a tmpfs holds them. It is writable after every restore; they are not.
                let (point, kinds) = (point.clone(), kinds(&["tmpfs"]));
                grants.push(Grant { point, kinds, ..Grant::default() });
            }
            // What is mounted below a folder of the node comes along with it.
            if let Some((source, _)) = &shown {
                grants.extend(own.iter().filter_map(|mount| {
                    let rest = Path::new(&mount.point).strip_prefix(source).ok()?;
                    let same = Same { device: mount.device.clone(), root: mount.root.clone() };
                    let point = tidy(&format!("{point}/{}", rest.to_str()?));
                    (!rest.as_os_str().is_empty()).then(|| Grant {
                        point,
                        same: Some(same),
                        ..Grant::default()
                    })
                }));
            }
        }
    }
    let devices = DEVICES.iter().map(|name| format!("/dev/{name}")).chain(spec.devices.iter().cloned());
    grants.extend(devices.map(|point| Grant {
        point,
        kinds: kinds(&["devtmpfs", "tmpfs"]),
        ..Grant::default()
    }));
    grants.push(Grant { point: "/dev/console".to_owned(), kinds: kinds(&["devpts"]), ..Grant::default() });
    let masks = spec.masked.iter().map(|path| (tidy(path), kinds(&["tmpfs", "devtmpfs"])));
    let readonly = spec.readonly.iter().map(|path| (tidy(path), kinds(&["proc", "sysfs"])));
    grants.extend(masks.chain(readonly).map(|(point, kinds)| Grant { point, kinds, ..Grant::default() }));
    grants
}

/// Paths that must be covered, as far as they exist: below /proc and /sys what the kernel has there, for the first process
/// may have another root by now.
pub fn covered(spec: &Spec, inside: &Inside) -> Vec<(String, bool)> {
    let masked = spec.masked.iter().map(|path| (tidy(path), false));
    let readonly = spec.readonly.iter().map(|path| (tidy(path), true));
    let exists = |path: &str| {
        let of_kernel = ["/proc", "/sys"].into_iter().find(|root| path.starts_with(&format!("{root}/")));
        match of_kernel {
            Some(root) => {
                spec.mounts.iter().any(|mount| tidy(&mount.destination) == root) && Path::new(path).exists()
            }
            None => inside.find(path).is_some(),
        }
    };
    masked.chain(readonly).filter(|(path, _)| exists(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::mounts;
    use super::*;

    #[test]
    fn a_bind_mount_shows_what_its_source_is() {
        let own = mounts::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap());
        let dir = tempfile::tempdir().unwrap();
        let (path, same) = same(dir.path(), &own).unwrap();
        let mount = own.iter().filter(|m| path.starts_with(&m.point)).max_by_key(|m| m.point.len()).unwrap();
        assert_eq!(same.device, mount.device);
        assert!(same.root.ends_with(path.file_name().unwrap().to_str().unwrap()), "{same:?}");
    }
}
