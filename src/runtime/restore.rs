//! Restores a container from an archive by runc and CRIU, in place of creating it. Its processes stand still afterwards:
//! not one instruction of theirs has run.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::bundle::Bundle;
use super::claim::Connection;
use super::cmdline::{CommandLine, Create};
use super::criu::CRIU_CONFIG_VARIABLE;
use super::layer::TreeKind;
use super::{CreateError, carried, layer, runc, stand_in};
use crate::api::{CRIU_RESTORE_CONFIG, NODE_DIR};
use crate::judgement::cause;

/// Puts the source's changed files in place and restores its processes. They inherit our standard streams, which are
/// the container's, so nothing may be printed here.
pub fn restore(
    line: &CommandLine,
    create: &Create,
    bundle: &Bundle,
    agent: &mut Connection,
) -> Result<(), CreateError> {
    let archive = agent.archive().to_owned();
    layer::apply(&archive.join("rootfs.tar"), &bundle.rootfs(), TreeKind::Layer)?;
    let images = carried::put_in_place(bundle, &create.id, &archive, agent.pod())?;
    let work = bundle.work_dir();
    match fs::create_dir(&work) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(CreateError::Restore(format!("cannot make {}: {error}", work.display())));
        }
        _ => {}
    }
    let mut command = runc::tied();
    command.args(&line.globals).arg("restore").arg("--detach").arg("--bundle").arg(&create.bundle);
    if let Some(file) = &create.pid_file {
        command.arg("--pid-file").arg(file);
    }
    if let Some(socket) = &create.console_socket {
        command.arg("--console-socket").arg(socket);
    }
    if create.no_pivot {
        command.arg("--no-pivot");
    }
    command.arg("--image-path").arg(images.dir()).arg("--work-path").arg(&work);
    // The new container's cgroup is made by its new spec; what the source's looked like does not matter.
    command.args(["--manage-cgroups-mode", "ignore"]).arg(&create.id);
    // Without these settings what is restored would run before anybody has looked at it.
    let settings = Path::new(NODE_DIR).join(CRIU_RESTORE_CONFIG);
    if !settings.exists() {
        return Err(CreateError::Restore(format!("no settings for CRIU at {}", settings.display())));
    }
    command.env(CRIU_CONFIG_VARIABLE, settings);
    if bundle.has_own_cgroup_namespace() && stand_in::is_unified() {
        let path = stand_in::offer(&work).map_err(|error| {
            CreateError::Restore(format!("cannot stand in for criu in {}: {error}", work.display()))
        })?;
        command.env("PATH", path);
    }
    let failed = |e: std::io::Error| CreateError::Restore(format!("cannot execute runc: {e}"));
    let status = agent
        .supervise(&mut command.spawn().map_err(failed)?)
        .map_err(failed)?
        .map_err(|reason| CreateError::Refused(format!("broken off: {reason}")))?;
    if status.success() {
        return Ok(());
    }
    let log = work.join("restore.log");
    let reason = match fs::read(&log) {
        Ok(text) => format!("CRIU: {}", cause(&String::from_utf8_lossy(&text))),
        Err(error) => format!("no CRIU log {}: {error}", log.display()),
    };
    Err(CreateError::Restore(format!("{reason} (runc restore: {status})")))
}
