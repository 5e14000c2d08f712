//! The owner that makes its pod again, the webhook that claims it, the drainer that asks again, Kubernetes that collects.

use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::places::HOME;
use super::world::{Bridge, NOBODY, Named, Process, Who, World};

impl Model {
    pub(super) fn cluster(&self, world: &World, moves: &mut Moves) {
        self.collect(world, moves);
        self.drainer(world, moves);
        if world.is_lost(HOME) && world.named == Named::Source {
            // The taint that vouches for the loss of a node also takes its pods away.
            moves.happens(Act::LostPodDeleted, World { named: Named::Nobody, ..*world });
        }
        if let Named::Replacement { at, .. } = world.named
            && world.is_lost(at)
        {
            let mut next = World { named: Named::Nobody, ..*world };
            // If it carried on there already, its state went with the node, as ever.
            let step = self.protocol.facts(world.journal).state.step;
            next.past.lost_by_nature |= !step.awaits_replacement();
            moves.happens(Act::LostPodDeleted, next);
        }
        let successor = world.of(Who::Successor);
        if world.named != Named::Nobody || world.past.owner_deleted || successor.is_alive() {
            return;
        }
        if world.is_connected(Who::Successor) {
            return; // the broker notices first
        }
        let facts = self.protocol.facts(world.journal);
        // As in `webhook::cache`: the owner's next pod gets the ticket.
        let claimed = facts.state.step.awaits_replacement()
            && !world.past.template_changed
            && !self.makes(Mistake::WebhookClaimsNothing);
        let (epoch, life, at) = (facts.epoch, facts.life, facts.place);
        let named = if claimed { Named::Replacement { epoch, life, at } } else { Named::Fresh };
        let mut next = World { named, ..*world };
        *next.of_mut(Who::Successor) = Process::default();
        moves.happens(Act::MakePod(named), next);
    }

    /// A drainer asks again whenever it likes, and its request may come late. While the migration is under way the
    /// webhook answers with a dry run (the pod that leaves) or refuses (the pod that comes): nothing changes, so only by
    /// mistake there is anything to explore.
    fn drainer(&self, world: &World, moves: &mut Moves) {
        let ended = self.protocol.facts(world.journal).state.step.is_terminal();
        let Some(who) = world.survivor().filter(|who| world.of(*who).is_alive() && !ended) else { return };
        if !self.makes(Mistake::EvictionLetThrough) {
            return;
        }
        let mut next = World { named: Named::Nobody, ..*world };
        next.disconnect(who);
        next.kill(who);
        moves.may_happen(Act::EvictedByDrainer(who), next);
    }

    /// The migration is deleted some time after its end, and with it the shadow pods and bridges that it owns. Nothing
    /// may count on that, but what a deposed operator makes after the end.
    fn collect(&self, world: &World, moves: &mut Moves) {
        let facts = self.protocol.facts(world.journal);
        let ended = facts.state.step.is_terminal();
        // What an agent was not there to close, or was told to keep for a day, it removes once the migration is gone.
        let mut swept = *world;
        for at in facts.places().filter(|_| self.scenario.silence && ended) {
            self.close(&mut swept, at, facts.epoch, facts.state.given_up);
        }
        if swept != *world {
            moves.happens(Act::SilentNodeSweeps, swept);
        }
        if !ended || !world.past.deposed || world.deposed != NOBODY {
            return;
        }
        let mut next = World { shadows: 0, bridge: Bridge::None, ..*world };
        next.kill(Who::Shadow);
        if next != *world {
            moves.happens(Act::Collect, next);
        }
    }
}
