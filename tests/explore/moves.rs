//! What can happen next, and how it reads in a story.

use std::fmt;

use shadow::protocol::Effect;

use super::protocol::Happening;
use super::world::{Named, Order, Who, World};

/// Who performs an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Operator,
    /// It believes that it still leads; its requests may also just be late.
    Deposed,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Perform(By, Effect, u8),
    Learn(Happening),
    WriteJournal,
    OperatorCrashes,
    OperatorDeposed,
    DeposedStops,
    ClientWrites(Who, u8),
    Connect(Who),
    Subscribe(Who),
    Deliver(Who, u8),
    Apply(Who, u8),
    Obey(Who, Order),
    FinishPark(Who),
    OrderLiesAt(Who, Order),
    TakesStray(Who),
    RivalTakes(u8),
    BrokerNotices(Who),
    Collect,
    DumpArrives,
    DumpFails,
    AgentCrashesInDump,
    AgentCrashesBeforeReport,
    GivesUpTidying(Effect),
    EvictedByDrainer(Who),
    LostPodDeleted,
    StrayMessage,
    TargetReboots,
    NodeLost(usize),
    TargetSilent,
    TargetAnswers,
    TargetDeclaredLost,
    ArchiveDamaged,
    ArchiveDamagedOn(usize),
    Barren,
    BarrenEverywhere,
    RestoreFails(Who),
    RestoredAsMore(Who),
    LetGo(Who),
    KubeletDies(Who),
    GhostRuns,
    SilentNodeSweeps,
    MakePod(Named),
    ClaimWaits(Who),
    Restore(Who),
    StartFresh(Who),
    KubeletKills(Who),
    ConnectionBreaks(Who),
    AcknowledgementLost(Who, u8),
    ContainerCrashes(Who),
    EndsOfItsConnections,
    SourceDeletedByUser,
    ReplacementDeletedByUser,
    OwnerDeletedByUser,
    TemplateChangedByUser,
    BrokerLost,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {})", if self.park { "PARK" } else { "RESUME" }, self.epoch)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Shadow => "shadow",
            Self::Successor => "successor",
        })
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admitted => f.write_str("a slot is free"),
            Self::Refused => f.write_str("the pod cannot be moved"),
            Self::Done(effect) => write!(f, "{} is done", effect.as_str()),
            Self::Failed(effect, true) => write!(f, "{} failed", effect.as_str()),
            Self::Failed(effect, false) => write!(f, "{} failed for good", effect.as_str()),
            Self::Forsaken => f.write_str("no pod will ever claim the replacement's ticket"),
            Self::StepTimedOut => f.write_str("the step took too long"),
            Self::Abort => f.write_str("abort was asked for"),
            Self::DeadlineExceeded => f.write_str("the deadline passed"),
            Self::SourceGone => f.write_str("the source pod is gone"),
            Self::RetryDue => f.write_str("the back-off is over"),
            Self::Stands(effect) => write!(f, "{} failed as it will every time", effect.as_str()),
            Self::Lost(effect) => write!(f, "{}: the machine is down for good", effect.as_str()),
            Self::Lives => f.write_str("the replacement was let go after all, and lives"),
            Self::Retry => f.write_str("somebody says: try all places again"),
            Self::GiveUp => f.write_str("somebody says: start it fresh"),
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Perform(By::Operator, effect, epoch) => {
                write!(f, "operator performs {} (epoch {epoch})", effect.as_str())
            }
            Self::Perform(By::Deposed, effect, epoch) => {
                write!(f, "DEPOSED operator performs {} (epoch {epoch})", effect.as_str())
            }
            Self::Learn(happening) => write!(f, "operator learns: {happening}"),
            Self::WriteJournal => f.write_str("operator writes the journal"),
            Self::OperatorCrashes => f.write_str("FAULT: the operator crashes and reads the journal again"),
            Self::OperatorDeposed => {
                f.write_str("FAULT: another operator takes over, this one believes that it still leads")
            }
            Self::DeposedStops => f.write_str("the deposed operator stops"),
            Self::ClientWrites(who, write) => {
                write!(f, "client's write {write} is acknowledged by the {who}")
            }
            Self::Connect(who) => write!(f, "{who} connects to the broker"),
            Self::Subscribe(who) => write!(f, "{who} consumes the queue its gate says"),
            Self::Deliver(who, message) => write!(f, "broker delivers message {message} to the {who}"),
            Self::Apply(who, message) => write!(f, "{who} applies and acknowledges message {message}"),
            Self::Obey(who, order) => write!(f, "{who} takes {order}"),
            Self::FinishPark(who) => {
                write!(f, "{who} has nothing unacknowledged, sits on the parking queue, answers")
            }
            Self::OrderLiesAt(who, order) => write!(f, "broker gives {order} to the frozen {who}"),
            Self::TakesStray(who) => {
                write!(f, "{who} drops a message that does not belong on its parking queue")
            }
            Self::RivalTakes(message) => {
                write!(f, "the other consumer takes message {message}; those after it are numbered anew")
            }
            Self::GivesUpTidying(effect) => write!(f, "operator gives up {}", effect.as_str()),
            Self::EvictedByDrainer(who) => {
                write!(f, "the drainer asks again, and the webhook lets it evict the {who}")
            }
            Self::LostPodDeleted => f.write_str("Kubernetes deletes the pod of the lost node"),
            Self::StrayMessage => f.write_str("FAULT: somebody publishes to a parking queue"),
            Self::TargetReboots => f.write_str("FAULT: the target node reboots"),
            Self::NodeLost(at) => write!(f, "FAULT: {} is lost for good", PLACES[*at]),
            Self::TargetSilent => f.write_str("FAULT: the target node does not answer, but goes on"),
            Self::TargetAnswers => f.write_str("the target node answers again"),
            Self::TargetDeclaredLost => f.write_str("the silent target is switched off and declared lost"),
            Self::ArchiveDamagedOn(at) => write!(f, "FAULT: the archive is damaged on {}", PLACES[*at]),
            Self::Barren => f.write_str("FAULT: on the target every restore fails from now on"),
            Self::BarrenEverywhere => f.write_str("FAULT: everywhere every restore fails from now on"),
            Self::RestoreFails(who) => write!(f, "{who} cannot be restored"),
            Self::RestoredAsMore(who) => {
                write!(f, "FAULT: {who} is restored and may do more than its spec, and is let go")
            }
            Self::LetGo(who) => write!(f, "engine has the {who} on record, its agent lets it go"),
            Self::KubeletDies(who) => {
                write!(f, "FAULT: the {who}'s kubelet dies, and with it what is not on record")
            }
            Self::GhostRuns => f.write_str("a pod that was deleted for another one redeems its ticket"),
            Self::SilentNodeSweeps => f.write_str("an agent that was silent removes what is left"),
            Self::AgentCrashesBeforeReport => f.write_str(
                "FAULT: the archive arrives, but the source's agent crashes and gives its dump up",
            ),
            Self::BrokerNotices(who) => write!(f, "broker notices that the {who}'s connection is gone"),
            Self::Collect => f.write_str("Kubernetes collects what the migration owns"),
            Self::DumpArrives => f.write_str("archive arrives at the target and is verified"),
            Self::DumpFails => f.write_str("source's agent gives the dump up"),
            Self::AgentCrashesInDump => f.write_str("FAULT: source's agent crashes in the dump"),
            Self::ArchiveDamaged => f.write_str("FAULT: the archive is damaged on its way"),
            Self::MakePod(Named::Replacement { epoch, life, at }) => write!(
                f,
                "owner makes the pod again, webhook gives it ticket {epoch}.{life} for {}",
                PLACES[*at]
            ),
            Self::MakePod(_) => f.write_str("owner makes the pod again, without a ticket"),
            Self::ClaimWaits(who) => write!(f, "{who}'s create waits for its ticket"),
            Self::Restore(who) => write!(f, "{who} is restored"),
            Self::StartFresh(who) => write!(f, "{who} starts fresh"),
            Self::KubeletKills(who) => write!(f, "kubelet kills the {who}, whose pod is gone"),
            Self::ConnectionBreaks(who) => write!(f, "FAULT: {who}'s connection breaks"),
            Self::AcknowledgementLost(who, message) => {
                write!(
                    f,
                    "FAULT: {who} applies message {message}, its connection breaks before the acknowledgement"
                )
            }
            Self::ContainerCrashes(who) => write!(f, "FAULT: the {who}'s process crashes"),
            Self::EndsOfItsConnections => {
                f.write_str("FAULT: the successor finds its connections closed and ends")
            }
            Self::SourceDeletedByUser => f.write_str("FAULT: somebody deletes the source pod"),
            Self::ReplacementDeletedByUser => f.write_str("FAULT: somebody deletes the replacement pod"),
            Self::BrokerLost => f.write_str("FAULT: the broker goes down for good"),
            Self::TemplateChangedByUser => {
                f.write_str("FAULT: somebody changes the owner's template and deletes its pod")
            }
            Self::OwnerDeletedByUser => f.write_str("FAULT: somebody deletes the owner, and with it the pod"),
        }
    }
}

const PLACES: [&str; 3] = ["the source's node", "the target", "the third node"];

/// One way on.
#[derive(Clone, Copy)]
pub struct Move {
    pub act: Act,
    pub world: World,
    /// Need not ever happen: nothing may depend on it.
    pub is_fault: bool,
    /// It must not be possible.
    pub violation: Option<&'static str>,
}

/// Collects the ways on from one world.
#[derive(Default)]
pub struct Moves {
    pub all: Vec<Move>,
}

impl Moves {
    pub fn happens(&mut self, act: Act, world: World) {
        self.all.push(Move { act, world, is_fault: false, violation: None });
    }

    /// Something outside the budget of faults that still need not happen.
    pub fn may_happen(&mut self, act: Act, world: World) {
        self.all.push(Move { act, world, is_fault: true, violation: None });
    }

    /// Costs one of the faults that are left.
    pub fn fault(&mut self, act: Act, mut world: World) {
        if let Some(left) = world.faults_left.checked_sub(1) {
            world.faults_left = left;
            self.all.push(Move { act, world, is_fault: true, violation: None });
        }
    }

    pub fn violates(&mut self, act: Act, world: World, violation: &'static str) {
        self.all.push(Move { act, world, is_fault: false, violation: Some(violation) });
    }
}
