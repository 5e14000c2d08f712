//! The ways on after the commit: what the operator's effects do there, what shows that they are done, and that they lead
//! nowhere. As `operator::perform` does it.

use shadow::protocol::{Effect, Step};

use super::effects::Performed;
use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::places::{HOME, OTHER, TARGET};
use super::protocol::{Facts, Happening};
use super::world::{Named, Who, World};

impl Model {
    pub(super) fn way_on(&self, world: &World, facts: &Facts, effect: Effect) -> Performed {
        let (epoch, life, at) = (facts.epoch, facts.life, facts.place);
        let mut next = *world;
        match effect {
            Effect::RestoreReplacement => {
                if matches!(world.named, Named::Replacement { epoch: e, life: l, .. } if e == epoch && l < life)
                {
                    next = self.delete_for_another(world);
                }
                if let Some(opened) = self.open_ticket(&next, Who::Successor, at, (epoch, life)) {
                    if world.source_acts() {
                        return Err("I5: the replacement's ticket opens while the source runs");
                    }
                    next = opened;
                }
            }
            Effect::SpendTicket => next = self.spend(world, at, epoch, life),
            Effect::CarryArchive => {
                let place = &mut next.places[at];
                if place.is_up()
                    && place.archive != epoch
                    && world.has_archive(epoch)
                    && self.admit_forward(&mut place.fence, epoch)
                {
                    (place.archive, place.damaged) = (epoch, false);
                }
            }
            Effect::KeepArchive => {
                for at in facts.places() {
                    self.close(&mut next, at, epoch, !self.makes(Mistake::NothingIsKept));
                }
            }
            Effect::ReleaseReplacement if !world.of(Who::Successor).is_alive() => {
                next = self.delete_for_another(world);
            }
            _ => {} // nothing to be done in this world: a node is looked for, the dump is an archive
        }
        Ok(next)
    }

    pub(super) fn is_way_done(&self, world: &World, facts: &Facts, effect: Effect) -> bool {
        let (epoch, life, at) = (facts.epoch, facts.life, facts.place);
        let place = &world.places[at];
        let here = |life: u8| self.lives_at(world, at, life);
        match effect {
            Effect::RestoreReplacement => {
                place.is_up() && place.ticket.is_of(epoch, life) && place.ticket.started
            }
            Effect::ConfirmReplacement => {
                let lives = place.ticket.is_of(epoch, life) && place.ticket.started && here(life);
                place.is_up() && (lives || Self::is_taken_away(world, epoch, life))
            }
            Effect::SpendTicket => {
                place.is_lost() || (place.is_up() && place.fence.spent >= life && !here(life))
            }
            Effect::ChooseNode => self.candidate(world, facts),
            Effect::CarryArchive => place.is_up() && place.keeps(epoch),
            Effect::ReturnArchive => world.is_up(HOME) && world.keeps_at_home(epoch),
            Effect::KeepArchive => {
                let over = |at: usize| {
                    let place = &world.places[at];
                    !place.is_up() || place.fence.closed >= epoch || place.fence.seen > epoch
                };
                facts.places().all(over)
            }
            Effect::ReleaseReplacement => {
                !matches!(world.named, Named::Replacement { .. }) || world.of(Who::Successor).is_alive()
            }
            _ => false,
        }
    }

    /// What was restored there by a ticket up to that life.
    fn lives_at(&self, world: &World, at: usize, life: u8) -> bool {
        let alive = world.of(Who::Successor).is_alive() && world.successor_at == at;
        alive && (1..=life).contains(&world.successor_life)
    }

    /// Somebody deleted the pod that was restored: its state goes with it, as whenever a pod is deleted.
    fn is_taken_away(world: &World, epoch: u8, life: u8) -> bool {
        !matches!(world.named, Named::Replacement { epoch: e, life: l, .. } if (e, l) == (epoch, life))
    }

    /// The node that `protocol::outcome` names.
    fn candidate(&self, world: &World, facts: &Facts) -> bool {
        let other = if facts.place == OTHER { TARGET } else { OTHER };
        self.scenario.third_node && world.is_up(other)
    }

    /// The operator finds that a way leads nowhere; or that it need not be left.
    pub(super) fn ends_of_ways(&self, world: &World, facts: &Facts, moves: &mut Moves) {
        let (epoch, life, at) = (facts.epoch, facts.life, facts.place);
        let place = &world.places[at];
        for effect in facts.outstanding.iter().copied() {
            let nowhere = match effect {
                Effect::RestoreReplacement => {
                    let failed = place.ticket.is_of(epoch, life) && place.ticket.failed;
                    place.is_up() && (failed || place.archive != epoch)
                }
                Effect::ConfirmReplacement => {
                    let gone = Self::is_taken_away(world, epoch, life);
                    place.is_up() && !gone && !self.lives_at(world, at, life)
                }
                Effect::ChooseNode => !self.candidate(world, facts),
                Effect::CarryArchive => place.is_lost() || !(world.has_archive(epoch) || place.keeps(epoch)),
                Effect::ReturnArchive => !world.keeps_at_home(epoch),
                _ => false,
            };
            if nowhere {
                self.event(world, Happening::Failed(effect, false), moves);
            }
            if matches!(
                effect,
                Effect::RestoreReplacement | Effect::ConfirmReplacement | Effect::SwitchReaders
            ) && place.is_lost()
            {
                self.event(world, Happening::Lost(effect), moves);
            }
            // It takes too long, though it may yet come.
            if effect == Effect::RestoreReplacement && self.scenario.restores && !place.ticket.started {
                let impatient = Happening::Failed(effect, false);
                moves.fault(Act::Learn(impatient), self.told(world, impatient));
            }
            let late = world.of(Who::Successor).is_alive()
                && (world.successor_at, world.successor_life) == (at, life)
                && place.ticket.started;
            if effect == Effect::SpendTicket && late && place.is_up() {
                self.event(world, Happening::Lives, moves);
            }
        }
        if facts.state.step == Step::Stranded {
            self.person(world, moves);
        }
    }

    /// Nobody may count on one, and whoever comes tries again at most once in this world.
    fn person(&self, world: &World, moves: &mut Moves) {
        moves.may_happen(Act::Learn(Happening::GiveUp), self.told(world, Happening::GiveUp));
        if world.past.abort_asked {
            moves.may_happen(Act::Learn(Happening::Abort), self.told(world, Happening::Abort));
        }
        if !world.past.retried {
            let mut next = self.told(world, Happening::Retry);
            next.past.retried = true;
            moves.may_happen(Act::Learn(Happening::Retry), next);
        }
    }
}
