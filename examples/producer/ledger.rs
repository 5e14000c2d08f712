//! The book: what was confirmed, in the order it was published, as a count and a hash chain over the bodies.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// How long a pause waits for what is under way.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Ledger>>);

#[derive(Default)]
struct Ledger {
    confirmed: u64,
    last_id: u64,
    chain: [u8; 32],
    under_way: u64,
    paused: bool,
    connections: u64,
    maybe_twice: Vec<u64>,
    error: Option<String>,
}

/// GET /ledger. It is final when it is paused with nothing under way.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Messages that the broker has confirmed: with `chain` what a consumer must have applied in the end.
    pub published: u64,
    pub last_id: u64,
    pub chain: String,
    pub under_way: u64,
    pub paused: bool,
    /// How many there have been.
    pub connections: u64,
    /// Published again after a lost connection, so they may be in the queue twice.
    pub maybe_twice: Vec<u64>,
    /// Why it publishes no more.
    pub error: Option<String>,
}

impl Shared {
    pub fn sent(&self) {
        self.0.lock().under_way += 1;
    }

    /// In the order of publishing.
    pub fn confirmed(&self, id: u64, body: &[u8]) {
        let mut ledger = self.0.lock();
        ledger.confirmed += 1;
        ledger.last_id = id;
        ledger.under_way = ledger.under_way.saturating_sub(1);
        ledger.chain = Sha256::new().chain_update(ledger.chain).chain_update(body).finalize().into();
    }

    /// The connection broke: these were published and not confirmed.
    pub fn resent(&self, ids: impl Iterator<Item = u64>) {
        let mut ledger = self.0.lock();
        ledger.under_way = 0;
        ledger.maybe_twice.extend(ids);
    }

    pub fn connected(&self) {
        self.0.lock().connections += 1;
    }

    pub fn paused(&self, paused: bool) {
        self.0.lock().paused = paused;
    }

    pub fn stop(&self, error: &str) {
        self.0.lock().error = Some(error.to_owned());
    }

    /// Until it stands still: paused with nothing under way, or stopped.
    pub async fn settled(&self) {
        let still = async {
            loop {
                {
                    let ledger = self.0.lock();
                    if ledger.error.is_some() || (ledger.paused && ledger.under_way == 0) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(SETTLE, still).await;
    }

    pub fn view(&self) -> View {
        let ledger = self.0.lock();
        View {
            published: ledger.confirmed,
            last_id: ledger.last_id,
            chain: hex::encode(ledger.chain),
            under_way: ledger.under_way,
            paused: ledger.paused,
            connections: ledger.connections,
            maybe_twice: ledger.maybe_twice.clone(),
            error: ledger.error.clone(),
        }
    }
}
