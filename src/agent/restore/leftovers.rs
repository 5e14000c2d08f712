//! What a CRIU or runc that was killed in the middle of a restore leaves on the node: the tmpfs in which the one builds the
//! mount tree, and the mount by which the other shows it the new root. Does I/O. Nothing that a living CRIU uses is
//! touched, nor while a runc is at work; what cannot be removed now is tried again.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::node::host::{Host, HostError};

/// Of the node's first process; the agent sees its processes too.
const MOUNTS: &str = "/proc/1/mountinfo";
/// CRIU's `mnt_roots`, which it removes itself unless it is killed.
const ROOTS: &str = "/tmp/.criu.mntns.";
/// runc's `criu-root`, below its folder for a container.
const RUNC: &str = "/run/containerd/runc/";
const RUNC_ROOT: &str = "/criu-root";
/// Whoever has made one of these: runc makes its own before there is a CRIU.
const MAKERS: [&str; 2] = ["criu", "runc"];
const PERIOD: Duration = Duration::from_secs(10);
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// Sweeps for ever.
pub async fn sweep_leftovers(host: Host) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep(&host).await {
            tracing::warn!(%error, "what a dead CRIU has mounted is left for now");
        }
    }
}

/// Removes the mount trees of CRIUs that are dead.
async fn sweep(host: &Host) -> Result<(), HostError> {
    let roots = roots(&fs::read_to_string(MOUNTS).unwrap_or_default());
    // In this order: whoever made one of these and is not found now is dead.
    if roots.is_empty() || lives(&MAKERS) {
        return Ok(());
    }
    let mut swept = Ok(());
    for root in roots {
        let removed = remove(host, &root).await;
        match removed {
            Ok(()) => tracing::info!(mount = %root.display(), "removed what a dead CRIU had mounted"),
            Err(_) => swept = removed,
        }
    }
    swept
}

async fn remove(host: &Host, root: &Path) -> Result<(), HostError> {
    host.run("umount", &[OsStr::new("--lazy"), root.as_os_str()], &[], COMMAND_LIMIT).await?;
    host.run("rmdir", &[root.as_os_str()], &[], COMMAND_LIMIT).await?;
    Ok(())
}

/// Mount points of CRIU's and runc's restores in the text of a mountinfo, the innermost first.
fn roots(mountinfo: &str) -> Vec<PathBuf> {
    let is_root =
        |point: &&str| point.starts_with(ROOTS) || (point.starts_with(RUNC) && point.ends_with(RUNC_ROOT));
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mut roots: Vec<PathBuf> = points.filter(is_root).map(PathBuf::from).collect();
    roots.sort_by(|a, b| b.cmp(a));
    roots
}

/// True if a process of such a name lives, or where that cannot be told.
fn lives(names: &[&str]) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    entries.flatten().map(|entry| entry.path()).any(|dir| is_called(&dir, names))
}

fn is_called(process: &Path, names: &[&str]) -> bool {
    fs::read_to_string(process.join("comm")).is_ok_and(|comm| names.contains(&comm.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_restores_mounted_is_found_and_the_innermost_first() {
        let mountinfo = "22 1 0:20 / / rw - overlay overlay rw\n\
            90 22 0:40 / /tmp rw - tmpfs tmp rw\n\
            91 90 0:41 / /tmp/.criu.mntns.SsduBl rw - tmpfs none rw\n\
            92 91 0:42 / /tmp/.criu.mntns.SsduBl/7-0000000000 rw - tmpfs none rw\n\
            93 90 0:43 / /tmp/.criu.mntnsX rw - tmpfs none rw\n\
            94 22 0:44 / /run/containerd/runc/k8s.io/ab/criu-root rw - overlay overlay rw\n\
            95 22 0:45 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/ab/rootfs rw - overlay overlay rw\n";
        let found = roots(mountinfo);
        assert_eq!(
            found,
            [
                "/tmp/.criu.mntns.SsduBl/7-0000000000",
                "/tmp/.criu.mntns.SsduBl",
                "/run/containerd/runc/k8s.io/ab/criu-root"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn a_living_process_is_found_by_its_name() {
        let me = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(lives(&["no-such-program", me.trim_end()]));
        assert!(!lives(&["no-such-program"]));
    }
}
