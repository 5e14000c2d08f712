//! A reader in an open loop: one read after the other at fixed times, whether earlier ones are answered or not, each on
//! a connection of its own. Measures what users of the Service see.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::http::get;
use super::{Result, StateView};

const EVERY: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
struct Read {
    started: Instant,
    ended: Instant,
    state: Option<StateView>,
    problem: String,
}

/// Reads until it is finished.
pub struct Probe {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Read>>,
}

impl Probe {
    /// Reads `http://address/state`.
    pub fn start(address: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, address) = (stop.clone(), Arc::<str>::from(address));
        let task = tokio::spawn(async move {
            let mut reads = JoinSet::new();
            let mut done = Vec::new();
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !seen.load(Ordering::Relaxed) {
                ticks.tick().await;
                let address = address.clone();
                reads.spawn(async move {
                    let started = Instant::now();
                    let answer = get(&address, "/state", LIMIT).await;
                    let ended = Instant::now();
                    match answer.and_then(|answer| answer.json()) {
                        Ok(state) => Read { started, ended, state: Some(state), problem: String::new() },
                        Err(error) => Read { started, ended, state: None, problem: error.to_string() },
                    }
                });
                while let Some(read) = reads.try_join_next() {
                    done.extend(read);
                }
            }
            done.extend(reads.join_all().await);
            done
        });
        Self { stop, task }
    }

    pub async fn finish(mut self) -> Result<Reads> {
        self.stop.store(true, Ordering::Relaxed);
        let all = (&mut self.task).await?;
        let (mut answered, mut unanswered): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|read| read.state.is_some());
        answered.sort_by_key(|read| read.ended);
        unanswered.sort_by_key(|read| read.started);
        Ok(Reads { answered, unanswered })
    }
}

impl Drop for Probe {
    /// Who gives up in between reads no more.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// All reads of a probe, the answered ones in the order of their answers.
pub struct Reads {
    answered: Vec<Read>,
    unanswered: Vec<Read>,
}

/// A time during which the count stood still.
#[derive(Clone, Copy, Debug)]
pub struct Standstill {
    pub began: Instant,
    pub ended: Instant,
}

impl Reads {
    pub fn answered(&self) -> usize {
        self.answered.len()
    }

    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Every read as a line: when it was asked and answered, in ms after `from`, and what it showed.
    pub fn trace(&self, from: Instant) -> String {
        let ms = |at: Instant| {
            (at.saturating_duration_since(from).as_secs_f64()
                - from.saturating_duration_since(at).as_secs_f64())
                * 1000.0
        };
        let mut all: Vec<_> = self.answered.iter().chain(&self.unanswered).collect();
        all.sort_by_key(|read| read.started);
        all.iter()
            .map(|read| {
                let shown = read.state.as_ref().map_or_else(
                    || read.problem.clone(),
                    |state| format!("{} {} {}", state.count, state.pod, state.parked),
                );
                format!("{:.1} {:.1} {shown}\n", ms(read.started), ms(read.ended))
            })
            .collect()
    }

    /// Longest time between two answered reads that lies after `from`.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let pairs = self.answered.windows(2).filter(|pair| pair[1].ended > from);
        pairs.map(|pair| pair[1].ended - pair[0].ended).max().unwrap_or(Duration::MAX)
    }

    /// Reads that showed an older state than a read that was answered before they were asked.
    pub fn older_than_seen(&self) -> usize {
        let mut by_start: Vec<_> = self.answered.iter().collect();
        by_start.sort_by_key(|read| read.started);
        let (mut newest, mut finished) = (0, 0);
        let mut stale = 0;
        for read in by_start {
            while let Some(earlier) = self.answered.get(finished)
                && earlier.ended < read.started
            {
                newest = newest.max(count(earlier));
                finished += 1;
            }
            stale += usize::from(count(read) < newest);
        }
        stale
    }

    /// The longest time after `from` in which nothing more was applied, seen from outside.
    pub fn longest_standstill(&self, from: Instant) -> Option<Standstill> {
        let mut newest: Option<(u64, Instant)> = None;
        let mut longest: Option<Standstill> = None;
        for read in &self.answered {
            let Some((highest, since)) = newest else {
                newest = Some((count(read), read.ended));
                continue;
            };
            if count(read) <= highest {
                continue;
            }
            newest = Some((count(read), read.ended));
            let this = Standstill { began: since, ended: read.ended };
            let is_longer = longest.is_none_or(|best| this.ended - this.began > best.ended - best.began);
            if read.ended > from && is_longer {
                longest = Some(this);
            }
        }
        longest
    }

    /// Cookies of all the processes that ever answered.
    pub fn cookies(&self) -> BTreeSet<&str> {
        self.answered.iter().filter_map(|read| Some(read.state.as_ref()?.cookie.as_str())).collect()
    }
}

fn count(read: &Read) -> u64 {
    read.state.as_ref().map_or(0, |state| state.count)
}
