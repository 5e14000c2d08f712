//! A moment in which containerd makes no container: what is half made when it is restarted is begun anew by the kubelet, but
//! a pod may be late for it, and some CNI plugins leave something behind. Reads `/proc` and containerd's records.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::super::engine::Engine;
use super::super::host::Host;

/// A node on which something is made all the time is restarted all the same: its pods wait for the handler.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
/// Looks in a row.
const QUIET: u32 = 5;
/// They live as long as their pods, and have another parent once they do.
const SHIM: &str = "containerd-shim";

/// What containerd has on record of a container, times in nanoseconds.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    #[serde(default)]
    started_at: i64,
    #[serde(default)]
    finished_at: i64,
}

/// Waits for such a moment; true if it came.
pub async fn quiet(host: &Host, engine: &Engine, containerd: Pid) -> bool {
    let until = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < QUIET {
        if Instant::now() >= until {
            return false;
        }
        seen = if is_making(host, engine, containerd) { 0 } else { seen + 1 };
        sleep(LOOK).await;
    }
    true
}

/// It runs a program (a CNI plugin, what unpacks an image), or has a container that is neither started nor at its end.
fn is_making(host: &Host, engine: &Engine, containerd: Pid) -> bool {
    let children = format!("/proc/{0}/task", containerd.as_raw_nonzero());
    let threads = fs::read_dir(children).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let is_program = |pid: &str| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        !name.is_empty() && !name.starts_with(SHIM)
    };
    children.into_iter().any(|pids| pids.split_whitespace().any(is_program)) || has_half_made(host, engine)
}

fn has_half_made(host: &Host, engine: &Engine) -> bool {
    let records = fs::read_dir(host.path(&engine.records())).into_iter().flatten().flatten();
    let texts = records.filter_map(|record| fs::read_to_string(record.path().join("status")).ok());
    let mut records = texts.filter_map(|text| serde_json::from_str::<Record>(&text).ok());
    records.any(|record| record.started_at == 0 && record.finished_at == 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_container_that_is_neither_started_nor_ended_is_half_made() {
        let root = tempfile::tempdir().unwrap();
        let (host, engine) = (Host::at(root.path()), Engine::default());
        assert!(!has_half_made(&host, &engine), "there is none");
        let record = host.path(&engine.records()).join("c");
        fs::create_dir_all(&record).unwrap();
        for (started, finished, half) in [(0, 0, true), (2, 0, false), (2, 3, false), (0, 3, false)] {
            let text = format!(r#"{{"CreatedAt":1,"StartedAt":{started},"FinishedAt":{finished}}}"#);
            fs::write(record.join("status"), text).unwrap();
            assert_eq!(has_half_made(&host, &engine), half, "{started} {finished}");
        }
    }

    #[test]
    fn a_program_that_containerd_runs_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        // Somebody else's tests have children, too: a process of our own stands for containerd.
        let mut containerd = Command::new("sh")
            .args(["-c", "sleep 60 & read x; kill $!; wait; read x"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&containerd);
        let making = || is_making(&Host::at(root.path()), &Engine::default(), pid);
        let eventually = |wanted: bool| {
            (0..500).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                making() == wanted
            })
        };
        assert!(eventually(true), "its child is no shim");
        std::io::Write::write_all(containerd.stdin.as_mut().unwrap(), b"\n").unwrap();
        assert!(eventually(false));
        containerd.kill().unwrap();
        containerd.wait().unwrap();
    }
}
