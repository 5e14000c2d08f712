//! When something of a migration is due, as its status says it or its attempt has it. No I/O but the clock on the wall.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{Epoch, HeldRoom, LONGEST_DEADLINE};

/// First pause between attempts, doubled each time.
const FIRST_BACK_OFF: Duration = Duration::from_secs(20);

/// Room that is held from now on.
pub fn room(bytes: u64) -> HeldRoom {
    let now = Timestamp::now();
    HeldRoom { bytes, since: now.to_string(), until: (now + LONGEST_DEADLINE).to_string() }
}

/// Exponential: the next attempt is not more welcome than the last one.
pub fn pause_after(epoch: Epoch) -> Duration {
    FIRST_BACK_OFF.saturating_mul(1 << epoch.0.saturating_sub(1).min(5))
}

/// How long it is until then; nothing where that is no time.
pub fn until(rfc3339: &str) -> Option<Duration> {
    let at: Timestamp = rfc3339.parse().ok()?;
    Some(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default())
}

/// What is left of the deadline of a migration that was made then.
pub fn until_deadline(created: Timestamp, seconds: u64) -> Duration {
    let gone = Timestamp::now().duration_since(created);
    let gone = Duration::try_from(gone).unwrap_or_default();
    Duration::from_secs(seconds).min(LONGEST_DEADLINE).saturating_sub(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes_and_what_has_passed_is_due_now() {
        assert_eq!([1, 2, 9].map(|epoch| pause_after(Epoch(epoch)).as_secs()), [20, 40, 640]);
        assert_eq!(until("2026-01-01T00:00:00Z"), Some(Duration::ZERO));
        assert_eq!(until("soon"), None);
        let ago = Timestamp::now() - Duration::from_secs(50);
        assert!(until_deadline(ago, 60) <= Duration::from_secs(10) && until_deadline(ago, 40).is_zero());
        assert!(until(&room(1).until).is_some_and(|left| left > LONGEST_DEADLINE / 2));
    }
}
