//! What the messages make: a count, a hash chain over the bodies in order, and how many came twice or out of order.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

pub type Shared = Arc<Mutex<State>>;

pub struct State {
    pub count: u64,
    pub last_id: Option<u64>,
    chain: [u8; 32],
    seen: HashSet<u64>,
    highest: u64,
    duplicates: u64,
    out_of_order: u64,
    missing: u64,
    redelivered: u64,
    /// What the broker delivers again is not applied twice.
    skip_redelivered: bool,
    skipped: u64,
    /// Made once at start: two states with one cookie are the same process, moved.
    cookie: String,
    ballast: Vec<u8>,
    /// As the session sees it.
    pub pod: String,
    pub parked: bool,
    pub connected: bool,
    pub sessions: u64,
}

/// GET /state.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    pub count: u64,
    pub last_id: Option<u64>,
    pub chain: String,
    pub cookie: String,
    pub parked: bool,
    pub connected: bool,
    pub pod: String,
    pub sessions: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub missing: u64,
    pub redelivered: u64,
    pub skipped: u64,
    pub ballast_bytes: usize,
}

impl State {
    pub fn shared(ballast_mb: usize, skip_redelivered: bool) -> std::io::Result<Shared> {
        let mut random = std::fs::File::open("/dev/urandom")?;
        let mut cookie = [0; 16];
        random.read_exact(&mut cookie)?;
        // Random bytes: zero pages would not be in a checkpoint.
        let mut ballast = vec![0; ballast_mb << 20];
        random.read_exact(&mut ballast)?;
        Ok(Arc::new(Mutex::new(Self {
            count: 0,
            last_id: None,
            chain: [0; 32],
            seen: HashSet::new(),
            highest: 0,
            duplicates: 0,
            out_of_order: 0,
            missing: 0,
            redelivered: 0,
            skip_redelivered,
            skipped: 0,
            cookie: hex::encode(cookie),
            ballast,
            pod: String::new(),
            parked: false,
            connected: false,
            sessions: 0,
        })))
    }

    /// One message. What came twice is counted and applied all the same: who compares must see it.
    pub fn apply(&mut self, id: Option<u64>, body: &[u8], redelivered: bool) {
        if self.skip_redelivered && redelivered && id.is_some_and(|id| self.seen.contains(&id)) {
            self.skipped += 1;
            return;
        }
        self.count += 1;
        self.chain = Sha256::new().chain_update(self.chain).chain_update(body).finalize().into();
        self.redelivered += u64::from(redelivered);
        let Some(id) = id else { return };
        if !self.seen.insert(id) {
            self.duplicates += 1;
        } else if id < self.highest {
            self.out_of_order += 1;
            self.missing = self.missing.saturating_sub(1);
        } else {
            self.missing += id - self.highest - 1;
            self.highest = id;
        }
        self.last_id = Some(id);
    }

    pub fn view(&self) -> View {
        View {
            count: self.count,
            last_id: self.last_id,
            chain: hex::encode(self.chain),
            cookie: self.cookie.clone(),
            parked: self.parked,
            connected: self.connected,
            pod: self.pod.clone(),
            sessions: self.sessions,
            duplicates: self.duplicates,
            out_of_order: self.out_of_order,
            missing: self.missing,
            redelivered: self.redelivered,
            skipped: self.skipped,
            ballast_bytes: self.ballast.len(),
        }
    }
}
