//! The owner that makes its pod again, the webhook that claims it, and all that goes wrong.

use shadow::protocol::Step;

use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::protocol::Happening;
use super::world::{Bridge, Life, NOBODY, Named, Process, UNKNOWN, Who, World};

/// As in `webhook::cache`: the next pod of that name gets the ticket.
fn is_replacing(step: Step) -> bool {
    matches!(step, Step::Freezing | Step::Deleting | Step::Replacing)
}

impl Model {
    pub(super) fn cluster(&self, world: &World, moves: &mut Moves) {
        self.collect(world, moves);
        let successor = world.of(Who::Successor);
        if world.named != Named::Nobody || world.past.owner_deleted || successor.is_alive() {
            return;
        }
        if successor.connected {
            return; // the broker notices first
        }
        let facts = self.protocol.facts(world.journal);
        let claimed = is_replacing(facts.state.step) && self.mistake != Some(Mistake::WebhookClaimsNothing);
        let named = if claimed { Named::Replacement(facts.epoch) } else { Named::Fresh };
        let mut next = World { named, ..*world };
        *next.of_mut(Who::Successor) = Process::default();
        moves.happens(Act::MakePod(named), next);
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

    pub(super) fn faults(&self, world: &World, moves: &mut Moves) {
        if world.faults_left == 0 {
            return;
        }
        if self.scenario.breaks && self.scenario.plan.queue {
            for who in Who::ALL {
                let process = world.of(who);
                if process.connected && process.is_alive() {
                    let mut next = *world;
                    next.disconnect(who);
                    moves.fault(Act::ConnectionBreaks(who), next);
                }
            }
        }
        if self.scenario.broker && !world.past.broker_lost {
            let mut next = *world;
            for who in Who::ALL {
                next.disconnect(who);
            }
            next.past.broker_lost = true;
            moves.fault(Act::BrokerLost, next);
        }
        if self.scenario.failures {
            self.failures(world, moves);
        }
        if self.scenario.users {
            self.users(world, moves);
        }
        let running = !self.protocol.facts(world.journal).outstanding.is_empty();
        if self.scenario.operators && world.deposed == NOBODY && running {
            let mut next = World { deposed: world.journal, ..*world };
            next.past.deposed = true;
            moves.fault(Act::OperatorDeposed, next);
        }
    }

    fn failures(&self, world: &World, moves: &mut Moves) {
        let facts = self.protocol.facts(world.mind);
        let step = facts.state.step;
        if step == Step::Accepted {
            moves.fault(Act::Learn(Happening::Refused), self.told(world, Happening::Refused));
        }
        if step.is_revocable() {
            for effect in facts.outstanding.iter().copied() {
                for again in [true, false] {
                    let failed = Happening::Failed(effect, again);
                    moves.fault(Act::Learn(failed), self.told(world, failed));
                }
            }
            moves.fault(Act::Learn(Happening::StepTimedOut), self.told(world, Happening::StepTimedOut));
        }
        if !world.past.abort_asked && !step.is_terminal() {
            let mut next = self.told(world, Happening::Abort);
            next.past.abort_asked = true;
            moves.fault(Act::Learn(Happening::Abort), next);
        }
        if world.dumping > 0 {
            // The target finds another digest, or the stream breaks: the source's agent lets its container go on.
            let mut next = *world;
            next.dumping = 0;
            if next.of(Who::Source).life == Life::Frozen {
                next.of_mut(Who::Source).life = Life::Running;
            }
            if self.mistake == Some(Mistake::CommitBeforeVerified) {
                (next.archive_there, next.damaged) = (world.dumping, true);
            }
            moves.fault(Act::ArchiveDamaged, next);
            // Nobody lets it go on; the order can be repeated.
            moves.fault(Act::AgentCrashesInDump, World { dumping: 0, ..*world });
        }
    }

    fn users(&self, world: &World, moves: &mut Moves) {
        let committed = self.is_committed(world);
        if world.named == Named::Source {
            let mut next = World { named: Named::Nobody, ..*world };
            next.kill(Who::Source);
            next.past.lost_by_nature |= !committed;
            moves.fault(Act::SourceDeletedByUser, next);
            next.past.owner_deleted = true;
            moves.fault(Act::OwnerDeletedByUser, next);
        }
        if world.named == Named::Source && world.of(Who::Source).life == Life::Running && !committed {
            // The kubelet starts it again in the same pod.
            let mut next = *world;
            next.disconnect(Who::Source);
            *next.of_mut(Who::Source) =
                Process { life: Life::Running, applied: UNKNOWN, ..Process::default() };
            next.past.lost_by_nature = true;
            moves.fault(Act::ContainerCrashes(Who::Source), next);
        }
        if let Named::Replacement(epoch) = world.named {
            // Whoever deletes or crashes what had its state back may lose it: as ever.
            let closed = self.is_over(world.fence_there, epoch) || world.replacement_ticket.restored;
            if world.of(Who::Successor).is_alive() {
                let mut next = *world;
                next.disconnect(Who::Successor);
                next.of_mut(Who::Successor).life = Life::Dead;
                next.past.successor_crashed |= closed;
                // Without a queue it acts as soon as it lives: what it did since, a crash loses.
                let acted = world.of(Who::Successor).applied != world.image.applied;
                next.past.lost_by_nature |= acted && !self.scenario.plan.queue;
                moves.fault(Act::ContainerCrashes(Who::Successor), next);
            }
            let mut next = World { named: Named::Nobody, ..*world };
            next.disconnect(Who::Successor);
            next.kill(Who::Successor);
            next.past.lost_by_nature |= closed;
            moves.fault(Act::ReplacementDeletedByUser, next);
        }
    }
}
