//! The postStart hook of a restored container. Its process has been through it, on the node that it came from; the kubelet
//! does not know that and executes it once more. That one `exec` is answered here, without anything being run.
//!
//! Guarantees: at most one `exec` of a container is answered, only of one that was restored, and only if its arguments are
//! those of the hook, which the webhook has noted on the pod; a container that starts afresh has its hook run. Where this
//! cannot be done, runc does what it was asked to.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::Deserialize;

use super::bundle::Bundle;
use super::cmdline::{CommandLine, Exec};
use crate::api::ANNOTATION_SKIP_POST_START;

/// First argument of a `shadow-runc` that does nothing and ends well: the process that the hook would have been.
pub const NOTHING: &str = "end-at-once";

/// In runc's own state folder, so that it goes when the container is deleted: the hook's command, as JSON.
fn pending(line: &CommandLine, id: &OsStr) -> PathBuf {
    line.root.join(id).join("shadow-post-start")
}

/// Notes the hook of a container that was restored.
///
/// # Errors
/// The hook will run again, and why.
pub fn expect(line: &CommandLine, id: &OsStr, bundle: &Bundle) -> Result<(), String> {
    let Some(noted) = bundle.annotation(&[ANNOTATION_SKIP_POST_START]) else { return Ok(()) };
    let hooks: BTreeMap<String, Vec<String>> = serde_json::from_str(&noted)
        .map_err(|error| format!("annotation {ANNOTATION_SKIP_POST_START}: {error}"))?;
    let Some(command) = bundle.container().and_then(|name| hooks.get(&name).cloned()) else { return Ok(()) };
    let file = pending(line, id);
    fs::write(&file, serde_json::json!(command).to_string())
        .map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// Answers an `exec` of the hook. `None`: it is for runc.
pub fn answered(line: &CommandLine, exec: &Exec) -> Option<ExitCode> {
    let pending = pending(line, &exec.id);
    let command: Vec<String> = serde_json::from_str(&fs::read_to_string(&pending).ok()?).ok()?;
    let process: Process = serde_json::from_str(&fs::read_to_string(&exec.process).ok()?).ok()?;
    if process.args != command {
        return None;
    }
    // Whoever takes it away answers: never twice.
    fs::remove_file(&pending).ok()?;
    // Nobody waits for it here: it outlives us, and its caller takes it over, as any process of a detached `exec`.
    let child = Command::new("/proc/self/exe")
        .arg(NOTHING)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    write_pid(&exec.pid_file, child.id()).ok()?;
    Some(ExitCode::SUCCESS)
}

/// What is to be executed.
#[derive(Deserialize)]
struct Process {
    args: Vec<String>,
}

/// As runc writes it: whole, and without an end of line.
fn write_pid(path: &Path, pid: u32) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".shadow-new");
    let mut file = fs::File::create(&new)?;
    file.write_all(pid.to_string().as_bytes())?;
    fs::rename(&new, path)
}
