//! Stands in for `criu` where runc restores a container with a cgroup namespace of its own (cgroup v2).
//!
//! runc has CRIU leave cgroups alone, as the new container's differ from its source's, and then CRIU makes no cgroup
//! namespace either: what it restores would see the whole tree of its node (runc issue 5417). But runc moves CRIU into the
//! container's cgroup before it sends its request, and a namespace that is made then has its root there; what is restored
//! inherits it. A CRIU that makes one by itself (4.3, pull request 3139) makes it at the same root.
//!
//! Guarantees: only `shadow-runc restore` shows it to runc; whatever else runc asks of CRIU reaches CRIU as it is.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, getppid, pidfd_getfd, pidfd_open};

use super::programs;

const CRIU: &str = "criu";
/// First argument of a CRIU that serves runc on a socket, whose number follows.
const SERVES: &str = "swrk";
/// In the root of a cgroup v2 hierarchy, and only there.
const UNIFIED: &str = "/sys/fs/cgroup/cgroup.controllers";

/// Whether this program was started as `criu`.
pub fn is_meant() -> bool {
    let name = env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new(CRIU)))
}

/// Has runc find us under CRIU's name: a folder for it, in front of the search path that is given back.
pub fn offer(work: &Path) -> io::Result<OsString> {
    let folder = work.join("bin");
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match symlink(env::current_exe()?, folder.join(CRIU)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {} // of an attempt before
    }
    env::join_paths(std::iter::once(folder).chain(programs::folders())).map_err(io::Error::other)
}

/// This node has cgroup v2 only.
pub fn is_unified() -> bool {
    Path::new(UNIFIED).exists()
}

/// Serves as CRIU: returns only if that fails.
pub fn main(args: &[OsString]) -> ExitCode {
    let failed = |why: String| {
        eprintln!("shadow-runc: {why}");
        ExitCode::FAILURE
    };
    if let Err(why) = own_namespace(args) {
        return failed(format!("no cgroup namespace for what is restored: {why}"));
    }
    let Some(criu) = real() else { return failed("no criu is installed: install criu 4.0 or later".into()) };
    let error = Command::new(&criu).args(args).exec();
    failed(format!("cannot execute {}: {error}", criu.display()))
}

/// Makes the namespace where runc has moved us into a cgroup.
fn own_namespace(args: &[OsString]) -> Result<(), String> {
    let [first, socket, ..] = args else { return Ok(()) };
    let socket = socket.to_str().and_then(|number| number.parse::<RawFd>().ok());
    let (true, Some(socket)) = (first == SERVES, socket) else { return Ok(()) };
    readable(socket).map_err(|error| format!("no request on descriptor {socket}: {error}"))?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if cgroup("self")? != cgroup(&parent.to_string())? {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|error| format!("unshare: {error}"))?;
    }
    Ok(())
}

/// Waits for the request, which comes when we are where we belong; reads nothing of it.
fn readable(socket: RawFd) -> rustix::io::Result<()> {
    // By way of ourselves: the number alone is no descriptor that may be borrowed.
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    let socket = pidfd_getfd(ourselves, socket, PidfdGetfdFlags::empty())?;
    let mut sockets = [PollFd::new(&socket, PollFlags::IN)];
    loop {
        match poll(&mut sockets, None) {
            Err(Errno::INTR) => {}
            polled => return polled.map(drop),
        }
    }
}

fn cgroup(process: &str) -> Result<String, String> {
    let path = format!("/proc/{process}/cgroup");
    fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
}

/// The first `criu` of the search path that is not us.
fn real() -> Option<PathBuf> {
    let ours = fs::canonicalize("/proc/self/exe").ok();
    programs::all(CRIU).find(|program| fs::canonicalize(program).ok() != ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_waits_for_the_request_and_leaves_it_where_it_is() {
        let (ours, mut runcs) = UnixStream::pair().unwrap();
        let socket = ours.as_raw_fd();
        let waits = std::thread::spawn(move || readable(socket));
        runcs.write_all(b"x").unwrap();
        waits.join().unwrap().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut request = [0; 2];
        assert_eq!(io::Read::read(&mut &ours, &mut request).unwrap(), 1);
    }

    #[test]
    fn what_is_no_request_needs_no_namespace() {
        for args in [vec![], vec!["--version".into()], vec!["check".into(), "7".into()], vec![SERVES.into()]]
        {
            own_namespace(&args).unwrap();
        }
    }

    #[test]
    fn runc_finds_us_first_and_we_find_the_real_one() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let path = offer(dir.path()).unwrap();
            let first = env::split_paths(&path).next().unwrap();
            assert_eq!(first, dir.path().join("bin"));
            assert_eq!(fs::canonicalize(first.join(CRIU)).unwrap(), env::current_exe().unwrap());
        }
    }
}
