//! The world around the protocol, small enough to be kept a million times: plain numbers, no allocation. Pure.

use super::broker::{Broker, Queue};

/// No operator, no such journal.
pub const NOBODY: u16 = u16::MAX;
/// How much a process that started fresh has applied: its past is lost by nature, nothing is expected of it.
pub const UNKNOWN: u8 = u8::MAX;

/// The user's queue.
pub const PRIMARY: Queue = Queue(0);
/// Orders for the pod that has the source's name.
pub const CONTROL: Queue = Queue(1);
/// Orders for the replacement, where it has a name of its own.
pub const RENAMED: Queue = Queue(2);
/// The connection of a consumer that shares the primary queue and has nothing to do with the migration.
pub const RIVAL: usize = 3;

/// Orders for the shadow of that attempt.
pub fn shadows(epoch: u8) -> Queue {
    Queue(2 + epoch)
}

pub fn parking(epoch: u8) -> Queue {
    Queue(4 + epoch)
}

pub fn replies(epoch: u8) -> Queue {
    Queue(6 + epoch)
}

/// Answers on a reply queue. A repetition adds nothing: they are never taken away.
pub const PARKED: u8 = 1;
pub const RESUMED: u8 = 2;
/// Somebody's message that does not belong on a parking queue.
pub const STRAY: u8 = 1;

/// The three processes that can exist at once; each is a client of the broker of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    Source,
    Shadow,
    /// Whatever comes after the source: the replacement, or a pod that started fresh.
    Successor,
}

impl Who {
    pub const ALL: [Self; 3] = [Self::Source, Self::Shadow, Self::Successor];

    pub fn client(self) -> usize {
        self as usize
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Life {
    #[default]
    Absent,
    Running,
    Frozen,
    Dead,
}

/// PARK or RESUME of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    pub park: bool,
    pub epoch: u8,
}

impl Order {
    pub fn park(epoch: u8) -> Self {
        Self { park: true, epoch }
    }

    pub fn resume(epoch: u8) -> Self {
        Self { park: false, epoch }
    }

    pub fn code(self) -> u8 {
        u8::from(self.park) + 2 * self.epoch
    }

    pub fn from_code(code: u8) -> Self {
        Self { park: code % 2 == 1, epoch: code / 2 }
    }
}

/// A consumer's memory, which moves with it, but for the last two: they belong to its connection. What it was given and
/// what it consumes knows the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    pub life: Life,
    /// It has applied messages 1 to this one, in order.
    pub applied: u8,
    /// Its `ConsumerGate`, interned.
    pub gate: u8,
    /// It applied this message, but the acknowledgement was lost: it will come once more.
    pub unconfirmed: u8,
    /// Its gate before the PARK that it is carrying out.
    pub gate_before: Option<u8>,
    /// The PARK that it is carrying out.
    pub order: Option<Order>,
    /// The order that parked it, which it acknowledges when it resumes.
    pub held: Option<Order>,
}

impl Process {
    pub fn is_alive(&self) -> bool {
        matches!(self.life, Life::Running | Life::Frozen)
    }

    pub fn fresh() -> Self {
        Self { life: Life::Running, applied: UNKNOWN, ..Self::default() }
    }
}

/// Whose the source's place with its owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    Source,
    Nobody,
    /// A pod with a replacement's ticket of this epoch.
    Replacement(u8),
    /// A pod without a ticket.
    Fresh,
}

/// Where our own `EndpointSlice` leads readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bridge {
    None,
    Shadow,
    Successor,
}

/// What a node's agent remembers of a migration's epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    pub seen: u8,
    pub called_off: u8,
    pub closed: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub epoch: u8,
    pub opened: bool,
    pub waiting: bool,
    pub restored: bool,
}

/// A container's memory in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    pub epoch: u8,
    pub applied: u8,
    pub gate: u8,
    pub unconfirmed: u8,
}

/// A machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Machine {
    #[default]
    Up,
    /// It never comes back, and Kubernetes knows.
    Lost,
}

/// Things that happened once and stay true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// The state was lost by nature: the pod was deleted, evicted or crashed as ever in Kubernetes.
    pub lost_by_nature: bool,
    pub deadline_passed: bool,
    pub abort_asked: bool,
    pub owner_deleted: bool,
    /// Tidying up was given up: queues stay empty.
    pub queues_left: bool,
    /// An operator was deposed: what it makes too late is collected with the migration.
    pub deposed: bool,
    /// The broker is down and never comes back.
    pub broker_lost: bool,
    /// A container of the successor crashed by itself.
    pub successor_crashed: bool,
    /// The replacement has taken messages since it was restored.
    pub went_on: bool,
    /// Somebody's message lies on a parking queue.
    pub stray: bool,
    /// Fewer messages than at the beginning: the other consumer took some.
    pub rival_took: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub broker: Broker,
    pub processes: [Process; 3],

    /// The protocol's state in the `StatefulMigration`, interned.
    pub journal: u16,
    /// What the operator that leads goes by. Differs from the journal only by mistake.
    pub mind: u16,
    /// What an operator goes by that does not lead any more and does not know.
    pub deposed: u16,
    pub faults_left: u8,
    pub past: Past,
    /// Messages 1 to this one were published, or writes acknowledged.
    pub published: u8,
    /// RESUME was sent, a bit an epoch.
    pub resume_sent: u8,

    pub named: Named,
    /// Shadow pods, a bit an epoch.
    pub shadows: u8,
    /// Whose process the shadow's is.
    pub shadow_epoch: u8,
    pub bridge: Bridge,
    /// Some reader knows the shadow's address.
    pub shadow_known: bool,
    /// The newest state that any reader saw.
    pub seen: u8,

    pub here: Machine,
    pub there: Machine,
    pub fence_here: Fence,
    pub fence_there: Fence,
    /// Epoch of the dump under way.
    pub dumping: u8,
    pub image: Image,
    pub archive_here: u8,
    pub archive_there: u8,
    pub damaged: bool,
    pub shadow_ticket: Ticket,
    pub replacement_ticket: Ticket,
}

impl World {
    /// The source runs; where it consumes, it does so, and all messages lie there (see `search`: why that is enough).
    pub fn new(journal: u16, faults: u8, messages: u8, consumes: bool, rival: bool) -> Self {
        let mut broker = Broker::default();
        if consumes {
            for queue in [PRIMARY, CONTROL] {
                broker.declare(queue);
                broker.connect(Who::Source.client());
                let _ = broker.consume(Who::Source.client(), queue, false);
            }
            let _ = broker.bind(PRIMARY);
            if rival {
                broker.connect(RIVAL);
                let _ = broker.consume(RIVAL, PRIMARY, false);
            }
            for message in 1..=messages {
                broker.publish_to_exchange(message);
            }
        }
        let source = Process { life: Life::Running, ..Process::default() };
        Self {
            broker,
            processes: [source, Process::default(), Process::default()],
            journal,
            mind: journal,
            deposed: NOBODY,
            faults_left: faults,
            past: Past::default(),
            published: if consumes { messages } else { 0 },
            resume_sent: 0,
            named: Named::Source,
            shadows: 0,
            shadow_epoch: 0,
            bridge: Bridge::None,
            shadow_known: false,
            seen: 0,
            here: Machine::Up,
            there: Machine::Up,
            fence_here: Fence::default(),
            fence_there: Fence::default(),
            dumping: 0,
            image: Image::default(),
            archive_here: 0,
            archive_there: 0,
            damaged: false,
            shadow_ticket: Ticket::default(),
            replacement_ticket: Ticket::default(),
        }
    }

    pub fn of(&self, who: Who) -> &Process {
        &self.processes[who as usize]
    }

    pub fn of_mut(&mut self, who: Who) -> &mut Process {
        &mut self.processes[who as usize]
    }

    pub fn is_connected(&self, who: Who) -> bool {
        self.broker.is_connected(who.client())
    }

    pub fn takes_messages(&self, who: Who) -> bool {
        self.broker.consumes(who.client(), PRIMARY)
    }

    /// The source acts, with its state. A container that died by itself, frozen or not, is started anew by its kubelet as
    /// long as its pod is there: that one is empty, and what it may not do is looked at elsewhere.
    pub fn source_acts(&self) -> bool {
        let source = self.of(Who::Source);
        source.life == Life::Running && source.applied != UNKNOWN
    }

    /// The process in the source's place.
    pub fn survivor(&self) -> Option<Who> {
        match self.named {
            Named::Source => Some(Who::Source),
            Named::Nobody => None,
            Named::Replacement(_) | Named::Fresh => Some(Who::Successor),
        }
    }

    /// The broker sees that a connection is gone: what was not acknowledged goes back to its old place.
    pub fn disconnect(&mut self, who: Who) {
        self.broker.cut(who.client());
        let process = self.of_mut(who);
        // Not seated, not answered: it comes back as if it had not been ordered yet, and the order comes again.
        process.gate = process.gate_before.take().unwrap_or(process.gate);
        (process.order, process.held) = (None, None);
    }

    /// The process ends. The broker notices later.
    pub fn kill(&mut self, who: Who) {
        if self.of(who).is_alive() {
            self.of_mut(who).life = Life::Dead;
        }
    }

    /// Forgets what nobody can ever see again: the memory of a process that is dead and whose connection is gone, and of
    /// archives that are removed. Two worlds that differ in that only have the same future, so they may be one.
    pub fn forget_the_dead(&mut self) {
        for who in Who::ALL {
            let connected = self.is_connected(who);
            let process = self.of_mut(who);
            if !process.is_alive() && !connected {
                *process = Process { life: process.life, ..Process::default() };
            }
        }
        if !self.of(Who::Shadow).is_alive() {
            self.shadow_known = false;
        }
        if self.archive_here == 0 && self.archive_there == 0 && self.dumping == 0 {
            (self.image, self.damaged) = (Image::default(), false);
        }
        if self.past.lost_by_nature {
            self.seen = 0;
        }
    }

    /// The parts that are kept apart, see `seen`.
    pub fn split(self) -> ((Broker, [Process; 3]), Self) {
        let rest = Self { broker: Broker::default(), processes: [Process::default(); 3], ..self };
        ((self.broker, self.processes), rest)
    }

    pub fn join(flow: (Broker, [Process; 3]), rest: Self) -> Self {
        Self { broker: flow.0, processes: flow.1, ..rest }
    }
}

/// The bit of an epoch.
pub fn bit(epoch: u8) -> u8 {
    1 << epoch
}
