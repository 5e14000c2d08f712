//! What a consumer does with an order: obey, answer again, or ignore. Pure: no I/O, no clock; a value that lives in
//! the consumer's memory and so moves with it.
//!
//! # Guarantees
//! * A park is obeyed only by an epoch larger than any this consumer has seen of that migration: whatever was
//!   resumed, or superseded, is never parked again by a late or repeated order.
//! * Only the migration that parked the consumer resumes it, under the parking epoch or a later one.
//! * A repeated order is answered again and changes nothing, so a lost answer costs time only.
//!
//! # Assumptions
//! The consumer calls [`ConsumerGate::decide`] for every order in the order of arrival and carries the decision out
//! before the next. It remembers the last [`REMEMBERED`] migrations.

use std::collections::VecDeque;

use super::control::{Answer, AnswerType, Fence, Order, OrderType};
use crate::api::{Epoch, MigrationUid};

/// How many migrations a gate remembers: one pod has one at a time.
pub const REMEMBERED: usize = 64;

/// What to do about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave the current queue (apply and acknowledge what was delivered), consume this one, then answer.
    Park { queue: String, answer: Option<Fence> },
    /// Leave the parking queue, consume the primary, then answer.
    Resume { answer: Option<Fence> },
    /// Nothing to change; say again that it is so.
    AnswerAgain(AnswerType, Fence),
    /// Nothing at all.
    Ignore,
}

/// Where a parked consumer sits, and by whose order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ParkedBy {
    queue: String,
    fence: Option<Fence>,
}

/// The state machine of a consumer's side of the control protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerGate {
    parked: Option<ParkedBy>,
    /// The largest epoch seen of each migration, the latest migration last.
    seen: VecDeque<(MigrationUid, Epoch)>,
}

impl ConsumerGate {
    /// The queue to consume instead of the primary, while parked. After a reconnect: this one and no other.
    pub fn parked_on(&self) -> Option<&str> {
        self.parked.as_ref().map(|parked| parked.queue.as_str())
    }

    /// Takes note of an order and says what to do.
    pub fn decide(&mut self, order: Order) -> Decision {
        let queue = order.payload.queue;
        match (order.kind, order.fence) {
            (OrderType::StartReplay, Some(fence)) => self.park(queue, fence),
            (OrderType::EndReplay, Some(fence)) => self.resume(fence),
            (kind, None) => self.plain(kind, queue),
        }
    }

    fn park(&mut self, queue: String, fence: Fence) -> Decision {
        if let Some(ParkedBy { fence: Some(by), .. }) = &self.parked
            && (&by.migration, by.epoch) == (&fence.migration, fence.epoch)
        {
            return Decision::AnswerAgain(AnswerType::Parked, fence);
        }
        if self.last_seen(&fence.migration).is_some_and(|seen| fence.epoch <= seen) {
            return Decision::Ignore;
        }
        self.note(&fence);
        self.parked = Some(ParkedBy { queue: queue.clone(), fence: Some(fence.clone()) });
        Decision::Park { queue, answer: Some(fence) }
    }

    fn resume(&mut self, fence: Fence) -> Decision {
        match &self.parked {
            Some(ParkedBy { fence: Some(by), .. })
                if by.migration == fence.migration && by.epoch <= fence.epoch =>
            {
                self.note(&fence);
                self.parked = None;
                Decision::Resume { answer: Some(fence) }
            }
            Some(_) => Decision::Ignore,
            // Never parked, resumed before, or started afresh: it takes messages, and a PARK of that attempt that
            // is still on its way must not stop it any more.
            None if self.last_seen(&fence.migration).is_some_and(|seen| fence.epoch < seen) => {
                Decision::Ignore
            }
            None => {
                self.note(&fence);
                Decision::AnswerAgain(AnswerType::Resumed, fence)
            }
        }
    }

    /// The plain messages have no fencing: they are obeyed, unless a fenced order holds the consumer.
    fn plain(&mut self, kind: OrderType, queue: String) -> Decision {
        match (&self.parked, kind) {
            (Some(ParkedBy { fence: Some(_), .. }), _) | (None, OrderType::EndReplay) => Decision::Ignore,
            (Some(ParkedBy { queue: current, .. }), OrderType::StartReplay) if *current == queue => {
                Decision::Ignore
            }
            (_, OrderType::StartReplay) => {
                self.parked = Some(ParkedBy { queue: queue.clone(), fence: None });
                Decision::Park { queue, answer: None }
            }
            (Some(_), OrderType::EndReplay) => {
                self.parked = None;
                Decision::Resume { answer: None }
            }
        }
    }

    fn last_seen(&self, migration: &MigrationUid) -> Option<Epoch> {
        self.seen.iter().find(|(seen, _)| seen == migration).map(|(_, epoch)| *epoch)
    }

    /// `fence.epoch` is at least the largest seen when this is called.
    fn note(&mut self, fence: &Fence) {
        self.seen.retain(|(migration, _)| *migration != fence.migration);
        self.seen.push_back((fence.migration.clone(), fence.epoch));
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
    }
}

/// The answer to an order that was obeyed.
pub fn answer(kind: AnswerType, fence: &Fence, pod: &str, position: u64, last_id: Option<String>) -> Answer {
    Answer {
        kind,
        migration: fence.migration.clone(),
        epoch: fence.epoch,
        pod: pod.to_owned(),
        position: Some(position),
        last_id,
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
