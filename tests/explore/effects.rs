//! What the operator's effects do to the world, and what shows that they are done: as `operator::perform` does it.

use shadow::protocol::{Effect, Step};

use super::mistake::Mistake;
use super::model::Model;
use super::protocol::Facts;
use super::world::{Bridge, Life, Named, Order, Seat, Who, World, bit};

type Performed = Result<World, &'static str>;

impl Model {
    /// Performs an effect of the state `facts`. A refused order changes nothing.
    pub(super) fn perform(&self, world: &World, facts: &Facts, effect: Effect) -> Performed {
        let epoch = facts.epoch;
        let mut next = *world;
        match effect {
            Effect::DeclareParking => {
                next.parking |= bit(epoch);
                next.replies |= bit(epoch);
                if self.scenario.plan.bridge && self.mistake != Some(Mistake::ShadowWakesUpAsItWas) {
                    (next.shadow_orders, next.shadow_park) = (true, epoch);
                }
            }
            Effect::PlaceShadow => {
                if world.named == Named::Source {
                    next.shadows |= bit(epoch);
                }
            }
            Effect::Park => Self::send(&mut next, Order { park: true, epoch }),
            Effect::Dump => next = self.begin_dump(world, epoch).unwrap_or(next),
            Effect::RestoreShadow => next = self.open_ticket(world, Who::Shadow, epoch).unwrap_or(next),
            Effect::AddBridge => {
                next.bridge = Bridge::Shadow;
                next.shadow_known = true;
            }
            Effect::ShrinkShadow => {} // room is not modelled
            Effect::FreezeSource => {
                if self.admit_forward(&mut next.fence_here, epoch) && next.of(Who::Source).is_alive() {
                    next.of_mut(Who::Source).life = Life::Frozen;
                }
            }
            Effect::DeleteSource => return self.delete_source(world),
            Effect::KillSource => {
                if self.admit(&mut next.fence_here, epoch) {
                    if !self.is_committed(world) && next.of(Who::Source).is_alive() {
                        return Err("I4: the source is killed before the commit");
                    }
                    next.kill(Who::Source);
                }
            }
            Effect::RestoreReplacement => {
                if let Some(opened) = self.open_ticket(world, Who::Successor, epoch) {
                    if world.of(Who::Source).life == Life::Running {
                        return Err("I5: the replacement's ticket opens while the source runs");
                    }
                    next = opened;
                }
            }
            Effect::SwitchReaders => {
                next.bridge = Bridge::Successor;
                let fenced = self.mistake != Some(Mistake::ShadowNotFenced);
                if fenced && self.admit(&mut next.fence_there, epoch) {
                    next.kill(Who::Shadow);
                }
            }
            Effect::Resume => {
                if world.of(Who::Source).is_alive() {
                    return Err("I5: consumption resumes before the source has no process left");
                }
                next.replies |= bit(epoch);
                Self::send(&mut next, Order { park: false, epoch });
            }
            Effect::ResumeSource => {
                if self.mistake != Some(Mistake::ResumeNeverSent) {
                    next.replies |= bit(epoch);
                    Self::send(&mut next, Order { park: false, epoch });
                }
            }
            Effect::RemoveShadow => {
                self.remove_shadow(&mut next, epoch);
                if self.mistake != Some(Mistake::BridgeLeft) {
                    next.bridge = Bridge::None;
                }
            }
            Effect::CloseArchives => {
                if self.mistake != Some(Mistake::TicketLeftOpen) {
                    next = self.close(world, epoch);
                }
            }
            Effect::DropParking => self.drop_queues(&mut next, epoch),
            Effect::WithdrawShadow => {
                next.bridge = Bridge::None;
                let alive = next.shadow_epoch == epoch && next.of(Who::Shadow).is_alive();
                if !alive || self.admit(&mut next.fence_there, epoch) {
                    self.remove_shadow(&mut next, epoch);
                }
            }
            Effect::ThawSource => {
                if self.admit(&mut next.fence_here, epoch) {
                    next.fence_here.called_off = next.fence_here.called_off.max(epoch);
                    next.dumping = 0;
                    if next.of(Who::Source).life == Life::Frozen {
                        next.of_mut(Who::Source).life = Life::Running;
                    }
                }
            }
            Effect::EvictSource => {
                if world.named == Named::Source {
                    next.kill(Who::Source);
                    next.named = Named::Nobody;
                    next.past.lost_by_nature = true;
                }
            }
        }
        Ok(next)
    }

    fn delete_source(&self, world: &World) -> Performed {
        if world.named != Named::Source {
            return Ok(*world);
        }
        if !self.is_committed(world) {
            return Err("I4: the source is deleted before the commit");
        }
        if world.of(Who::Source).life == Life::Running {
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

    /// The answer that an effect is done can be had now.
    pub(super) fn is_done(&self, world: &World, facts: &Facts, effect: Effect) -> bool {
        let epoch = facts.epoch;
        let source = world.of(Who::Source);
        let shadow = world.of(Who::Shadow);
        let shadow_gone = !(shadow.is_alive() && world.shadow_epoch == epoch);
        let here = |forward: bool| {
            let mut fence = world.fence_here;
            if forward { self.admit_forward(&mut fence, epoch) } else { self.admit(&mut fence, epoch) }
        };
        match effect {
            Effect::DeclareParking => {
                let left = world.shadow_orders
                    || !self.scenario.plan.bridge
                    || self.mistake == Some(Mistake::ShadowWakesUpAsItWas);
                world.parking & world.replies & bit(epoch) > 0 && left
            }
            Effect::PlaceShadow => world.shadow_ticket.epoch == epoch && world.shadow_ticket.waiting,
            Effect::Park if self.mistake == Some(Mistake::ParkNotConfirmed) => {
                world.orders.last() == Some(Order { park: true, epoch }) || world.parked & bit(epoch) > 0
            }
            Effect::Park => {
                let shown =
                    world.consumers_on(Seat::Primary) == 0 && world.consumers_on(Seat::Parking(epoch)) > 0;
                world.parked & bit(epoch) > 0 || shown
            }
            Effect::Dump if self.mistake == Some(Mistake::CommitBeforeVerified) => {
                world.archive_here == epoch && world.dumping == 0
            }
            Effect::Dump => here(true) && world.archive_there == epoch && world.dumping == 0,
            Effect::RestoreShadow => world.shadow_ticket.epoch == epoch && world.shadow_ticket.restored,
            Effect::AddBridge => world.bridge == Bridge::Shadow,
            Effect::ShrinkShadow => true,
            Effect::FreezeSource => here(true) && source.life != Life::Running,
            Effect::DeleteSource => world.named != Named::Source,
            Effect::KillSource => here(false) && !source.is_alive(),
            Effect::RestoreReplacement => {
                world.replacement_ticket.epoch == epoch && world.replacement_ticket.restored
            }
            Effect::SwitchReaders => {
                let fenced = shadow_gone || self.mistake == Some(Mistake::ShadowNotFenced);
                world.bridge == Bridge::Successor && fenced
            }
            Effect::Resume | Effect::ResumeSource => self.is_resumed(world, facts),
            Effect::RemoveShadow => {
                let bridge = world.bridge == Bridge::None || self.mistake == Some(Mistake::BridgeLeft);
                bridge && world.shadows & bit(epoch) == 0 && shadow_gone
            }
            Effect::CloseArchives if self.mistake == Some(Mistake::TicketLeftOpen) => true,
            Effect::CloseArchives => {
                let over = |fence: super::world::Fence| fence.closed >= epoch || fence.seen > epoch;
                over(world.fence_here) && over(world.fence_there)
            }
            Effect::DropParking => (world.parking | world.replies) & bit(epoch) == 0 && !world.shadow_orders,
            Effect::WithdrawShadow => {
                world.bridge == Bridge::None && world.shadows & bit(epoch) == 0 && shadow_gone
            }
            Effect::ThawSource => {
                here(false) && world.fence_here.called_off >= epoch && source.life != Life::Frozen
            }
            Effect::EvictSource => world.named != Named::Source,
        }
    }

    /// What is still consumed stays, and whoever sits there is told once more to resume.
    fn drop_queues(&self, world: &mut World, epoch: u8) {
        if world.consumers_on(Seat::Parking(epoch)) > 0 {
            // It heals what these would otherwise leave.
            let forgets =
                [Mistake::ParkedOneForgotten, Mistake::RollbackForgetsPark, Mistake::ResumeNeverSent];
            if !self.mistake.is_some_and(|mistake| forgets.contains(&mistake)) {
                Self::send(world, Order { park: false, epoch });
            }
            return;
        }
        world.parking &= !bit(epoch);
        if world.of(Who::Shadow).connected {
            return;
        }
        (world.shadow_orders, world.shadow_park) = (false, 0);
        world.replies &= !bit(epoch);
        world.parked &= !bit(epoch);
        world.resumed &= !bit(epoch);
    }

    fn is_resumed(&self, world: &World, facts: &Facts) -> bool {
        let epoch = facts.epoch;
        if facts.state.step == Step::Reverting && self.mistake == Some(Mistake::ResumeNeverSent) {
            return true;
        }
        let sent = world.resume_sent & bit(epoch) > 0;
        let shown =
            sent && world.consumers_on(Seat::Primary) > 0 && world.consumers_on(Seat::Parking(epoch)) == 0;
        // Where the source is gone nobody may ever answer: it is enough that the order lies there.
        let gone = world.named != Named::Source && facts.state.step == Step::Reverting;
        let lies_there = world.orders.last() == Some(Order { park: false, epoch });
        world.resumed & bit(epoch) > 0 || shown || (gone && self.leaves_resume() && lies_there)
    }
}
