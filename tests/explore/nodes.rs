//! Nodes: agents with their fences, dumps, archives and tickets.
//!
//! An agent keeps everything on disk before it answers, so that it restarts is nothing that has to be explored, but in
//! the middle of a dump.

use shadow::api::Hold;

use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::places::{Fence, HOME, Image, Place, TARGET, Ticket};
use super::world::{Life, Named, Who, World};

/// As `agent::fence`: whoever saw a larger epoch refuses a smaller one; what was called off or closed does not begin again.
impl Model {
    pub(super) fn admit(&self, fence: &mut Fence, epoch: u8) -> bool {
        let valid = epoch >= fence.seen || self.ignores_epochs();
        fence.seen = fence.seen.max(epoch);
        valid
    }

    /// An order to kill.
    pub(super) fn admit_kill(&self, fence: &mut Fence, epoch: u8) -> bool {
        (epoch > fence.called_off || self.ignores_epochs()) && self.admit(fence, epoch)
    }

    /// An order that moves an attempt on.
    pub(super) fn admit_forward(&self, fence: &mut Fence, epoch: u8) -> bool {
        (epoch > fence.closed || self.ignores_epochs()) && self.admit_kill(fence, epoch)
    }

    fn ignores_epochs(&self) -> bool {
        self.makes(Mistake::AgentIgnoresEpoch)
    }

    /// A ticket of that epoch can never be redeemed any more.
    pub(super) fn is_over(&self, fence: Fence, epoch: u8) -> bool {
        (epoch < fence.seen || epoch <= fence.closed) && !self.ignores_epochs()
    }

    /// The source's agent begins a dump: the container stands still, its memory is taken. What was dumped and reported
    /// is not dumped again.
    pub(super) fn begin_dump(&self, world: &World, epoch: u8) -> Option<World> {
        let mut next = *world;
        let source = *world.of(Who::Source);
        let reported = world.places[HOME].archive == epoch && world.places[TARGET].archive == epoch;
        if !self.admit_forward(&mut next.places[HOME].fence, epoch)
            || !source.is_alive()
            || reported
            || world.dumping > 0
        {
            return None;
        }
        next.of_mut(Who::Source).life = Life::Frozen;
        next.image =
            Image { epoch, applied: source.applied, gate: source.gate, unconfirmed: source.unconfirmed };
        (next.dumping, next.places[HOME].archive) = (epoch, epoch);
        if next.places[TARGET].archive == epoch {
            next.places[TARGET].archive = 0; // it is replaced
        }
        for place in [HOME, TARGET] {
            next.places[place].damaged = false;
        }
        Some(next)
    }

    pub(super) fn end_dump(world: &World, thaw: bool) -> World {
        let mut next = *world;
        next.dumping = 0;
        if thaw && next.of(Who::Source).life == Life::Frozen {
            next.of_mut(Who::Source).life = Life::Running;
        }
        next
    }

    pub(super) fn agents_and_kubelets(&self, world: &World, moves: &mut Moves) {
        if world.dumping > 0 && world.is_up(HOME) {
            let mut next = Self::end_dump(world, self.scenario.plan.hold == Hold::Release);
            let target = &mut next.places[TARGET];
            if target.is_up() && self.admit_forward(&mut target.fence, world.dumping) {
                target.archive = world.dumping;
                moves.happens(Act::DumpArrives, next);
            } else {
                moves.happens(Act::DumpFails, Self::end_dump(world, true));
            }
        }
        let source = world.of(Who::Source);
        if world.named != Named::Source && source.is_alive() {
            let mut next = *world;
            next.kill(Who::Source);
            moves.happens(Act::KubeletKills(Who::Source), next);
        }
        self.sandboxes(world, moves);
    }

    /// The operator opens a ticket.
    pub(super) fn open_ticket(
        &self,
        world: &World,
        who: Who,
        at: usize,
        (epoch, life): (u8, u8),
    ) -> Option<World> {
        let mut next = *world;
        let place = &mut next.places[at];
        let spent = life > 0 && life <= place.fence.spent && !self.makes(Mistake::SpentIsForgotten);
        if !place.is_up() || !self.admit_forward(&mut place.fence, epoch) || place.archive != epoch || spent {
            return None;
        }
        let ticket = match who {
            Who::Shadow => &mut next.shadow_ticket,
            _ => &mut place.ticket,
        };
        if ticket.epoch == epoch && ticket.life > life {
            return None; // nobody shows that one any more
        }
        if !ticket.is_of(epoch, life) {
            *ticket = Ticket::new(epoch, life);
        }
        ticket.opened = true;
        Some(next)
    }

    /// That agent is told that everything up to that epoch is over. One that is not reached is left to itself.
    pub(super) fn close(&self, next: &mut World, at: usize, epoch: u8, keep: bool) {
        let place = &mut next.places[at];
        if !place.is_up() || epoch <= place.fence.closed || !self.admit(&mut place.fence, epoch) {
            return;
        }
        place.fence.closed = epoch;
        if place.archive <= epoch && !keep {
            place.archive = 0;
        }
        if place.ticket.epoch <= epoch {
            place.ticket = Ticket::default();
        }
        if at == TARGET && next.shadow_ticket.epoch <= epoch {
            next.shadow_ticket = Ticket::default();
        }
        // Nobody lets it go any more.
        for (who, there) in [(Who::Shadow, TARGET), (Who::Successor, next.successor_at)] {
            let stands = there == at && next.of(who).life == Life::Held;
            if stands && !self.makes(Mistake::ClosedOneStands) {
                next.kill(who);
            }
        }
    }

    /// No ticket up to that life is redeemed here any more, and nothing that was restored by one is left: but what was let
    /// go and lives is the replacement.
    pub(super) fn spend(&self, world: &World, at: usize, epoch: u8, life: u8) -> World {
        let mut next = *world;
        let restored = world.of(Who::Successor).is_alive()
            && world.successor_at == at
            && (1..=life).contains(&world.successor_life);
        if restored && world.places[at].ticket.started && !self.makes(Mistake::SpendKillsTheLiving) {
            return next;
        }
        let Place { fence, ticket, .. } = &mut next.places[at];
        if !world.is_up(at) || !self.admit_forward(fence, epoch) {
            return *world;
        }
        fence.spent = fence.spent.max(life);
        if ticket.epoch == epoch && ticket.life <= life {
            *ticket = Ticket::default();
        }
        if restored {
            next.disconnect(Who::Successor);
            next.kill(Who::Successor);
        }
        next
    }
}
