//! What the operator's effects do to the world: as `operator::perform` does it.

use shadow::protocol::{Effect, Step};

use super::broker::{Only, Queue, Refusal};
use super::mistake::Mistake;
use super::model::Model;
use super::places::{HOME, TARGET};
use super::protocol::Facts;
use super::world::{
    Bridge, CONTROL, Life, Named, Order, PRIMARY, RENAMED, Who, World, bit, parking, replies, shadows,
};

pub(super) type Performed = Result<World, &'static str>;

impl Model {
    /// Performs an effect of the state `facts`. A refused order changes nothing.
    pub(super) fn perform(&self, world: &World, facts: &Facts, effect: Effect) -> Performed {
        let epoch = facts.epoch;
        let mut next = *world;
        match effect {
            Effect::DeclareParking => {
                next.broker.declare(parking(epoch));
                next.broker.declare(replies(epoch));
                if self.leaves_park() {
                    next.broker.declare(shadows(epoch));
                    Self::send(&mut next, shadows(epoch), Order::park(epoch));
                }
            }
            Effect::PlaceShadow => {
                if world.named == Named::Source {
                    next.shadows |= bit(epoch);
                }
            }
            Effect::Park => {
                if self.makes(Mistake::PrimaryUnbound) {
                    next.broker.unbind(PRIMARY);
                }
                next.broker.declare(replies(epoch));
                Self::send(&mut next, CONTROL, Order::park(epoch));
            }
            Effect::Dump => next = self.begin_dump(world, epoch).unwrap_or(next),
            Effect::RestoreShadow => {
                next = self.open_ticket(world, Who::Shadow, TARGET, (epoch, 0)).unwrap_or(next);
            }
            Effect::ConfirmShadow | Effect::ConfirmReplacement => {}
            Effect::AddBridge => {
                next.bridge = Bridge::Shadow;
                next.shadow_known = true;
            }
            Effect::ShrinkShadow => {} // room is not modelled
            Effect::FreezeSource => {
                if self.makes(Mistake::HomeDroppedAtCommit) {
                    next.places[HOME].archive = 0;
                }
                if self.admit_forward(&mut next.places[HOME].fence, epoch) && next.of(Who::Source).is_alive()
                {
                    next.of_mut(Who::Source).life = Life::Frozen;
                }
            }
            Effect::DeleteSource => return self.delete_source(world),
            Effect::KillSource => {
                let kubelet_would_start_it =
                    world.named == Named::Source && !self.makes(Mistake::KillBeforeCommit);
                if !kubelet_would_start_it && self.admit_kill(&mut next.places[HOME].fence, epoch) {
                    if !self.is_committed(world) && next.of(Who::Source).is_alive() {
                        return Err("I4: the source is killed before the commit");
                    }
                    next.kill(Who::Source);
                }
            }
            Effect::RestoreReplacement
            | Effect::SpendTicket
            | Effect::ChooseNode
            | Effect::CarryArchive
            | Effect::ReturnArchive
            | Effect::KeepArchive
            | Effect::ReleaseReplacement => return self.way_on(world, facts, effect),
            Effect::SwitchReaders => {
                next.bridge = Bridge::Successor;
                let fenced = !self.makes(Mistake::ShadowNotFenced);
                if fenced && world.is_up(TARGET) && self.admit_kill(&mut next.places[TARGET].fence, epoch) {
                    next.kill(Who::Shadow);
                }
            }
            Effect::Resume => {
                if world.of(Who::Source).is_alive() {
                    return Err("I5: consumption resumes before the source has no process left");
                }
                self.order_resume(&mut next, facts);
            }
            Effect::ResumeSource => {
                if !self.makes(Mistake::ResumeNeverSent) {
                    self.order_resume(&mut next, facts);
                }
            }
            Effect::RemoveShadow => {
                self.remove_shadow(&mut next, epoch);
                if !self.makes(Mistake::BridgeLeft) {
                    next.bridge = Bridge::None;
                }
            }
            Effect::CloseArchives => {
                if !self.makes(Mistake::TicketLeftOpen) {
                    for at in facts.places() {
                        self.close(&mut next, at, epoch, false);
                    }
                }
            }
            Effect::DropParking => return self.drop_queues(world, facts),
            Effect::WithdrawShadow => {
                next.bridge = Bridge::None;
                let alive = next.shadow_epoch == epoch && next.of(Who::Shadow).is_alive();
                let killed = world.is_up(TARGET) && self.admit_kill(&mut next.places[TARGET].fence, epoch);
                if !alive || world.is_lost(TARGET) || killed {
                    self.remove_shadow(&mut next, epoch);
                }
            }
            Effect::ThawSource => {
                if self.admit(&mut next.places[HOME].fence, epoch) {
                    next.places[HOME].fence.called_off = next.places[HOME].fence.called_off.max(epoch);
                    next.dumping = 0;
                    if next.of(Who::Source).life == Life::Frozen {
                        next.of_mut(Who::Source).life = Life::Running;
                    }
                }
            }
            Effect::EvictSource => {
                if world.named == Named::Source {
                    if self.is_committed(world) {
                        return Err("I4: the source is evicted after the commit");
                    }
                    next.kill(Who::Source);
                    next.named = Named::Nobody;
                    next.past.lost_by_nature = true;
                }
            }
        }
        Ok(next)
    }

    pub(super) fn leaves_park(&self) -> bool {
        self.scenario.plan.bridge && !self.makes(Mistake::ShadowWakesUpAsItWas)
    }

    fn delete_source(&self, world: &World) -> Performed {
        if world.named != Named::Source {
            return Ok(*world);
        }
        if !self.is_committed(world) {
            return Err("I4: the source is deleted before the commit");
        }
        if world.source_acts() {
            return Err("I5: the source is deleted before it is frozen");
        }
        Ok(World { named: Named::Nobody, ..*world })
    }

    fn remove_shadow(&self, world: &mut World, epoch: u8) {
        world.shadows &= !bit(epoch);
        if world.shadow_epoch == epoch {
            world.kill(Who::Shadow);
        }
    }

    pub(super) fn is_committed(&self, world: &World) -> bool {
        self.protocol.facts(world.journal).state.step.is_committed()
    }

    /// Where the survivor reads its orders, as far as the operator knows.
    pub(super) fn survivors_control(&self, facts: &Facts) -> Queue {
        let renamed = self.scenario.renamed && facts.state.replacement.is_some();
        if renamed { RENAMED } else { CONTROL }
    }

    /// To whom no such queue belongs yet: if the consumer is known to answer, it is declared for it.
    fn order_resume(&self, world: &mut World, facts: &Facts) {
        let (epoch, control) = (facts.epoch, self.survivors_control(facts));
        world.broker.declare(replies(epoch));
        if world.broker.len(replies(epoch)) > 0 {
            world.broker.declare(control);
        }
        Self::send(world, control, Order::resume(epoch));
    }

    /// In this order, and no further than the first refusal. What is still consumed stays, and whoever sits there is
    /// told once more to resume.
    fn drop_queues(&self, world: &World, facts: &Facts) -> Performed {
        let (mut next, epoch) = (*world, facts.epoch);
        let unused = Only { if_unused: true, if_empty: false };
        let careless = self.makes(Mistake::QueueDeletedNonEmpty);
        let only = if careless { Only::default() } else { Only { if_unused: true, if_empty: true } };
        let mut all = vec![(parking(epoch), only)];
        let was_renamed = self.scenario.renamed && facts.state.replacement.is_some();
        all.extend(was_renamed.then_some((CONTROL, unused)));
        all.extend(facts.state.shadow_sent.then_some((shadows(epoch), unused)));
        all.push((replies(epoch), Only::default()));
        for (queue, only) in all {
            match next.broker.delete(queue, only) {
                Ok(0) | Err(Refusal::NotFound) => {}
                Ok(_) if queue == parking(epoch) => {
                    return Err("I10: a queue is deleted while a message lies on it");
                }
                Ok(_) => {}
                Err(Refusal::InUse) => {
                    // It heals what these would otherwise leave.
                    let forgets =
                        [Mistake::ParkedOneForgotten, Mistake::RollbackForgetsPark, Mistake::ResumeNeverSent];
                    if !self.mistake.is_some_and(|mistake| forgets.contains(&mistake)) {
                        self.order_resume(&mut next, facts);
                    }
                    break;
                }
                Err(Refusal::NotEmpty | Refusal::InExclusiveUse) => break,
            }
        }
        Ok(next)
    }

    /// Where the source is gone nobody may ever answer.
    pub(super) fn nobody_answers(&self, world: &World, facts: &Facts) -> bool {
        match facts.state.step {
            Step::Reverting => world.named != Named::Source,
            _ => !matches!(world.named, Named::Replacement { epoch, .. } if epoch == facts.epoch),
        }
    }
}
