//! What shows the operator that an effect is done: the answers that it can have now.

use shadow::protocol::{Effect, Step};

use super::mistake::Mistake;
use super::model::Model;
use super::protocol::Facts;
use super::world::{
    Bridge, CONTROL, Fence, Life, Machine, Named, Order, PARKED, PRIMARY, RESUMED, Who, World, bit, parking,
    replies, shadows,
};

impl Model {
    /// The answer that an effect is done can be had now.
    pub(super) fn is_done(&self, world: &World, facts: &Facts, effect: Effect) -> bool {
        let epoch = facts.epoch;
        let source = world.of(Who::Source);
        let shadow = world.of(Who::Shadow);
        let shadow_gone = !(shadow.is_alive() && world.shadow_epoch == epoch);
        // An administrator vouches for a node that is lost (`or_gone`).
        let here = |admitted: &dyn Fn(&mut Fence) -> bool| {
            world.here == Machine::Lost || admitted(&mut world.fence_here.clone())
        };
        let there = world.there == Machine::Up;
        match effect {
            Effect::DeclareParking => {
                let made = [parking(epoch), replies(epoch)].iter().all(|queue| world.broker.exists(*queue));
                made && (!self.leaves_park() || world.broker.exists(shadows(epoch)))
            }
            Effect::PlaceShadow => there && world.shadow_ticket.epoch == epoch && world.shadow_ticket.waiting,
            Effect::Park if self.makes(Mistake::ParkNotConfirmed) => {
                world.broker.all(CONTROL).any(|code| code == Order::park(epoch).code())
            }
            // Whoever consumes the parking queue has left the primary one: only the source can, so early.
            Effect::Park => {
                world.broker.all(replies(epoch)).any(|answer| answer == PARKED)
                    || world.broker.consumers(parking(epoch)) > 0
            }
            Effect::Dump if self.makes(Mistake::CommitBeforeVerified) => {
                world.archive_here == epoch && world.dumping == 0
            }
            Effect::Dump => {
                world.here == Machine::Up
                    && self.admit_forward(&mut world.fence_here.clone(), epoch)
                    && world.archive_here == epoch
                    && world.archive_there == epoch
                    && world.dumping == 0
            }
            Effect::RestoreShadow => {
                there && world.shadow_ticket.epoch == epoch && world.shadow_ticket.restored
            }
            Effect::AddBridge => world.bridge == Bridge::Shadow,
            Effect::ShrinkShadow => true,
            Effect::FreezeSource => {
                here(&|fence| self.admit_forward(fence, epoch)) && source.life != Life::Running
            }
            Effect::DeleteSource => world.named != Named::Source,
            Effect::KillSource => {
                let killed = here(&|fence| self.admit_kill(fence, epoch)) && !source.is_alive();
                killed && world.named != Named::Source
            }
            Effect::RestoreReplacement => {
                there && world.replacement_ticket.epoch == epoch && world.replacement_ticket.restored
            }
            Effect::SwitchReaders => {
                let fenced = shadow_gone || self.makes(Mistake::ShadowNotFenced);
                world.bridge == Bridge::Successor && fenced
            }
            Effect::Resume | Effect::ResumeSource => self.is_resumed(world, facts),
            Effect::RemoveShadow => {
                let bridge = world.bridge == Bridge::None || self.makes(Mistake::BridgeLeft);
                bridge && world.shadows & bit(epoch) == 0 && shadow_gone
            }
            Effect::CloseArchives if self.makes(Mistake::TicketLeftOpen) => true,
            Effect::CloseArchives => {
                let over = |machine, fence: Fence| {
                    machine == Machine::Lost || fence.closed >= epoch || fence.seen > epoch
                };
                over(world.here, world.fence_here) && over(world.there, world.fence_there)
            }
            Effect::DropParking => {
                let ours = [parking(epoch), replies(epoch), shadows(epoch)];
                let renamed = self.scenario.renamed && facts.state.replacement.is_some();
                let dead_name = renamed && world.broker.exists(CONTROL);
                !dead_name && ours.iter().all(|queue| !world.broker.exists(*queue))
            }
            Effect::WithdrawShadow => {
                world.bridge == Bridge::None && world.shadows & bit(epoch) == 0 && shadow_gone
            }
            Effect::ThawSource => {
                world.here == Machine::Lost
                    || (self.admit(&mut world.fence_here.clone(), epoch)
                        && world.fence_here.called_off >= epoch
                        && source.life != Life::Frozen)
            }
            Effect::EvictSource => world.named != Named::Source,
        }
    }

    /// As in `broker::amqp::handover`: where the consumer has answered an order of this attempt, only its answer counts;
    /// otherwise that the broker shows it.
    fn is_resumed(&self, world: &World, facts: &Facts) -> bool {
        let epoch = facts.epoch;
        if facts.state.step == Step::Reverting && self.makes(Mistake::ResumeNeverSent) {
            return true;
        }
        let mut answers = world.broker.all(replies(epoch)).peekable();
        let answered = answers.peek().is_some();
        let sent = world.resume_sent & bit(epoch) > 0;
        let shown = world.broker.consumers(PRIMARY) > 0 && world.broker.consumers(parking(epoch)) == 0;
        let control = self.survivors_control(facts);
        let lies_there = world.broker.all(control).any(|code| code == Order::resume(epoch).code());
        answers.any(|answer| answer == RESUMED)
            || (sent && !answered && shown)
            || (self.nobody_answers(world, facts) && (lies_there || self.scenario.renamed))
    }
}
