//! What CRIU cannot dump is found by a look before anything is stopped: refused by its name with what helps, in the check, in
//! the drain and in the Events. A pod that holds such a thing loses nothing by having been asked for.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use shadow::api::{Phase, Reason};
use tokio::process::Command;

use super::refusals::are_refused;
use crate::lab::{
    App, DrainOptions, Lab, Result, cause_is_told, eventually, nothing_left, on_cluster, status_of,
};

const LIMIT: Duration = Duration::from_secs(30);
const SENTENCE: usize = 200;

/// What the program holds, why it is refused, and what is told of it.
const OBSTACLES: [(&str, Reason, &str); 5] = [
    ("mptcp", Reason::MptcpSocket, "listener :::9090 is MPTCP: set GODEBUG=multipathtcp=0"),
    ("io_uring", Reason::IoUring, "io_uring of PID 1 (counter) cannot be dumped"),
    ("inotify", Reason::UnsupportedDescriptor, "PID 1 (counter) watches files of its image (1 watches)"),
    ("vsock", Reason::UnsupportedSocket, "is AF_VSOCK, which CRIU cannot dump"),
    ("ping", Reason::UnsupportedSocket, "is PING, which CRIU cannot dump"),
];

/// By the check, with exit code 1; by a drain, before anything is begun; in one sentence. Beside each other on one stage:
/// none of them moves.
#[test]
fn what_cannot_be_dumped_is_refused_by_its_name_before_it_is_touched() -> Result {
    on_cluster("looks", async |lab| {
        let mut cases = Vec::new();
        for (obstacle, reason, told) in OBSTACLES {
            // From the start: a change of the template would replace the pod.
            let name = obstacle.replace('_', "-");
            let app = App { name, ..holding(obstacle) }.annotated("policy", "MigrateOrBlock");
            let pod = lab.deploy(&app).await?.remove(0);
            let (code, found) =
                eventually("it is checked", LIMIT, async || Ok(Some(check(lab, &pod.name).await?))).await?;
            assert_eq!((code, &found["movable"]), (1, &false.into()), "{found}");
            assert_eq!(found["refusal"]["reason"], reason.as_str(), "{found}");
            let message = found["refusal"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(told) && message.chars().count() <= SENTENCE, "{message}");
            cases.push((app, pod, reason));
        }
        are_refused(lab, &cases).await?;
        nothing_left(lab, &[]).await
    })
}

/// The other policy: evicted as ever, at once, and nobody stood still for it.
#[test]
fn under_migrate_or_evict_nobody_is_frozen_first() -> Result {
    on_cluster("look-evict", async |lab| {
        let before = lab.deploy(&holding("mptcp")).await?.remove(0);
        let watch = lab.watch();
        let drained = lab.drain(&before.node, &DrainOptions::of("app")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        assert!(drained.took() < Duration::from_secs(10), "at once: {:?}", drained.took());
        let ended = watch.ended(&before.uid, LIMIT).await?;
        let status = status_of(&ended);
        assert_eq!(status.phase, Phase::Failed);
        assert!(status.phase_timings.keys().all(|step| step == "Evicting"), "{:?}", status.phase_timings);
        assert!(
            status.message.as_ref().is_some_and(|told| told.starts_with("MptcpSocket: listener :::9090"))
        );
        cause_is_told(lab, &ended, &before.name, &[Reason::MptcpSocket]).await
    })
}

/// CRIU dumps it: then it must not be refused.
#[test]
fn a_raw_socket_moves() -> Result {
    on_cluster("look-raw", async |lab| {
        let app = holding("raw");
        let before = lab.deploy(&app).await?.remove(0);
        let cookie = before.state().await?.cookie;
        let (code, found) =
            eventually("it is checked", LIMIT, async || Ok(Some(check(lab, &before.name).await?))).await?;
        assert_eq!(code, 0, "{found}");
        let drained = lab.drain(&before.node, &DrainOptions::of("app")).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let after = lab.only_pod(&app).await?;
        assert_ne!(after.node, before.node);
        assert_eq!(after.state().await?.cookie, cookie, "with its memory");
        lab.uncordon(&before.node).await
    })
}

fn holding(obstacle: &str) -> App {
    App::counter("app").env("HOLD", obstacle).annotated("prepare", "false")
}

/// Exit code and answer of `kubectl shadow check`.
async fn check(lab: &Lab, pod: &str) -> Result<(i32, Value)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-shadow"));
    command.args(["-n", &lab.namespace, "check", pod, "-o", "json"]);
    command.env("KUBECONFIG", &lab.cluster.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await??;
    let answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("no answer: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code().unwrap_or(-1), answer))
}
