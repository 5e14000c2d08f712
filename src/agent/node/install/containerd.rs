//! containerd's handler `shadow`: a drop-in, and a restart where containerd does not know it yet.
//!
//! Guarantees: containerd can read its configuration afterwards, or it is as it was before.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::super::engine::Engine;
use super::super::host::{Host, HostError};
use super::imports::{covers, imports, with_import};
use super::quiet::quiet;
use super::restart::{Changes, daemon, is_outdated, restart, started};
use super::{Files, InstallError, RUNTIME, Site};
use crate::api::{GROUP, RUNTIME_CLASS};

/// For `containerd config dump`.
const DUMP_LIMIT: Duration = Duration::from_secs(15);
const MODE: u32 = 0o644;

/// Writes the drop-in and makes containerd know it.
pub async fn configure(site: &Site, files: &Files<'_>, edit_config: bool) -> Result<(), InstallError> {
    let Site { host, engine, turns } = site;
    let path = engine.drop_in();
    let effective = effective(host, engine).await?;
    let drop_in = drop_in(has_systemd_cgroups(&effective));
    let before = [&path, &engine.config].map(|path| Ok((path, files.read(path)?)));
    let before: Vec<_> = before.into_iter().collect::<Result<_, InstallError>>()?;
    if files.write(&path, drop_in.as_bytes(), MODE)? {
        tracing::info!(path = %path.display(), "containerd handler configured");
    }
    let mut takes_it_up = read_back(host, engine, files, &before).await?;
    if !takes_it_up {
        import_drop_ins(files, engine, edit_config)?;
        takes_it_up = read_back(host, engine, files, &before).await?;
    }
    if !takes_it_up {
        let what = format!(
            "its configuration does not take {} up, though it is imported: see `containerd --config {} config dump`",
            path.display(),
            engine.config.display()
        );
        return Err(InstallError::Containerd(what));
    }
    let changes = || -> Result<Changes, InstallError> {
        Ok(Changes { drop_in: files.modified(&path)?, config: files.modified(&engine.config)? })
    };
    if !is_outdated(start(host, engine).await?, changes()?) {
        return Ok(());
    }
    let _turn = match turns {
        Some(turns) => Some(turns.wait().await?),
        None => None,
    };
    // Somebody else may have restarted it meanwhile.
    if is_outdated(start(host, engine).await?, changes()?) {
        let containerd = daemon(host, engine).await?;
        if !quiet(host, engine, containerd).await {
            tracing::warn!("containerd is restarted though it makes a container: it did all the time");
        }
        restart(host, engine, containerd).await?;
    }
    Ok(())
}

async fn start(host: &Host, engine: &Engine) -> Result<Option<SystemTime>, InstallError> {
    Ok(started(daemon(host, engine).await?))
}

/// containerd's configuration with all that it imports, as it would read it now.
pub async fn effective(host: &Host, engine: &Engine) -> Result<String, HostError> {
    let args: [&OsStr; 4] =
        ["--config".as_ref(), engine.config.as_os_str(), "config".as_ref(), "dump".as_ref()];
    let output = host.run("containerd", &args, &[], DUMP_LIMIT).await?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Whether containerd would know the handler now. Where it cannot read its configuration any more (one of another version of
/// containerd, most likely) it would not start again either: then the files are put back.
async fn read_back(
    host: &Host,
    engine: &Engine,
    files: &Files<'_>,
    before: &[(&PathBuf, Option<String>)],
) -> Result<bool, InstallError> {
    let error = match effective(host, engine).await {
        Ok(effective) => return Ok(effective.contains(RUNTIME)),
        Err(error) => error,
    };
    for (path, text) in before {
        match text {
            Some(text) => drop(files.write(path, text.as_bytes(), MODE)?),
            None => files.remove(path)?,
        }
    }
    Err(error.into())
}

fn import_drop_ins(files: &Files<'_>, engine: &Engine, edit_config: bool) -> Result<(), InstallError> {
    let (config, import) = (&engine.config, engine.import());
    let text = files.read(config)?.unwrap_or_default();
    let present = imports(&text);
    // Then it is not the import that is missing, and the caller says so.
    if covers(&present, config, &engine.drop_in()) {
        return Ok(());
    }
    let not_imported = |remedy: &str| {
        let others =
            if present.is_empty() { String::new() } else { format!(" (but {})", present.join(", ")) };
        let what = format!("{} does not import {import}{others}: {remedy}", config.display());
        Err(InstallError::Containerd(what))
    };
    if !edit_config {
        return not_imported(
            "add that to `imports` at its top, name the folder that it imports by --containerd-drop-ins, or start the \
             agent with --edit-containerd-config",
        );
    }
    let Some(text) = with_import(&text, &import) else {
        return not_imported("its `imports` are not understood: add that to them");
    };
    files.write(config, text.as_bytes(), MODE)?;
    tracing::info!(path = %config.display(), import, "imports drop-ins now");
    Ok(())
}

/// True if the cgroups of ordinary pods are made by systemd, by the effective configuration. Pure.
pub fn has_systemd_cgroups(effective: &str) -> bool {
    let (mut table, mut default, mut systemd) = (String::new(), "runc".to_owned(), Vec::new());
    for line in effective.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).replace(['\'', '"'], "");
        } else if let Some((name, value)) = line.split_once('=') {
            let value = value.trim().trim_matches(['\'', '"']);
            match name.trim() {
                "default_runtime_name" if !value.is_empty() => value.clone_into(&mut default),
                "SystemdCgroup" if value == "true" => systemd.push(table.clone()),
                _ => {}
            }
        }
    }
    let options = format!("containerd.runtimes.{default}.options");
    systemd.iter().any(|table| table.ends_with(&options))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_cgroup_driver_is_taken_over_from_what_ordinary_pods_have() {
        let config = |default: &str, value: &str| {
            format!(
                "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]\n SystemdCgroup = true\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".containerd]\n default_runtime_name = '{default}'\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]\n  BinaryName = ''\n  SystemdCgroup = {value}\n"
            )
        };
        assert!(has_systemd_cgroups(&config("runc", "true")));
        assert!(!has_systemd_cgroups(&config("runc", "false")));
        assert!(has_systemd_cgroups(&config("crun", "false")));
        assert!(!has_systemd_cgroups(""));
        assert!(drop_in(true).contains("SystemdCgroup = true"));
    }

    /// A node whose `containerd` dumps what its drop-ins folder holds, or fails where that is not to its liking.
    fn node(dir: &Path, dumps: &str) -> Site {
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let (text, program) = (dir.join("containerd.sh"), bin.join("containerd"));
        fs::write(&text, format!("#!/bin/sh\n{dumps}\n")).unwrap();
        // Written by another process: what we write may still be open in one that another test starts, and is not executed then.
        let written = std::process::Command::new("install").arg("-m755").args([&text, &program]).status();
        assert!(written.unwrap().success());
        let host = Host::at(dir).with_programs(vec![bin]);
        let engine = Engine {
            config: "/etc/rancher/config.toml".into(),
            drop_ins: "/etc/rancher/config-v3.toml.d".into(),
            ..Engine::default()
        };
        Site { host, engine, turns: None }
    }

    async fn configured(site: &Site, edit_config: bool) -> String {
        let files = Files { host: &site.host };
        configure(site, &files, edit_config).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn what_is_missing_is_named_as_this_node_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let site = node(dir.path(), "echo version = 3");
        let config = site.host.path(&site.engine.config);
        let why = configured(&site, false).await;
        assert!(
            why.contains("/etc/rancher/config.toml does not import /etc/rancher/config-v3.toml.d/*.toml:"),
            "{why}"
        );
        fs::write(&config, "imports = ['/etc/other/*.toml']\n").unwrap();
        let why = configured(&site, false).await;
        assert!(why.contains("(but /etc/other/*.toml)") && why.contains("--containerd-drop-ins"), "{why}");
        // Where it is imported and not taken up there is nothing to add.
        fs::write(&config, "imports = ['config-v3.toml.d/*.toml']\n").unwrap();
        let why = configured(&site, true).await;
        assert!(why.contains("does not take /etc/rancher/config-v3.toml.d/shadow.toml up"), "{why}");
        assert_eq!(fs::read_to_string(&config).unwrap(), "imports = ['config-v3.toml.d/*.toml']\n");
        fs::write(&config, "imports = ['/etc/other/*.toml']\n").unwrap();
        configured(&site, true).await;
        assert_eq!(
            imports(&fs::read_to_string(&config).unwrap()),
            ["/etc/other/*.toml", "/etc/rancher/config-v3.toml.d/*.toml"]
        );
    }

    #[tokio::test]
    async fn a_configuration_that_takes_the_drop_in_up_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let site = node(
            dir.path(),
            &format!("cat {}/etc/rancher/config-v3.toml.d/* 2> /dev/null; :", dir.path().display()),
        );
        let why = configured(&site, true).await;
        assert!(why.contains("/run/containerd/containerd.sock"), "only then is it looked for: {why}");
        assert!(!site.host.path(&site.engine.config).exists());
    }

    #[tokio::test]
    async fn a_drop_in_that_containerd_cannot_read_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("etc/rancher/config-v3.toml.d");
        let refuses = format!("! grep -q shadow-runc {}/* || exit 1", folder.display());
        let site = node(dir.path(), &refuses);
        configured(&site, false).await;
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::write(folder.join("shadow.toml"), "# of before\n").unwrap();
        configured(&site, false).await;
        assert_eq!(fs::read_to_string(folder.join("shadow.toml")).unwrap(), "# of before\n");
        // It is read only once it is imported.
        let config = dir.path().join("etc/rancher/config.toml");
        let site = node(dir.path(), &format!("! grep -q config-v3 {} || exit 1", config.display()));
        fs::write(&config, "imports = []\n").unwrap();
        configured(&site, true).await;
        assert_eq!(fs::read_to_string(&config).unwrap(), "imports = []\n");
    }
}
