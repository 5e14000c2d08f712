//! Waiting for conditions.

use std::time::{Duration, Instant};

use shadow::broker::BrokerError;

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

/// Repeats a call until the broker answers, as the operator does. No failure may ask for anything but patience.
pub async fn insist<T>(call: impl AsyncFn() -> Result<T, BrokerError>) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error @ (BrokerError::Unreachable { .. } | BrokerError::Blocked { .. })) => {
                println!("{error}");
            }
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < PATIENCE, "it never came back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
