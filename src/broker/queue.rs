//! What a queue is, and what of it stands against a pause of its consumer. Pure.

use std::time::Duration;

use super::BrokerError;
use super::orders::PARK_LIVES;

/// A queue that may expire while nobody consumes it must outlast any pause, and what is done after it.
const LEAST_EXPIRY: Duration = PARK_LIVES.saturating_add(Duration::from_secs(60));

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueKind {
    Classic,
    Quorum,
    Stream,
    /// The broker did not tell.
    #[default]
    Unknown,
}

/// What a look at a queue shows. What a policy of the broker adds is not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFacts {
    pub kind: QueueKind,
    pub consumers: u32,
    /// Messages ready to be delivered.
    pub messages: u32,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// It goes after so many milliseconds without a consumer.
    pub expires_ms: Option<u64>,
    /// It holds no more than so many messages or bytes, and drops the oldest.
    pub drops_oldest: bool,
    /// One consumer gets everything, the others wait for its end.
    pub single_active: bool,
}

impl QueueFacts {
    /// Why its consumer cannot be paused without losing messages.
    pub fn refusal(&self, queue: &str) -> Option<BrokerError> {
        let least = u64::try_from(LEAST_EXPIRY.as_millis()).unwrap_or(u64::MAX);
        let cause = if self.kind == QueueKind::Stream {
            "is a stream: a consumer that is paused goes on elsewhere in it; use a classic or a quorum queue"
                .to_owned()
        } else if self.auto_delete {
            "is auto-delete: it goes, with its messages, when its consumer pauses; declare it without auto-delete".to_owned()
        } else if let Some(expires) = self.expires_ms.filter(|expires| *expires < least) {
            format!(
                "has x-expires {} s: it goes, with its messages, when its consumer pauses that long; allow {} s or more",
                expires / 1000,
                least / 1000
            )
        } else {
            return None;
        };
        Some(BrokerError::QueueNotSupported { queue: queue.to_owned(), cause })
    }

    /// It can be moved, but the user may want to know.
    pub fn cautions(&self, queue: &str) -> Vec<String> {
        let mut cautions = Vec::new();
        if self.drops_oldest {
            cautions.push(format!(
                "queue {queue} is bounded and drops its oldest message (x-overflow drop-head): what comes during the pause may push others out"
            ));
        }
        if self.single_active && self.consumers > 1 {
            cautions.push(format!(
                "queue {queue} has a single active consumer and {} more: when this one pauses, another gets its messages",
                self.consumers - 1
            ));
        }
        cautions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_does_not_outlast_the_pause_is_refused_with_what_to_do() {
        let plain = QueueFacts { kind: QueueKind::Classic, ..QueueFacts::default() };
        let refused = |facts: QueueFacts| facts.refusal("q").map(|error| error.to_string());
        assert_eq!(refused(plain), None);
        assert_eq!(refused(QueueFacts { expires_ms: Some(660_000), ..plain }), None);
        for (facts, says) in [
            (QueueFacts { kind: QueueKind::Stream, ..plain }, "queue q is a stream"),
            (QueueFacts { auto_delete: true, ..plain }, "queue q is auto-delete"),
            (QueueFacts { expires_ms: Some(60_000), ..plain }, "queue q has x-expires 60 s"),
        ] {
            let told = refused(facts).unwrap();
            assert!(told.starts_with(says) && told.len() <= 200, "{told}");
        }
    }

    #[test]
    fn what_the_pause_changes_for_others_is_told() {
        let facts =
            QueueFacts { drops_oldest: true, single_active: true, consumers: 2, ..QueueFacts::default() };
        let told = facts.cautions("q");
        assert!(told[0].contains("drop-head") && told[1].contains("1 more"), "{told:?}");
        assert_eq!(QueueFacts { consumers: 1, drops_oldest: false, ..facts }.cautions("q"), [""; 0]);
    }
}
