//! How fast archives arrive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Too small to tell anything about the line.
const SMALLEST: u64 = 1 << 20;

/// The rate of the last archives, the newer counting more.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    /// An archive has arrived.
    pub fn arrived(&self, bytes: u64, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        if bytes < SMALLEST {
            return;
        }
        let rate = bytes.saturating_mul(1000) / millis;
        let before = self.0.load(Ordering::Relaxed);
        let now = if before == 0 { rate } else { before / 4 * 3 + rate / 4 };
        self.0.store(now, Ordering::Relaxed);
    }

    /// `None` as long as none has arrived.
    pub fn bytes_per_second(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_arrives() {
        let meter = Meter::default();
        meter.arrived(100, Duration::from_secs(1));
        assert_eq!(meter.bytes_per_second(), None, "too small to tell");
        meter.arrived(40 << 20, Duration::from_secs(2));
        assert_eq!(meter.bytes_per_second(), Some(20 << 20));
        meter.arrived(40 << 20, Duration::from_secs(4));
        assert_eq!(meter.bytes_per_second(), Some((20 << 20) / 4 * 3 + (10 << 20) / 4));
        meter.arrived(40 << 20, Duration::ZERO);
        assert!(meter.bytes_per_second() > Some(20 << 20));
    }
}
