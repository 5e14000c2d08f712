//! What must always hold: I1 to I11 of the design, by their numbers. Some are looked at where it happens: I1, I2 and I11
//! in `consumers`, I4, I5 and I10 in `effects`, I9 and I1 in `nodes`; I7 and I8 are what `ends` asks of every end.

use shadow::protocol::{Effect, Step};

use super::model::Model;
use super::moves::Act;
use super::protocol::Happening;
use super::world::{Bridge, Life, NOBODY, PRIMARY, UNKNOWN, Who, World};

type Broken = Option<&'static str>;

impl Model {
    /// Looks at what just happened; keeps what readers saw.
    pub(super) fn watch(&self, before: &World, act: Act, after: &mut World) -> Broken {
        self.epochs(before, act, after)
            .or_else(|| self.commit(before, act, after))
            .or_else(|| Self::processes(after))
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
        let on_source = |w: &World| (w.fence_here, w.archive_here, w.dumping, w.image, *w.of(Who::Source));
        let on_target = |w: &World| (w.fence_there, w.shadow_ticket, w.replacement_ticket);
        let here = matches!(
            effect,
            Effect::Dump
                | Effect::FreezeSource
                | Effect::KillSource
                | Effect::ThawSource
                | Effect::CloseArchives
        );
        let there =
            matches!(effect, Effect::RestoreShadow | Effect::RestoreReplacement | Effect::CloseArchives);
        let moved_here = here && epoch < before.fence_here.seen && on_source(before) != on_source(after);
        let moved_there = there && epoch < before.fence_there.seen && on_target(before) != on_target(after);
        (moved_here || moved_there).then_some("I11: an older epoch moves an agent")
    }

    /// I4, and I1 at the point of no return.
    fn commit(&self, before: &World, act: Act, after: &World) -> Broken {
        if before.journal == after.journal {
            return None;
        }
        let (was, is) = (self.protocol.facts(before.journal), self.protocol.facts(after.journal));
        if was.state.step.is_committed() || !is.state.step.is_committed() {
            let back = was.state.step.is_committed() && !is.state.step.is_committed();
            let forsaken = act == Act::Learn(Happening::Forsaken);
            return (back && !forsaken).then_some("I4: it leads back after the commit");
        }
        if after.archive_there != is.epoch || after.damaged {
            return Some("I4: committed without a verified archive on the target");
        }
        let serves = after.shadow_ticket.restored && after.shadow_epoch == is.epoch;
        let target_is_up = after.there == super::world::Machine::Up;
        if self.scenario.plan.bridge
            && target_is_up
            && !(serves && after.bridge == Bridge::Shadow)
            && after.deposed == NOBODY
        {
            return Some("I4: committed though the shadow does not serve");
        }
        let source = after.of(Who::Source);
        let newer = source.is_alive() && source.applied != UNKNOWN && source.applied > after.image.applied;
        (newer && after.image.applied != UNKNOWN && !after.past.lost_by_nature)
            .then_some("I1: committed to an archive that lacks what the source has applied")
    }

    /// I3 and I5.
    fn processes(world: &World) -> Broken {
        let takes = |who: &Who| world.of(*who).is_alive() && world.takes_messages(*who);
        if Who::ALL.iter().filter(|who| takes(who)).count() > 1 {
            return Some("I3: two consumers of one identity take messages");
        }
        if takes(&Who::Shadow) {
            return Some("I3: the shadow takes messages");
        }
        let successor = world.of(Who::Successor).life == Life::Running;
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
