//! The world around the protocol, small enough to be kept a million times: plain numbers, no allocation. Pure.

/// No operator, no such journal.
pub const NOBODY: u16 = u16::MAX;
/// How much a process that started fresh has applied: its past is lost by nature, nothing is expected of it.
pub const UNKNOWN: u8 = u8::MAX;

/// The three processes that can exist at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    Source,
    Shadow,
    /// Whatever comes after the source under its name: the replacement, or a pod that started fresh.
    Successor,
}

impl Who {
    pub const ALL: [Self; 3] = [Self::Source, Self::Shadow, Self::Successor];

    /// Source and successor have one name and so one control queue.
    pub fn has_the_name(self) -> bool {
        self != Self::Shadow
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

/// What a process consumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Seat {
    #[default]
    Nowhere,
    Primary,
    Parking(u8),
}

/// PARK or RESUME of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    pub park: bool,
    pub epoch: u8,
}

impl Order {
    fn code(self) -> u32 {
        1 + u32::from(self.park) + 2 * u32::from(self.epoch)
    }

    fn from_code(code: u32) -> Option<Self> {
        (code > 0)
            .then(|| Self { park: (code - 1) % 2 == 1, epoch: u8::try_from((code - 1) / 2).unwrap_or(0) })
    }
}

/// A control queue: first in, first out; what was not acknowledged goes back to its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Orders(u32);

impl Orders {
    const BITS: u32 = 4;
    /// More than this never lies on the queue: a further repetition would be like the last.
    pub const ROOM: u32 = 4;

    pub fn len(self) -> u32 {
        (32 - self.0.leading_zeros()).div_ceil(Self::BITS)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn first(self) -> Option<Order> {
        Order::from_code(self.0 & 0xf)
    }

    pub fn last(self) -> Option<Order> {
        self.len().checked_sub(1).and_then(|last| Order::from_code((self.0 >> (last * Self::BITS)) & 0xf))
    }

    pub fn take(&mut self) {
        self.0 >>= Self::BITS;
    }

    pub fn push(&mut self, order: Order) {
        self.0 |= order.code() << (self.len() * Self::BITS);
    }

    pub fn give_back(&mut self, order: Order) {
        self.0 = (self.0 << Self::BITS) | order.code();
    }
}

/// A consumer. The first four fields are its memory and move with it, the others are its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    pub life: Life,
    /// It has applied messages 1 to this one, in order.
    pub applied: u8,
    /// Its `ConsumerGate`, interned.
    pub gate: u8,
    /// It applied this message, but the acknowledgement was lost: it will come once more.
    pub unconfirmed: u8,
    pub connected: bool,
    pub seat: Seat,
    /// Delivered, not applied yet; 0 is none.
    pub delivered: [u8; 2],
    /// Its gate before the PARK that it is carrying out.
    pub gate_before: Option<u8>,
    /// An order it was given and has not finished.
    pub order: Option<Order>,
    /// The order that parked it, which it acknowledges when it resumes.
    pub held: Option<Order>,
}

impl Process {
    pub fn is_alive(&self) -> bool {
        matches!(self.life, Life::Running | Life::Frozen)
    }
}

/// Whose the source's name is.
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

/// Things that happened once and stay true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// The state was lost by nature: the pod was deleted, evicted or crashed as ever in Kubernetes.
    pub lost_by_nature: bool,
    pub deadline_passed: bool,
    pub abort_asked: bool,
    pub owner_deleted: bool,
    /// Tidying up was given up: archives are swept, queues stay empty.
    pub archives_left: bool,
    pub queues_left: bool,
    /// An operator was deposed: what it makes too late is collected with the migration.
    pub deposed: bool,
    /// The broker is down and never comes back.
    pub broker_lost: bool,
    /// A container of the successor crashed by itself.
    pub successor_crashed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The protocol's state in the `StatefulMigration`, interned.
    pub journal: u16,
    /// What the operator that leads goes by. Differs from the journal only by mistake.
    pub mind: u16,
    /// What an operator goes by that does not lead any more and does not know.
    pub deposed: u16,
    pub faults_left: u8,
    pub past: Past,

    pub published: u8,
    /// Messages on the primary queue, a bit each: what is given back takes its old place.
    pub ready: u16,
    pub orders: Orders,
    /// Queues of each epoch, a bit each.
    pub parking: u8,
    pub replies: u8,
    /// Answers on them.
    pub parked: u8,
    pub resumed: u8,
    /// RESUME was sent.
    pub resume_sent: u8,
    /// The shadow's own control queue.
    pub shadow_orders: bool,
    /// The PARK of this epoch lies on it.
    pub shadow_park: u8,

    pub processes: [Process; 3],
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
    /// The source runs and consumes; nobody has begun anything.
    pub fn new(journal: u16, faults: u8, consumes: bool) -> Self {
        let source = Process {
            life: Life::Running,
            connected: consumes,
            seat: if consumes { Seat::Primary } else { Seat::Nowhere },
            ..Process::default()
        };
        Self {
            journal,
            mind: journal,
            deposed: NOBODY,
            faults_left: faults,
            past: Past::default(),
            published: 0,
            ready: 0,
            orders: Orders::default(),
            parking: 0,
            replies: 0,
            parked: 0,
            resumed: 0,
            resume_sent: 0,
            shadow_orders: false,
            shadow_park: 0,
            processes: [source, Process::default(), Process::default()],
            named: Named::Source,
            shadows: 0,
            shadow_epoch: 0,
            bridge: Bridge::None,
            shadow_known: false,
            seen: 0,
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

    /// The process under the source's name.
    pub fn survivor(&self) -> Option<Who> {
        match self.named {
            Named::Source => Some(Who::Source),
            Named::Nobody => None,
            Named::Replacement(_) | Named::Fresh => Some(Who::Successor),
        }
    }

    pub fn consumers_on(&self, seat: Seat) -> usize {
        self.processes.iter().filter(|process| process.connected && process.seat == seat).count()
    }

    /// The broker sees that a connection is gone: what was not acknowledged goes back to its old place.
    pub fn disconnect(&mut self, who: Who) {
        let process = *self.of(who);
        for message in process.delivered.into_iter().filter(|message| *message > 0) {
            self.ready |= 1 << message;
        }
        if process.connected && who == Who::Shadow {
            self.shadow_park = process.order.map_or(self.shadow_park, |order| order.epoch);
        } else if process.connected {
            for order in [process.order, process.held].into_iter().flatten() {
                self.orders.give_back(order);
            }
        }
        let process = self.of_mut(who);
        (process.connected, process.seat, process.delivered) = (false, Seat::Nowhere, [0, 0]);
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
}

/// The bit of an epoch.
pub fn bit(epoch: u8) -> u8 {
    1 << epoch
}
