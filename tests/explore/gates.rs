//! The product's `ConsumerGate`, remembered: its states are numbered. Orders are built by the product's own types.

use std::cell::RefCell;
use std::collections::HashMap;

use shadow::api::{Epoch, MigrationUid};
use shadow::broker::control::{Answer, AnswerType, Fence, Order, OrderPayload, OrderType};
use shadow::broker::{ConsumerGate, Decision, MigrationQueues, answer};

use super::mistake::Mistake;
use super::mixing::Mixing;
use super::world;

/// What a consumer does about an order, without what only the wire needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Park,
    Resume,
    ParkedAlready,
    ResumedAlready,
    Ignore,
}

struct Known {
    gate: ConsumerGate,
    /// The epoch that parked it.
    parked: Option<u8>,
    /// The largest epoch that it was shown.
    newest: u8,
}

#[derive(Default)]
struct Book {
    known: Vec<Known>,
    decisions: HashMap<(u8, world::Order), (u8, Verdict), Mixing>,
    answers: HashMap<(u8, bool), u8, Mixing>,
}

pub struct Gates {
    mistake: Option<Mistake>,
    book: RefCell<Book>,
}

fn queues(epoch: u8) -> MigrationQueues {
    MigrationQueues::new(MigrationUid::from("ab"), Epoch(epoch.into()), "orders")
}

impl Gates {
    /// The gate of a fresh process has number 0.
    pub fn new(mistake: Option<Mistake>) -> Self {
        let gates = Self { mistake, book: RefCell::default() };
        gates.number(ConsumerGate::default(), 0);
        gates
    }

    fn number(&self, gate: ConsumerGate, newest: u8) -> u8 {
        let mut book = self.book.borrow_mut();
        let same = |known: &Known| known.gate == gate && known.newest == newest;
        if let Some(number) = book.known.iter().position(same) {
            return u8::try_from(number).expect("few gates");
        }
        let parked =
            gate.parked_on().map(|queue| (1..4).find(|e| queues(*e).parking() == queue).expect("ours"));
        book.known.push(Known { gate, parked, newest });
        u8::try_from(book.known.len() - 1).expect("few gates")
    }

    /// The epoch that parked it.
    pub fn parked_by(&self, gate: u8) -> Option<u8> {
        self.book.borrow().known[usize::from(gate)].parked
    }

    /// The largest epoch that it was shown: what the gate should remember, kept beside it.
    pub fn newest(&self, gate: u8) -> u8 {
        self.book.borrow().known[usize::from(gate)].newest
    }

    pub fn decide(&self, gate: u8, order: world::Order) -> (u8, Verdict) {
        if let Some(decided) = self.book.borrow().decisions.get(&(gate, order)) {
            return *decided;
        }
        let (mut next, newest) = {
            let book = self.book.borrow();
            let known = &book.known[usize::from(gate)];
            (known.gate.clone(), known.newest)
        };
        let verdict = match next.decide(self.on_the_wire(order)) {
            Decision::Park { .. } => Verdict::Park,
            Decision::Resume { .. } => Verdict::Resume,
            Decision::AnswerAgain(AnswerType::Parked, _) => Verdict::ParkedAlready,
            Decision::AnswerAgain(AnswerType::Resumed, _) => Verdict::ResumedAlready,
            Decision::Ignore => Verdict::Ignore,
        };
        let decided = (self.number(next, newest.max(order.epoch)), verdict);
        self.book.borrow_mut().decisions.insert((gate, order), decided);
        decided
    }

    /// What the operator reads of the consumer's answer.
    pub fn answers(&self, epoch: u8, kind: AnswerType) -> u8 {
        if let Some(code) = self.book.borrow().answers.get(&(epoch, kind == AnswerType::Parked)) {
            return *code;
        }
        let queues = queues(epoch);
        let fence =
            Fence { migration: queues.migration.clone(), epoch: queues.epoch, reply_to: queues.reply() };
        let said = answer(kind, &fence, "web-0", 7, None).to_vec().expect("an answer");
        let read = Answer::from_slice(&said).expect("what was written is read");
        assert_eq!((&read.migration, read.epoch), (&queues.migration, queues.epoch));
        let code = match read.kind {
            AnswerType::Parked => world::PARKED,
            AnswerType::Resumed => world::RESUMED,
        };
        self.book.borrow_mut().answers.insert((epoch, kind == AnswerType::Parked), code);
        code
    }

    /// The order as the consumer reads it.
    fn on_the_wire(&self, order: world::Order) -> Order {
        let queues = queues(order.epoch);
        let (kind, queue) = match order.park {
            true => (OrderType::StartReplay, queues.parking()),
            false => (OrderType::EndReplay, queues.primary.clone()),
        };
        let fence =
            Fence { migration: queues.migration.clone(), epoch: queues.epoch, reply_to: queues.reply() };
        let fence = (self.mistake != Some(Mistake::ConsumerIgnoresEpoch)).then_some(fence);
        let order = Order { kind, payload: OrderPayload { queue }, fence };
        Order::from_slice(&order.to_vec().expect("an order")).expect("what was written is read")
    }
}
