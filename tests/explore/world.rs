//! The world around the protocol, small enough to be kept a million times: plain numbers, no allocation. Pure.

use super::broker::{Broker, Queue};
use super::places::{ANYWHERE, Ghost, HOME, Image, Machine, Place, Ticket};

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
    /// Restored: it has not run an instruction yet.
    Held,
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
    /// It was restored from images changed on the way, and may do more than its spec.
    pub exceeds: bool,
}

impl Process {
    pub fn is_alive(&self) -> bool {
        matches!(self.life, Life::Held | Life::Running | Life::Frozen)
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
    /// A pod with a replacement's ticket, bound to a node.
    Replacement {
        epoch: u8,
        life: u8,
        at: usize,
    },
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

/// Things that happened once and stay true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// The state was lost by nature: the pod was deleted, evicted or crashed as ever in Kubernetes.
    pub lost_by_nature: bool,
    pub deadline_passed: bool,
    pub abort_asked: bool,
    pub owner_deleted: bool,
    /// The owner's next pods are of another template: no ticket is for them.
    pub template_changed: bool,
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
    /// All archives are lost, by nature.
    pub archive_lost: bool,
    /// A person tried all ways again.
    pub retried: bool,
    /// Attempts, a bit an epoch, that ended by what stands against the move for good.
    pub stood: u8,
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

    pub places: [Place; 3],
    /// Where the successor's process is, and the life of the ticket that it was restored by.
    pub successor_at: usize,
    pub successor_life: u8,
    pub ghost: Ghost,
    /// Epoch of the dump under way.
    pub dumping: u8,
    pub image: Image,
    pub shadow_ticket: Ticket,
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
            places: [Place::default(); 3],
            successor_at: ANYWHERE,
            successor_life: 0,
            ghost: Ghost::default(),
            dumping: 0,
            image: Image::default(),
            shadow_ticket: Ticket::default(),
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
            Named::Replacement { .. } | Named::Fresh => Some(Who::Successor),
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

    pub fn is_lost(&self, at: usize) -> bool {
        self.places.get(at).is_some_and(|place| place.machine == Machine::Lost)
    }

    pub fn is_up(&self, at: usize) -> bool {
        self.places.get(at).is_none_or(|place| place.machine == Machine::Up)
    }

    /// A place that the operator reaches has the archive, whole.
    pub fn has_archive(&self, epoch: u8) -> bool {
        self.places.iter().any(|place| place.is_up() && place.keeps(epoch))
    }

    pub fn keeps_at_home(&self, epoch: u8) -> bool {
        self.places[HOME].keeps(epoch)
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
        if self.places.iter().all(|place| place.archive == 0) && self.dumping == 0 {
            self.image = Image::default();
        }
        for place in &mut self.places {
            place.damaged &= place.archive > 0;
        }
        if !self.of(Who::Successor).is_alive() {
            (self.successor_at, self.successor_life) = (ANYWHERE, 0);
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
