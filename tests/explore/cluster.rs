//! The owner that makes its pod again, the webhook that claims it, the drainer that asks again, Kubernetes that collects.

use shadow::protocol::Step;

use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::world::{Bridge, Machine, NOBODY, Named, Process, Who, World};

/// As in `webhook::cache`: the owner's next pod gets the ticket.
fn is_replacing(step: Step) -> bool {
    matches!(step, Step::Freezing | Step::Deleting | Step::Replacing)
}

impl Model {
    pub(super) fn cluster(&self, world: &World, moves: &mut Moves) {
        self.collect(world, moves);
        self.drainer(world, moves);
        if world.here == Machine::Lost && world.named == Named::Source {
            // The taint that vouches for the loss of a node also takes its pods away.
            moves.happens(Act::LostPodDeleted, World { named: Named::Nobody, ..*world });
        }
        let step = self.protocol.facts(world.journal).state.step;
        if world.there == Machine::Lost
            && matches!(world.named, Named::Replacement(_))
            && step > Step::Replacing
        {
            // It carried on there already, so its state went with the node, as ever.
            let mut next = World { named: Named::Nobody, ..*world };
            next.past.lost_by_nature = true;
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
        let claimed = is_replacing(facts.state.step) && !self.makes(Mistake::WebhookClaimsNothing);
        let named = if claimed { Named::Replacement(facts.epoch) } else { Named::Fresh };
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
        let ended = self.protocol.facts(world.journal).state.step.is_terminal();
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
