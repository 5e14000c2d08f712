//! All that goes wrong by itself or is done by somebody else. Each costs one of the faults that a world has left.

use shadow::protocol::Step;

use super::broker::Queue;
use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::protocol::Happening;
use super::world::{
    Bridge, Image, Life, Machine, NOBODY, Named, Process, STRAY, Ticket, UNKNOWN, Who, World, parking,
};

impl Model {
    pub(super) fn faults(&self, world: &World, moves: &mut Moves) {
        if world.faults_left == 0 {
            return;
        }
        let scenario = &self.scenario;
        if scenario.breaks && scenario.plan.queue {
            for who in Who::ALL {
                if world.is_connected(who) && world.of(who).is_alive() {
                    let mut next = *world;
                    next.disconnect(who);
                    moves.fault(Act::ConnectionBreaks(who), next);
                }
            }
        }
        if scenario.broker && !world.past.broker_lost {
            let mut next = *world;
            for who in Who::ALL {
                next.disconnect(who);
            }
            next.past.broker_lost = true;
            moves.fault(Act::BrokerLost, next);
        }
        if scenario.failures {
            self.failures(world, moves);
        }
        if scenario.crashes {
            self.crashes(world, moves);
        }
        if scenario.users {
            self.users(world, moves);
        }
        if scenario.machines {
            self.machines(world, moves);
        }
        let running = !self.protocol.facts(world.journal).outstanding.is_empty();
        if scenario.operators && world.deposed == NOBODY && running {
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
            let mut next = Self::end_dump(world, true);
            if self.makes(Mistake::CommitBeforeVerified) {
                (next.archive_there, next.damaged) = (world.dumping, true);
            } else {
                next.archive_here = 0;
            }
            moves.fault(Act::ArchiveDamaged, next);
        }
    }

    /// A crash of the operator needs no fault: what it keeps in memory may be lost at any time.
    fn crashes(&self, world: &World, moves: &mut Moves) {
        if world.dumping > 0 {
            // Nobody lets the container go on until the agent is back; the order can be repeated.
            moves.fault(Act::AgentCrashesInDump, World { dumping: 0, archive_here: 0, ..*world });
            // The archive has arrived, but nobody here knows: the agent gives the dump up when it is back.
            let mut next = Self::end_dump(world, true);
            next.archive_here = 0;
            if self.admit_forward(&mut next.fence_there, world.dumping) && world.there == Machine::Up {
                next.archive_there = world.dumping;
                moves.fault(Act::AgentCrashesBeforeReport, next);
            }
        }
        if world.named == Named::Source && world.of(Who::Source).is_alive() && world.here == Machine::Up {
            // The kubelet starts it again in the same pod. Its state is lost by nature, unless the archive has it.
            let mut next = *world;
            next.disconnect(Who::Source);
            *next.of_mut(Who::Source) = Process::fresh();
            moves.fault(Act::ContainerCrashes(Who::Source), next);
        }
        if world.of(Who::Shadow).is_alive() {
            let mut next = *world;
            next.disconnect(Who::Shadow);
            next.kill(Who::Shadow);
            moves.fault(Act::ContainerCrashes(Who::Shadow), next);
        }
        if let Named::Replacement(epoch) = world.named
            && world.of(Who::Successor).is_alive()
        {
            moves.fault(Act::ContainerCrashes(Who::Successor), self.without_successor(world, epoch));
        }
    }

    /// What has its state back may lose it again, as ever: it is restored once more only until the ticket is closed.
    fn without_successor(&self, world: &World, epoch: u8) -> World {
        let mut next = *world;
        next.disconnect(Who::Successor);
        next.kill(Who::Successor);
        let restored = world.replacement_ticket.restored;
        next.past.successor_crashed |= restored || self.is_over(world.fence_there, epoch);
        // Without a queue it acts as soon as it lives: what it did since, a crash loses.
        let acted = world.of(Who::Successor).applied != world.image.applied;
        next.past.lost_by_nature |= acted && !self.scenario.plan.queue;
        next
    }

    fn users(&self, world: &World, moves: &mut Moves) {
        let committed = self.is_committed(world);
        if world.named == Named::Source {
            let mut next = World { named: Named::Nobody, ..*world };
            next.kill(Who::Source);
            next.past.lost_by_nature |= !committed;
            moves.fault(Act::SourceDeletedByUser, next);
        }
        if let Named::Replacement(epoch) = world.named {
            let restored = world.replacement_ticket.restored || self.is_over(world.fence_there, epoch);
            let mut next = World { named: Named::Nobody, ..self.without_successor(world, epoch) };
            // Whoever deletes what had its state back may lose it: as ever.
            next.past.lost_by_nature |= restored;
            moves.fault(Act::ReplacementDeletedByUser, next);
        }
        if !world.past.owner_deleted {
            let mut next = World { named: Named::Nobody, ..*world };
            next.past.owner_deleted = true;
            next.past.lost_by_nature = true;
            next.kill(Who::Source);
            next.disconnect(Who::Successor);
            next.kill(Who::Successor);
            moves.fault(Act::OwnerDeletedByUser, next);
        }
        let on_it = |queue: Queue| world.broker.exists(queue) && world.broker.len(queue) == 0;
        for queue in [parking(1), parking(2)].into_iter().filter(|queue| on_it(*queue)) {
            let mut next = *world;
            next.broker.publish(queue, STRAY);
            next.past.stray = true;
            moves.fault(Act::StrayMessage, next);
        }
    }

    fn machines(&self, world: &World, moves: &mut Moves) {
        if world.here == Machine::Up {
            let mut next = World { here: Machine::Lost, dumping: 0, archive_here: 0, ..*world };
            next.kill(Who::Source);
            next.past.lost_by_nature |= !self.is_committed(world);
            moves.fault(Act::SourcesNodeLost, next);
        }
        if world.there == Machine::Up && world.shadows | world.fence_there.seen > 0 {
            let mut next = *world;
            next.kill(Who::Shadow);
            if let Named::Replacement(epoch) = world.named {
                next = self.without_successor(&next, epoch);
            } else {
                next.kill(Who::Successor);
            }
            next.past.lost_by_nature |= world.past.went_on;
            // Its disk stays, and its kubelet starts again what was there, but no shadow.
            moves.fault(Act::TargetReboots, next);
            next.there = Machine::Lost;
            moves.fault(Act::TargetLost, next);
        }
    }

    /// The next attempt chooses another node.
    pub(super) fn another_target(world: World) -> World {
        if world.there == Machine::Up {
            return world;
        }
        World {
            there: Machine::Up,
            fence_there: super::world::Fence::default(),
            archive_there: 0,
            shadow_ticket: Ticket::default(),
            replacement_ticket: Ticket::default(),
            image: if world.archive_here == 0 { Image::default() } else { world.image },
            bridge: if world.bridge == Bridge::Shadow { Bridge::None } else { world.bridge },
            ..world
        }
    }

    /// The target is gone for good after the commit: nobody chooses another node. What is exact then: nothing of the
    /// state is lost, for the source's node keeps the archive, no message is taken or lost, and nobody who started fresh
    /// has the source's place.
    pub(super) fn stands_still_safely(&self, world: &World) -> bool {
        let facts = self.protocol.facts(world.journal);
        let (step, epoch) = (facts.state.step, facts.epoch);
        let archive = world.archive_here == epoch || world.here == Machine::Lost || step > Step::Switching;
        let kept = world.past.lost_by_nature || archive;
        let taken = world.broker.consumes(Who::Successor.client(), super::world::PRIMARY);
        let source = world.of(Who::Source);
        let still = source.life != Life::Running || source.applied == UNKNOWN || step == Step::Freezing;
        kept && (!taken || step > Step::Closing) && still
    }
}
