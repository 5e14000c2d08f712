//! Consumers: delivery, PARK and RESUME. They are the one in `examples/consumer`: it acknowledges after applying, obeys
//! orders before it consumes, and hands nothing back when it parks.
//!
//! Assumed: the kernel closes the sockets of a process that dies, so the broker has noticed before another container
//! of that name has connected.

use shadow::broker::control::AnswerType;

use super::broker::Queue;
use super::gates::Verdict;
use super::mistake::Mistake;
use super::model::Model;
use super::moves::{Act, Moves};
use super::world::{
    CONTROL, Life, Named, Order, PRIMARY, RENAMED, RIVAL, STRAY, UNKNOWN, Who, World, parking, replies,
    shadows,
};

/// Prefetch of consumers.
const PREFETCH: usize = 2;
/// More orders never lie on a control queue at once: who sends another one is slower than who reads.
const ORDERS: u32 = 4;

impl Model {
    pub(super) fn broker_and_consumers(&self, world: &World, moves: &mut Moves) {
        if !self.scenario.plan.queue {
            self.client_writes(world, moves);
            return;
        }
        if world.past.broker_lost {
            return;
        }
        for who in Who::ALL {
            let process = world.of(who);
            let connected = world.is_connected(who);
            if process.life == Life::Dead && connected {
                let mut next = *world;
                next.disconnect(who);
                moves.happens(Act::BrokerNotices(who), next);
            }
            if process.is_alive() && connected {
                let mut next = *world;
                if let Some(message) = next.broker.deliver(who.client(), PRIMARY, PREFETCH) {
                    moves.happens(Act::Deliver(who, message), next);
                }
                self.orders(world, who, moves);
            }
            if process.life == Life::Running {
                self.work(world, who, moves);
            }
        }
        self.rival(world, moves);
    }

    /// The consumer of another identity takes a message. That it holds it for a while before it applies it is as if it
    /// had come later; and what it has taken nobody else sees, so the messages after it are numbered anew and the
    /// world is smaller. What it took and did not acknowledge would come back out of order: by nature, see the docs.
    fn rival(&self, world: &World, moves: &mut Moves) {
        let Some(message) = world.broker.next(RIVAL, PRIMARY, 1) else { return };
        let mut next = *world;
        let before =
            |applied: u8| if applied != UNKNOWN && applied >= message { applied - 1 } else { applied };
        let again = |unconfirmed: u8| match unconfirmed {
            same if same == message => 0,
            later if later > message => later - 1,
            earlier => earlier,
        };
        let twice = Who::ALL.into_iter().any(|who| {
            let process = world.of(who);
            let knows = process.applied != UNKNOWN && process.applied >= message;
            process.is_alive() && knows && process.unconfirmed != message
        });
        for process in &mut next.processes {
            (process.applied, process.unconfirmed) = (before(process.applied), again(process.unconfirmed));
        }
        next.image.applied = before(next.image.applied);
        next.image.unconfirmed = again(next.image.unconfirmed);
        next.seen = before(next.seen);
        next.published -= 1;
        next.broker.forget(PRIMARY, message);
        next.past.rival_took = true;
        let act = Act::RivalTakes(message);
        if twice && !world.past.lost_by_nature {
            moves.violates(act, next, "I2: the other consumer gets what was applied and acknowledged");
        } else {
            moves.happens(act, next);
        }
    }

    /// Without a queue clients change the state: whoever is reached acknowledges.
    fn client_writes(&self, world: &World, moves: &mut Moves) {
        if world.published == self.scenario.messages {
            return;
        }
        let write = world.published + 1;
        for who in world.readable() {
            let mut next = World { published: write, ..*world };
            let process = next.of_mut(who);
            let is_next = process.applied == world.published || process.applied == UNKNOWN;
            if process.applied == UNKNOWN {
                // Acknowledged by a container that a crash has emptied.
                next.past.lost_by_nature = true;
            } else {
                process.applied = write;
            }
            let act = Act::ClientWrites(who, write);
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

    /// The control queue that a process reads: its pod's name is in it. Nobody sends orders to the pods that a
    /// ReplicaSet makes besides the replacement.
    pub(super) fn control(&self, world: &World, who: Who) -> Option<Queue> {
        match (who, world.named) {
            (Who::Source, _) => Some(CONTROL),
            (Who::Shadow, _) => Some(shadows(world.shadow_epoch)),
            (Who::Successor, _) if !self.scenario.renamed => Some(CONTROL),
            (Who::Successor, Named::Replacement { .. }) => Some(RENAMED),
            (Who::Successor, _) => None,
        }
    }

    /// An order that was delivered and that it has not looked at yet.
    fn pending(world: &World, who: Who, control: Queue) -> Option<Order> {
        let mut held = world.of(who).held.map(Order::code);
        world
            .broker
            .unacknowledged(who.client(), control)
            .find(|code| held.take_if(|held| held == code).is_none())
            .map(Order::from_code)
    }

    fn orders(&self, world: &World, who: Who, moves: &mut Moves) {
        let process = world.of(who);
        let Some(control) = self.control(world, who) else { return };
        let mut next = *world;
        if process.life == Life::Frozen {
            if let Some(order) = next.broker.deliver(who.client(), control, 0) {
                moves.happens(Act::OrderLiesAt(who, Order::from_code(order)), next);
            }
            return;
        }
        if process.order.is_some() {
            return;
        }
        let pending = Self::pending(world, who, control);
        let order = pending.or_else(|| next.broker.deliver(who.client(), control, 0).map(Order::from_code));
        if let Some(order) = order {
            let stale = self.obey(&mut next, who, control, order);
            let act = Act::Obey(who, order);
            match stale {
                true => moves.violates(act, next, "I11: an older epoch moves a consumer"),
                false => moves.happens(act, next),
            }
        }
    }

    /// True if an older epoch moved it.
    fn obey(&self, world: &mut World, who: Who, control: Queue, order: Order) -> bool {
        let client = who.client();
        let (gate, verdict) = self.gates.decide(world.of(who).gate, order);
        let newest = self.gates.newest(world.of(who).gate);
        let process = world.of_mut(who);
        let before = std::mem::replace(&mut process.gate, gate);
        let held = process.held;
        match verdict {
            Verdict::Park => {
                (process.order, process.gate_before) = (Some(order), Some(before));
                world.broker.cancel(client, PRIMARY);
                world.broker.cancel(client, parking(1));
                world.broker.cancel(client, parking(2));
            }
            Verdict::Resume => {
                process.held = None;
                world.broker.cancel(client, parking(1));
                world.broker.cancel(client, parking(2));
                let _ = world.broker.consume(client, PRIMARY, false);
                if let Some(held) = held {
                    world.broker.acknowledge(client, control, held.code());
                }
                self.answer(world, who, order.epoch, AnswerType::Resumed);
                world.broker.acknowledge(client, control, order.code());
            }
            Verdict::ParkedAlready => {
                process.held = held.or(Some(order));
                self.answer(world, who, order.epoch, AnswerType::Parked);
                if held.is_some() {
                    world.broker.acknowledge(client, control, order.code());
                }
            }
            Verdict::ResumedAlready => {
                self.answer(world, who, order.epoch, AnswerType::Resumed);
                world.broker.acknowledge(client, control, order.code());
            }
            Verdict::Ignore => {
                world.broker.acknowledge(client, control, order.code());
            }
        }
        matches!(verdict, Verdict::Park | Verdict::Resume) && order.epoch < newest
    }

    /// Nobody waits for the shadow's answers, nor for those of a pod with another name.
    fn answer(&self, world: &mut World, who: Who, epoch: u8, kind: AnswerType) {
        let (queue, answer) = (replies(epoch), self.gates.answers(epoch, kind));
        if who != Who::Shadow && !world.broker.all(queue).any(|there| there == answer) {
            world.broker.publish(queue, answer);
        }
    }

    /// What a running consumer does by itself.
    fn work(&self, world: &World, who: Who, moves: &mut Moves) {
        let (process, client) = (world.of(who), who.client());
        let mut next = *world;
        let control = self.control(world, who);
        if !world.is_connected(who) {
            next.broker.connect(client);
            if let Some(control) = control {
                next.broker.declare(control);
                let _ = next.broker.consume(client, control, false);
            }
            moves.happens(Act::Connect(who), next);
            return;
        }
        let has_orders = control.is_some_and(|control| {
            world.broker.ready(control).next().is_some() || Self::pending(world, who, control).is_some()
        });
        let seated = [PRIMARY, parking(1), parking(2)].iter().any(|q| world.broker.consumes(client, *q));
        if let Some(message) = world.broker.unacknowledged(client, PRIMARY).next() {
            self.apply(world, who, message, moves);
        } else if let (Some(order), Some(control)) = (process.order, control) {
            let exists = world.broker.exists(parking(order.epoch));
            next.of_mut(who).order = None;
            let before = next.of_mut(who).gate_before.take();
            if exists || self.makes(Mistake::ParksOnMissingQueue) {
                let _ = next.broker.consume(client, parking(order.epoch), false);
                if let Some(superseded) = next.of_mut(who).held.replace(order) {
                    next.broker.acknowledge(client, control, superseded.code());
                }
                self.answer(&mut next, who, order.epoch, AnswerType::Parked);
            } else {
                // That attempt is over: as if nothing had been ordered.
                next.of_mut(who).gate = before.unwrap_or(process.gate);
                next.broker.acknowledge(client, control, order.code());
            }
            moves.happens(Act::FinishPark(who), next);
        } else if !seated && !has_orders {
            let queue = self.gates.parked_by(process.gate).map_or(PRIMARY, parking);
            if next.broker.consume(client, queue, false).is_ok() {
                moves.happens(Act::Subscribe(who), next);
            } // otherwise it waits for the queue
        }
        for epoch in [1, 2] {
            let mut next = *world;
            if next.broker.deliver(client, parking(epoch), PREFETCH).is_some() {
                next.broker.acknowledge(client, parking(epoch), STRAY);
                moves.happens(Act::TakesStray(who), next);
            }
        }
    }

    fn apply(&self, world: &World, who: Who, message: u8, moves: &mut Moves) {
        let mut next = *world;
        if !self.makes(Mistake::AcknowledgesNothing) {
            next.broker.acknowledge(who.client(), PRIMARY, message);
        }
        let act = Act::Apply(who, message);
        if who == Who::Successor {
            next.past.went_on = true;
        }
        let process = next.of_mut(who);
        if process.applied == UNKNOWN {
            let doomed = who == Who::Source && self.is_committed(world) && !world.past.lost_by_nature;
            match doomed {
                true => moves.violates(act, next, "I1: taken by a container that is about to be destroyed"),
                false => moves.happens(act, next),
            }
            return;
        }
        let again = message == process.unconfirmed && message <= process.applied;
        if !again && message != process.applied + 1 && !world.past.lost_by_nature {
            let broken = if message <= process.applied {
                "I2: a message is applied twice"
            } else {
                "I1: a message is applied, and one before it was lost"
            };
            moves.violates(act, next, broken);
            return;
        }
        process.unconfirmed = 0;
        if !again {
            process.applied = message;
            if self.scenario.breaks {
                let mut unlucky = World { broker: world.broker, ..next };
                unlucky.of_mut(who).unconfirmed = message;
                unlucky.disconnect(who);
                moves.fault(Act::AcknowledgementLost(who, message), unlucky);
            }
        }
        moves.happens(act, next);
    }

    /// Puts an order on a control queue, if there is such a queue. A repetition of what lies there last adds nothing.
    pub(super) fn send(world: &mut World, control: Queue, order: Order) {
        if !world.broker.exists(control) {
            return;
        }
        if !order.park {
            world.resume_sent |= super::world::bit(order.epoch);
        }
        if world.broker.len(control) < ORDERS && world.broker.all(control).next_back() != Some(order.code()) {
            world.broker.publish(control, order.code());
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
