//! What shows the operator that an effect is done: the answers that it can have now.

use shadow::protocol::{Effect, Step};

use super::mistake::Mistake;
use super::model::Model;
use super::places::{Fence, HOME, Place, TARGET};
use super::protocol::Facts;
use super::world::{
    Bridge, CONTROL, Life, Named, Order, PARKED, PRIMARY, RESUMED, Who, World, bit, parking, replies, shadows,
};

impl Model {
    /// The answer that an effect is done can be had now.
    pub(super) fn is_done(&self, world: &World, facts: &Facts, effect: Effect) -> bool {
        let epoch = facts.epoch;
        let source = world.of(Who::Source);
        let shadow = world.of(Who::Shadow);
        let shadow_gone = !(shadow.is_alive() && world.shadow_epoch == epoch);
        // An administrator vouches for a node that is lost (`or_gone`).
        let home = &world.places[HOME];
        let here = |admitted: &dyn Fn(&mut Fence) -> bool| {
            home.is_lost() || (home.is_up() && admitted(&mut home.fence.clone()))
        };
        let there = world.is_up(TARGET);
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
                home.archive == epoch && world.dumping == 0
            }
            Effect::Dump => {
                home.is_up()
                    && self.admit_forward(&mut home.fence.clone(), epoch)
                    && home.archive == epoch
                    && world.places[TARGET].archive == epoch
                    && world.dumping == 0
            }
            Effect::RestoreShadow => {
                let ticket = world.shadow_ticket;
                let back = if self.scenario.plan.bridge { ticket.started } else { ticket.restored };
                there && ticket.epoch == epoch && back
            }
            Effect::ConfirmShadow => there && shadow.life == Life::Running && world.shadow_epoch == epoch,
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
            Effect::RestoreReplacement
            | Effect::ConfirmReplacement
            | Effect::SpendTicket
            | Effect::ChooseNode
            | Effect::CarryArchive
            | Effect::ReturnArchive
            | Effect::KeepArchive
            | Effect::ReleaseReplacement => self.is_way_done(world, facts, effect),
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
                let is_over = |place: &Place| {
                    place.is_lost() || place.fence.closed >= epoch || place.fence.seen > epoch
                };
                // Where it is not to carry on, no ticket is open: whoever is silent there tidies up later.
                let over = |at: usize, place: &Place| is_over(place) || (at != facts.place && !place.is_up());
                facts.places().all(|at| over(at, &world.places[at]))
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
                home.is_lost()
                    || (self.admit(&mut home.fence.clone(), epoch)
                        && home.fence.called_off >= epoch
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
