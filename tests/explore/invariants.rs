//! What must always hold: I1 to I15 of the design, by their numbers. Some are looked at where it happens: I1, I2 and I11
//! in `consumers`, I4, I5 and I10 in `effects`, I1, I9 and I13 in `restores`; I7, I8 and I14 are what `ends` asks of every end.

use shadow::api::Reason;
use shadow::protocol::{Effect, Step};

use super::model::Model;
use super::moves::Act;
use super::places::{HOME, TARGET};
use super::protocol::{Facts, Happening};
use super::world::{Bridge, Life, PRIMARY, UNKNOWN, Who, World};

type Broken = Option<&'static str>;

impl Model {
    /// Looks at what just happened; keeps what readers saw.
    pub(super) fn watch(&self, before: &World, act: Act, after: &mut World) -> Broken {
        self.epochs(before, act, after)
            .or_else(|| self.commit(before, act, after))
            .or_else(|| self.after_the_commit(before, act, after))
            .or_else(|| self.processes(after))
            .or_else(|| self.queues(after))
            .or_else(|| Self::readers(after))
    }

    /// I11.
    fn epochs(&self, before: &World, act: Act, after: &World) -> Broken {
        if before.journal != after.journal {
            let (was, is) = (self.protocol.facts(before.journal), self.protocol.facts(after.journal));
            let begins_again = was.state.step == Step::BackingOff && is.state.step == Step::Accepted;
            if is.epoch < was.epoch || (begins_again && is.epoch == was.epoch) {
                return Some("I11: the next attempt has no larger epoch");
            }
        }
        let Act::Perform(_, effect, epoch) = act else { return None };
        let kept = |w: &World, at: usize| {
            let source = (w.dumping, w.image, *w.of(Who::Source));
            (w.places[at], (at == TARGET).then_some(w.shadow_ticket), (at == HOME).then_some(source))
        };
        let agents = matches!(
            effect,
            Effect::Dump
                | Effect::FreezeSource
                | Effect::KillSource
                | Effect::ThawSource
                | Effect::CloseArchives
                | Effect::RestoreShadow
                | Effect::RestoreReplacement
                | Effect::SpendTicket
                | Effect::CarryArchive
                | Effect::KeepArchive
        );
        let moved = |at: usize| epoch < before.places[at].fence.seen && kept(before, at) != kept(after, at);
        (agents && (0..before.places.len()).any(moved)).then_some("I11: an older epoch moves an agent")
    }

    /// I4, and I1 at the point of no return.
    fn commit(&self, before: &World, act: Act, after: &World) -> Broken {
        if before.journal == after.journal {
            return None;
        }
        let (was, is) = (self.protocol.facts(before.journal), self.protocol.facts(after.journal));
        if was.state.step.is_committed() || !is.state.step.is_committed() {
            let back = was.state.step.is_committed() && !is.state.step.is_committed();
            let forsaken = act == Act::Learn(Happening::Forsaken) || is.state.given_up;
            return (back && !forsaken).then_some("I4: it leads back after the commit");
        }
        let target = &after.places[TARGET];
        if !target.is_lost() && (target.archive != is.epoch || target.damaged) {
            return Some("I4: committed without a verified archive on the target");
        }
        let lived = after.shadow_ticket.epoch == is.epoch && after.shadow_ticket.restored;
        if !target.is_lost() && !lived {
            return Some("I12: committed to an archive that was not restored on the target");
        }
        let shadow = after.of(Who::Shadow);
        let serves = after.shadow_ticket.started && after.shadow_epoch == is.epoch;
        if self.scenario.plan.bridge && serves && !shadow.is_alive() {
            return Some("I12: committed though the shadow has ended");
        }
        if self.scenario.plan.bridge
            && target.is_up()
            && !(serves && after.bridge == Bridge::Shadow)
            && !after.past.deposed
        {
            return Some("I4: committed though the shadow does not serve");
        }
        let source = after.of(Who::Source);
        let newer = source.is_alive() && source.applied != UNKNOWN && source.applied > after.image.applied;
        (newer && after.image.applied != UNKNOWN && !after.past.lost_by_nature)
            .then_some("I1: committed to an archive that lacks what the source has applied")
    }

    /// I14, and I15 before it.
    fn after_the_commit(&self, before: &World, act: Act, after: &World) -> Broken {
        let (was, is) = (self.protocol.facts(before.journal), self.protocol.facts(after.journal));
        let step = is.state.step;
        if step == Step::BackingOff && after.past.stood == 0b110 {
            return Some("I15: what stands for good would freeze it a third time");
        }
        if after.past.archive_lost {
            return None;
        }
        let home = &after.places[HOME];
        if step.awaits_replacement() && !home.is_lost() && home.archive != is.epoch {
            return Some("I14: the source's node drops the archive before another pod carries on");
        }
        if step.awaits_replacement() && !after.places.iter().any(|place| place.keeps(is.epoch)) {
            return Some("I14: no archive is left before another pod carries on");
        }
        let gives_up = |facts: &Facts| facts.state.given_up || facts.state.step == Step::Stranded;
        let asked = matches!(act, Act::Learn(Happening::GiveUp | Happening::Abort));
        let (tried, could) = (is.place == HOME, home.is_up() && home.keeps(is.epoch));
        // There is nothing to try where no pod will come.
        let forsaken = was.state.failure.as_ref().is_some_and(|failure| failure.reason == Reason::SourceGone);
        (gives_up(&is) && !gives_up(&was) && !asked && !forsaken && !tried && could)
            .then_some("I14: given up though it was not tried at home")
    }

    /// I3, I5 and I13.
    fn processes(&self, world: &World) -> Broken {
        let takes = |who: &Who| world.of(*who).is_alive() && world.takes_messages(*who);
        if Who::ALL.iter().filter(|who| takes(who)).count() > 1 {
            return Some("I3: two consumers of one identity take messages");
        }
        if takes(&Who::Shadow) {
            return Some("I3: the shadow takes messages");
        }
        if world.of(Who::Shadow).life == Life::Running && !self.scenario.plan.bridge {
            return Some("I13: a rehearsal runs");
        }
        if Who::ALL.iter().any(|who| world.of(*who).exceeds && world.of(*who).life == Life::Running) {
            return Some("I13: a process runs that may do more than its spec");
        }
        let successor = world.of(Who::Successor).life == Life::Running;
        if world.ghost.runs && (successor || world.source_acts()) {
            return Some("I5: two processes of the pod run at once");
        }
        (world.source_acts() && successor).then_some("I5: source and successor run at once")
    }

    /// I10: what is published has a queue to go to, at any time; so it does not matter when it is.
    fn queues(&self, world: &World) -> Broken {
        let there = world.broker.exists(PRIMARY) && world.broker.is_bound(PRIMARY);
        (self.scenario.plan.queue && !there).then_some("I10: a published message has no queue to go to")
    }

    /// I6: the most curious reader, who asks everybody it can, all the time. A container that a crash has emptied shows
    /// that by nature.
    fn readers(world: &mut World) -> Broken {
        if world.past.lost_by_nature {
            return None;
        }
        let seen = world.seen;
        let known = world.readable().map(|who| world.of(who).applied).filter(|applied| *applied != UNKNOWN);
        let (oldest, newest) =
            known.fold((u8::MAX, seen), |(o, n), applied| (o.min(applied), n.max(applied)));
        world.seen = newest;
        if oldest < seen {
            return Some("I6: a reader can see a state older than one it saw");
        }
        // Seen at once by two processes is seen one after the other.
        (oldest < newest).then_some("I6: two processes answer, and one knows less than the other")
    }
}
