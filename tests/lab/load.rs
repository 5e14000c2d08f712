//! Load: the example producer as a program of its own, and a writer for pods without a queue.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::http::{NotConnected, get, request};
use super::{Result, StateView, eventually, fail};

const CALL: Duration = Duration::from_secs(15);
/// A writer gives up on an answer after this long; the write then may or may not have been applied.
const WRITE: Duration = Duration::from_millis(500);
const START: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    #[default]
    Classic,
    Quorum,
}

/// What is published.
#[derive(Clone, Debug)]
pub struct Load {
    /// Messages a second.
    pub rate: u32,
    /// Messages in the queue before anything is measured.
    pub backlog: u64,
    pub queue_type: QueueType,
}

impl Load {
    pub fn steady(rate: u32) -> Self {
        Self { rate, backlog: 600, queue_type: QueueType::Classic }
    }
}

/// GET /ledger of the producer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    pub published: u64,
    pub chain: String,
    pub under_way: u64,
    pub paused: bool,
    pub connections: u64,
    /// Published again after a lost connection: the ledger proves nothing about these.
    pub maybe_twice: Vec<u64>,
    pub error: Option<String>,
}

/// The example producer, on this machine and not in a pod, so that no drain touches the ledger.
pub struct Producer {
    address: String,
    _process: Child,
}

impl Producer {
    /// Starts it paused; the queue exists afterwards.
    pub async fn start(amqp_url: &str, queue: &str, queue_type: QueueType) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let program = example("producer")?;
        let process = Command::new(&program)
            .env("AMQP_URL", amqp_url)
            .env("QUEUE", queue)
            .env("QUEUE_TYPE", if queue_type == QueueType::Quorum { "quorum" } else { "classic" })
            .env("LISTEN", &address)
            .env("RATE", "10")
            .env("RUST_LOG", "warn")
            .args(["--start-paused", "--resend"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let producer = Self { address, _process: process };
        eventually("the producer is connected", START, async || {
            let ledger = producer.ledger().await?;
            Ok((ledger.paused && ledger.error.is_none()).then_some(()))
        })
        .await?;
        Ok(producer)
    }

    pub async fn ledger(&self) -> Result<Ledger> {
        let ledger: Ledger = get(&self.address, "/ledger", CALL).await?.json()?;
        match &ledger.error {
            Some(error) => fail(format!("the producer stopped: {error}")),
            None => Ok(ledger),
        }
    }

    pub async fn resume(&self, rate: u32) -> Result {
        self.post(&format!("/rate/{rate}")).await?;
        self.post("/resume").await
    }

    /// On a new connection, of a producer that is paused: the old one may be dead without knowing it.
    pub async fn reconnect(&self) -> Result {
        let before = self.ledger().await?.connections;
        self.post("/reconnect").await?;
        eventually("the producer is connected again", START, async || {
            Ok((self.ledger().await?.connections > before).then_some(()))
        })
        .await
    }

    /// Stops publishing; the ledger that comes back is final.
    pub async fn pause(&self) -> Result<Ledger> {
        self.post("/pause").await?;
        let ledger = self.ledger().await?;
        if !ledger.paused || ledger.under_way > 0 || !ledger.maybe_twice.is_empty() {
            return fail(format!("the ledger is not final: {ledger:?}"));
        }
        Ok(ledger)
    }

    /// Publishes as fast as it can until so many more are confirmed, then goes on at `rate`.
    pub async fn burst(&self, more: u64, rate: u32) -> Result {
        let goal = self.ledger().await?.published + more;
        if more > 0 {
            self.resume(2000).await?;
            eventually("the backlog is in the queue", START, async || {
                Ok((self.ledger().await?.published >= goal).then_some(()))
            })
            .await?;
        }
        self.resume(rate).await
    }

    /// At least so many, and then none.
    pub async fn publish(&self, more: u64) -> Result {
        let goal = self.ledger().await?.published + more;
        self.resume(10).await?;
        eventually("messages are published", START, async || {
            Ok((self.ledger().await?.published >= goal).then_some(()))
        })
        .await?;
        self.pause().await.map(drop)
    }

    async fn post(&self, path: &str) -> Result {
        let answer = request(&self.address, "POST", path, "", b"", CALL).await?;
        if answer.status == 200 { Ok(()) } else { fail(format!("producer: POST {path}: {}", answer.status)) }
    }
}

/// The path of an example that cargo built beside this program.
pub fn example(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    for folder in here.ancestors() {
        let path = folder.join("examples").join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    fail(format!("example `{name}` is not built: cargo build --release --examples"))
}

/// Writes to a counter one after the other and knows of each whether it was acknowledged.
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Written>,
}

/// So many unanswered writes since the last answer, and so many before this one, may be in the state.
const SIDES: usize = 8;

/// What a [`Writer`] saw.
#[derive(Debug, Default)]
pub struct Written {
    pub acknowledged: u64,
    /// Writes without an answer.
    pub unknown: u64,
    /// An answer whose chain does not hold every write acknowledged before it.
    pub broken: Option<String>,
    /// Longest time between two acknowledged writes.
    pub longest_gap: Duration,
    chain: [u8; 32],
    open: Vec<Vec<u8>>,
}

impl Writer {
    /// `first` is the state before the first write.
    pub fn start(address: String, first: &StateView, every: Duration) -> Result<Self> {
        let mut written = Written::default();
        hex::decode_to_slice(&first.chain, &mut written.chain)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let task = tokio::spawn(async move {
            let mut last = Instant::now();
            for number in 0_u64.. {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                let body = format!("write {number}").into_bytes();
                let answer = request(&address, "POST", "/add", "", &body, WRITE).await;
                match answer.and_then(|answer| answer.json::<StateView>()) {
                    Ok(view) => {
                        written.acknowledged += 1;
                        written.longest_gap = written.longest_gap.max(last.elapsed());
                        last = Instant::now();
                        written.check(&body, &view);
                    }
                    Err(error) => {
                        written.unknown += 1;
                        if !error.is::<NotConnected>() {
                            written.open.push(body);
                        }
                    }
                }
                tokio::time::sleep(every).await;
            }
            written
        });
        Ok(Self { stop, task })
    }

    pub async fn finish(self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

impl Written {
    /// The state in the end is of the same memory and holds every acknowledged write, once; unanswered ones may be in it or
    /// not.
    pub fn must_be_in(&mut self, first: &StateView, last: &StateView) -> Result {
        self.follow(None, &last.chain, "the state in the end");
        let counted = last.count.saturating_sub(first.count);
        let may_be = self.acknowledged..=self.acknowledged + self.unknown;
        if self.broken.is_some() || !may_be.contains(&counted) || last.cookie != first.cookie {
            return fail(format!("{counted} writes are in {last:?}, which was {first:?}: {self:?}"));
        }
        Ok(())
    }

    fn check(&mut self, body: &[u8], view: &StateView) {
        self.follow(Some(body), &view.chain, "an answer");
    }

    /// Finds the unanswered writes that explain the chain: those before `last`.
    fn follow(&mut self, last: Option<&[u8]>, chain: &str, what: &str) {
        // One that was given up may still be under way: the last ones not found yet stay candidates. While a process stands
        // still any number goes unanswered, and those that it may have read are the first: they were sent before it stopped.
        let mut open = std::mem::take(&mut self.open);
        if open.len() > SIDES * 2 {
            open.drain(SIDES..open.len() - SIDES);
        }
        let explains = |guess: [u8; 32]| {
            let guess = last.map_or(guess, |body| link(guess, body));
            (hex::encode(guess) == chain).then_some(guess)
        };
        let found = in_order(self.chain, &open, explains)
            .or_else(|| in_any_order(self.chain, &open, &mut Vec::new(), &explains));
        if let Some((chain, mut taken)) = found {
            self.chain = chain;
            taken.sort_unstable();
            for at in taken.into_iter().rev() {
                open.remove(at);
            }
            open.drain(..open.len().saturating_sub(SIDES / 2));
        } else if self.broken.is_none() {
            self.broken = Some(format!(
                "{what} after {} acknowledged and {} unanswered writes does not follow from them",
                self.acknowledged, self.unknown
            ));
        }
        self.open = open;
    }
}

/// A chain, and which of the open writes are in it.
type Explained = ([u8; 32], Vec<usize>);

/// Any of the open writes, in the order in which they were sent.
fn in_order(
    from: [u8; 32],
    open: &[Vec<u8>],
    explains: impl Fn([u8; 32]) -> Option<[u8; 32]>,
) -> Option<Explained> {
    (0..1_u32 << open.len()).find_map(|choice| {
        let taken: Vec<_> = (0..open.len()).filter(|at| choice & (1 << at) != 0).collect();
        let guess = taken.iter().fold(from, |guess, at| link(guess, &open[*at]));
        explains(guess).map(|chain| (chain, taken))
    })
}

/// Up to four of them, as many as a server of ours has threads, in any order.
fn in_any_order(
    from: [u8; 32],
    open: &[Vec<u8>],
    taken: &mut Vec<usize>,
    explains: &impl Fn([u8; 32]) -> Option<[u8; 32]>,
) -> Option<Explained> {
    if let Some(chain) = explains(from) {
        return Some((chain, taken.clone()));
    }
    if taken.len() == 4 {
        return None;
    }
    (0..open.len()).find_map(|at| {
        if taken.contains(&at) {
            return None;
        }
        taken.push(at);
        let found = in_any_order(link(from, &open[at]), open, taken, explains);
        taken.pop();
        found
    })
}

fn link(chain: [u8; 32], body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(chain).chain_update(body).finalize().into()
}
