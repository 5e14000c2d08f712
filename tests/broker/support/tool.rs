//! The broker under test: where it is, and a hold on it. Runs programs.
//!
//! By default it is the cluster's, and the hold is `tests/cluster/cluster`. Another broker is used by `SHADOW_TEST_CLUSTER`:
//! a program that understands `status --json`, `broker kill|start|restart|freeze|thaw` and `exec mq -- COMMAND` for it.
//! `SHADOW_TEST_AMQP` alone gives the address of a broker that need not be disturbed.

use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use lapin::uri::AMQPUri;

/// Address of the broker under test. Asked for once.
pub fn amqp_url() -> String {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(find).clone()
}

fn find() -> String {
    if let Ok(url) = std::env::var("SHADOW_TEST_AMQP") {
        return url;
    }
    let status = Command::new(program()).args(["status", "--json"]).output().ok();
    let facts: Option<serde_json::Value> = status.and_then(|out| serde_json::from_slice(&out.stdout).ok());
    let url = facts.as_ref().and_then(|facts| facts["broker"]["amqp"].as_str());
    url.map(str::to_owned).expect(
        "these tests need a RabbitMQ: `tests/cluster/cluster up`, then `tests/cluster/cluster in cp -- cargo test \
         --release`; or set SHADOW_TEST_AMQP=amqp://user:password@host:5672/%2f",
    )
}

fn program() -> String {
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/cluster");
    std::env::var("SHADOW_TEST_CLUSTER").unwrap_or_else(|_| cluster.to_owned())
}

fn run(words: &[&str]) -> Output {
    Command::new(program()).args(words).output().unwrap()
}

fn succeed(words: &[&str]) -> String {
    let output = run(words);
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words:?}: {said}{why}");
    said.trim().to_owned()
}

/// `broker kill`, `start`, `restart`, ...; returns when it is done, `start` when the broker answers again.
pub async fn broker(action: &'static str) {
    tokio::task::spawn_blocking(move || succeed(&["broker", action])).await.unwrap();
}

/// A command of RabbitMQ's own tool, inside the broker's machine.
pub async fn rabbitmqctl(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    tokio::task::spawn_blocking(move || ctl(&words.iter().map(String::as_str).collect::<Vec<_>>()))
        .await
        .unwrap()
}

/// The user that the address names.
pub fn user() -> String {
    amqp_url().parse::<AMQPUri>().unwrap().authority.userinfo.username
}

pub fn ctl(words: &[&str]) -> String {
    let before = ["exec", "mq", "--", "env", "HOME=/var/lib/rabbitmq", "rabbitmqctl", "-q"];
    succeed(&[before.as_slice(), words].concat())
}

/// The whole broker is disturbed by one test at a time, and is put in order when this is dropped: it runs, and its
/// memory limit is as it was. Where the test is killed, a program that outlives it does that.
pub struct Disturbance {
    watermark: String,
    heir: Child,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

/// Arguments: the test's process, the tool, the limit.
const HEIR: &str = r#"tail --pid="$1" -f /dev/null
"$2" broker thaw; "$2" broker start
exec "$2" exec mq -- env HOME=/var/lib/rabbitmq rabbitmqctl -q set_vm_memory_high_watermark "$3""#;

static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Disturbance {
    pub async fn begin() -> Self {
        let alone = ALONE.lock().await;
        let watermark = rabbitmqctl(&["eval", "vm_memory_monitor:get_vm_memory_high_watermark()."]).await;
        assert!(watermark.parse::<f64>().is_ok_and(|limit| limit > 0.0), "a memory limit of {watermark}");
        let test = std::process::id().to_string();
        let heir = Command::new("setsid")
            .args(["sh", "-c", HEIR, "heir", &test, &program(), &watermark])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { watermark, heir, _alone: alone }
    }

    /// A power cut, after which it stays off. What RabbitMQ only writes some seconds later is written first: else it
    /// forgets the member of a quorum queue that was declared just now ("Starting member as a new one" in its log), and
    /// with it the messages that it has confirmed.
    pub async fn kill(&self) {
        rabbitmqctl(&["eval", "[dets:sync(Table) || Table <- dets:all()]."]).await;
        broker("kill").await;
    }

    /// From now on it takes no messages.
    pub async fn raise_memory_alarm(&self) {
        rabbitmqctl(&["set_vm_memory_high_watermark", "0"]).await;
    }

    pub async fn clear_memory_alarm(&self) {
        rabbitmqctl(&["set_vm_memory_high_watermark", &self.watermark]).await;
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        for words in [["broker", "thaw"], ["broker", "start"]] {
            run(&words);
        }
        let before = ["exec", "mq", "--", "env", "HOME=/var/lib/rabbitmq", "rabbitmqctl", "-q"];
        let limit = ["set_vm_memory_high_watermark", &self.watermark];
        let output = run(&[before.as_slice(), &limit].concat());
        if !output.status.success() {
            eprintln!("the broker is NOT as it was: set_vm_memory_high_watermark {}", self.watermark);
        }
        let _ = self.heir.kill();
        let _ = self.heir.wait();
    }
}
