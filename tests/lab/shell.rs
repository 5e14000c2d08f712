//! Programs of this machine, always with a time limit.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Failure, Result, fail};

/// Exit code and everything that was printed.
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program; an exit code that is not 0 is a failure that quotes what it said.
pub async fn run(argv: &[&str], stdin: Option<&str>, limit: Duration) -> Result<String> {
    let output = capture(argv, stdin, limit).await?;
    if output.code != 0 {
        return fail(format!(
            "`{}` ended with {}:\n{}{}",
            argv.join(" "),
            output.code,
            output.stderr,
            output.stdout
        ));
    }
    Ok(output.stdout)
}

/// Runs a program, whatever its exit code.
pub async fn capture(argv: &[&str], stdin: Option<&str>, limit: Duration) -> Result<Output> {
    let what = argv.join(" ");
    let mut child = Command::new(argv[0])
        .args(&argv[1..])
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("`{what}` does not start: {error}"))?;
    let work = async {
        if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
            pipe.write_all(text.as_bytes()).await?;
        }
        Ok::<_, Failure>(child.wait_with_output().await?)
    };
    let output = timeout(limit, work).await.map_err(|_| format!("`{what}` took more than {limit:?}"))??;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
