//! What `shadow-runc` does to a bundle before it becomes runc, and which `exec` it answers itself.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on says so

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const SHADOW_RUNC: &str = env!("CARGO_BIN_EXE_shadow-runc");

/// `shadow-runc` with an `echo` in the place of runc: what it prints is what runc was asked.
fn run(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(SHADOW_RUNC);
    command.env("SHADOW_REAL_RUNC", "/bin/echo").arg("--root").arg(root);
    command.arg("--log").arg(root.join("log")).args(["--log-format", "json"]).args(args);
    command.output().unwrap()
}

fn asked(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_marked_container_is_prepared_and_an_unmarked_one_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    for (mark, is_changed) in [("true", true), ("false: node n3 has no runtime handler", false)] {
        let before = json!({ "ociVersion": "1.2.0", "linux": { "namespaces": [] }, "annotations": {
            "io.kubernetes.cri.container-type": "container", "migration.ms2m.io/prepared": mark } });
        fs::write(&config, before.to_string()).unwrap();
        let output = run(dir.path(), &["create", "--bundle", &dir.path().display().to_string(), "abc"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(asked(&output).trim_end().ends_with("abc"), "runc is asked");
        let after: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        assert_eq!(after["linux"].get("seccomp").is_some(), is_changed, "{mark}: {after}");
        assert_eq!(after["annotations"], before["annotations"]);
    }
}

#[test]
fn a_bundle_that_cannot_be_prepared_is_for_runc_and_the_log() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{ \"migration.ms2m.io/prepared\" ").unwrap();
    let output = run(dir.path(), &["create", "--bundle", &dir.path().display().to_string(), "abc"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(asked(&output).contains("create"));
    let told: Value =
        serde_json::from_str(fs::read_to_string(dir.path().join("log")).unwrap().trim()).unwrap();
    assert_eq!(told["level"], "warning", "an error here would be taken for runc's");
    assert!(told["msg"].as_str().unwrap().contains("not prepared"), "{told}");
}

#[test]
fn the_hook_of_a_restored_container_is_answered_once_and_nothing_else_ever() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir(at("abc")).unwrap();
    fs::write(at("process"), json!({ "args": ["/hook", "a b"], "cwd": "/" }).to_string()).unwrap();
    let exec = || {
        let (process, pid) = (at("process"), at("pid"));
        run(dir.path(), &["exec", "--process", &process, "--detach", "--pid-file", &pid, "abc"])
    };
    assert!(asked(&exec()).contains("exec"), "a container that was not restored");
    fs::write(at("abc/shadow-post-start"), json!(["/hook", "b"]).to_string()).unwrap();
    assert!(asked(&exec()).contains("exec"), "another command");
    assert!(Path::new(&at("abc/shadow-post-start")).exists());
    fs::write(at("abc/shadow-post-start"), json!(["/hook", "a b"]).to_string()).unwrap();
    let answered = exec();
    assert!(answered.status.success() && asked(&answered).is_empty(), "{answered:?}");
    let pid = fs::read_to_string(at("pid")).unwrap();
    assert!(pid.parse::<u32>().is_ok(), "a number and no end of line: {pid:?}");
    assert!(asked(&exec()).contains("exec"), "once only");
}
