//! What a good end is: I7, I8 and I14, and I1 in the end. From every world such an end must be reachable without any further
//! fault.

use shadow::api::{EvictionPolicy, Life as LifeOf, Reason};
use shadow::protocol::Step;

use super::model::Model;
use super::places::{HOME, TARGET, Ticket};
use super::world::{
    Bridge, CONTROL, Life, NOBODY, Named, PRIMARY, UNKNOWN, Who, World, parking, replies, shadows,
};

impl Model {
    /// It ended, and everything is as if nothing had happened, but for the node.
    pub fn is_good_end(&self, world: &World) -> bool {
        self.missing(world).is_empty()
    }

    /// Nobody can take messages: but the pod must not stand frozen, and a drain must get what the policy says.
    fn missing_without_broker(&self, world: &World) -> Vec<&'static str> {
        let state = &self.protocol.facts(world.journal).state;
        if world.past.owner_deleted && world.named == Named::Nobody {
            let waits = "I7: a broker is waited for that nobody is left to hear of";
            return if state.step.is_terminal() { Vec::new() } else { vec![waits] };
        }
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

    /// A person is waited for: nothing runs or may run, and the archive is there. Both ways on from here are explored too.
    fn missing_stranded(&self, world: &World, epoch: u8) -> Vec<&'static str> {
        let open = world.places.iter().any(|place| place.ticket.opened && !place.ticket.failed);
        // A fresh pod that somebody had made in its place is his own.
        let successor = world.of(Who::Successor).is_alive() && world.named != Named::Fresh;
        let lives = world.of(Who::Source).is_alive() || successor;
        let kept = world.places.iter().any(|place| place.keeps(epoch)) || world.past.archive_lost;
        let mut missing = Vec::new();
        if self.scenario.plan.policy != EvictionPolicy::MigrateOrBlock {
            missing.push("I14: a person is waited for though the policy says otherwise");
        }
        if open || lives {
            missing.push("I5: it may come to life while a person is waited for");
        }
        if !kept {
            missing.push("I14: a person is waited for, and nothing is kept");
        }
        if world.mind != world.journal || world.deposed != NOBODY {
            missing.push("operators agree");
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
        if step == Step::Stranded {
            return self.missing_stranded(world, state.epoch.0.try_into().unwrap_or(0));
        }
        let mut missing = Vec::new();
        let mut must = |holds: bool, what: &'static str| {
            if !holds {
                missing.push(what);
            }
        };
        must(step.is_terminal() || step.is_committed(), "I7: the migration does not end");
        must(step.is_terminal() || !step.is_committed(), "I14: committed, and it does not end");
        let kept = world.places.iter().any(|place| place.keeps(facts.epoch));
        must(!state.given_up || kept || world.past.archive_lost, "I14: given up, and nothing is kept");
        let promised = step == Step::Failed && state.life > LifeOf::FIRST;
        must(
            !promised || state.given_up || world.past.archive_lost,
            "I14: it ends without the pod's state, and the archive is not kept",
        );
        let untroubled = self.scenario.faults == 0 && !self.scenario.deadline;
        must(step == Step::Completed || !untroubled, "I7: it fails though nothing went wrong");
        let called_off = state.failure.as_ref().is_some_and(|failure| failure.reason == Reason::Aborted);
        let blocks = self.scenario.plan.policy == EvictionPolicy::MigrateOrBlock;
        let drained = world.named != Named::Source || world.is_lost(HOME) || called_off || blocks;
        must(drained, "I7: the drain waits for ever");
        must(world.mind == world.journal && world.deposed == NOBODY, "operators agree");
        must(world.shadows == 0 && !world.of(Who::Shadow).is_alive(), "I8: the shadow is left");
        must(world.bridge == Bridge::None, "I8: the bridge is left");
        let gone = world.places.iter().all(|place| place.archive == 0 || place.is_lost());
        must((gone || state.given_up) && world.dumping == 0, "I8: an archive is left");
        // A shadow that a deposed operator makes on a node that never heard of the migration only waits there.
        let spent = |ticket: Ticket| ticket.epoch == 0 || (world.past.deposed && !ticket.opened);
        let shadow = spent(world.shadow_ticket) || world.is_lost(TARGET);
        let tickets = world.places.iter().all(|place| spent(place.ticket) || place.is_lost());
        must(shadow && tickets, "I8: a ticket is left");
        let ours = [1, 2].map(|epoch| [parking(epoch), replies(epoch), shadows(epoch)]);
        let queues = ours.as_flattened().iter().all(|queue| !world.broker.exists(*queue));
        must(queues || world.past.queues_left || world.past.deposed, "I8: a queue of the migration is left");
        must(world.ghost.life == 0, "I8: a sandbox is left");
        let source_stays = world.named == Named::Source || !world.of(Who::Source).is_alive();
        must(source_stays, "I8: a process of the source is left");
        let Some(who) = world.survivor() else {
            must(world.past.owner_deleted, "I8: nobody has the source's place");
            return missing;
        };
        if world.named == Named::Source && world.is_lost(HOME) {
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
