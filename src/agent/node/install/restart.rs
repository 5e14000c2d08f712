//! containerd's process: found by its socket, restarted where it started before its configuration changed. Does I/O.
//!
//! Guarantees: pods outlive a restart, the agent's too; it ends within [`RESTART_LIMIT`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::super::engine::Engine;
use super::super::host::{Host, HostError};

const SYSTEMD: &str = "/run/systemd/system";
/// Where systemd does not say in which unit it runs.
const UNIT: &str = "containerd.service";
/// For a restart until the socket answers again.
pub const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// Start times are not exact.
const DOUBT: Duration = Duration::from_millis(30);
/// Unit of times in /proc/PID/stat, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;
const LOOK: Duration = Duration::from_millis(50);

/// containerd was not found or did not come back.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    #[error("{}: {source}; is containerd's socket elsewhere? (--containerd-socket)", socket.display())]
    Socket { socket: PathBuf, source: io::Error },
    #[error("the process behind {} is not visible here; does the pod have hostPID?", .0.display())]
    Invisible(PathBuf),
    #[error("process {pid} cannot be stopped: {source}")]
    Stop { pid: Pid, source: io::Error },
    #[error("containerd is not back after a restart: {0}")]
    NotBack(String),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// When files that containerd reads once, at its start, were last changed.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    /// Ours.
    pub drop_in: Option<SystemTime>,
    /// Somebody else's, or rewritten at each start by what starts containerd.
    pub config: Option<SystemTime>,
}

/// Whether a process that started then may not have read them. In doubt our own file counts as not read; the other one as
/// read, for some distributions write it the moment before they start containerd.
pub fn is_outdated(started: Option<SystemTime>, changes: Changes) -> bool {
    let Some(started) = started else { return true };
    let newer =
        |changed: Option<SystemTime>| changed.and_then(|changed| changed.duration_since(started).ok());
    let maybe = changes.drop_in.is_some_and(|changed| started <= changed + DOUBT);
    maybe || newer(changes.config).is_some_and(|by| by > DOUBT)
}

/// PID of the process that serves containerd's socket.
pub async fn daemon(host: &Host, engine: &Engine) -> Result<Pid, RestartError> {
    let unreachable = |source| RestartError::Socket { socket: engine.socket.clone(), source };
    let stream = UnixStream::connect(host.path(&engine.socket)).await.map_err(unreachable)?;
    let pid = stream.peer_cred().map_err(unreachable)?.pid().and_then(Pid::from_raw);
    pid.ok_or_else(|| RestartError::Invisible(engine.socket.clone()))
}

/// When a process started, by the wall clock; both its start and the present are known since boot, to 10 ms.
pub fn started(pid: Pid) -> Option<SystemTime> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let start = Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime = Duration::from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?);
    SystemTime::now().checked_sub(uptime.saturating_sub(start))
}

/// Ends when another process answers.
pub async fn restart(host: &Host, engine: &Engine, pid: Pid) -> Result<(), RestartError> {
    let deadline = Instant::now() + RESTART_LIMIT;
    if host.path(Path::new(SYSTEMD)).exists() {
        let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()));
        let cgroups = cgroups.unwrap_or_default();
        let unit = unit(&cgroups).unwrap_or(UNIT);
        tracing::info!(unit, "restarting containerd, which does not know the handler yet");
        host.run("systemctl", &["restart".as_ref(), unit.as_ref()], &[], RESTART_LIMIT).await?;
    } else {
        tracing::info!(
            pid = pid.as_raw_nonzero(),
            "restarting containerd, which does not know the handler yet"
        );
        let stopped = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| pidfd_send_signal(&process, Signal::TERM));
        stopped.map_err(|error| RestartError::Stop { pid, source: error.into() })?;
    }
    loop {
        match daemon(host, engine).await {
            Ok(now) if now != pid => return Ok(()),
            answer if Instant::now() >= deadline => {
                let why = answer.err().map_or_else(|| "the old one still runs".to_owned(), |e| e.to_string());
                return Err(RestartError::NotBack(why));
            }
            _ => sleep(LOOK).await,
        }
    }
}

/// The unit of systemd that a process belongs to, from its cgroups: k3s and others start containerd themselves.
fn unit(cgroups: &str) -> Option<&str> {
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths().flat_map(|path| path.rsplit('/')).find(|part| part.ends_with(".service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_this_process_lies_in_the_past() {
        let started = started(rustix::process::getpid()).unwrap();
        let age = SystemTime::now().duration_since(started).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
    }

    #[test]
    fn containerd_has_read_what_is_older_than_itself() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let (before, after) = (start - Duration::from_secs(1), start + Duration::from_secs(1));
        let just_before = start - Duration::from_millis(5);
        let of = |drop_in, config| is_outdated(Some(start), Changes { drop_in, config });
        assert!(!of(Some(before), Some(before)) && !of(Some(before), None));
        assert!(of(Some(after), None) && of(Some(before), Some(after)));
        assert!(of(Some(just_before), None), "in doubt");
        assert!(!of(Some(before), Some(just_before)), "written by what starts it");
        assert!(is_outdated(None, Changes { drop_in: Some(before), config: None }), "not known");
    }

    #[test]
    fn the_unit_that_containerd_belongs_to_is_restarted() {
        assert_eq!(unit("0::/system.slice/containerd.service\n"), Some("containerd.service"));
        assert_eq!(unit("0::/../../system.slice/k3s-agent.service/containerd\n"), Some("k3s-agent.service"));
        let v1 =
            "4:memory:/system.slice/rke2-server.service\n1:name=systemd:/system.slice/rke2-server.service\n";
        assert_eq!(unit(v1), Some("rke2-server.service"));
        assert_eq!(unit("0::/init\n"), None);
        assert_eq!(unit(""), None);
    }
}
