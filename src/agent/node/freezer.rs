//! Stops, continues, wakes and kills all processes of one container through its cgroup (v1 freezer or v2).
//!
//! Guarantees: each call confirms what it did by reading it back, ends by its deadline, may be repeated, and counts a
//! cgroup that is gone as done. Direct writes instead of `runc pause`: a process start less within the pause.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

/// Between looks at a state that takes a moment.
const LOOK: Duration = Duration::from_micros(500);
/// A v1 cgroup can hang in FREEZING when a process forks meanwhile: after so many looks it is let go and tried anew.
const LOOKS_BEFORE_RETRY: u32 = 100;

/// The state asked for was not reached.
#[derive(Debug, thiserror::Error)]
pub enum FreezerError {
    #[error("cgroup {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cgroup {}: not {wanted} in time", path.display())]
    TimedOut { path: PathBuf, wanted: &'static str },
}

/// The cgroup of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

impl Freezer {
    /// Stops every process. Not for those that must not run again: a v1 cgroup may be let go on the way, and a process that joins
    /// a frozen one (an `exec` that was under way) can make it FREEZING for ever. Those that were frozen before stay so.
    pub async fn freeze(&self, deadline: Instant) -> Result<(), FreezerError> {
        for look in 1_u32.. {
            match self {
                Self::V1(_) if look.is_multiple_of(LOOKS_BEFORE_RETRY) => {
                    self.order(false)?;
                    sleep(LOOK).await;
                    self.order(true)?;
                }
                Self::V1(_) => self.order(true)?,
                // Once: whoever is forked meanwhile is born frozen.
                Self::V2(_) if look == 1 => self.order(true)?,
                Self::V2(_) => {}
            }
            if self.is_frozen()?.unwrap_or(true) {
                return Ok(());
            }
            self.pause_before(deadline, "frozen").await?;
        }
        Ok(())
    }

    /// Lets every process go on.
    pub async fn thaw(&self, deadline: Instant) -> Result<(), FreezerError> {
        self.order(false)?;
        while self.is_frozen()? == Some(true) {
            self.pause_before(deadline, "thawed").await?;
        }
        Ok(())
    }

    /// True if all processes stand still; nothing if the cgroup is gone.
    pub fn is_frozen(&self) -> Result<Option<bool>, FreezerError> {
        match self {
            Self::V1(_) => Ok(self.read("freezer.state")?.map(|state| state.trim() == "FROZEN")),
            Self::V2(_) => Ok(self.read("cgroup.events")?.map(|text| text.lines().any(|l| l == "frozen 1"))),
        }
    }

    /// True if it is to run: nobody has frozen it, or somebody has thawed it. False where the cgroup is gone.
    pub fn is_thawed(&self) -> Result<bool, FreezerError> {
        let (file, thawed) = match self {
            Self::V1(_) => ("freezer.state", "THAWED"),
            Self::V2(_) => ("cgroup.freeze", "0"),
        };
        Ok(self.read(file)?.is_some_and(|state| state.trim() == thawed))
    }

    /// Wakes what a restore has left stopped: frozen first, so that no process sees another one move before all may.
    pub async fn wake(&self, deadline: Instant) -> Result<(), FreezerError> {
        self.freeze(deadline).await?;
        self.signal(Signal::CONT)?;
        self.thaw(deadline).await
    }

    /// Kills every process, frozen or not, and waits until none is left. No process runs on before it dies: each has
    /// its SIGKILL before the cgroup is thawed. The cgroup is thawed in the end: of a dead container whose cgroup is frozen
    /// runc says that it is paused, and never deletes it.
    pub async fn kill(&self, deadline: Instant) -> Result<(), FreezerError> {
        if self.kill_at_once()? {
            while !self.pids()?.is_empty() {
                self.pause_before(deadline, "empty").await?;
            }
            return self.order(false);
        }
        loop {
            let left = self.signal(Signal::KILL)?;
            self.order(false)?; // a v1 cgroup delivers signals only when thawed
            if left == 0 {
                return Ok(());
            }
            self.pause_before(deadline, "empty").await?;
        }
    }

    /// By one write, which no fork escapes and which frozen processes do not outlive. False where the kernel has none (v1,
    /// Linux before 5.14).
    fn kill_at_once(&self) -> Result<bool, FreezerError> {
        match self {
            Self::V1(_) => Ok(false),
            Self::V2(_) => self.write("cgroup.kill", "1"),
        }
    }

    /// All processes, by their numbers on the node.
    pub fn members(&self) -> Result<Vec<u32>, FreezerError> {
        let of = |pid: Pid| u32::try_from(pid.as_raw_nonzero().get()).ok();
        Ok(self.pids()?.into_iter().filter_map(of).collect())
    }

    /// Gives how many processes there are.
    fn signal(&self, signal: Signal) -> Result<usize, FreezerError> {
        let pids = self.pids()?;
        for pid in &pids {
            // A pidfd, and a second look at the cgroup, so that a PID taken over by another process is spared.
            let Ok(process) = pidfd_open(*pid, PidfdFlags::empty()) else { continue };
            if self.pids()?.contains(pid) {
                let _ = pidfd_send_signal(&process, signal);
            }
        }
        Ok(pids.len())
    }

    /// Of the cgroup and of those that the container has made below it.
    pub fn pids(&self) -> Result<Vec<Pid>, FreezerError> {
        let at = |path: &Path, source| FreezerError::Io { path: path.to_owned(), source };
        let (mut pids, mut folders) = (Vec::new(), vec![self.dir().clone()]);
        while let Some(folder) = folders.pop() {
            let read = gone_is_fine(fs::read_to_string(folder.join("cgroup.procs")));
            let text = match read {
                // A threaded cgroup (v2): its processes are listed further up.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
                    None
                }
                read => read.map_err(|error| at(&folder, error))?,
            };
            pids.extend(
                text.unwrap_or_default().lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)),
            );
            let Some(entries) = gone_is_fine(fs::read_dir(&folder)).map_err(|error| at(&folder, error))?
            else {
                continue;
            };
            let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(below.map(|entry| entry.path()));
        }
        Ok(pids)
    }

    fn dir(&self) -> &PathBuf {
        match self {
            Self::V1(dir) | Self::V2(dir) => dir,
        }
    }

    fn order(&self, freeze: bool) -> Result<(), FreezerError> {
        let (file, value) = match (self, freeze) {
            (Self::V1(_), true) => ("freezer.state", "FROZEN"),
            (Self::V1(_), false) => ("freezer.state", "THAWED"),
            (Self::V2(_), true) => ("cgroup.freeze", "1"),
            (Self::V2(_), false) => ("cgroup.freeze", "0"),
        };
        self.write(file, value).map(drop)
    }

    /// False where there is no such file.
    fn write(&self, file: &str, value: &str) -> Result<bool, FreezerError> {
        let path = self.dir().join(file);
        // Never created: a cgroup that is gone stays gone.
        let written = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut f| io::Write::write_all(&mut f, value.as_bytes()));
        let written = gone_is_fine(written).map_err(|source| FreezerError::Io { path, source })?;
        Ok(written.is_some())
    }

    fn read(&self, file: &str) -> Result<Option<String>, FreezerError> {
        let path = self.dir().join(file);
        gone_is_fine(fs::read_to_string(&path)).map_err(|source| FreezerError::Io { path, source })
    }

    async fn pause_before(&self, deadline: Instant, wanted: &'static str) -> Result<(), FreezerError> {
        if Instant::now() >= deadline {
            return Err(FreezerError::TimedOut { path: self.dir().clone(), wanted });
        }
        sleep(LOOK).await;
        Ok(())
    }
}

fn gone_is_fine<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn a_cgroup_that_is_gone_is_frozen_thawed_and_empty() {
        let dir = tempfile::tempdir().unwrap();
        for freezer in [Freezer::V1(dir.path().join("x")), Freezer::V2(dir.path().join("x"))] {
            freezer.freeze(soon()).await.unwrap();
            freezer.thaw(soon()).await.unwrap();
            freezer.kill(soon()).await.unwrap();
            assert_eq!((freezer.is_frozen().unwrap(), freezer.is_thawed().unwrap()), (None, false));
        }
    }

    #[test]
    fn only_what_is_to_run_is_thawed() {
        let dir = tempfile::tempdir().unwrap();
        let [v1, v2] = [Freezer::V1(dir.path().to_owned()), Freezer::V2(dir.path().to_owned())];
        for (state, freeze, thawed) in
            [("THAWED", "0", true), ("FREEZING", "1", false), ("FROZEN", "1", false)]
        {
            fs::write(dir.path().join("freezer.state"), format!("{state}\n")).unwrap();
            fs::write(dir.path().join("cgroup.freeze"), format!("{freeze}\n")).unwrap();
            assert_eq!((v1.is_thawed().unwrap(), v2.is_thawed().unwrap()), (thawed, thawed), "{state}");
        }
    }

    #[test]
    fn processes_of_cgroups_below_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "7\n8\n").unwrap();
        fs::write(dir.path().join("a/b/cgroup.procs"), "9\n").unwrap();
        let pids = Freezer::V2(dir.path().to_owned()).pids().unwrap();
        assert_eq!(pids, [7, 8, 9].map(|pid| Pid::from_raw(pid).unwrap()));
    }

    #[tokio::test]
    async fn freezing_is_confirmed_by_reading_it_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("freezer.state"), "").unwrap();
        let v1 = Freezer::V1(dir.path().to_owned());
        v1.freeze(soon()).await.unwrap();
        assert_eq!(v1.is_frozen().unwrap(), Some(true));

        fs::write(dir.path().join("cgroup.freeze"), "0").unwrap();
        fs::write(dir.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let v2 = Freezer::V2(dir.path().to_owned());
        assert!(matches!(v2.freeze(soon()).await, Err(FreezerError::TimedOut { .. })));
        fs::write(dir.path().join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        v2.freeze(soon()).await.unwrap();
    }

    #[tokio::test]
    async fn a_v2_cgroup_is_told_once_and_not_let_go_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let switch = dir.path().join("cgroup.freeze");
        fs::write(&switch, "0").unwrap();
        fs::write(dir.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let v2 = Freezer::V2(dir.path().to_owned());
        // Twice as long as a v1 cgroup is given before it is let go.
        let deadline = Instant::now() + 2 * LOOK * LOOKS_BEFORE_RETRY;
        let freezing = v2.freeze(deadline);
        let watching = async {
            let mut written = std::collections::BTreeSet::new();
            while Instant::now() < deadline {
                sleep(LOOK).await;
                written.insert(fs::metadata(&switch).unwrap().modified().unwrap());
            }
            written.len()
        };
        let (frozen, written) = tokio::join!(freezing, watching);
        assert!(matches!(frozen, Err(FreezerError::TimedOut { .. })));
        assert_eq!(written, 1);
        assert_eq!(fs::read_to_string(&switch).unwrap(), "1");
    }

    #[tokio::test]
    async fn a_kernel_that_can_kills_a_whole_cgroup_by_one_write() {
        let dir = tempfile::tempdir().unwrap();
        let (orders, procs) = (dir.path().join("cgroup.kill"), dir.path().join("cgroup.procs"));
        fs::write(&orders, "").unwrap();
        fs::write(&procs, "4194304\n").unwrap(); // more than any PID
        let v2 = Freezer::V2(dir.path().to_owned());
        assert!(matches!(v2.kill(soon()).await, Err(FreezerError::TimedOut { .. })), "it waits for the end");
        assert_eq!(fs::read_to_string(&orders).unwrap(), "1");
        fs::write(&procs, "").unwrap();
        v2.kill(soon()).await.unwrap();
    }

    #[tokio::test]
    async fn a_cgroup_whose_processes_were_killed_is_not_left_frozen() {
        let dir = tempfile::tempdir().unwrap();
        let frozen = dir.path().join("cgroup.freeze");
        fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        for kernel in ["that has no cgroup.kill", "that has one"] {
            fs::write(&frozen, "1").unwrap();
            Freezer::V2(dir.path().to_owned()).kill(soon()).await.unwrap();
            assert_eq!(fs::read_to_string(&frozen).unwrap(), "0", "a kernel {kernel}");
            fs::write(dir.path().join("cgroup.kill"), "").unwrap();
        }
    }
}
