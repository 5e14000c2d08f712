//! What a run does, drawn from its seed and from nothing else: the load, and which faults come when. Pure.

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;

/// Where a fault may strike: steps of a migration as its status names them.
const BEFORE_COMMIT: [&str; 5] = ["Preparing", "Parking", "Dumping", "RestoringShadow", "Bridging"];
const STEPS: [&str; 12] = [
    "Preparing",
    "Parking",
    "Dumping",
    "RestoringShadow",
    "Bridging",
    "Freezing",
    "Deleting",
    "Replacing",
    "Switching",
    "Closing",
    "Resuming",
    "Cleaning",
];
/// The first fault's kind goes round with the seed: so many runs in a row have met every kind.
const KINDS: [Kind; 10] = [
    Kind::Operator,
    Kind::Agent,
    Kind::Restore,
    Kind::Containerd,
    Kind::Broker,
    Kind::Slow,
    Kind::Kubelet,
    Kind::Apart,
    Kind::Full,
    Kind::Webhook,
];

#[derive(Clone, Copy)]
enum Kind {
    Operator,
    Webhook,
    Agent,
    Restore,
    Kubelet,
    Containerd,
    Broker,
    Slow,
    Apart,
    Full,
}

/// A node by its part in the first migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

/// Something to be killed without a word; it is started again by whoever looks after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The operator that leads.
    Leader,
    /// All webhooks of that node.
    Webhook(Side),
    Agent(Side),
    Kubelet(Side),
    Containerd(Side),
    /// `shadow-runc` on the target while CRIU restores for it.
    Restore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(Victim),
    /// The broker's machine loses power and boots again after that.
    BrokerDies,
    /// Packets of that node are late and lost.
    Slow {
        side: Side,
        delay_ms: u64,
        loss_percent: u64,
    },
    /// The nodes do not reach each other, but everybody else.
    Apart,
    /// Nobody reaches that node.
    Cut(Side),
    /// So many MiB are left on the disk of that node's archives.
    Full {
        side: Side,
        leave_mib: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Step(&'static str),
    /// After the start of the drain.
    Time(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    pub fault: Fault,
    pub when: When,
    /// After that moment.
    pub lag: Duration,
    /// Then it is healed, where there is something to heal.
    pub lasts: Duration,
}

/// Messages a second, and how many wait already when the drain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub rate: u32,
    pub backlog: u64,
}

/// What is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Of a Deployment, whose next pod has another name, and not of a StatefulSet.
    pub deployment: bool,
    pub quorum: bool,
    /// With sidecars, an init container and a volume.
    pub whole: bool,
}

impl Shape {
    /// The same for five seeds in a row, because a scene is dear; in two hundred each shape meets each kind of first fault. But
    /// a quorum queue whose broker loses its power keeps no order (docs/guarantees.md), migration or not: `classic_only`.
    fn of(seed: u64, classic_only: bool) -> Self {
        let turn = seed / 5 + seed / 20;
        Self {
            deployment: turn / 2 % 2 == 1,
            quorum: turn % 2 == 1 && !classic_only,
            whole: turn / 4 % 2 == 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub shape: Shape,
    pub profile: Profile,
    pub faults: Vec<Timed>,
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let count = dice.one_of(&[0, 1, 1, 1, 1, 1, 2, 2, 2, 3]);
        let mut kinds = Vec::new();
        for at in 0..count {
            let kind = if at == 0 {
                KINDS[usize::try_from(seed % KINDS.len() as u64).unwrap_or_default()]
            } else {
                dice.one_of(&KINDS)
            };
            kinds.push(kind);
        }
        let mut faults: Vec<_> = kinds.into_iter().map(|kind| timed(kind, &mut dice)).collect();
        // The broker is one machine: it dies once.
        let mut dies = 0;
        faults.retain(|timed| {
            dies += u32::from(timed.fault == Fault::BrokerDies);
            timed.fault != Fault::BrokerDies || dies == 1
        });
        let mut profile = profile(&mut dice);
        if dies > 0 {
            profile.rate = profile.rate.min(100);
        }
        Self { seed, shape: Shape::of(seed, dies > 0), profile, faults }
    }

    /// A broker that loses power forgets acknowledgements: the consumer must know what it has applied.
    pub fn broker_dies(&self) -> bool {
        self.faults.iter().any(|timed| timed.fault == Fault::BrokerDies)
    }

    /// How often it is killed.
    pub fn count(&self, victim: Victim) -> usize {
        self.faults.iter().filter(|timed| timed.fault == Fault::Kill(victim)).count()
    }
}

/// The example consumer takes about 450 a second.
fn profile(dice: &mut Dice) -> Profile {
    match dice.between(0, 4) {
        0 => Profile { rate: rate(dice, 5, 60), backlog: 0 },
        1 => Profile { rate: rate(dice, 60, 250), backlog: dice.between(0, 300) },
        2 => Profile { rate: rate(dice, 300, 450), backlog: dice.between(0, 100) },
        3 => Profile { rate: rate(dice, 500, 900), backlog: dice.between(0, 600) },
        _ => Profile { rate: rate(dice, 5, 100), backlog: dice.between(500, 2000) },
    }
}

fn rate(dice: &mut Dice, low: u64, high: u64) -> u32 {
    u32::try_from(dice.between(low, high)).unwrap_or(1)
}

fn timed(kind: Kind, dice: &mut Dice) -> Timed {
    let side = dice.one_of(&[Side::Source, Side::Target]);
    let any_step = When::Step(dice.one_of(&STEPS));
    let any = if dice.percent(75) { any_step } else { When::Time(dice.millis(0, 2500)) };
    // What lasts is there a while before it can hurt.
    let early = if dice.percent(50) { When::Step(dice.one_of(&BEFORE_COMMIT)) } else { any };
    let (fault, when) = match kind {
        Kind::Operator => (Fault::Kill(Victim::Leader), any),
        Kind::Webhook => (Fault::Kill(Victim::Webhook(side)), any),
        Kind::Agent => (Fault::Kill(Victim::Agent(side)), any),
        Kind::Kubelet => (Fault::Kill(Victim::Kubelet(side)), any),
        Kind::Containerd => (Fault::Kill(Victim::Containerd(side)), any),
        Kind::Restore => {
            (Fault::Kill(Victim::Restore), When::Step(dice.one_of(&["Dumping", "Freezing", "Deleting"])))
        }
        Kind::Broker => (Fault::BrokerDies, any),
        Kind::Slow => {
            (Fault::Slow { side, delay_ms: dice.between(5, 120), loss_percent: dice.between(0, 8) }, early)
        }
        Kind::Apart if dice.percent(60) => (Fault::Apart, early),
        Kind::Apart => (Fault::Cut(side), early),
        Kind::Full => (Fault::Full { side, leave_mib: dice.one_of(&[0, 0, 4, 20, 80, 110]) }, early),
    };
    let lasts = match fault {
        Fault::Kill(_) => Duration::ZERO,
        Fault::Slow { .. } => dice.millis(1000, 10_000),
        Fault::Apart | Fault::Full { .. } => dice.millis(300, 6000),
        // Longer, and the broker takes the connections for dead: then it delivers again what was acknowledged.
        Fault::Cut(_) => dice.millis(100, 2500),
        Fault::BrokerDies => dice.millis(0, 3000),
    };
    let lag =
        if matches!(fault, Fault::Kill(Victim::Restore)) { Duration::ZERO } else { dice.millis(0, 150) };
    Timed { fault, when, lag, lasts }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = if self.deployment { "Deployment" } else { "StatefulSet" };
        let pod = if self.whole { ", sidecars" } else { "" };
        write!(f, "{owner}, {} queue{pod}", if self.quorum { "quorum" } else { "classic" })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(Victim::Leader) => f.write_str("operator killed"),
            Self::Kill(Victim::Webhook(side)) => write!(f, "webhook of {side} killed"),
            Self::Kill(Victim::Agent(side)) => write!(f, "agent of {side} killed"),
            Self::Kill(Victim::Kubelet(side)) => write!(f, "kubelet of {side} killed"),
            Self::Kill(Victim::Containerd(side)) => write!(f, "containerd of {side} killed"),
            Self::Kill(Victim::Restore) => f.write_str("shadow-runc killed in a restore"),
            Self::BrokerDies => f.write_str("broker's node killed"),
            Self::Slow { side, delay_ms, loss_percent } => {
                write!(f, "{side} slow ({delay_ms} ms, {loss_percent} % lost)")
            }
            Self::Apart => f.write_str("nodes apart"),
            Self::Cut(side) => write!(f, "{side} cut off"),
            Self::Full { side, leave_mib } => write!(f, "disk of {side} full but {leave_mib} MiB"),
        }
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::Step(step) => write!(f, "{} at {step}+{}", self.fault, self.lag.as_millis())?,
            When::Time(after) => write!(f, "{} at {}", self.fault, (after + self.lag).as_millis())?,
        }
        if self.lasts.is_zero() { Ok(()) } else { write!(f, " for {}", self.lasts.as_millis()) }?;
        f.write_str(" ms")
    }
}
