//! Machines, and what their agents keep on them: fences, archives, tickets.

/// The source's node.
pub const HOME: usize = 0;
/// Where the shadow is.
pub const TARGET: usize = 1;
/// The one node besides.
pub const OTHER: usize = 2;
/// A pod without a ticket runs on a node that nothing is said about.
pub const ANYWHERE: usize = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Machine {
    #[default]
    Up,
    /// Kubernetes and the operator do not reach it, but everything on it goes on.
    Silent,
    /// It never comes back, and Kubernetes knows.
    Lost,
}

/// What a node's agent remembers of a migration's epochs and lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    pub seen: u8,
    pub called_off: u8,
    pub closed: u8,
    /// Tickets of lives up to this one are spent.
    pub spent: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub epoch: u8,
    pub life: u8,
    pub opened: bool,
    pub waiting: bool,
    /// Its process was restored, was held against its spec, and stands still.
    pub restored: bool,
    /// The engine has it on record, and it was let go.
    pub started: bool,
    /// It cannot be restored; nobody tries a second time in the same sandbox.
    pub failed: bool,
}

impl Ticket {
    pub fn is_of(self, epoch: u8, life: u8) -> bool {
        (self.epoch, self.life) == (epoch, life)
    }

    pub fn new(epoch: u8, life: u8) -> Self {
        Self { epoch, life, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    pub machine: Machine,
    pub fence: Fence,
    /// Epoch of the archive that lies here; 0 for none. At home it is the dump.
    pub archive: u8,
    /// Its bytes are not what they were.
    pub damaged: bool,
    /// What is restored here fails, every time.
    pub barren: bool,
    /// The replacement's.
    pub ticket: Ticket,
}

impl Place {
    pub fn is_up(&self) -> bool {
        self.machine == Machine::Up
    }

    pub fn is_lost(&self) -> bool {
        self.machine == Machine::Lost
    }

    /// The archive lies here, whole, and the machine is not gone.
    pub fn keeps(&self, epoch: u8) -> bool {
        !self.is_lost() && self.archive == epoch && !self.damaged
    }

    /// The machine is gone, and all that was on it.
    pub fn lose(&mut self) {
        (self.machine, self.ticket) = (Machine::Lost, Ticket::default());
    }
}

/// A pod that an operator deleted for another one: its object is gone, its sandbox may still be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ghost {
    /// Life of its ticket; 0: there is none.
    pub life: u8,
    pub at: usize,
    pub runs: bool,
}

/// A container's memory in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    pub epoch: u8,
    pub applied: u8,
    pub gate: u8,
    pub unconfirmed: u8,
}
