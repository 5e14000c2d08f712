//! The real `kubectl drain`, with the time of every line it prints.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::{Cluster, Result, fail};

type OnLine = Arc<dyn Fn(Instant, &str) + Send + Sync>;

#[derive(Clone)]
pub struct DrainOptions {
    /// Only pods with these labels.
    pub selector: Option<String>,
    pub dry_run: bool,
    /// Also pods with an emptyDir, which kubectl leaves alone otherwise.
    pub delete_empty_dir: bool,
    /// kubectl gives up after this long.
    pub timeout: Duration,
    pub on_line: Option<OnLine>,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self {
            selector: None,
            dry_run: false,
            delete_empty_dir: false,
            timeout: Duration::from_secs(120),
            on_line: None,
        }
    }
}

impl DrainOptions {
    pub fn of(app: &str) -> Self {
        Self { selector: Some(format!("app={app}")), ..Self::default() }
    }

    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// A drain under way; it is ended when this is dropped.
pub struct Drain {
    pub started: Instant,
    child: Child,
    readers: Vec<JoinHandle<Vec<(Instant, String)>>>,
    timeout: Duration,
}

/// A drain that has ended.
#[derive(Clone, Debug)]
pub struct Drained {
    pub started: Instant,
    pub exited: Instant,
    pub code: i32,
    pub lines: Vec<(Instant, String)>,
}

impl Drain {
    pub fn start(cluster: &Cluster, node: &str, options: &DrainOptions) -> Result<Self> {
        let (program, config) = cluster.kubectl_argv();
        let mut command = Command::new(program);
        command
            .args([config.as_str(), "drain", node, "--ignore-daemonsets"])
            .arg(format!("--delete-emptydir-data={}", options.delete_empty_dir))
            .arg(format!("--timeout={}s", options.timeout.as_secs()));
        if let Some(selector) = &options.selector {
            command.arg(format!("--pod-selector={selector}"));
        }
        if options.dry_run {
            command.arg("--dry-run=server");
        }
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(tokio::spawn(lines(pipe, options.on_line.clone())));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(tokio::spawn(lines(pipe, options.on_line.clone())));
        }
        Ok(Self { started, child, readers, timeout: options.timeout })
    }

    pub async fn finish(mut self) -> Result<Drained> {
        let limit = self.timeout + Duration::from_secs(30);
        let Ok(status) = tokio::time::timeout(limit, self.child.wait()).await else {
            return fail(format!("kubectl drain did not end within {limit:?}"));
        };
        let exited = Instant::now();
        let mut all = Vec::new();
        for reader in self.readers {
            all.extend(reader.await?);
        }
        all.sort_by_key(|(at, _)| *at);
        Ok(Drained { started: self.started, exited, code: status?.code().unwrap_or(-1), lines: all })
    }
}

impl Drained {
    pub fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    pub fn took(&self) -> Duration {
        self.exited - self.started
    }
}

async fn lines(pipe: impl AsyncRead + Unpin, on_line: Option<OnLine>) -> Vec<(Instant, String)> {
    let mut lines = BufReader::new(pipe).lines();
    let mut all = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let now = Instant::now();
        if let Some(tell) = &on_line {
            tell(now, &line);
        }
        all.push((now, line));
    }
    all
}
