//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Nothing in a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What an order is given to be proven, where it will be.
pub const WITHIN: Duration = Duration::from_secs(10);

/// Waits for a condition, not for a time.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
