//! Broker and consumers: publishing, delivery, PARK and RESUME. The consumer is the one in `examples/consumer`: it
//! acknowledges after applying, obeys orders before it consumes, and hands nothing back when it parks.

use super::gates::Verdict;
use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::world::{Life, Order, Orders, Seat, UNKNOWN, Who, World, bit};

const LOST_OR_TWICE: &str =
    "I1/I2: a message is applied that is not the next one: one was lost, or one came twice";

impl Model {
    pub(super) fn broker_and_consumers(&self, world: &World, moves: &mut Moves) {
        if world.published < self.scenario.messages {
            self.publish(world, moves);
        }
        if !self.scenario.plan.queue || world.past.broker_lost {
            return;
        }
        for who in Who::ALL {
            let process = world.of(who);
            if process.life == Life::Dead && process.connected {
                let mut next = *world;
                next.disconnect(who);
                moves.happens(Act::BrokerNotices(who), next);
            }
            if process.is_alive() && process.connected {
                Self::deliver(world, who, moves);
                self.orders(world, who, moves);
            }
            if process.life == Life::Running {
                self.work(world, who, moves);
            }
        }
    }

    fn publish(&self, world: &World, moves: &mut Moves) {
        let mut next = *world;
        next.published += 1;
        if self.scenario.plan.queue {
            next.ready |= 1 << next.published;
            moves.happens(Act::Publish(next.published), next);
            return;
        }
        // Without a queue clients change the state: whoever is reached acknowledges.
        for who in world.readable() {
            let mut next = next;
            let process = next.of_mut(who);
            let is_next = process.applied + 1 == world.published + 1 || process.applied == UNKNOWN;
            if process.applied != UNKNOWN {
                process.applied = world.published + 1;
            }
            let act = Act::ClientWrites(who, next.published);
            if is_next || world.past.lost_by_nature {
                moves.happens(act, next);
            } else {
                moves.violates(
                    act,
                    next,
                    "I1: a client's write was acknowledged and is not in the state any more",
                );
            }
        }
    }

    fn deliver(world: &World, who: Who, moves: &mut Moves) {
        let process = world.of(who);
        let room = process.delivered.iter().position(|message| *message == 0);
        if process.seat != Seat::Primary || world.ready == 0 {
            return;
        }
        let Some(room) = room else { return };
        let message = u8::try_from(world.ready.trailing_zeros()).unwrap_or(0);
        let mut next = *world;
        next.ready &= next.ready - 1;
        next.of_mut(who).delivered[room] = message;
        moves.happens(Act::Deliver(who, message), next);
    }

    fn orders(&self, world: &World, who: Who, moves: &mut Moves) {
        let process = world.of(who);
        if who == Who::Shadow {
            if process.life == Life::Running && process.order.is_none() && world.shadow_park > 0 {
                let order = Order { park: true, epoch: world.shadow_park };
                let mut next = *world;
                next.shadow_park = 0;
                self.obey(&mut next, who, order);
                moves.happens(Act::Obey(who, order), next);
            }
            return;
        }
        match (process.life, process.order, world.orders.first()) {
            (Life::Frozen, None, Some(order)) => {
                let mut next = *world;
                next.orders.take();
                next.of_mut(who).order = Some(order);
                moves.happens(Act::OrderLiesAt(who), next);
            }
            (Life::Running, None, Some(order)) => {
                let mut next = *world;
                next.orders.take();
                self.obey(&mut next, who, order);
                moves.happens(Act::Obey(who, order), next);
            }
            // It was given the order while it stood frozen.
            (Life::Running, Some(order), _) if !self.is_parking(world, who) => {
                let mut next = *world;
                self.obey(&mut next, who, order);
                moves.happens(Act::Obey(who, order), next);
            }
            _ => {}
        }
    }

    /// It has decided to park and works off what it was given.
    fn is_parking(&self, world: &World, who: Who) -> bool {
        let process = world.of(who);
        process.seat == Seat::Nowhere
            && process.order.is_some_and(|o| o.park && self.gates.parked_by(process.gate) == Some(o.epoch))
    }

    fn obey(&self, world: &mut World, who: Who, order: Order) {
        let (gate, verdict) = self.gates.decide(world.of(who).gate, order);
        // Nobody waits for the shadow's answers.
        let replies = if who == Who::Shadow { 0 } else { world.replies & bit(order.epoch) };
        let process = world.of_mut(who);
        let before = std::mem::replace(&mut process.gate, gate);
        process.order = None;
        match verdict {
            Verdict::Park => {
                process.order = Some(order);
                process.gate_before = Some(before);
                process.seat = Seat::Nowhere;
            }
            Verdict::Resume => {
                process.seat = Seat::Primary;
                process.held = None;
                world.resumed |= replies;
            }
            Verdict::ParkedAlready => {
                process.held = process.held.or(who.has_the_name().then_some(order));
                world.parked |= replies;
            }
            Verdict::ResumedAlready => world.resumed |= replies,
            Verdict::Ignore => {}
        }
    }

    /// What a running consumer does by itself.
    fn work(&self, world: &World, who: Who, moves: &mut Moves) {
        let process = world.of(who);
        let mut next = *world;
        if !process.connected {
            next.of_mut(who).connected = true;
            next.shadow_orders |= who == Who::Shadow;
            moves.happens(Act::Connect(who), next);
            return;
        }
        let has_orders = if who == Who::Shadow { world.shadow_park > 0 } else { !world.orders.is_empty() };
        if process.delivered[0] > 0 {
            self.apply(world, who, moves);
        } else if self.is_parking(world, who) {
            let order = process.order.unwrap_or(Order { park: true, epoch: 0 });
            let exists = world.parking & bit(order.epoch) > 0;
            let process = next.of_mut(who);
            process.order = None;
            if exists || self.mistake == Some(Mistake::ParksOnMissingQueue) {
                process.seat = if exists { Seat::Parking(order.epoch) } else { Seat::Nowhere };
                process.held = who.has_the_name().then_some(order);
            } else {
                process.gate = process.gate_before.unwrap_or(process.gate); // that attempt is over: as if nothing had been ordered
            }
            process.gate_before = None;
            if process.held.is_some() {
                next.parked |= next.replies & bit(order.epoch);
            }
            moves.happens(Act::FinishPark(who), next);
        } else if process.seat == Seat::Nowhere && process.order.is_none() && !has_orders {
            let seat = match self.gates.parked_by(process.gate) {
                None => Seat::Primary,
                Some(epoch) if world.parking & bit(epoch) > 0 => Seat::Parking(epoch),
                Some(_) => return, // waits for the queue
            };
            next.of_mut(who).seat = seat;
            moves.happens(Act::Subscribe(who), next);
        }
    }

    fn apply(&self, world: &World, who: Who, moves: &mut Moves) {
        let mut next = *world;
        let process = next.of_mut(who);
        let message = process.delivered[0];
        process.delivered = [process.delivered[1], 0];
        let act = Act::Apply(who, message);
        if process.applied == UNKNOWN {
            moves.happens(act, next);
            return;
        }
        let again = message == process.unconfirmed && message <= process.applied;
        if !again && message != process.applied + 1 && !world.past.lost_by_nature {
            moves.violates(act, next, LOST_OR_TWICE);
            return;
        }
        process.unconfirmed = 0;
        if !again {
            process.applied = message;
            if self.scenario.breaks {
                let mut unlucky = next;
                let process = unlucky.of_mut(who);
                process.unconfirmed = message;
                unlucky.ready |= 1 << message;
                unlucky.disconnect(who);
                moves.fault(Act::AcknowledgementLost(who, message), unlucky);
            }
        }
        moves.happens(act, next);
    }

    /// Puts an order on the name's control queue. A repetition of what lies there last adds nothing.
    pub(super) fn send(world: &mut World, order: Order) {
        if !order.park {
            world.resume_sent |= bit(order.epoch);
        }
        if world.orders.len() < Orders::ROOM && world.orders.last() != Some(order) {
            world.orders.push(order);
        }
    }
}

impl World {
    /// Processes that a reader may ask.
    pub fn readable(&self) -> impl Iterator<Item = Who> + use<> {
        let world = *self;
        Who::ALL.into_iter().filter(move |who| {
            world.of(*who).life == Life::Running && (*who != Who::Shadow || world.shadow_known)
        })
    }
}
