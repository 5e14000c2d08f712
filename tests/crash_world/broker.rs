//! A message broker in memory: durable queues, consumers with a prefetch, acknowledgements. What a lost connection was
//! given and did not acknowledge goes back to its place. No I/O.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::watch;

pub type ConnectionId = u64;
pub type SubscriptionId = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: u64,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Message>,
    subscriptions: Vec<Subscription>,
}

struct Subscription {
    id: SubscriptionId,
    connection: ConnectionId,
    prefetch: usize,
    /// Given and not acknowledged; the first `taken` of them were looked at.
    given: VecDeque<Message>,
    taken: usize,
    cancelled: bool,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<String, Queue>,
    connections: Vec<ConnectionId>,
    numbers: u64,
}

/// Consumers and ready messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub consumers: u32,
    pub messages: u32,
}

/// A subscription's queue or connection is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

/// Why a queue stays.
#[derive(Debug, PartialEq, Eq)]
pub struct StillNeeded(pub Counts);

pub struct Broker {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Default for Broker {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Broker {
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    pub fn connect(&self) -> ConnectionId {
        let mut state = self.state.lock();
        state.numbers += 1;
        let id = state.numbers;
        state.connections.push(id);
        id
    }

    pub fn disconnect(&self, connection: ConnectionId) {
        let mut state = self.state.lock();
        state.connections.retain(|known| *known != connection);
        for queue in state.queues.values_mut() {
            for subscription in queue.subscriptions.extract_if(.., |s| s.connection == connection) {
                for message in subscription.given.into_iter().rev() {
                    queue.ready.push_front(message);
                }
            }
            queue.deliver();
        }
        drop(state);
        self.changed();
    }

    pub fn is_connected(&self, connection: ConnectionId) -> bool {
        self.state.lock().connections.contains(&connection)
    }

    /// Gives the number of ready messages.
    pub fn declare(&self, queue: &str) -> u32 {
        let mut state = self.state.lock();
        let count = state.queues.entry(queue.to_owned()).or_default().ready.len();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub fn counts(&self, queue: &str) -> Option<Counts> {
        self.state.lock().queues.get(queue).map(Queue::counts)
    }

    /// False if there is no such queue.
    pub fn publish(&self, queue: &str, body: Vec<u8>) -> bool {
        let mut state = self.state.lock();
        state.numbers += 1;
        let message = Message { id: state.numbers, body };
        let Some(queue) = state.queues.get_mut(queue) else { return false };
        queue.ready.push_back(message);
        queue.deliver();
        drop(state);
        self.changed();
        true
    }

    /// `None` if there is no such queue.
    pub fn consume(&self, connection: ConnectionId, queue: &str, prefetch: usize) -> Option<SubscriptionId> {
        let mut state = self.state.lock();
        if !state.connections.contains(&connection) {
            return None;
        }
        state.numbers += 1;
        let id = state.numbers;
        let queue = state.queues.get_mut(queue)?;
        let given = VecDeque::new();
        queue.subscriptions.push(Subscription {
            id,
            connection,
            prefetch,
            given,
            taken: 0,
            cancelled: false,
        });
        queue.deliver();
        drop(state);
        self.changed();
        Some(id)
    }

    /// The next message that was given to it.
    pub fn next(&self, id: SubscriptionId) -> Result<Option<Message>, Gone> {
        let mut state = self.state.lock();
        let subscription = state.subscription(id).ok_or(Gone)?;
        let message = subscription.given.get(subscription.taken).cloned();
        subscription.taken += usize::from(message.is_some());
        Ok(message)
    }

    pub fn acknowledge(&self, id: SubscriptionId, message: u64) -> Result<(), Gone> {
        let mut state = self.state.lock();
        let subscription = state.subscription(id).ok_or(Gone)?;
        let before = subscription.given.len();
        subscription.given.retain(|given| given.id != message);
        subscription.taken -= before - subscription.given.len();
        for queue in state.queues.values_mut() {
            queue.deliver();
        }
        drop(state);
        self.changed();
        Ok(())
    }

    /// Nothing more is given to it; what it has stays until it is acknowledged.
    pub fn cancel(&self, id: SubscriptionId) {
        if let Some(subscription) = self.state.lock().subscription(id) {
            subscription.cancelled = true;
        }
        self.changed();
    }

    /// A missing queue is as good as deleted.
    pub fn delete(&self, queue: &str, if_unused: bool, if_empty: bool) -> Result<(), StillNeeded> {
        let mut state = self.state.lock();
        if let Some(found) = state.queues.get(queue) {
            let counts = found.counts();
            if if_unused && counts.consumers > 0 || if_empty && counts.messages > 0 {
                return Err(StillNeeded(counts));
            }
            state.queues.remove(queue);
        }
        drop(state);
        self.changed();
        Ok(())
    }

    /// Everything that lies on a queue, without taking it.
    pub fn peek(&self, queue: &str) -> Option<Vec<Vec<u8>>> {
        let state = self.state.lock();
        state.queues.get(queue).map(|queue| queue.ready.iter().map(|message| message.body.clone()).collect())
    }

    pub fn queues(&self) -> Vec<String> {
        self.state.lock().queues.keys().cloned().collect()
    }

    /// Connections that a queue's messages go to.
    pub fn consumers(&self, queue: &str) -> Vec<ConnectionId> {
        let state = self.state.lock();
        let subscriptions = state.queues.get(queue).into_iter().flat_map(|queue| &queue.subscriptions);
        subscriptions.filter(|s| !s.cancelled).map(|s| s.connection).collect()
    }
}

impl State {
    fn subscription(&mut self, id: SubscriptionId) -> Option<&mut Subscription> {
        self.queues.values_mut().flat_map(|queue| &mut queue.subscriptions).find(|s| s.id == id)
    }
}

impl Queue {
    fn counts(&self) -> Counts {
        let consumers = self.subscriptions.iter().filter(|s| !s.cancelled).count();
        Counts {
            consumers: u32::try_from(consumers).unwrap_or(u32::MAX),
            messages: u32::try_from(self.ready.len()).unwrap_or(u32::MAX),
        }
    }

    fn deliver(&mut self) {
        for subscription in self.subscriptions.iter_mut().filter(|s| !s.cancelled) {
            while subscription.given.len() < subscription.prefetch
                && let Some(message) = self.ready.pop_front()
            {
                subscription.given.push_back(message);
            }
        }
    }
}
