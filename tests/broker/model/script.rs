//! Scripts of operations, drawn from a seed. Pure.

use super::model::{Only, Queue};

pub const CLIENTS: usize = 3;
pub const QUEUES: u8 = 3;

#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Declare(Queue),
    Bind(Queue),
    Unbind(Queue),
    Publish(Queue),
    PublishToExchange,
    Consume(usize, Queue, bool),
    Cancel(usize, Queue),
    /// The oldest, or the newest, that it holds.
    Acknowledge(usize, Queue, bool),
    HandBack(usize, Queue, bool),
    Cut(usize),
    Delete(Queue, Only),
}

/// Small, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    pub fn operation(&mut self) -> Operation {
        let queue = Queue(u8::try_from(self.roll(QUEUES.into())).unwrap());
        let client = usize::try_from(self.roll(CLIENTS as u64)).unwrap();
        let coin = self.roll(2) == 0;
        match self.roll(20) {
            0 | 1 => Operation::Declare(queue),
            2 => Operation::Bind(queue),
            3 => Operation::Unbind(queue),
            4..=6 => Operation::Publish(queue),
            7 => Operation::PublishToExchange,
            8..=10 => Operation::Consume(client, queue, self.roll(4) == 0),
            11 => Operation::Cancel(client, queue),
            12..=14 => Operation::Acknowledge(client, queue, coin),
            15 | 16 => Operation::HandBack(client, queue, coin),
            17 => Operation::Cut(client),
            _ => Operation::Delete(queue, Only { if_unused: coin, if_empty: self.roll(2) == 0 }),
        }
    }
}
