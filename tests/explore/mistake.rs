//! Seeded mistakes: each one must be caught, or the explorer proves nothing.

use shadow::protocol::{Effect, State, Step};

use super::protocol::Happening;

macro_rules! mistakes {
    ($($(#[doc = $what:literal])+ $name:ident),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mistake { $($(#[doc = $what])+ $name),+ }

        impl Mistake {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub fn what(self) -> &'static str {
                match self { $(Self::$name => concat!($($what),+)),+ }
            }
        }
    };
}

mistakes! {
    /// the dump counts as done before the target has verified the archive
    CommitBeforeVerified,
    /// the source is parked after the dump, not before it
    DumpBeforePark,
    /// PARK counts as done when it is sent
    ParkNotConfirmed,
    /// a rollback forgets that PARK was sent
    RollbackForgetsPark,
    /// a rollback forgets that the source may stand frozen
    RollbackForgetsThaw,
    /// a rollback resumes the source while the shadow serves
    ResumeSourceWhileShadowServes,
    /// a failure after the commit leads back
    RollbackAfterCommit,
    /// the source pod is deleted before it is frozen
    DeleteBeforeFreeze,
    /// the replacement's ticket opens before the source is frozen
    ReplacementTicketBeforeFreeze,
    /// consumption resumes before the source has no process left
    ResumeBeforeSourceIsDead,
    /// the source is killed before the commit
    KillBeforeCommit,
    /// readers are switched, but the shadow can still answer
    ShadowNotFenced,
    /// the bridge stays when the shadow goes
    BridgeLeft,
    /// tickets and archives stay
    TicketLeftOpen,
    /// tickets and archives go at the commit
    TicketClosedAtCommit,
    /// tickets are closed after the resume
    TicketClosedAfterResume,
    /// no PARK waits for the shadow: it wakes up as the source was when it was dumped
    ShadowWakesUpAsItWas,
    /// a shadow that may not restore starts fresh
    ShadowStartsFresh,
    /// agents do not look at the epoch
    AgentIgnoresEpoch,
    /// the consumer does not look at the epoch
    ConsumerIgnoresEpoch,
    /// a consumer parks on a queue that does not exist any more
    ParksOnMissingQueue,
    /// whoever still sits on the parking queue when it is to be dropped is not told to resume
    ParkedOneForgotten,
    /// a retry goes on under the old epoch
    RetryKeepsEpoch,
    /// the journal is written after the effects of a step, not before them
    IntentAfterEffect,
    /// the webhook does not claim the next pod of that name
    WebhookClaimsNothing,
    /// the queue is dropped and the source never resumed, because its answer is not awaited and the order not sent
    ResumeNeverSent,
}

impl Mistake {
    /// What the protocol's next state is, made so.
    pub fn instead(self, before: &State, happening: Happening, mut next: State) -> State {
        match self {
            Self::DumpBeforePark if next.step == Step::Parking => {
                next.park_sent = false;
                skip(next, Step::Dumping)
            }
            Self::RollbackForgetsPark if next.step == Step::Withdrawing => {
                next.park_sent = false;
                next
            }
            Self::RollbackForgetsThaw if next.step == Step::Withdrawing => {
                next.dump_sent = false;
                next
            }
            Self::ResumeSourceWhileShadowServes if next.step == Step::Withdrawing && next.park_sent => {
                next.done.insert(Effect::WithdrawShadow);
                skip(next, Step::Reverting)
            }
            Self::RollbackAfterCommit
                if matches!(before.step, Step::Freezing | Step::Deleting)
                    && happening == Happening::DeadlineExceeded =>
            {
                skip(next, Step::Withdrawing)
            }
            Self::DeleteBeforeFreeze if next.step == Step::Freezing => skip(next, Step::Deleting),
            Self::ResumeBeforeSourceIsDead if next.step == Step::Replacing && next.done.is_empty() => {
                next.done.insert(Effect::KillSource);
                next
            }
            Self::TicketClosedAfterResume if next.step == Step::Closing => skip(next, Step::Resuming),
            Self::RetryKeepsEpoch if happening == Happening::RetryDue => {
                next.epoch = before.epoch;
                next
            }
            _ => next,
        }
    }
}

fn skip(mut state: State, to: Step) -> State {
    state.step = to;
    state.done.clear();
    if to == Step::Dumping {
        state.dump_sent = true;
    }
    state
}
