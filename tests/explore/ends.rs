//! What a good end is: I7 and I8, and I1 in the end. From every world such an end must be reachable without any further
//! fault.

use shadow::api::{EvictionPolicy, Reason};
use shadow::protocol::Step;

use super::model::Model;
use super::world::{
    Bridge, CONTROL, Life, Machine, NOBODY, Named, PRIMARY, Ticket, UNKNOWN, Who, World, parking, replies,
    shadows,
};

impl Model {
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
        let facts = self.protocol.facts(world.journal);
        let (state, step) = (&facts.state, facts.state.step);
        if world.past.broker_lost {
            return self.missing_without_broker(world);
        }
        if world.there == Machine::Lost && step.is_committed() && !step.is_terminal() {
            let safe = self.stands_still_safely(world);
            return if safe { vec![] } else { vec!["I1: the target is lost, and with it the state"] };
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
        let called_off = state.failure.as_ref().is_some_and(|failure| failure.reason == Reason::Aborted);
        let blocks = self.scenario.plan.policy == EvictionPolicy::MigrateOrBlock;
        let drained = world.named != Named::Source || world.here == Machine::Lost || called_off || blocks;
        must(drained, "I7: the drain waits for ever");
        must(world.mind == world.journal && world.deposed == NOBODY, "operators agree");
        must(world.shadows == 0 && !world.of(Who::Shadow).is_alive(), "I8: the shadow is left");
        must(world.bridge == Bridge::None, "I8: the bridge is left");
        let here = (world.archive_here == 0 && world.dumping == 0) || world.here == Machine::Lost;
        let there = world.archive_there == 0 || world.there == Machine::Lost;
        must(here && there, "I8: an archive is left");
        // A shadow that a deposed operator makes on a node that never heard of the migration only waits there.
        let spent = |ticket: Ticket| ticket.epoch == 0 || (world.past.deposed && !ticket.opened);
        must(
            (spent(world.shadow_ticket) && spent(world.replacement_ticket)) || world.there == Machine::Lost,
            "I8: a ticket is left",
        );
        let ours = [1, 2].map(|epoch| [parking(epoch), replies(epoch), shadows(epoch)]);
        let queues = ours.as_flattened().iter().all(|queue| !world.broker.exists(*queue));
        must(queues || world.past.queues_left || world.past.deposed, "I8: a queue of the migration is left");
        let source_stays = world.named == Named::Source || !world.of(Who::Source).is_alive();
        must(source_stays, "I8: a process of the source is left");
        let Some(who) = world.survivor() else {
            must(world.past.owner_deleted, "I8: nobody has the source's place");
            return missing;
        };
        if world.named == Named::Source && world.here == Machine::Lost {
            must(false, "I8: the pod of a lost node is left");
            return missing;
        }
        let survivor = world.of(who);
        must(survivor.life == Life::Running, "I8: the survivor does not run");
        if self.scenario.plan.queue {
            must(self.gates.parked_by(survivor.gate).is_none(), "I7/I8: the survivor is parked for ever");
            must(world.takes_messages(who), "I7: the survivor does not take messages");
            must(world.broker.len(PRIMARY) == 0, "I1: messages are not taken");
            let read = self.control(world, who).is_none_or(|queue| world.broker.len(queue) == 0);
            must(read, "I8: an order is left");
            let dead_name = self.scenario.renamed && step == Step::Completed && world.broker.exists(CONTROL);
            must(
                !dead_name || world.past.queues_left || world.past.deposed,
                "I8: a dead name's queue is left",
            );
        } else {
            must(world.published == self.scenario.messages, "clients go on");
        }
        let complete = survivor.applied == world.published || survivor.applied == UNKNOWN;
        must(complete || world.past.lost_by_nature, "I1: the survivor lacks messages");
        missing
    }
}
