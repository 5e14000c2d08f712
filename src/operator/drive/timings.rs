//! How long an attempt and its pause take. No I/O; the clock is an argument.
//!
//! Guarantees: times of one operator's life are of a monotonic clock; what one begins and another ends is measured by what
//! the status says of its beginning.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::api::{HeldRoom, StatefulMigrationStatus};
use crate::protocol::{State, Step};

/// What the driver measured, beside the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    pub timings: BTreeMap<String, u64>,
    pub started_at: Option<String>,
    pub paused_at: Option<String>,
    pub total_ms: Option<u64>,
    pub pause_ms: Option<u64>,
    pub retry_at: Option<String>,
    /// Room that is kept for the archive.
    pub reservation: Option<HeldRoom>,
    /// The largest `spec.retry` that was heeded.
    pub retries: u32,
}

impl Measured {
    /// By an operator before this one.
    pub fn before(status: &StatefulMigrationStatus) -> Self {
        Self {
            timings: status.phase_timings.clone(),
            started_at: status.started_at.clone(),
            paused_at: status.paused_at.clone(),
            total_ms: status.total_ms,
            pause_ms: status.pause_ms,
            retry_at: status.retry_at.clone(),
            reservation: status.reservation.clone(),
            retries: status.retries,
        }
    }
}

/// Since when the attempt goes on, and since when the pod stands still.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopwatch {
    started: Option<Instant>,
    paused: Option<Instant>,
}

impl Stopwatch {
    pub fn of(measured: &Measured) -> Self {
        let at = |rfc3339: &Option<String>| rfc3339.as_deref().and_then(passed);
        Self { started: at(&measured.started_at), paused: at(&measured.paused_at) }
    }

    /// The migration has come to another step.
    pub fn enter(&mut self, state: &State, now: Instant, measured: &mut Measured) {
        let since = |at: Option<Instant>| at.map(|at| millis(now.duration_since(at)));
        match state.step {
            Step::Preparing => {
                (self.started, self.paused) = (Some(now), None);
                measured.started_at = Some(Timestamp::now().to_string());
            }
            Step::Parking | Step::Dumping if self.paused.is_none() => {
                self.paused = Some(now);
                measured.paused_at = Some(Timestamp::now().to_string());
            }
            // What had been restored has ended again.
            Step::Spending if !state.plan.queue => measured.pause_ms = None,
            // A plan that has nothing to take away passes Cleaning by.
            Step::Cleaning | Step::Completed if measured.total_ms.is_none() => {
                measured.total_ms = since(self.started);
                measured.pause_ms = measured.pause_ms.or(since(self.paused));
            }
            _ => {}
        }
        // Without a queue nobody has to tell it to go on.
        if !state.plan.queue && state.replacement.is_some() && measured.pause_ms.is_none() {
            measured.pause_ms = since(self.paused);
        }
    }
}

/// When that was, by this process's clock.
fn passed(rfc3339: &str) -> Option<Instant> {
    let at: Timestamp = rfc3339.parse().ok()?;
    let ago = Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default();
    Instant::now().checked_sub(ago)
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::EvictionPolicy;
    use crate::protocol::{Plan, Restored};

    fn state(step: Step, queue: bool) -> State {
        let plan = Plan { queue, ..Plan::plain(EvictionPolicy::MigrateOrBlock) };
        State { step, ..State::new(plan, None) }
    }

    #[test]
    fn every_plan_has_its_times_also_one_that_passes_cleaning_by() {
        let (mut stopwatch, mut measured, begun) =
            (Stopwatch::default(), Measured::default(), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        stopwatch.enter(&state(Step::Preparing, false), at(0), &mut measured);
        stopwatch.enter(&state(Step::Dumping, false), at(100), &mut measured);
        let replacement = Some(Restored { pod: "r".into(), name: "web-0".into(), ip: None });
        stopwatch.enter(
            &State { replacement: replacement.clone(), ..state(Step::Switching, false) },
            at(500),
            &mut measured,
        );
        stopwatch.enter(&state(Step::Spending, false), at(600), &mut measured);
        assert_eq!(measured.pause_ms, None, "it ended again");
        stopwatch.enter(
            &State { replacement: replacement.clone(), ..state(Step::Switching, false) },
            at(700),
            &mut measured,
        );
        stopwatch.enter(&State { replacement, ..state(Step::Completed, false) }, at(750), &mut measured);
        assert_eq!((measured.total_ms, measured.pause_ms), (Some(750), Some(600)));
    }

    #[test]
    fn with_a_queue_the_pause_begins_with_the_order_to_park_and_ends_with_the_resume() {
        let (mut stopwatch, mut measured, begun) =
            (Stopwatch::default(), Measured::default(), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        for (step, ms) in [
            (Step::Preparing, 0),
            (Step::Parking, 50),
            (Step::Dumping, 60),
            (Step::Cleaning, 900),
            (Step::Completed, 2000),
        ] {
            stopwatch.enter(&state(step, true), at(ms), &mut measured);
        }
        assert_eq!((measured.total_ms, measured.pause_ms), (Some(900), Some(850)));
    }

    #[test]
    fn another_operator_ends_what_one_began() {
        let began = Timestamp::now() - Duration::from_secs(3);
        let measured = Measured { started_at: Some(began.to_string()), ..Measured::default() };
        let (mut stopwatch, mut measured) = (Stopwatch::of(&measured), measured);
        stopwatch.enter(&state(Step::Completed, true), Instant::now(), &mut measured);
        assert!(measured.total_ms.is_some_and(|ms| (3000..4000).contains(&ms)), "{measured:?}");
        assert_eq!(measured.pause_ms, None);
    }
}
