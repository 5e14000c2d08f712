//! The real runc: found, executed, and told on behalf of whom we failed.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::cmdline::CommandLine;
use super::programs;

/// Names another runc than the one in PATH.
const OVERRIDE: &str = "SHADOW_REAL_RUNC";
/// The runc to use.
pub fn path() -> PathBuf {
    if let Some(path) = std::env::var_os(OVERRIDE).filter(|p| !p.is_empty()) {
        return path.into();
    }
    programs::all("runc").next().unwrap_or_else(|| "runc".into())
}

/// Becomes runc with the same arguments; returns only if that fails.
pub fn exec(args: &[OsString]) -> ExitCode {
    let runc = path();
    let error = Command::new(&runc).args(args).exec();
    eprintln!("shadow-runc: cannot execute {}: {error}; install runc or set {OVERRIDE}", runc.display());
    ExitCode::FAILURE
}

/// First argument of a `shadow-runc` that becomes another program and dies with the one that started it.
pub const TIED: &str = "tied-to-parent";

/// runc as a child that dies with us. Killed, we report to nobody: what it restored then would live beside what the next
/// attempt restores. CRIU gives up as soon as its runc is gone.
pub fn tied() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(TIED).arg(std::process::id().to_string()).arg(path());
    command
}

/// Serves [`TIED`]: `PARENT PROGRAM ARGS...`. Returns only if that fails.
pub fn exec_tied(args: &[OsString]) -> ExitCode {
    let failed = |why: String| {
        eprintln!("shadow-runc: {why}");
        ExitCode::FAILURE
    };
    let [parent, program, args @ ..] = args else {
        return failed(format!("{TIED} needs a parent and a program"));
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed(format!("cannot be tied to process {}: {error}", parent.to_string_lossy()));
    }
    // It may have died before.
    let is_there = getppid().is_some_and(|pid| parent.to_str() == Some(&pid.to_string()));
    if !is_there {
        return failed(format!("process {} is gone", parent.to_string_lossy()));
    }
    let error = Command::new(program).args(args).exec();
    failed(format!("cannot execute {}: {error}", program.to_string_lossy()))
}

/// `runc delete --force`: best effort, for what must not live on after a failure.
pub fn delete(line: &CommandLine, id: &OsStr) {
    let _ = Command::new(path())
        .args(&line.globals)
        .args([OsStr::new("delete"), OsStr::new("--force"), id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Says what went wrong where the caller of an OCI runtime looks: standard error, and the file given by `--log`.
pub fn report_error(line: &CommandLine, message: &str) {
    eprintln!("shadow-runc: {message}");
    if let Some((log, Err(error))) = log(line, "error", message) {
        eprintln!("shadow-runc: cannot write {}: {error}", log.display());
    }
}

/// Says what did not go as it should, into the file given by `--log` only: standard error may be the container's.
pub fn report_warning(line: &CommandLine, message: &str) {
    let _ = log(line, "warning", message); // there is nobody else to tell
}

fn log<'a>(line: &'a CommandLine, level: &str, message: &str) -> Option<(&'a Path, std::io::Result<()>)> {
    let log = line.log.as_deref()?;
    let entry = log_entry(line.log_json, &jiff::Timestamp::now().to_string(), level, message);
    let file = std::fs::OpenOptions::new().append(true).create(true).open(log);
    Some((log, file.and_then(|mut file| file.write_all(entry.as_bytes()))))
}

fn log_entry(json: bool, time: &str, level: &str, message: &str) -> String {
    if json {
        format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time}))
    } else {
        format!("time={time:?} level={level} msg={message:?}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_written_as_runc_writes_them() {
        let entry = log_entry(true, "2026-01-01T00:00:00Z", "error", "no \"x\"");
        let value: serde_json::Value = serde_json::from_str(&entry).unwrap();
        assert_eq!((value["level"].as_str(), value["msg"].as_str()), (Some("error"), Some("no \"x\"")));
        assert_eq!(log_entry(false, "t", "warning", "m"), "time=\"t\" level=warning msg=\"m\"\n");
    }
}
