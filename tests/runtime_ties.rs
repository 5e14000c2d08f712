//! A runc that restores dies with the `shadow-runc` that started it: what it restored would live beside the next attempt's.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on says so

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SHADOW_RUNC: &str = env!("CARGO_BIN_EXE_shadow-runc");

#[test]
fn what_is_tied_to_its_parent_dies_with_it() {
    let mut parent = Command::new("sh")
        .args(["-c", r#""$0" tied-to-parent $$ /bin/sleep 600 & echo $!; wait"#, SHADOW_RUNC])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = Path::new("/proc").join(line.trim());
    let is_sleeping = || std::fs::read_to_string(child.join("comm")).is_ok_and(|comm| comm.trim() == "sleep");
    within("it has become the program", is_sleeping);
    parent.kill().unwrap();
    parent.wait().unwrap();
    within("it is gone", || !is_sleeping());
}

#[test]
fn it_does_not_begin_for_a_parent_that_is_gone() {
    let output =
        Command::new(SHADOW_RUNC).args(["tied-to-parent", "1", "/bin/echo", "ran"]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("process 1 is gone"));
}

fn within(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
