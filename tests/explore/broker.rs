//! RabbitMQ as far as a migration meets it: queues, consumers with prefetch, acknowledgements, broken connections. Pure,
//! a few words of memory, no allocation.
//!
//! Guarantees: `tests/broker/model_is_right.rs` runs the same scripts on this and on a real RabbitMQ. What is not
//! acknowledged keeps its place: whoever held it gives it back there. Which of several consumers is served next is left
//! open, so the explorer tries each.

/// So many queues, each known by its number.
pub const QUEUES: u8 = 9;
/// So many connections.
pub const CLIENTS: usize = 4;

/// Number of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queue(pub u8);

/// Why an operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 404
    NotFound,
    /// 403: somebody else consumes it exclusively, or does so not exclusively
    InExclusiveUse,
    /// 406
    InUse,
    /// 406
    NotEmpty,
}

/// What a deletion asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Only {
    pub if_unused: bool,
    pub if_empty: bool,
}

/// Messages in the order in which they were published, each with who holds it: 4 bits of content and 3 bits of holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Messages(u64);

impl Messages {
    const BITS: u32 = 7;
    const ROOM: u32 = 8;
    const CONTENT: u8 = 0xf;

    fn len(self) -> u32 {
        (64 - self.0.leading_zeros()).div_ceil(Self::BITS)
    }

    fn at(self, place: u32) -> u64 {
        (self.0 >> (place * Self::BITS)) & 0x7f
    }

    fn content(self, place: u32) -> u8 {
        self.at(place).to_le_bytes()[0] & Self::CONTENT
    }

    /// 0: ready.
    fn holder(self, place: u32) -> u8 {
        self.at(place).to_le_bytes()[0] >> 4
    }

    fn set(&mut self, place: u32, content: u8, holder: u8) {
        let at = place * Self::BITS;
        self.0 = (self.0 & !(0x7f << at)) | ((u64::from(content) | u64::from(holder) << 4) << at);
    }

    fn remove(&mut self, place: u32) {
        let at = place * Self::BITS;
        let before = self.0 & ((1 << at) - 1);
        self.0 = before | ((self.0 >> (at + Self::BITS)) << at);
    }

    fn places(self) -> impl DoubleEndedIterator<Item = u32> {
        0..self.len()
    }

    fn find(self, holder: u8, content: u8) -> Option<u32> {
        self.places().find(|place| self.holder(*place) == holder && self.content(*place) == content)
    }
}

/// The whole broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broker {
    messages: [Messages; QUEUES as usize],
    /// A bit a queue.
    existing: u16,
    /// Bound to the exchange that producers use.
    bound: u16,
    /// Consumed exclusively.
    exclusive: u16,
    /// What each client consumes, a bit a queue.
    seats: [u16; CLIENTS],
    connected: u8,
}

impl Queue {
    fn bit(self) -> u16 {
        1 << self.0
    }

    fn at(self) -> usize {
        usize::from(self.0)
    }
}

fn holder(client: usize) -> u8 {
    u8::try_from(client + 1).unwrap_or(u8::MAX)
}

impl Broker {
    pub fn exists(&self, queue: Queue) -> bool {
        self.existing & queue.bit() > 0
    }

    pub fn is_bound(&self, queue: Queue) -> bool {
        self.bound & queue.bit() > 0
    }

    pub fn is_connected(&self, client: usize) -> bool {
        self.connected & 1 << client > 0
    }

    pub fn consumes(&self, client: usize, queue: Queue) -> bool {
        self.seats[client] & queue.bit() > 0
    }

    /// What a passive declaration tells: ready messages and consumers.
    pub fn look(&self, queue: Queue) -> Option<(usize, usize)> {
        self.exists(queue).then(|| (self.ready(queue).count(), self.consumers(queue)))
    }

    pub fn consumers(&self, queue: Queue) -> usize {
        self.seats.iter().filter(|seat| **seat & queue.bit() > 0).count()
    }

    pub fn ready(&self, queue: Queue) -> impl Iterator<Item = u8> + use<> {
        self.held_by(queue, 0)
    }

    /// Delivered to this client and not acknowledged, in queue order.
    pub fn unacknowledged(&self, client: usize, queue: Queue) -> impl Iterator<Item = u8> + use<> {
        self.held_by(queue, holder(client))
    }

    fn held_by(&self, queue: Queue, holder: u8) -> impl Iterator<Item = u8> + use<> {
        let messages = self.messages[queue.at()];
        messages.places().filter(move |at| messages.holder(*at) == holder).map(move |at| messages.content(at))
    }

    /// All that lies there, delivered or not.
    pub fn all(&self, queue: Queue) -> impl DoubleEndedIterator<Item = u8> + use<> {
        let messages = self.messages[queue.at()];
        messages.places().map(move |at| messages.content(at))
    }

    pub fn len(&self, queue: Queue) -> u32 {
        self.messages[queue.at()].len()
    }

    pub fn has_room(&self, queue: Queue) -> bool {
        self.len(queue) < Messages::ROOM
    }

    pub fn declare(&mut self, queue: Queue) {
        self.existing |= queue.bit();
    }

    pub fn bind(&mut self, queue: Queue) -> Result<(), Refusal> {
        self.must_exist(queue)?;
        self.bound |= queue.bit();
        Ok(())
    }

    pub fn unbind(&mut self, queue: Queue) {
        self.bound &= !queue.bit();
    }

    fn must_exist(&self, queue: Queue) -> Result<(), Refusal> {
        if self.exists(queue) { Ok(()) } else { Err(Refusal::NotFound) }
    }

    /// To one queue, by its name. False: it was not routed.
    pub fn publish(&mut self, queue: Queue, content: u8) -> bool {
        let messages = &mut self.messages[queue.at()];
        if self.existing & queue.bit() == 0 {
            return false;
        }
        messages.set(messages.len(), content, 0);
        true
    }

    /// To the exchange: every queue that is bound gets it. False: it was not routed.
    pub fn publish_to_exchange(&mut self, content: u8) -> bool {
        let bound = self.bound & self.existing;
        for number in 0..QUEUES {
            if bound & 1 << number > 0 {
                self.publish(Queue(number), content);
            }
        }
        bound > 0
    }

    pub fn connect(&mut self, client: usize) {
        self.connected |= 1 << client;
    }

    pub fn consume(&mut self, client: usize, queue: Queue, exclusive: bool) -> Result<(), Refusal> {
        self.must_exist(queue)?;
        let taken = self.exclusive & queue.bit() > 0 || (exclusive && self.consumers(queue) > 0);
        if taken {
            return Err(Refusal::InExclusiveUse);
        }
        self.seats[client] |= queue.bit();
        if exclusive {
            self.exclusive |= queue.bit();
        }
        Ok(())
    }

    /// What was delivered stays delivered.
    pub fn cancel(&mut self, client: usize, queue: Queue) {
        if self.consumes(client, queue) {
            self.exclusive &= !queue.bit();
        }
        self.seats[client] &= !queue.bit();
    }

    /// What this client would be given next. No limit if `prefetch` is 0.
    pub fn next(&self, client: usize, queue: Queue, prefetch: usize) -> Option<u8> {
        let has_room = prefetch == 0 || self.unacknowledged(client, queue).count() < prefetch;
        if !self.consumes(client, queue) || !has_room {
            return None;
        }
        self.ready(queue).next()
    }

    pub fn deliver(&mut self, client: usize, queue: Queue, prefetch: usize) -> Option<u8> {
        let content = self.next(client, queue, prefetch)?;
        let messages = &mut self.messages[queue.at()];
        let place = messages.find(0, content)?;
        messages.set(place, content, holder(client));
        Some(content)
    }

    pub fn acknowledge(&mut self, client: usize, queue: Queue, content: u8) -> bool {
        let messages = &mut self.messages[queue.at()];
        let found = messages.find(holder(client), content);
        found.map(|place| messages.remove(place)).is_some()
    }

    /// Back to its old place.
    pub fn hand_back(&mut self, client: usize, queue: Queue, content: u8) -> bool {
        let messages = &mut self.messages[queue.at()];
        let found = messages.find(holder(client), content);
        found.map(|place| messages.set(place, content, 0)).is_some()
    }

    /// The connection is gone, and everything it held is ready again.
    pub fn cut(&mut self, client: usize) {
        for number in 0..QUEUES {
            let queue = Queue(number);
            self.cancel(client, queue);
            let messages = &mut self.messages[queue.at()];
            for place in messages.places() {
                if messages.holder(place) == holder(client) {
                    messages.set(place, messages.content(place), 0);
                }
            }
        }
        self.connected &= !(1 << client);
    }

    /// Gives the number of messages that went with it. What is delivered does not count as lying there.
    pub fn delete(&mut self, queue: Queue, only: Only) -> Result<usize, Refusal> {
        self.must_exist(queue)?;
        let ready = self.ready(queue).count();
        if only.if_unused && self.consumers(queue) > 0 {
            return Err(Refusal::InUse);
        }
        if only.if_empty && ready > 0 {
            return Err(Refusal::NotEmpty);
        }
        for seat in &mut self.seats {
            *seat &= !queue.bit();
        }
        self.messages[queue.at()] = Messages::default();
        self.existing &= !queue.bit();
        self.bound &= !queue.bit();
        self.exclusive &= !queue.bit();
        Ok(ready)
    }

    /// Takes a message out of the world and numbers those after it anew: see `rival`.
    pub fn forget(&mut self, queue: Queue, content: u8) {
        let messages = &mut self.messages[queue.at()];
        if let Some(place) = messages.places().find(|place| messages.content(*place) == content) {
            messages.remove(place);
        }
        for place in messages.places() {
            let (later, by) = (messages.content(place), messages.holder(place));
            if later > content {
                messages.set(place, later - 1, by);
            }
        }
    }
}
