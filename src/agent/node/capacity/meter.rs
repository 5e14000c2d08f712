//! How fast archives arrive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Too small to tell anything about the line, unless it took long.
const SMALLEST: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(5);

/// The rate of the last archives, the newer counting more.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    /// An archive has arrived.
    pub fn arrived(&self, bytes: u64, took: Duration) {
        let Some(rate) = rate(bytes, took) else { return };
        let before = self.0.load(Ordering::Relaxed);
        let now = if before == 0 { rate } else { before / 4 * 3 + rate / 4 };
        self.0.store(now, Ordering::Relaxed);
    }

    /// A stream has ended in the middle. A line that has become slow is believed at once, for most that takes too long ends
    /// so; it never makes one look faster.
    pub fn broke_off(&self, bytes: u64, took: Duration) {
        let Some(rate) = rate(bytes, took) else { return };
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(if before == 0 { rate } else { before.min(rate) }, Ordering::Relaxed);
    }

    /// `None` as long as nothing has come.
    pub fn bytes_per_second(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }
}

fn rate(bytes: u64, took: Duration) -> Option<u64> {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let tells = bytes >= SMALLEST || took >= LONG;
    tells.then(|| bytes.saturating_mul(1000) / millis).filter(|rate| *rate > 0)
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

    #[test]
    fn what_breaks_off_tells_how_slow_the_line_is() {
        let meter = Meter::default();
        meter.broke_off(0, Duration::ZERO);
        meter.broke_off(1000, Duration::from_secs(1));
        assert_eq!(meter.bytes_per_second(), None, "too little to tell");
        meter.broke_off(100_000, Duration::from_secs(10));
        assert_eq!(meter.bytes_per_second(), Some(10_000), "so little in so long a time tells enough");
        let meter = Meter::default();
        meter.arrived(100 << 20, Duration::from_secs(1));
        meter.broke_off(30 << 20, Duration::from_secs(30));
        assert_eq!(meter.bytes_per_second(), Some(1 << 20), "at once");
        meter.broke_off(30 << 20, Duration::from_secs(1));
        assert_eq!(meter.bytes_per_second(), Some(1 << 20), "who broke off early may have been fast");
    }
}
