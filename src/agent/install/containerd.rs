//! containerd's handler `shadow`: a drop-in, and a restart where containerd does not know it yet.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::{Files, InstallError, RUNTIME};
use crate::agent::host::Host;
use crate::api::{GROUP, RUNTIME_CLASS};

const CONFIG: &str = "/etc/containerd/config.toml";
const DROP_IN: &str = "/etc/containerd/conf.d/shadow.toml";
const IMPORTS: &str = "imports = [\"/etc/containerd/conf.d/*.toml\"]";
const SOCKET: &str = "/run/containerd/containerd.sock";
const SYSTEMD: &str = "/run/systemd/system";
/// For `containerd config dump`.
const DUMP_LIMIT: Duration = Duration::from_secs(15);
/// For a restart until the socket answers again.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// Start times are not exact: in doubt containerd is restarted.
const DOUBT: Duration = Duration::from_millis(30);
/// Unit of times in /proc/PID/stat, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;
const LOOK: Duration = Duration::from_millis(50);

/// Writes the drop-in and makes containerd know it.
pub async fn configure(host: &Host, files: &Files<'_>, edit_config: bool) -> Result<(), InstallError> {
    let effective = dump(host).await?;
    let drop_in = drop_in(systemd_cgroup(&effective));
    if files.write(Path::new(DROP_IN), drop_in.as_bytes(), 0o644)? {
        tracing::info!(path = DROP_IN, "containerd handler configured");
    }
    if !dump(host).await?.contains(RUNTIME) {
        import_drop_ins(files, edit_config)?;
        if !dump(host).await?.contains(RUNTIME) {
            let what = format!(
                "its configuration does not take {DROP_IN} up, though it is imported: see `containerd config dump`"
            );
            return Err(InstallError::Containerd(what));
        }
    }
    let changed = [files.modified(Path::new(DROP_IN))?, files.modified(Path::new(CONFIG))?];
    let changed = changed.into_iter().flatten().max().unwrap_or(SystemTime::UNIX_EPOCH);
    let pid = daemon(host).await?;
    if started(pid).is_some_and(|started| started > changed + DOUBT) {
        return Ok(());
    }
    restart(host, pid).await
}

async fn dump(host: &Host) -> Result<String, InstallError> {
    let output = host.run("containerd", &["config".as_ref(), "dump".as_ref()], &[], DUMP_LIMIT).await?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

fn import_drop_ins(files: &Files<'_>, edit_config: bool) -> Result<(), InstallError> {
    if !edit_config {
        let what = format!(
            "{CONFIG} does not import drop-ins: add `{IMPORTS}` at its top, or start the agent with --edit-containerd-config"
        );
        return Err(InstallError::Containerd(what));
    }
    let text = files.read(Path::new(CONFIG))?.unwrap_or_default();
    let Some(text) = with_imports(&text) else {
        let what = format!("{CONFIG} has imports of its own: add \"/etc/containerd/conf.d/*.toml\" to them");
        return Err(InstallError::Containerd(what));
    };
    files.write(Path::new(CONFIG), text.as_bytes(), 0o644)?;
    tracing::info!(path = CONFIG, "imports drop-ins now");
    Ok(())
}

/// The configuration with the import; nothing if it has imports already. Pure.
fn with_imports(config: &str) -> Option<String> {
    if config.lines().any(|line| line.trim_start().starts_with("imports")) {
        return None;
    }
    let version = config.lines().position(|line| line.trim_start().starts_with("version"));
    let mut lines: Vec<&str> = config.lines().collect();
    if version.is_none() {
        lines.insert(0, "version = 3");
    }
    lines.insert(version.unwrap_or(0) + 1, IMPORTS);
    Some(lines.join("\n") + "\n")
}

/// True if runc's cgroups are made by systemd, by the effective configuration. Pure.
fn systemd_cgroup(effective: &str) -> bool {
    let mut of_runc = false;
    for line in effective.lines().map(str::trim) {
        if line.starts_with('[') {
            let path = line.trim_matches(['[', ']']).replace(['\'', '"'], "");
            of_runc = path.ends_with("containerd.runtimes.runc.options");
        } else if of_runc && let Some(value) = line.strip_prefix("SystemdCgroup") {
            return value.trim_start_matches([' ', '=']).starts_with("true");
        }
    }
    false
}

fn drop_in(systemd_cgroup: bool) -> String {
    format!(
        "# Written by the SHADOW agent: pods of RuntimeClass `{RUNTIME_CLASS}`.\n\
         version = 3\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{RUNTIME_CLASS}]\n\
         \x20 runtime_type = 'io.containerd.runc.v2'\n\
         \x20 pod_annotations = ['{GROUP}/*']\n\
         \x20 [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{RUNTIME_CLASS}.options]\n\
         \x20   BinaryName = '{RUNTIME}'\n\
         \x20   SystemdCgroup = {systemd_cgroup}\n"
    )
}

/// PID of the process that serves containerd's socket.
async fn daemon(host: &Host) -> Result<Pid, InstallError> {
    let unreachable = |error: std::io::Error| InstallError::Containerd(format!("{SOCKET}: {error}"));
    let stream = UnixStream::connect(host.path(Path::new(SOCKET))).await.map_err(unreachable)?;
    let pid = stream.peer_cred().map_err(unreachable)?.pid().and_then(Pid::from_raw);
    pid.ok_or_else(|| {
        InstallError::Containerd(format!(
            "{SOCKET}: its process is not visible here; does the pod have hostPID?"
        ))
    })
}

/// When a process started, by the wall clock; both its start and the present are known since boot, to 10 ms.
fn started(pid: Pid) -> Option<SystemTime> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let start = Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime = Duration::from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?);
    SystemTime::now().checked_sub(uptime.saturating_sub(start))
}

/// Pods outlive it, this one too.
async fn restart(host: &Host, pid: Pid) -> Result<(), InstallError> {
    tracing::info!(pid = pid.as_raw_nonzero(), "restarting containerd, which does not know the handler yet");
    let deadline = Instant::now() + RESTART_LIMIT;
    if host.path(Path::new(SYSTEMD)).exists() {
        host.run("systemctl", &["restart".as_ref(), "containerd".as_ref()], &[], RESTART_LIMIT).await?;
    } else {
        let stopped = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| pidfd_send_signal(&process, Signal::TERM));
        stopped.map_err(|error| InstallError::Containerd(format!("cannot stop process {pid}: {error}")))?;
    }
    loop {
        match daemon(host).await {
            Ok(now) if now != pid => return Ok(()),
            answer if Instant::now() >= deadline => {
                let why = answer.err().map_or_else(|| "the old one still runs".to_owned(), |e| e.to_string());
                return Err(InstallError::Containerd(format!("not back after a restart: {why}")));
            }
            _ => sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_driver_is_taken_over_from_runc() {
        let config = |value: &str| {
            format!(
                "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]\n SystemdCgroup = true\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]\n  BinaryName = ''\n  SystemdCgroup = {value}\n"
            )
        };
        assert!(systemd_cgroup(&config("true")));
        assert!(!systemd_cgroup(&config("false")));
        assert!(!systemd_cgroup(""));
        assert!(drop_in(true).contains("SystemdCgroup = true"));
    }

    #[test]
    fn the_import_goes_before_the_first_table_and_never_beside_another() {
        let text = with_imports("version = 3\nroot = '/x'\n[plugins]\n").unwrap();
        assert_eq!(text.lines().take(2).collect::<Vec<_>>(), ["version = 3", IMPORTS]);
        assert!(with_imports("").unwrap().starts_with("version = 3\nimports"));
        assert_eq!(with_imports("imports = ['a']\n"), None);
    }

    #[test]
    fn the_start_of_this_process_lies_in_the_past() {
        let started = started(rustix::process::getpid()).unwrap();
        let age = SystemTime::now().duration_since(started).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
    }
}
