//! Pods with tickets: the runtime's claims, restores, letting go; pods without one; the kubelet.
//!
//! A restore ends with the process standing still. Its agent holds it against its spec, and lets it go once the engine has
//! it on record: until then whoever dies takes nothing with it but a copy.

use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::places::{ANYWHERE, Ghost, Image, TARGET, Ticket};
use super::world::{Life, Named, Process, UNKNOWN, Who, World, bit};

/// A pod that shows a ticket.
#[derive(Clone, Copy)]
struct Pod {
    who: Who,
    at: usize,
    epoch: u8,
    life: u8,
}

impl Model {
    pub(super) fn sandboxes(&self, world: &World, moves: &mut Moves) {
        if !world.is_lost(TARGET) {
            self.shadow_claims(world, moves);
        }
        self.successor_claims(world, moves);
        for who in [Who::Shadow, Who::Successor] {
            self.let_go(world, who, moves);
        }
        self.ghost(world, moves);
    }

    fn shadow_claims(&self, world: &World, moves: &mut Moves) {
        for epoch in (1..=self.scenario.attempts).filter(|epoch| world.shadows & bit(*epoch) > 0) {
            let began = world.shadow_epoch == epoch && world.of(Who::Shadow).life != Life::Absent;
            if began {
                continue; // it is never started again
            }
            if self.is_over(world.places[TARGET].fence, epoch) {
                if self.makes(Mistake::ShadowStartsFresh) {
                    let mut next = *world;
                    *next.of_mut(Who::Shadow) = Process { life: Life::Running, ..Process::default() };
                    next.shadow_epoch = epoch;
                    moves.happens(Act::StartFresh(Who::Shadow), next);
                }
                continue;
            }
            self.claim(world, Pod { who: Who::Shadow, at: TARGET, epoch, life: 0 }, moves);
        }
    }

    fn successor_claims(&self, world: &World, moves: &mut Moves) {
        if world.of(Who::Successor).is_alive() || world.is_connected(Who::Successor) {
            return;
        }
        match world.named {
            Named::Replacement { at, .. } if world.is_lost(at) => {}
            Named::Replacement { epoch, life, at } => {
                let fence = world.places[at].fence;
                if self.is_over(fence, epoch) {
                    self.start_fresh(world, at, moves);
                } else if life > fence.spent || self.makes(Mistake::SpentIsForgotten) {
                    self.claim(world, Pod { who: Who::Successor, at, epoch, life }, moves);
                } // otherwise it waits for its end
            }
            Named::Fresh => self.start_fresh(world, ANYWHERE, moves),
            Named::Source | Named::Nobody => {}
        }
    }

    fn start_fresh(&self, world: &World, at: usize, moves: &mut Moves) {
        let mut next = *world;
        *next.of_mut(Who::Successor) = Process::fresh();
        (next.successor_at, next.successor_life) = (at, 0);
        let given_up = self.protocol.facts(world.journal).state.given_up;
        let by_nature = world.past.lost_by_nature || world.past.successor_crashed || given_up;
        next.past.lost_by_nature = true;
        let act = Act::StartFresh(Who::Successor);
        if by_nature {
            moves.happens(act, next);
        } else {
            moves.violates(act, next, "I1: the pod carries on without its state");
        }
    }

    fn ticket(world: &mut World, pod: Pod) -> &mut Ticket {
        match pod.who {
            Who::Shadow => &mut world.shadow_ticket,
            _ => &mut world.places[pod.at].ticket,
        }
    }

    /// A container's `create` shows its ticket.
    fn claim(&self, world: &World, pod: Pod, moves: &mut Moves) {
        let mut next = *world;
        let Pod { who, at, epoch, life } = pod;
        let ticket = Self::ticket(&mut next, pod);
        if ticket.epoch == epoch && ticket.life > life {
            return;
        }
        if !ticket.is_of(epoch, life) {
            *ticket = Ticket::new(epoch, life);
        }
        if ticket.failed {
            return; // the sandbox is dirty
        }
        ticket.waiting = true;
        if !ticket.opened {
            if next != *world {
                moves.happens(Act::ClaimWaits(who), next);
            }
            return;
        }
        let place = world.places[at];
        let mut failed = next;
        *Self::ticket(&mut failed, pod) = Ticket { failed: true, ..*Self::ticket(&mut next, pod) };
        let damaged = place.damaged && !self.makes(Mistake::CommitBeforeVerified);
        if place.barren || damaged || place.archive != epoch {
            moves.happens(Act::RestoreFails(who), failed);
            return;
        }
        let ticket = Self::ticket(&mut next, pod);
        (ticket.restored, ticket.started) = (true, false);
        // There is one shadow in this world: one of an older attempt, which only a deposed operator can have made so
        // late, and to which nobody is led, is not looked at any longer.
        next.disconnect(who);
        let Image { epoch: of, applied, gate, unconfirmed } = world.image;
        let life = if self.makes(Mistake::LetGoBeforeOnRecord) { Life::Running } else { Life::Held };
        *next.of_mut(who) = Process { life, applied, gate, unconfirmed, ..Process::default() };
        if who == Who::Shadow {
            // Another process, another address.
            (next.shadow_epoch, next.shadow_known) = (epoch, false);
        } else {
            (next.successor_at, next.successor_life) = (at, pod.life);
        }
        if self.scenario.restores {
            self.misfortunes(who, failed, next, moves);
        }
        let act = Act::Restore(who);
        if of != epoch {
            moves.violates(act, next, "I9: restored from another archive than the ticket's");
        } else if who == Who::Successor && world.past.went_on && applied != UNKNOWN {
            moves.violates(act, next, "I9: restored once more after it had gone on");
        } else {
            moves.happens(act, next);
        }
    }

    /// It cannot be restored; or what was restored is more than its spec, and killed where anybody looks.
    fn misfortunes(&self, who: Who, failed: World, restored: World, moves: &mut Moves) {
        moves.fault(Act::RestoreFails(who), failed);
        if self.makes(Mistake::LetGoUnchecked) {
            let mut unseen = restored;
            unseen.of_mut(who).exceeds = true;
            moves.fault(Act::RestoredAsMore(who), unseen);
        }
    }

    /// The engine has it on record, its agent lets it go. A rehearsal never is.
    fn let_go(&self, world: &World, who: Who, moves: &mut Moves) {
        let may = who == Who::Successor || self.scenario.plan.bridge || self.makes(Mistake::RehearsalLetGo);
        let unrecorded = self.makes(Mistake::LetGoBeforeOnRecord);
        let process = world.of(who);
        let stands = process.life == Life::Held || (unrecorded && process.life == Life::Running);
        let mut next = *world;
        let ticket = match who {
            Who::Shadow => &mut next.shadow_ticket,
            _ if world.successor_at < world.places.len() => &mut next.places[world.successor_at].ticket,
            _ => return,
        };
        if !may || !stands || !ticket.restored || ticket.started {
            return;
        }
        ticket.started = true;
        next.of_mut(who).life = Life::Running;
        moves.happens(Act::LetGo(who), next);
    }

    /// A kubelet or an engine dies: what is not on record goes with it, and is restored once more.
    pub(super) fn kubelet_dies(&self, world: &World, who: Who, moves: &mut Moves) {
        let ticket = match who {
            Who::Shadow => world.shadow_ticket,
            _ => world.places.get(world.successor_at).map(|place| place.ticket).unwrap_or_default(),
        };
        let process = world.of(who);
        if !process.is_alive() || !ticket.restored || ticket.started {
            return;
        }
        let mut next = *world;
        next.disconnect(who);
        next.of_mut(who).life = Life::Absent;
        match who {
            Who::Shadow => next.shadow_ticket.restored = false,
            _ => next.places[world.successor_at].ticket.restored = false,
        }
        let act = Act::KubeletDies(who);
        if process.life == Life::Held {
            moves.fault(act, next);
        } else if world.faults_left > 0 {
            moves.violates(act, next, "I13: a process that has run goes with its kubelet");
        }
    }

    /// An operator deletes a pod so that the next one comes in a new sandbox, or as an ordinary pod. It waits for nobody.
    pub(super) fn delete_for_another(&self, world: &World) -> World {
        let Named::Replacement { life, at, .. } = world.named else { return *world };
        let mut next = World { named: Named::Nobody, ..*world };
        let runs = world.of(Who::Successor).is_alive() && world.successor_life == life;
        if world.of(Who::Successor).is_alive() {
            next.disconnect(Who::Successor);
            *next.of_mut(Who::Successor) = Process::default();
        }
        let spent = life <= world.places[at].fence.spent && !self.makes(Mistake::SpentIsForgotten);
        if !world.is_lost(at) && (runs || !spent) {
            next.ghost = Ghost { life, at, runs };
        }
        next
    }

    /// Its sandbox may redeem its ticket as long as its kubelet has not heard that the pod is gone.
    fn ghost(&self, world: &World, moves: &mut Moves) {
        let Ghost { life, at, runs } = world.ghost;
        if life == 0 {
            return;
        }
        if world.is_lost(at) || world.is_up(at) {
            moves.happens(Act::KubeletKills(Who::Successor), World { ghost: Ghost::default(), ..*world });
        }
        let place = &world.places[at];
        let may = place.ticket.life == life && place.ticket.opened && !place.ticket.failed && !place.barren;
        if !runs && may && !world.is_lost(at) {
            let mut next = *world;
            next.ghost.runs = true;
            moves.happens(Act::GhostRuns, next);
        }
    }
}
