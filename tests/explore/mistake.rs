//! Seeded mistakes: each one must be caught, or the explorer proves nothing.

use shadow::api::Life;
use shadow::protocol::{Effect, Event, Outcome, State, Step, Way, step};

use super::protocol::Happening;

macro_rules! mistakes {
    ($($(#[doc = $what:literal])+ $name:ident => $breaks:literal),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mistake { $($(#[doc = $what])+ $name),+ }

        impl Mistake {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub fn what(self) -> &'static str {
                match self { $(Self::$name => concat!($($what),+).trim_ascii()),+ }
            }

            /// The invariant that must catch it.
            pub fn breaks(self) -> &'static str {
                match self { $(Self::$name => $breaks),+ }
            }
        }
    };
}

mistakes! {
    /// the dump counts as done before the target has verified the archive
    CommitBeforeVerified => "I4",
    /// the source is parked after the dump, not before it
    DumpBeforePark => "I1",
    /// PARK counts as done when it is sent
    ParkNotConfirmed => "I1",
    /// a rollback forgets that PARK was sent
    RollbackForgetsPark => "I7",
    /// a rollback forgets that the source may stand frozen
    RollbackForgetsThaw => "I8",
    /// a rollback resumes the source while the shadow serves
    ResumeSourceWhileShadowServes => "I6",
    /// a failure after the commit leads back
    RollbackAfterCommit => "I4",
    /// the source pod is deleted before it is frozen
    DeleteBeforeFreeze => "I5",
    /// the replacement's ticket opens before the source is frozen
    ReplacementTicketBeforeFreeze => "I5",
    /// consumption resumes before the source has no process left
    ResumeBeforeSourceIsDead => "I5",
    /// the source is killed before the commit
    KillBeforeCommit => "I4",
    /// readers are switched, but the shadow can still answer
    ShadowNotFenced => "I6",
    /// the bridge stays when the shadow goes
    BridgeLeft => "I8: the bridge",
    /// the bridge is removed after the resume, and the shadow with it
    BridgeRemovedAfterResume => "I6",
    /// tickets and archives stay
    TicketLeftOpen => "I8: an archive",
    /// the consumer acknowledges nothing of what it applies
    AcknowledgesNothing => "I2",
    /// tickets and archives go at the commit
    TicketClosedAtCommit => "I14",
    /// tickets are closed after the resume
    TicketClosedAfterResume => "I9",
    /// no PARK waits for the shadow: it wakes up as the source was when it was dumped
    ShadowWakesUpAsItWas => "I3",
    /// a shadow that may not restore starts fresh
    ShadowStartsFresh => "I3",
    /// agents do not look at the epoch
    AgentIgnoresEpoch => "I11",
    /// the consumer does not look at the epoch
    ConsumerIgnoresEpoch => "I11",
    /// a consumer parks on a queue that does not exist any more
    ParksOnMissingQueue => "I7",
    /// whoever still sits on the parking queue when it is to be dropped is not told to resume
    ParkedOneForgotten => "I7",
    /// a retry goes on under the old epoch
    RetryKeepsEpoch => "I11",
    /// the journal is written after the effects of a step, not before them
    IntentAfterEffect => "I4",
    /// the webhook does not claim the next pod of that name
    WebhookClaimsNothing => "I1",
    /// the webhook lets a repeated eviction through while the pod moves
    EvictionLetThrough => "I1",
    /// the queue is dropped and the source never resumed, because its answer is not awaited and the order not sent
    ResumeNeverSent => "I7",
    /// a broker is waited for though nobody is left to be resumed
    NobodyIsWaitedFor => "I7",
    /// the parking queue is deleted, whatever lies on it
    QueueDeletedNonEmpty => "I10",
    /// the user's queue is unbound to stop it, and bound again in the end
    PrimaryUnbound => "I10",
    /// without a bridge the archive is not restored before the commit
    CommitWithoutRehearsal => "I12",
    /// nobody asks whether the shadow still lives before the commit
    ShadowNotConfirmed => "I12",
    /// without a bridge nobody looks whether the replacement lives on before its ticket is closed
    ReplacementNotConfirmed => "I1",
    /// a restored process runs before the engine has it on record
    LetGoBeforeOnRecord => "I13",
    /// a restored process is not held against its spec
    LetGoUnchecked => "I13",
    /// a rehearsal is let go, where requests may change the state
    RehearsalLetGo => "I13",
    /// the source's node drops its archive at the commit
    HomeDroppedAtCommit => "I14",
    /// a restore that fails after the commit is waited for
    FailureAfterCommitIgnored => "I14",
    /// the same way is tried for ever
    SameWayForEver => "I14",
    /// home is not tried
    HomeNotTried => "I14",
    /// what is given up is not kept
    NothingIsKept => "I14",
    /// what is kept for a person is discarded when a try finds that the pod will not come back
    RetryDiscards => "I14: it ends without",
    /// a person is waited for, whatever the policy says
    StrandedWhateverThePolicy => "I14",
    /// the next way is taken before the ticket of the last one is spent
    WayBeforeSpent => "I5",
    /// it is given up while a ticket is open
    GivenUpBeforeSpent => "I5",
    /// an agent forgets which tickets are spent
    SpentIsForgotten => "I5",
    /// what stands still when its ticket is closed is left standing
    ClosedOneStands => "I8: the survivor does not run",
    /// a ticket is spent though what it restored was let go
    SpendKillsTheLiving => "I6",
    /// what fails at the same place every time is tried again
    FreezesOverAndOver => "I15",
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
            Self::ResumeBeforeSourceIsDead if next.step == Step::Deleting && next.done.is_empty() => {
                next.done.insert(Effect::KillSource);
                next
            }
            // As if its fencing were part of the removal.
            Self::BridgeRemovedAfterResume if next.step == Step::Switching => skip(next, Step::Closing),
            Self::TicketClosedAfterResume if next.step == Step::Closing => skip(next, Step::Resuming),
            Self::RetryKeepsEpoch if happening == Happening::RetryDue => {
                next.epoch = before.epoch;
                next
            }
            Self::CommitWithoutRehearsal if next.step == Step::RestoringShadow => skip(next, Step::Freezing),
            Self::ShadowNotConfirmed if next.step == Step::Confirming => skip(next, Step::Freezing),
            Self::ReplacementNotConfirmed if next.step == Step::Switching => skip(next, Step::Closing),
            Self::FailureAfterCommitIgnored
                if before.step == Step::Replacing && next.step == Step::Spending =>
            {
                before.clone()
            }
            Self::SameWayForEver
                if before.step == Step::Spending
                    && next.step != Step::Spending
                    && next.replacement.is_none() =>
            {
                let life = before.life.max(Life(2));
                State { life, way: Way::Again, step: Step::Replacing, ..before.clone() }
            }
            Self::HomeNotTried if next.way == Way::Home && before.way != Way::Home => {
                next.way = Way::Nowhere;
                next.given_up = next.step != Step::Spending;
                if next.given_up { skip(next, Step::GivingUp) } else { next }
            }
            Self::RetryDiscards if happening == Happening::Forsaken && next.step == Step::Spending => {
                skip(next, Step::Withdrawing)
            }
            Self::StrandedWhateverThePolicy if next.step == Step::GivingUp => {
                next.given_up = false;
                next.failure.clone_from(&before.failure);
                skip(next, Step::Stranded)
            }
            Self::WayBeforeSpent if next.step == Step::Spending => {
                step(&next, Event::Done(next.turn(), Outcome::TicketSpent)).0
            }
            Self::GivenUpBeforeSpent if next.step == Step::Spending && next.way == Way::Nowhere => {
                next.given_up = true;
                skip(next, Step::StartingFresh)
            }
            Self::FreezesOverAndOver if matches!(happening, Happening::Stands(_)) => {
                if let Some(failure) = &mut next.failure {
                    failure.retry = true;
                }
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
