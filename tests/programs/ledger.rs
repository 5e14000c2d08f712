//! A client that writes numbers into a store, one after the other, and knows of each whether it was acknowledged.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::tour::{Gap, Leg, Tour};
use super::variants::Variant;
use crate::lab::{App, Result, eventually, fail};

const PACE: Duration = Duration::from_millis(5);
/// After this long without an answer it connects anew, as clients do.
const PATIENCE: Duration = Duration::from_millis(500);
/// Until a client that lost its server writes again.
const RECOVERS: Duration = Duration::from_secs(30);
const WRITES: usize = 50;

/// Where numbers are kept. It connects when it must, and anew after an error.
pub trait Store: Send + 'static {
    fn append(&mut self, number: u64) -> impl Future<Output = Result> + Send;
    /// Forgets a connection that may be half-way through an answer.
    fn disconnect(&mut self);
}

#[derive(Debug)]
struct Seen {
    acknowledged: Vec<u64>,
    unknown: Vec<u64>,
    gap: Gap,
}

/// Writes until it is told to stop.
pub struct Ledger {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Ledger {
    pub fn start(mut store: impl Store) -> Self {
        let seen = Arc::new(Mutex::new(Seen { acknowledged: vec![], unknown: vec![], gap: Gap::new() }));
        let stop = Arc::new(AtomicBool::new(false));
        let (into, stopped) = (seen.clone(), stop.clone());
        let task = tokio::spawn(async move {
            for number in 1_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let answer = timeout(PATIENCE, store.append(number)).await;
                if matches!(answer, Ok(Ok(()))) {
                    let mut seen = into.lock();
                    seen.acknowledged.push(number);
                    seen.gap.mark();
                } else {
                    store.disconnect();
                    into.lock().unknown.push(number);
                }
                tokio::time::sleep(PACE).await;
            }
        });
        Self { seen, stop, task }
    }

    pub fn acknowledged(&self) -> usize {
        self.seen.lock().acknowledged.len()
    }

    /// The longest time without an acknowledged write since this was last asked.
    pub fn longest_gap(&self) -> Duration {
        self.seen.lock().gap.take()
    }

    pub async fn finish(self) -> Result<Account> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        let seen = self.seen.lock();
        Ok(Account { acknowledged: seen.acknowledged.clone(), unknown: seen.unknown.clone() })
    }
}

/// Some more writes are acknowledged from now on.
pub async fn goes_on(ledger: &Ledger) -> Result {
    let goal = ledger.acknowledged() + WRITES;
    eventually(
        "writes are acknowledged",
        RECOVERS,
        async || Ok((ledger.acknowledged() >= goal).then_some(())),
    )
    .await
}

/// Drained to the other node and back, written to all the time; `same` looks at it after each.
pub async fn there_and_back(
    tour: &Tour<'_>,
    variant: Variant,
    app: &App,
    ledger: &Ledger,
    mut same: impl AsyncFnMut(&Leg) -> Result,
) -> Result {
    for _ in 0..2 {
        goes_on(ledger).await?;
        ledger.longest_gap();
        let leg = tour.leg(app).await?;
        goes_on(ledger).await?;
        tour.tell(variant, &leg, ledger.longest_gap());
        same(&leg).await?;
    }
    Ok(())
}

/// What must be in the store in the end, and what may be.
pub struct Account {
    pub acknowledged: Vec<u64>,
    pub unknown: Vec<u64>,
}

impl Account {
    /// None lost, none doubled, none from nowhere.
    pub fn check(&self, stored: &[u64]) -> Result {
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for number in stored {
            *times.entry(*number).or_default() += 1;
        }
        let lost: Vec<_> = self.acknowledged.iter().filter(|number| !times.contains_key(number)).collect();
        let doubled: Vec<_> = times.iter().filter(|(_, count)| **count > 1).collect();
        let known = |number: &u64| self.acknowledged.contains(number) || self.unknown.contains(number);
        let foreign: Vec<_> = times.keys().filter(|number| !known(number)).collect();
        if lost.is_empty() && doubled.is_empty() && foreign.is_empty() {
            return Ok(());
        }
        fail(format!(
            "of {} acknowledged and {} unknown writes {lost:?} are lost, {doubled:?} doubled, {foreign:?} from nowhere",
            self.acknowledged.len(),
            self.unknown.len()
        ))
    }
}
