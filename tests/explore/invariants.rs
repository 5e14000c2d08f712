//! What must always hold (I1 to I11 of the design), and what a good end is.

use shadow::api::EvictionPolicy;
use shadow::protocol::Step;

use super::model::Model;
use super::world::{Bridge, Life, NOBODY, Named, Seat, UNKNOWN, Who, World};

impl Model {
    /// Looks at what just happened; keeps what readers saw.
    pub(super) fn watch(&self, before: &World, after: &mut World) -> Option<&'static str> {
        if before.journal != after.journal
            && let Some(broken) = self.commit(before, after)
        {
            return Some(broken);
        }
        let takes = |who: &Who| after.of(*who).is_alive() && after.of(*who).seat == Seat::Primary;
        if Who::ALL.iter().filter(|who| takes(who)).count() > 1 {
            return Some("I3: two consumers of one identity take messages");
        }
        let runs = |who| after.of(who).life == Life::Running;
        if runs(Who::Source) && runs(Who::Successor) {
            return Some("I5: source and successor run at once");
        }
        self.readers(after)
    }

    fn commit(&self, before: &World, after: &World) -> Option<&'static str> {
        let (was, is) = (self.protocol.facts(before.journal), self.protocol.facts(after.journal));
        if is.epoch < was.epoch {
            return Some("I11: the journal goes back to an older epoch");
        }
        if was.state.step.is_committed() || !is.state.step.is_committed() {
            return None;
        }
        if after.archive_there != is.epoch || after.damaged {
            return Some("I4: committed without a verified archive on the target");
        }
        let serves = after.shadow_ticket.restored && after.shadow_epoch == is.epoch;
        if self.scenario.plan.bridge && !(serves && after.bridge == Bridge::Shadow) && after.deposed == NOBODY
        {
            return Some("I4: committed though the shadow does not serve");
        }
        None
    }

    /// The most curious reader: it asks everybody it can, all the time.
    fn readers(&self, world: &mut World) -> Option<&'static str> {
        if world.past.lost_by_nature {
            world.seen = 0;
            return None;
        }
        let seen = world.seen;
        for who in world.readable() {
            let applied = world.of(who).applied;
            if applied < seen {
                return Some("I6: a reader can see a state older than one it saw");
            }
            world.seen = world.seen.max(applied);
        }
        // Seen at once by two processes is seen one after the other.
        world
            .readable()
            .any(|who| world.of(who).applied < world.seen)
            .then_some("I6: two processes answer, and one knows less than the other")
    }

    /// It ended, and everything is as if nothing had happened, but for the node.
    pub fn is_good_end(&self, world: &World) -> bool {
        self.missing(world).is_empty()
    }

    /// Nobody can take messages: but the pod must not stand frozen, and a drain must get what the policy says.
    fn missing_without_broker(&self, world: &World) -> Vec<&'static str> {
        let state = &self.protocol.facts(world.journal).state;
        let runs = world.survivor().is_some_and(|who| world.of(who).life == Life::Running);
        let blocks = self.scenario.plan.policy == EvictionPolicy::MigrateOrBlock;
        let gone = world.named != Named::Source || state.step == Step::Completed;
        let drained = gone || blocks || state.step.is_terminal() && !state.park_sent;
        let mut missing = Vec::new();
        if !runs {
            missing.push("I7: nobody runs, because the broker is down");
        }
        if !drained {
            missing.push("I7: the drain waits for ever, because the broker is down");
        }
        missing
    }

    /// What a good end lacks.
    pub fn missing(&self, world: &World) -> Vec<&'static str> {
        let step = self.protocol.facts(world.journal).state.step;
        if world.past.broker_lost {
            return self.missing_without_broker(world);
        }
        let mut missing = Vec::new();
        let mut must = |holds: bool, what: &'static str| {
            if !holds {
                missing.push(what);
            }
        };
        must(step.is_terminal(), "I7: the migration does not end");
        let untroubled = self.scenario.faults == 0 && !self.scenario.deadline;
        must(step == Step::Completed || !untroubled, "I7: it fails though nothing went wrong");
        must(world.mind == world.journal && world.deposed == NOBODY, "operators agree");
        must(world.shadows == 0 && !world.of(Who::Shadow).is_alive(), "I8: the shadow is left");
        must(world.bridge == Bridge::None, "I8: the bridge is left");
        let archives = world.archive_here == 0 && world.archive_there == 0 && world.dumping == 0;
        must(archives || world.past.archives_left, "I8: an archive is left");
        let tickets = world.shadow_ticket.epoch == 0 && world.replacement_ticket.epoch == 0;
        must(tickets || world.past.archives_left, "I8: a ticket is left");
        let queues = world.parking == 0 && world.replies == 0 && !world.shadow_orders;
        must(queues || world.past.queues_left || world.past.deposed, "I8: a queue of the migration is left");
        let source_stays = world.named == Named::Source || !world.of(Who::Source).is_alive();
        must(source_stays, "I8: a process of the source is left");
        let Some(who) = world.survivor() else {
            must(world.past.owner_deleted, "I8: nobody has the source's name");
            return missing;
        };
        must(world.published == self.scenario.messages, "publishing ends");
        let survivor = world.of(who);
        must(survivor.life == Life::Running, "I8: the survivor does not run");
        if self.scenario.plan.queue {
            must(self.gates.parked_by(survivor.gate).is_none(), "I7/I8: the survivor is parked for ever");
            must(survivor.seat == Seat::Primary, "I7: the survivor does not take messages");
            must(world.ready == 0 && survivor.delivered == [0, 0], "I1: messages are not taken");
            must(world.orders.is_empty(), "I8: an order is left");
        }
        let complete = survivor.applied == world.published || survivor.applied == UNKNOWN;
        must(complete || world.past.lost_by_nature, "I1: the survivor lacks messages");
        missing
    }
}
