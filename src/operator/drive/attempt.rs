//! One effect, again and again where that makes sense. Guarantees that it ends, or goes on for a reason. Does I/O by what it
//! is given.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::events::Announcer;
use super::subject::Journal;
use crate::api::Reason;
use crate::operator::perform::{EffectError, Performer};
use crate::protocol::{Effect, Failure, Outcome};

/// Before the commit an effect may stumble this long before the attempt is given up.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// After the commit: how long a way may stumble before the next one is tried. The archive lies where it lay. Nothing
/// for effects that only success leads on from.
fn patience_after_commit(effect: Effect) -> Option<Duration> {
    match effect {
        // They know their own patience, for each kind of trouble another.
        Effect::RestoreReplacement | Effect::ConfirmReplacement => Some(Duration::MAX),
        Effect::ChooseNode => Some(Duration::from_secs(10)),
        Effect::CarryArchive => Some(Duration::from_secs(30)),
        // An agent that is rolled out anew is back by then.
        Effect::ReturnArchive => Some(Duration::from_secs(60)),
        _ => None,
    }
}

/// Performs one effect, again where that makes sense. Ends by success, or by a failure before the commit or where the
/// protocol has another way; else it insists, because only success leads on, until it may be left alone.
pub async fn attempt(
    performer: &Performer,
    effect: Effect,
    journal: &Journal,
    announcer: &Announcer,
) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let patience = match journal.state.step {
        step if step.is_revocable() => Some(PATIENCE),
        _ => patience_after_commit(effect),
    };
    let mut pause = RETRY_FIRST;
    let mut reported = false;
    loop {
        let EffectError { failure, transient } = match performer.perform(effect, journal).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        match performer.left_alone(effect, journal, started.elapsed()).await {
            Ok(Some(left)) => {
                tracing::warn!(effect = effect.as_str(), failure.message, left.told, "gone on without");
                if let Some(told) = left.told {
                    announcer.gone_on_without(journal, &failure, &told);
                }
                return Ok(left.outcome);
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "not known whether it may be left alone"),
        }
        if is_hopeless(patience, &failure, transient, started.elapsed()) {
            return Err(failure);
        }
        tracing::info!(effect = effect.as_str(), failure.message, "tried again");
        if !reported && started.elapsed() > PATIENCE {
            announcer.stuck(journal, effect, &failure);
            reported = true;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

/// Without patience only success leads on; but for what the protocol has a way for.
fn is_hopeless(patience: Option<Duration>, failure: &Failure, transient: bool, after: Duration) -> bool {
    match patience {
        Some(patience) => !transient || after > patience,
        None => !failure.retry || (!transient && failure.reason == Reason::VolumeChanged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_success_leads_on_from_is_tried_again_but_for_a_source_that_was_started_anew() {
        let hopeless = |failure: &Failure, transient| is_hopeless(None, failure, transient, Duration::MAX);
        let silent = Failure::retryable(Reason::NoAgent, "silent");
        assert!(!hopeless(&silent, true) && !hopeless(&silent, false));
        let anew = Failure::retryable(Reason::VolumeChanged, "started anew");
        assert!(hopeless(&anew, false) && !hopeless(&anew, true));
        assert!(hopeless(&Failure::terminal(Reason::VolumeChanged, "started anew"), false));
        let within = |transient, after| is_hopeless(Some(PATIENCE), &silent, transient, after);
        assert!(!within(true, PATIENCE) && within(true, PATIENCE * 2) && within(false, Duration::ZERO));
    }
}
