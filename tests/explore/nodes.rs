//! Nodes: agents with their fences, dumps, archives and tickets; the runtime's claims; the kubelet.
//!
//! An agent keeps everything on disk before it answers, so that it restarts is nothing that has to be explored, but in
//! the middle of a dump.

use shadow::api::Hold;

use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::world::{Fence, Image, Life, Machine, Named, Process, Ticket, UNKNOWN, Who, World, bit};

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
        let reported = world.archive_here == epoch && world.archive_there == epoch;
        if !self.admit_forward(&mut next.fence_here, epoch)
            || !source.is_alive()
            || reported
            || world.dumping > 0
        {
            return None;
        }
        next.of_mut(Who::Source).life = Life::Frozen;
        next.image =
            Image { epoch, applied: source.applied, gate: source.gate, unconfirmed: source.unconfirmed };
        (next.dumping, next.archive_here, next.damaged) = (epoch, epoch, false);
        if next.archive_there == epoch {
            next.archive_there = 0; // it is replaced
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
        if world.dumping > 0 && world.here == Machine::Up {
            let mut next = Self::end_dump(world, self.scenario.plan.hold == Hold::Release);
            if world.there == Machine::Up && self.admit_forward(&mut next.fence_there, world.dumping) {
                next.archive_there = world.dumping;
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
        if world.there == Machine::Up {
            self.shadow_claims(world, moves);
            self.successor_claims(world, moves);
        } else if world.named == Named::Fresh {
            self.start_fresh(world, moves); // on another node
        }
    }

    fn shadow_claims(&self, world: &World, moves: &mut Moves) {
        for epoch in (1..=self.scenario.attempts).filter(|epoch| world.shadows & bit(*epoch) > 0) {
            let began = world.shadow_epoch == epoch && world.of(Who::Shadow).life != Life::Absent;
            if began {
                continue; // it is never started again
            }
            if self.is_over(world.fence_there, epoch) {
                if self.makes(Mistake::ShadowStartsFresh) {
                    let mut next = *world;
                    *next.of_mut(Who::Shadow) = Process { life: Life::Running, ..Process::default() };
                    next.shadow_epoch = epoch;
                    moves.happens(Act::StartFresh(Who::Shadow), next);
                }
                continue;
            }
            self.claim(world, Who::Shadow, epoch, moves);
        }
    }

    fn successor_claims(&self, world: &World, moves: &mut Moves) {
        if world.of(Who::Successor).is_alive() || world.is_connected(Who::Successor) {
            return;
        }
        match world.named {
            Named::Replacement(epoch) if !self.is_over(world.fence_there, epoch) => {
                self.claim(world, Who::Successor, epoch, moves);
            }
            Named::Replacement(_) | Named::Fresh => self.start_fresh(world, moves),
            Named::Source | Named::Nobody => {}
        }
    }

    fn start_fresh(&self, world: &World, moves: &mut Moves) {
        if world.of(Who::Successor).is_alive() || world.is_connected(Who::Successor) {
            return;
        }
        let mut next = *world;
        *next.of_mut(Who::Successor) = Process::fresh();
        let by_nature = world.past.lost_by_nature || world.past.successor_crashed;
        next.past.lost_by_nature = true;
        let act = Act::StartFresh(Who::Successor);
        if by_nature {
            moves.happens(act, next);
        } else {
            moves.violates(act, next, "I1: the pod carries on without its state");
        }
    }

    /// A container's `create` shows its ticket.
    fn claim(&self, world: &World, who: Who, epoch: u8, moves: &mut Moves) {
        let mut next = *world;
        let ticket = match who {
            Who::Shadow => &mut next.shadow_ticket,
            _ => &mut next.replacement_ticket,
        };
        if ticket.epoch != epoch {
            *ticket = Ticket { epoch, ..Ticket::default() };
        }
        ticket.waiting = true;
        if !ticket.opened {
            if next != *world {
                moves.happens(Act::ClaimWaits(who), next);
            }
            return;
        }
        ticket.restored = true;
        // There is one shadow in this world: one of an older attempt, which only a deposed operator can have made so
        // late, and to which nobody is led, is not looked at any longer.
        next.disconnect(who);
        let Image { epoch: of, applied, gate, unconfirmed } = world.image;
        *next.of_mut(who) = Process { life: Life::Running, applied, gate, unconfirmed, ..Process::default() };
        if who == Who::Shadow {
            // Another process, another address.
            (next.shadow_epoch, next.shadow_known) = (epoch, false);
        }
        let act = Act::Restore(who);
        if world.archive_there != epoch || of != epoch {
            moves.violates(act, next, "I9: restored from another archive than the ticket's");
        } else if world.damaged {
            moves.violates(act, next, "I9: restored from bytes that nobody verified");
        } else if who == Who::Successor && world.past.went_on && applied != UNKNOWN {
            moves.violates(act, next, "I9: restored once more after it had gone on");
        } else {
            moves.happens(act, next);
        }
    }

    /// The operator opens a ticket on the target.
    pub(super) fn open_ticket(&self, world: &World, who: Who, epoch: u8) -> Option<World> {
        let mut next = *world;
        if world.there == Machine::Lost
            || !self.admit_forward(&mut next.fence_there, epoch)
            || world.archive_there != epoch
        {
            return None;
        }
        let ticket = match who {
            Who::Shadow => &mut next.shadow_ticket,
            _ => &mut next.replacement_ticket,
        };
        if ticket.epoch != epoch {
            *ticket = Ticket { epoch, ..Ticket::default() };
        }
        ticket.opened = true;
        Some(next)
    }

    /// Both agents are told that everything up to that epoch is over. One on a node that is lost is left to itself.
    pub(super) fn close(&self, world: &World, epoch: u8) -> World {
        let mut next = *world;
        if epoch > next.fence_here.closed && self.admit(&mut next.fence_here, epoch) {
            next.fence_here.closed = epoch;
            if next.archive_here <= epoch {
                next.archive_here = 0;
            }
        }
        if epoch > next.fence_there.closed && self.admit(&mut next.fence_there, epoch) {
            next.fence_there.closed = epoch;
            if next.archive_there <= epoch {
                next.archive_there = 0;
            }
            for ticket in [&mut next.shadow_ticket, &mut next.replacement_ticket] {
                if ticket.epoch <= epoch {
                    *ticket = Ticket::default();
                }
            }
        }
        next
    }
}
