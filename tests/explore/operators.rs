//! The operator that leads, as `operator::driver` goes about it, and one that does not lead any more. What is in
//! memory only may be lost at any time: an effect and the news that it is done are two things that happen, and both may
//! happen again.

use shadow::protocol::{Effect, Step};

use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, By, Moves};
use super::places::{HOME, TARGET};
use super::protocol::{Facts, Happening};
use super::world::{CONTROL, Life, NOBODY, Named, Order, Who, World, bit};

impl Model {
    pub(super) fn operators(&self, world: &World, moves: &mut Moves) {
        let facts = self.protocol.facts(world.mind);
        self.perform_all(world, &facts, By::Operator, moves);
        self.learn(world, &facts, moves);
        if world.mind != world.journal {
            moves.happens(Act::WriteJournal, World { journal: world.mind, ..*world });
            moves.fault(Act::OperatorCrashes, World { mind: world.journal, ..*world });
        }
        if world.deposed == NOBODY {
            return;
        }
        if world.deposed != world.mind {
            let facts = self.protocol.facts(world.deposed);
            let from = moves.all.len();
            self.perform_all(world, &facts, By::Deposed, moves);
            for way in &mut moves.all[from..] {
                way.is_fault = true;
            }
        }
        moves.happens(Act::DeposedStops, World { deposed: NOBODY, ..*world });
    }

    fn perform_all(&self, world: &World, facts: &Facts, by: By, moves: &mut Moves) {
        let step = facts.state.step;
        let early = self.makes(Mistake::ReplacementTicketBeforeFreeze) && step == Step::Freezing;
        let kill = self.makes(Mistake::KillBeforeCommit) && step == Step::Bridging;
        let close = self.makes(Mistake::TicketClosedAtCommit) && step == Step::Freezing;
        // `making_room` drops the bridge where the replacement needs the shadow's room.
        let room = step == Step::Replacing && facts.state.plan.bridge && self.scenario.failures;
        let extra = [
            early.then_some(Effect::RestoreReplacement),
            kill.then_some(Effect::KillSource),
            room.then_some(Effect::WithdrawShadow),
            close.then_some(Effect::CloseArchives),
        ];
        for effect in facts.outstanding.iter().copied().chain(extra.into_iter().flatten()) {
            if world.past.broker_lost && needs_broker(effect) {
                continue;
            }
            let act = Act::Perform(by, effect, facts.epoch);
            match self.perform(world, facts, effect) {
                Ok(next) if next == *world => {}
                Ok(next) => moves.happens(act, next),
                Err(violation) => moves.violates(act, *world, violation),
            }
        }
    }

    fn learn(&self, world: &World, facts: &Facts, moves: &mut Moves) {
        let state = &facts.state;
        let may_end = state.step.is_revocable() || matches!(state.step, Step::Accepted | Step::BackingOff);
        for effect in facts.outstanding.iter().copied() {
            if world.past.broker_lost && needs_broker(effect) {
                if effect.left_alone().is_some() {
                    self.event(world, Happening::Done(effect), moves);
                } else if state.step.is_revocable() {
                    self.event(world, Happening::Failed(effect, true), moves);
                } else if world.named == Named::Nobody && !self.makes(Mistake::NobodyIsWaitedFor) {
                    // As `perform::left_alone` has it: there is nobody to be told.
                    self.event(world, Happening::Done(effect), moves);
                }
                continue;
            }
            if self.is_done(world, facts, effect) {
                moves.happens(Act::Learn(Happening::Done(effect)), self.told(world, Happening::Done(effect)));
            }
            if effect.left_alone().is_some() {
                self.give_up_tidying(world, facts, effect, moves);
            }
        }
        match state.step {
            Step::Accepted => self.event(world, Happening::Admitted, moves),
            Step::BackingOff if facts.epoch < self.scenario.attempts => {
                let next = Self::another_target(self.told(world, Happening::RetryDue));
                moves.happens(Act::Learn(Happening::RetryDue), next);
            }
            _ => {}
        }
        if may_end && world.named != Named::Source {
            self.event(world, Happening::SourceGone, moves);
        }
        if may_end && world.past.abort_asked {
            self.event(world, Happening::Abort, moves);
        }
        self.shadow_ended(world, facts, moves);
        self.ends_of_ways(world, facts, moves);
        let lost = world.is_lost(HOME) || world.is_lost(TARGET);
        // Some effects can then never be done; and a consumer that started anew may have missed its order.
        if state.step.is_revocable() && (lost || world.past.lost_by_nature) {
            self.event(world, Happening::StepTimedOut, moves);
        }
        // A retry that is never due because no further attempt is explored must not wait for ever.
        let last = (state.step == Step::BackingOff && facts.epoch == self.scenario.attempts)
            || world.past.broker_lost;
        if (self.scenario.deadline || last) && !world.past.deadline_passed {
            let mut next = self.told(world, Happening::DeadlineExceeded);
            next.past.deadline_passed = true;
            let act = Act::Learn(Happening::DeadlineExceeded);
            if last { moves.happens(act, next) } else { moves.may_happen(act, next) }
        }
        let nobody =
            world.named == Named::Fresh || (world.past.owner_deleted && world.named == Named::Nobody);
        if nobody && facts.outstanding == [Effect::RestoreReplacement] {
            self.event(world, Happening::Forsaken, moves);
        }
        if nobody && facts.outstanding.contains(&Effect::PlaceShadow) {
            self.event(world, Happening::Failed(Effect::PlaceShadow, true), moves);
        }
    }

    /// The shadow cannot be restored, or has ended since.
    fn shadow_ended(&self, world: &World, facts: &Facts, moves: &mut Moves) {
        let (ticket, shadow) = (world.shadow_ticket, world.of(Who::Shadow));
        let is_ours = |effect| facts.outstanding.contains(&effect);
        let ended = shadow.life == Life::Dead && world.shadow_epoch == facts.epoch;
        if is_ours(Effect::RestoreShadow) && ticket.epoch == facts.epoch && ticket.failed {
            let stands = world.places[TARGET].barren;
            let failed = if stands {
                Happening::Stands(Effect::RestoreShadow)
            } else {
                Happening::Failed(Effect::RestoreShadow, true)
            };
            let mut next = self.told(world, failed);
            next.past.stood |= if stands { bit(facts.epoch) } else { 0 };
            moves.happens(Act::Learn(failed), next);
        }
        for effect in [Effect::RestoreShadow, Effect::ConfirmShadow] {
            if is_ours(effect) && ended {
                self.event(world, Happening::Failed(effect, true), moves);
            }
        }
    }

    /// `attempt` in the driver gives up what only tidies up after longer than a deposed operator goes on; and where somebody
    /// was ordered to park, than the broker keeps such an order.
    fn give_up_tidying(&self, world: &World, facts: &Facts, effect: Effect, moves: &mut Moves) {
        let unnoticed = Who::ALL.into_iter().any(|who| world.is_connected(who) && !world.of(who).is_alive());
        // Whoever comes next reads it, if anybody does.
        let next = (!world.past.owner_deleted).then_some(CONTROL);
        let control = world.survivor().map_or(next, |who| self.control(world, who));
        let park = Order::park(facts.epoch).code();
        let waits = control.is_some_and(|queue| world.broker.all(queue).any(|code| code == park));
        if world.deposed != NOBODY || (facts.state.park_sent && (unnoticed || waits)) {
            return;
        }
        let mut next = self.told(world, Happening::Done(effect));
        next.past.queues_left = true;
        let act = Act::GivesUpTidying(effect);
        // What a deposed operator made too late, or somebody else's message, may be in the way for ever.
        let in_the_way = world.past.deposed && world.of(Who::Shadow).is_alive();
        if in_the_way || world.past.stray {
            moves.happens(act, next);
        } else if self.scenario.operators {
            moves.fault(act, next);
        }
    }

    pub(super) fn event(&self, world: &World, happening: Happening, moves: &mut Moves) {
        let next = self.told(world, happening);
        if next.mind != world.mind {
            moves.happens(Act::Learn(happening), next);
        }
    }

    /// The operator takes a step and writes it into the journal, in one: a crash in between is as if it had not
    /// learnt it. By mistake the writing comes later.
    pub(super) fn told(&self, world: &World, happening: Happening) -> World {
        let mind = self.protocol.after(world.mind, happening);
        let late = self.makes(Mistake::IntentAfterEffect);
        let journal = if late { world.journal } else { mind };
        World { mind, journal, ..*world }
    }
}

fn needs_broker(effect: Effect) -> bool {
    use Effect as E;
    matches!(effect, E::DeclareParking | E::Park | E::Resume | E::ResumeSource | E::DropParking)
}
