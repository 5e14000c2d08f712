//! Mount tables of restored containers against what the spec grants. Pure.

use super::{Excess, Findings};

/// One line of a mountinfo file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// `major:minor` of its file system.
    pub device: String,
    /// The folder or file of that file system that is mounted.
    pub root: String,
    pub point: String,
    /// Options of the mount and of its file system.
    pub options: Vec<String>,
    pub kind: String,
}

/// A mount that the spec has, or that runc makes by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub point: String,
    /// A bind mount of exactly this.
    pub same: Option<Same>,
    /// Or a file system of its own of one of these types.
    pub kinds: Vec<String>,
    /// Options that it must have.
    pub options: Vec<&'static str>,
}

/// A folder or file of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Same {
    pub device: String,
    pub root: String,
}

/// Options that take something away.
pub const RESTRICTIONS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];
/// Of these the node has only one, whoever mounts it, or one for each network or IPC namespace.
const SHARED: [&str; 6] = ["cgroup", "cgroup2", "sysfs", "mqueue", "proc", "devpts"];
/// What runc binds from /dev over masked paths and devices.
const DEVICE_FILES: [&str; 2] = ["devtmpfs", "tmpfs"];

/// Reads a mountinfo file.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ');
    let (id, _parent, device) = (head.next()?.parse().ok()?, head.next()?, head.next()?.to_owned());
    let (root, point, options) = (unescape(head.next()?), unescape(head.next()?), head.next()?);
    let mut tail = tail.split(' ');
    let (kind, of_file_system) = (tail.next()?.to_owned(), tail.nth(1).unwrap_or_default());
    let options = options.split(',').chain(of_file_system.split(',')).map(str::to_owned).collect();
    Some(Mount { id, device, root, point, options, kind })
}

/// mountinfo writes blanks and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[3..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every mount is granted, and everything that must be covered is.
pub fn compare(table: &[Mount], found: &Findings) -> Result<(), Excess> {
    for mount in table {
        let mut why = "nothing is to be mounted there";
        let is_granted = found.grants.iter().filter(|grant| grant.point == mount.point).any(|grant| {
            match is_right(mount, grant, found) {
                Ok(()) => true,
                Err(reason) => {
                    why = reason;
                    false
                }
            }
        });
        if !is_granted {
            let (point, kind) = (mount.point.clone(), mount.kind.clone());
            return Err(Excess::Mount { point, kind, why });
        }
    }
    for (path, readonly) in &found.covered {
        // The last one mounted there is the one that is seen.
        let covering = table.iter().rfind(|mount| mount.point == *path);
        let is_covered =
            covering.is_some_and(|mount| !readonly || mount.options.iter().any(|option| option == "ro"));
        if !is_covered {
            return Err(Excess::Uncovered { path: path.clone() });
        }
    }
    Ok(())
}

fn is_right(mount: &Mount, grant: &Grant, found: &Findings) -> Result<(), &'static str> {
    if let Some(same) = &grant.same {
        // A file that was removed since is still the same one.
        let root = mount.root.strip_suffix("//deleted").unwrap_or(&mount.root);
        if mount.device != same.device || root != same.root {
            return Err("it shows another file or folder");
        }
    } else if !grant.kinds.is_empty() {
        if !grant.kinds.contains(&mount.kind) {
            return Err("it is of another type");
        }
        let is_device = DEVICE_FILES.contains(&mount.kind.as_str()) && is_device(&mount.root);
        let is_shared = SHARED.contains(&mount.kind.as_str());
        if found.node_devices.contains(&mount.device) && !is_shared && !is_device {
            return Err("it is a file system of the node");
        }
    }
    let lacks = grant.options.iter().any(|wanted| !mount.options.iter().any(|option| option == wanted));
    if lacks { Err("it is less restricted") } else { Ok(()) }
}

/// A device that every container has.
fn is_device(root: &str) -> bool {
    let name = root.rsplit('/').next().unwrap_or_default();
    DEVICES.contains(&name)
}

/// In every container.
pub const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
