//! Waiting for a condition, and the verdict: what was published against what the state holds.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::Ledger;
use super::{Result, StateView, fail};

const LOOK: Duration = Duration::from_millis(100);

/// Asks again until the answer is yes; an error counts as no. Says in the end what was waited for and why not.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut holds: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        let last = match holds().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            return fail(format!("{what}: not within {limit:?}; at last: {last}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Every message that the broker confirmed, held against the state that is left in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub published: u64,
    pub applied: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// The hash chain over all bodies is the same on both sides.
    pub chain_equal: bool,
    /// It is the same process's memory.
    pub cookie_kept: bool,
}

impl Verdict {
    pub fn of(ledger: &Ledger, state: &StateView, cookie: &str) -> Self {
        let distinct = state.count - state.duplicates.min(state.count);
        Self {
            published: ledger.published,
            applied: state.count,
            lost: ledger.published.saturating_sub(distinct),
            duplicated: state.duplicates,
            reordered: state.out_of_order,
            chain_equal: ledger.chain == state.chain,
            cookie_kept: state.cookie == cookie,
        }
    }

    pub fn is_exact(&self) -> bool {
        self.published == self.applied
            && (self.lost, self.duplicated, self.reordered) == (0, 0, 0)
            && self.chain_equal
            && self.cookie_kept
    }
}
