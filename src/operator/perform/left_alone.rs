//! What an effect is gone on without that only success leads on from: it was for somebody who is gone, or whoever began
//! the migration has deleted it, and it has failed for longer than anything can still come of it. All such terms stand
//! here. Network I/O, but for the terms.
//!
//! Guarantees: no wait for a broker, a Secret or an agent that will never be there again needs a finalizer taken off by
//! hand. What could bring an old state back, or a second life, is not among it: a source that may run and a ticket that
//! may be redeemed are waited for until their machine answers or is known to be down.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::{EffectError, Performer};
use crate::broker::PARK_LIVES;
use crate::operator::drive::subject::Journal;
use crate::protocol::{Effect, Outcome, State};

/// By then every order to park has expired; as long as one may come back, from a connection that the broker has not
/// noticed to be dead, whoever obeys it must be resumed.
const PARKED: Duration = PARK_LIVES.saturating_add(Duration::from_secs(60));
/// For queues of an attempt that ordered nobody to park.
const UNPARKED: Duration = Duration::from_secs(20);
/// An agent that is rolled out anew is back by then. What it did not close is closed when it answers (`orphans`).
const AGENT: Duration = Duration::from_secs(60);

/// When nothing is lost by going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Terms {
    /// Whatever is left expires or is swept.
    Always,
    /// No pod has the name that is to be told, or the migration is deleted.
    NobodyToTell,
    /// The pod object is gone: its kubelet ends whatever stands still of it.
    SourceGone,
    /// The target's agent has closed the ticket, and nowhere else one is open.
    TargetClosed,
    /// Of a state that is given up nobody was promised anything: the shadow's pod is deleted, fenced or not.
    ShadowDeleted,
}

/// What is gone on with.
pub struct Left {
    pub outcome: Outcome,
    /// What people should know.
    pub told: Option<String>,
}

fn terms(effect: Effect, state: &State) -> Option<(Terms, Duration, Outcome)> {
    let queues = if state.park_sent { PARKED } else { UNPARKED };
    let found = match effect {
        Effect::ResumeSource => (Terms::NobodyToTell, PARKED, Outcome::SourceResumed),
        Effect::Resume => (Terms::NobodyToTell, PARKED, Outcome::Resumed { position: None }),
        Effect::ThawSource => (Terms::SourceGone, AGENT, Outcome::SourceThawed),
        Effect::KeepArchive => (Terms::Always, AGENT, Outcome::ArchiveKept),
        // In a rollback there is nothing that an open ticket could harm.
        Effect::CloseArchives if !state.step.is_committed() => {
            (Terms::Always, AGENT, Outcome::ArchivesClosed)
        }
        Effect::CloseArchives => (Terms::TargetClosed, AGENT, Outcome::ArchivesClosed),
        Effect::WithdrawShadow if state.given_up => (Terms::ShadowDeleted, AGENT, Outcome::ShadowWithdrawn),
        _ => (Terms::Always, queues, effect.left_alone()?),
    };
    Some(found)
}

impl Performer {
    /// What to go on with, where the effect has been tried so long that nothing comes of it and nothing is lost by it.
    pub async fn left_alone(
        &self,
        effect: Effect,
        journal: &Journal,
        tried: Duration,
    ) -> Result<Option<Left>, EffectError> {
        let Some((terms, patience, outcome)) = terms(effect, &journal.state) else { return Ok(None) };
        // Of one that the step before could not reach for so long nothing more is to be expected now.
        let tried = if is_told_to_broker(effect) { tried.max(self.broker.unheard_for()) } else { tried };
        if tried <= patience {
            return Ok(None);
        }
        let mut told = None;
        let holds = match terms {
            Terms::Always => true,
            Terms::SourceGone => self.is_source_gone(journal).await?,
            Terms::TargetClosed => self.is_closed_on_target(journal).await,
            Terms::ShadowDeleted => self.delete_shadow(journal).await.map(|()| true)?,
            Terms::NobodyToTell => {
                told = self.why_nobody_is_told(journal, tried).await?;
                told.is_some()
            }
        };
        Ok(holds.then_some(Left { outcome, told }))
    }

    /// Why the survivor need not be told to take messages; nothing where it must.
    async fn why_nobody_is_told(
        &self,
        journal: &Journal,
        tried: Duration,
    ) -> Result<Option<String>, EffectError> {
        let source = &journal.subject.source;
        let name = journal.state.replacement.as_ref().map_or(&source.name, |pod| &pod.name);
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &source.namespace);
        let is_there = pods.get_opt(name).await.map_err(EffectError::api("get pod"))?.is_some();
        let deleted = is_there && self.is_deleted().await?;
        Ok(unheard(name, is_there, deleted, tried))
    }
}

/// A pod of that name may have obeyed an order to park: it is told, unless the migration was deleted meanwhile.
fn unheard(pod: &str, is_there: bool, deleted: bool, tried: Duration) -> Option<String> {
    let seconds = tried.as_secs();
    match (is_there, deleted) {
        (false, _) => {
            Some(format!("there is no pod {pod} that could be told to take messages ({seconds} s)"))
        }
        (true, true) => Some(format!(
            "the migration was deleted, and for {seconds} s pod {pod} could not be told to take messages: \
             restart it if it waits parked"
        )),
        (true, false) => None,
    }
}

/// Effects of the end that a broker must hear of.
pub(super) fn is_told_to_broker(effect: Effect) -> bool {
    matches!(effect, Effect::Resume | Effect::ResumeSource | Effect::DropParking)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{EvictionPolicy, Hold};
    use crate::protocol::{Plan, Step};

    fn state(step: Step) -> State {
        let plan = Plan {
            bridge: true,
            queue: true,
            hold: Hold::Release,
            policy: EvictionPolicy::MigrateOrBlock,
            outlived: false,
        };
        State { step, park_sent: true, ..State::new(plan, None) }
    }

    fn of(effect: Effect, state: &State) -> Option<(Terms, Duration)> {
        let (terms, patience, outcome) = terms(effect, state)?;
        assert_eq!(outcome.effect(), effect);
        Some((terms, patience))
    }

    #[test]
    fn a_broker_is_waited_for_as_long_as_somebody_may_be_parked_and_not_for_ever() {
        for (effect, step) in [(Effect::ResumeSource, Step::Reverting), (Effect::Resume, Step::Resuming)] {
            assert_eq!(of(effect, &state(step)), Some((Terms::NobodyToTell, PARKED)));
        }
        let long = PARKED + Duration::from_secs(1);
        assert_eq!(unheard("web-0", true, false, long), None, "it may wait parked");
        assert!(unheard("web-0", false, false, long).is_some());
        let told = unheard("web-0", true, true, long).unwrap();
        assert!(told.contains("restart it") && told.len() <= 200, "{told}");
        assert_eq!(of(Effect::DropParking, &state(Step::Discarding)), Some((Terms::Always, PARKED)));
        let unparked = State { park_sent: false, ..state(Step::Discarding) };
        assert_eq!(of(Effect::DropParking, &unparked), Some((Terms::Always, UNPARKED)));
    }

    #[test]
    fn agents_that_never_come_back_keep_no_rollback_and_no_giving_up_from_its_end() {
        assert_eq!(of(Effect::CloseArchives, &state(Step::Discarding)), Some((Terms::Always, AGENT)));
        assert_eq!(of(Effect::KeepArchive, &state(Step::GivingUp)), Some((Terms::Always, AGENT)));
        assert_eq!(of(Effect::ThawSource, &state(Step::Reverting)), Some((Terms::SourceGone, AGENT)));
        let given_up = State { given_up: true, ..state(Step::StartingFresh) };
        assert_eq!(of(Effect::WithdrawShadow, &given_up), Some((Terms::ShadowDeleted, AGENT)));
    }

    #[test]
    fn what_could_be_a_second_life_is_never_left() {
        assert_eq!(of(Effect::CloseArchives, &state(Step::Closing)), Some((Terms::TargetClosed, AGENT)));
        for (effect, step) in [
            (Effect::FreezeSource, Step::Freezing),
            (Effect::KillSource, Step::Deleting),
            (Effect::SpendTicket, Step::Spending),
            (Effect::SwitchReaders, Step::Switching),
            (Effect::WithdrawShadow, Step::Withdrawing),
        ] {
            assert_eq!(of(effect, &state(step)), None, "{effect:?}");
        }
    }
}
