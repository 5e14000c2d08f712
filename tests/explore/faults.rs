//! All that goes wrong by itself or is done by somebody else. Each costs one of the faults that a world has left.

use shadow::protocol::{Effect, Step};

use super::broker::Queue;
use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::places::{HOME, Image, Machine, OTHER, Place, TARGET, Ticket};
use super::protocol::Happening;
use super::world::{Bridge, Life, NOBODY, Named, Process, STRAY, Who, World, parking};

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
        if scenario.silence {
            self.silence(world, moves);
        }
        if scenario.restores {
            self.ends_of_its_connections(world, moves);
            self.restores(world, moves);
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
                (next.places[TARGET].archive, next.places[TARGET].damaged) = (world.dumping, true);
            } else {
                next.places[HOME].archive = 0;
            }
            moves.fault(Act::ArchiveDamaged, next);
        }
    }

    /// A crash of the operator needs no fault: what it keeps in memory may be lost at any time.
    fn crashes(&self, world: &World, moves: &mut Moves) {
        if world.dumping > 0 {
            // Nobody lets the container go on until the agent is back; the order can be repeated.
            let mut next = World { dumping: 0, ..*world };
            next.places[HOME].archive = 0;
            moves.fault(Act::AgentCrashesInDump, next);
            // The archive has arrived, but nobody here knows: the agent gives the dump up when it is back.
            let mut next = Self::end_dump(world, true);
            next.places[HOME].archive = 0;
            let target = &mut next.places[TARGET];
            if target.is_up() && self.admit_forward(&mut target.fence, world.dumping) {
                target.archive = world.dumping;
                moves.fault(Act::AgentCrashesBeforeReport, next);
            }
        }
        for who in [Who::Shadow, Who::Successor] {
            self.kubelet_dies(world, who, moves);
        }
        if world.named == Named::Source && world.of(Who::Source).is_alive() && world.is_up(HOME) {
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
        if let Named::Replacement { .. } = world.named
            && world.of(Who::Successor).is_alive()
        {
            moves.fault(Act::ContainerCrashes(Who::Successor), self.without_successor(world));
        }
    }

    /// What has its state back may lose it again, as ever: it is restored once more only until the ticket is closed.
    fn without_successor(&self, world: &World) -> World {
        let mut next = *world;
        next.disconnect(Who::Successor);
        next.kill(Who::Successor);
        next.past.successor_crashed |= self.had_begun(world);
        // Without a queue it acts as soon as it lives: what it did since, a crash loses.
        let acted = world.of(Who::Successor).applied != world.image.applied;
        next.past.lost_by_nature |= acted && !self.scenario.plan.queue;
        next
    }

    /// A restored process finds its connections closed, and some end of it, soon after they were let go: no crash, but what
    /// the move does to them. Where there is a bridge the shadow has shown it before the commit.
    fn ends_of_its_connections(&self, world: &World, moves: &mut Moves) {
        let Named::Replacement { at, .. } = world.named else { return };
        let soon = [world.journal, world.mind].into_iter().all(|of| {
            let step = self.protocol.facts(of).state.step;
            matches!(step, Step::Replacing | Step::Spending | Step::Switching)
        });
        let runs = world.of(Who::Successor).life == Life::Running && world.places[at].ticket.started;
        if self.scenario.plan.bridge || !soon || !runs {
            return;
        }
        let crashed = world.past.successor_crashed;
        let mut next = self.without_successor(world);
        next.past.successor_crashed = crashed;
        moves.fault(Act::EndsOfItsConnections, next);
    }

    fn had_begun(&self, world: &World) -> bool {
        let Named::Replacement { epoch, at, .. } = world.named else { return false };
        let known = self.protocol.facts(world.journal).state.replacement.is_some();
        known || world.places[at].ticket.started || self.is_over(world.places[at].fence, epoch)
    }

    fn users(&self, world: &World, moves: &mut Moves) {
        let committed = self.is_committed(world);
        if world.named == Named::Source {
            let mut next = World { named: Named::Nobody, ..*world };
            next.kill(Who::Source);
            next.past.lost_by_nature |= !committed;
            moves.fault(Act::SourceDeletedByUser, next);
        }
        if let Named::Replacement { .. } = world.named {
            let mut next = World { named: Named::Nobody, ..self.without_successor(world) };
            // Whoever deletes what had its state back may lose it: as ever.
            next.past.lost_by_nature |= self.had_begun(world);
            moves.fault(Act::ReplacementDeletedByUser, next);
        }
        let stranded = self.protocol.facts(world.journal).state.step == Step::Stranded;
        if stranded && self.scenario.restores && !world.past.template_changed && !world.past.owner_deleted {
            // What people do who are waited for: they mend the image, and delete the pod that does not start.
            let mut next = World { named: Named::Nobody, ..self.without_successor(world) };
            (next.past.template_changed, next.past.lost_by_nature) = (true, true);
            moves.fault(Act::TemplateChangedByUser, next);
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
        if !world.is_lost(HOME) {
            moves.fault(Act::NodeLost(HOME), self.without_node(world, HOME));
        }
        if world.is_up(TARGET) && world.shadows | world.places[TARGET].fence.seen > 0 {
            // Its disk stays, and its kubelet starts again what was there, but no shadow.
            moves.fault(Act::TargetReboots, self.power_off(world, TARGET));
            moves.fault(Act::NodeLost(TARGET), self.without_node(world, TARGET));
        }
        if world.places[OTHER].archive > 0 && !world.is_lost(OTHER) {
            moves.fault(Act::NodeLost(OTHER), self.without_node(world, OTHER));
        }
    }

    fn power_off(&self, world: &World, at: usize) -> World {
        let mut next = *world;
        if at == HOME {
            next.kill(Who::Source);
        }
        if at == TARGET {
            next.kill(Who::Shadow);
        }
        if world.of(Who::Successor).is_alive() && world.successor_at == at {
            next = self.without_successor(&next);
            next.past.lost_by_nature |= world.past.went_on;
        }
        if world.ghost.at == at {
            next.ghost.runs = false;
        }
        next
    }

    pub(super) fn without_node(&self, world: &World, at: usize) -> World {
        let mut next = self.power_off(world, at);
        if at == HOME {
            (next.dumping, next.places[HOME].archive) = (0, 0);
            next.past.lost_by_nature |= !self.is_committed(world);
        }
        next.places[at].lose();
        self.note_loss(next)
    }

    /// Once nothing is left of the state it is lost by nature.
    fn note_loss(&self, mut world: World) -> World {
        let facts = self.protocol.facts(world.journal);
        let step = facts.state.step;
        let kept = step.awaits_replacement() || step == Step::Switching;
        let anywhere = world.places.iter().any(|place| place.keeps(facts.epoch));
        world.past.archive_lost |= (kept || facts.state.given_up) && !anywhere;
        world
    }

    /// What was not reached for a while comes back, or somebody makes sure that it does not: `come_back`.
    fn silence(&self, world: &World, moves: &mut Moves) {
        let step = self.protocol.facts(world.journal).state.step;
        let matters = matches!(
            step,
            Step::Replacing | Step::Spending | Step::Switching | Step::Closing | Step::GivingUp
        );
        if matters && world.is_up(TARGET) {
            let mut next = *world;
            next.places[TARGET].machine = Machine::Silent;
            moves.fault(Act::TargetSilent, next);
        }
    }

    pub(super) fn come_back(&self, world: &World, moves: &mut Moves) {
        if world.places[TARGET].machine == Machine::Silent {
            let mut next = *world;
            next.places[TARGET].machine = Machine::Up;
            moves.happens(Act::TargetAnswers, next);
            moves.happens(Act::TargetDeclaredLost, self.without_node(world, TARGET));
        }
    }

    /// When it begins to fail does not matter before something is restored: so each kind begins at one moment only.
    fn restores(&self, world: &World, moves: &mut Moves) {
        let facts = self.protocol.facts(world.journal);
        let first = facts.epoch == 1 && facts.life == 1;
        let restored = world.places[TARGET].ticket.opened;
        let barren = |places: &[usize]| {
            let mut next = *world;
            for at in places {
                next.places[*at].barren = true;
            }
            next
        };
        let untouched = world.places.iter().all(|place| !place.barren);
        if facts.state.step == Step::Accepted && first && untouched {
            moves.fault(Act::Barren, barren(&[TARGET]));
        }
        if facts.outstanding != [Effect::RestoreReplacement] || facts.life != 1 || restored || !untouched {
            return;
        }
        moves.fault(Act::Barren, barren(&[TARGET]));
        moves.fault(Act::BarrenEverywhere, barren(&[HOME, TARGET, OTHER]));
        for at in [HOME, TARGET] {
            let mut next = *world;
            if !world.places[at].damaged && world.places[at].keeps(facts.epoch) {
                next.places[at].damaged = true;
                moves.fault(Act::ArchiveDamagedOn(at), self.note_loss(next));
            }
        }
    }

    /// The next attempt chooses another node.
    pub(super) fn another_target(world: World) -> World {
        if !world.is_lost(TARGET) {
            return world;
        }
        let mut next = World {
            shadow_ticket: Ticket::default(),
            image: if world.places[HOME].archive == 0 { Image::default() } else { world.image },
            bridge: if world.bridge == Bridge::Shadow { Bridge::None } else { world.bridge },
            ..world
        };
        next.places[TARGET] = Place::default();
        next
    }
}
