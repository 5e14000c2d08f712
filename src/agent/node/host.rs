//! Commands on the node itself, from inside the agent's container: our own binary is started again as
//! `shadow host-exec -- CMD`, enters the namespaces of the node's first process and becomes CMD.
//!
//! Guarantees: every command ends within its time limit; what it prints is kept up to a limit; paths are the node's.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::thread::move_into_link_name_space;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// Where the node's programs are, whatever our image's PATH says.
const NODE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The subcommand that [`enter`] serves.
pub const SUBCOMMAND: &str = "host-exec";
/// Kept of each of a command's two outputs.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// A command on the node could not be run or failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("{source}: cannot start `{command}` on the node")]
    Start { command: String, source: std::io::Error },
    #[error("not ended within {} ms: `{command}` on the node", limit.as_millis())]
    TimedOut { command: String, limit: Duration },
    #[error("{stderr} ({status}, `{command}` on the node)")]
    Failed { command: String, status: std::process::ExitStatus, stderr: String },
}

/// The node that this agent serves.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its root directory as we see it.
    root: PathBuf,
    /// Set if we are not in the node's mount namespace already.
    enter: bool,
    /// Folders of programs that come before [`NODE_PATH`].
    programs: Vec<PathBuf>,
}

impl Host {
    /// The node whose first process has PID 1 here (the pod has hostPID).
    pub fn of_pid_1() -> Self {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let enter = namespace("self") != namespace("1");
        Self { root: PathBuf::from(if enter { "/proc/1/root" } else { "/" }), enter, programs: Vec::new() }
    }

    /// The same node, with folders that are looked through for programs before the usual ones.
    #[must_use]
    pub fn with_programs(self, programs: Vec<PathBuf>) -> Self {
        Self { programs, ..self }
    }

    /// A folder that stands for a node; commands run right here. For tests.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), enter: false, programs: Vec::new() }
    }

    /// A path of the node as we reach it. Folders on the way must not be absolute symbolic links.
    pub fn path(&self, on_node: &Path) -> PathBuf {
        self.root.join(on_node.strip_prefix("/").unwrap_or(on_node))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the node's programs are.
    fn search_path(&self) -> OsString {
        let mut path = OsString::new();
        for folder in &self.programs {
            path.push(folder);
            path.push(":");
        }
        path.push(NODE_PATH);
        path
    }

    /// Runs a command to its end and gives its standard output.
    pub async fn run(
        &self,
        program: &str,
        args: &[&OsStr],
        environment: &[(&str, &OsStr)],
        limit: Duration,
    ) -> Result<Vec<u8>, HostError> {
        let mut command = if self.enter {
            let mut command = Command::new("/proc/self/exe");
            command.args([SUBCOMMAND, "--", program]);
            command
        } else {
            Command::new(program)
        };
        let shown = || {
            let mut line = OsString::from(program);
            for arg in args {
                line.push(" ");
                line.push(arg);
            }
            line.to_string_lossy().into_owned()
        };
        command.args(args).env_clear().env("PATH", self.search_path()).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let start = |source| HostError::Start { command: shown(), source };
        let mut child = command.spawn().map_err(start)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended =
            tokio::time::timeout(limit, async { tokio::join!(child.wait(), gather(stdout), gather(stderr)) });
        let Ok((status, stdout, stderr)) = ended.await else {
            return Err(HostError::TimedOut { command: shown(), limit });
        };
        let status = status.map_err(start)?;
        if status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(HostError::Failed { command: shown(), status, stderr })
    }
}

/// Reads to the end, keeps the beginning.
async fn gather(output: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut output) = output else { return kept };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count.min(OUTPUT_LIMIT.saturating_sub(kept.len()))]);
    }
    kept
}

/// `shadow host-exec -- CMD...`: becomes CMD in the node's namespaces. Must be called while the process has one thread.
pub fn enter(args: &[OsString]) -> ExitCode {
    let args = args.strip_prefix(&[OsString::from("--")]).unwrap_or(args);
    let Some((program, args)) = args.split_first() else {
        eprintln!("shadow {SUBCOMMAND}: no command");
        return ExitCode::FAILURE;
    };
    // Open all before the first move: afterwards /proc is the node's.
    let mut namespaces = Vec::new();
    for name in ["cgroup", "mnt"] {
        match File::open(format!("/proc/1/ns/{name}")) {
            Ok(file) => namespaces.push((name, file)),
            Err(error) => eprintln!("shadow {SUBCOMMAND}: namespace {name} of PID 1: {error}"),
        }
    }
    for (name, file) in &namespaces {
        if let Err(error) = move_into_link_name_space(file.as_fd(), None) {
            eprintln!(
                "shadow {SUBCOMMAND}: cannot enter the node's {name} namespace: {error}; is the pod privileged, with hostPID?"
            );
            return ExitCode::FAILURE;
        }
    }
    if let Err(error) = std::env::set_current_dir("/") {
        eprintln!("shadow {SUBCOMMAND}: {error}");
        return ExitCode::FAILURE;
    }
    let error = std::process::Command::new(program).args(args).exec();
    eprintln!("shadow {SUBCOMMAND}: cannot execute {}: {error}", program.to_string_lossy());
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_gives_its_output_or_says_why_not() {
        let host = Host::at(Path::new("/"));
        let limit = Duration::from_secs(20);
        assert_eq!(host.run("echo", &["x".as_ref()], &[], limit).await.unwrap(), b"x\n");
        let error =
            host.run("sh", &["-c".as_ref(), "echo why >&2; exit 3".as_ref()], &[], limit).await.unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
        let error = host.run("sleep", &["1000".as_ref()], &[], Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, HostError::TimedOut { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_distribution_s_own_programs_come_first() {
        let dir = tempfile::tempdir().unwrap();
        // A link: a program that was just written may still be open in a process that another test starts.
        std::os::unix::fs::symlink("/bin/sh", dir.path().join("criu")).unwrap();
        let host = Host::at(Path::new("/")).with_programs(vec![dir.path().to_owned()]);
        let script = ["-c", "echo own $PATH"].map(OsStr::new);
        let said = host.run("criu", &script, &[], Duration::from_secs(20)).await.unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), format!("own {}:{NODE_PATH}\n", dir.path().display()));
    }

    #[test]
    fn paths_of_the_node_lie_below_its_root() {
        let host = Host { root: "/proc/1/root".into(), enter: true, programs: Vec::new() };
        assert_eq!(host.path(Path::new("/run/x")), Path::new("/proc/1/root/run/x"));
    }
}
