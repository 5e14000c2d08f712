//! What is explored: a scenario, perhaps with a seeded mistake, and all ways on from a world.

use shadow::api::{EvictionPolicy, Hold};
use shadow::protocol::Plan;

use super::gates::Gates;
use super::mistake::Mistake;
use super::moves::Moves;
use super::protocol::Protocol;
use super::world::World;

/// What may go wrong, and how often in all.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub plan: Plan,
    pub messages: u8,
    /// So many attempts are made; a further one would be like the last.
    pub attempts: u8,
    pub faults: u8,
    /// The policy's deadline may pass.
    pub deadline: bool,
    /// Connections break, acknowledgements are lost.
    pub breaks: bool,
    /// Effects fail, steps take too long, dumps are damaged, somebody aborts.
    pub failures: bool,
    /// Pods and their owner are deleted by somebody else, containers crash.
    pub users: bool,
    /// The broker goes down for ever.
    pub broker: bool,
    /// Another operator takes over and the first one does not know; tidying up is given up.
    pub operators: bool,
}

impl Scenario {
    /// The default migration, nothing goes wrong.
    pub fn new(name: &'static str) -> Self {
        let plan =
            Plan { bridge: true, queue: true, hold: Hold::Release, policy: EvictionPolicy::MigrateOrEvict };
        Self {
            name,
            plan,
            messages: 4,
            attempts: 2,
            faults: 0,
            deadline: false,
            breaks: false,
            failures: false,
            users: false,
            broker: false,
            operators: false,
        }
    }

    /// Everything goes wrong, up to `faults` times.
    pub fn with_faults(name: &'static str, faults: u8) -> Self {
        let all = Self {
            deadline: true,
            breaks: true,
            failures: true,
            users: true,
            operators: true,
            ..Self::new(name)
        };
        Self { faults, ..all }
    }
}

pub struct Model {
    pub scenario: Scenario,
    pub mistake: Option<Mistake>,
    pub protocol: Protocol,
    pub gates: Gates,
}

impl Model {
    pub fn new(scenario: Scenario, mistake: Option<Mistake>) -> Self {
        Self { scenario, mistake, protocol: Protocol::new(mistake), gates: Gates::new(mistake) }
    }

    pub fn beginning(&self) -> World {
        let journal = self.protocol.accept(self.scenario.plan);
        World::new(journal, self.scenario.faults, self.scenario.plan.queue)
    }

    /// All ways on.
    pub fn ways_on(&self, world: &World, moves: &mut Moves) {
        moves.all.clear();
        self.operators(world, moves);
        self.broker_and_consumers(world, moves);
        self.agents_and_kubelets(world, moves);
        self.cluster(world, moves);
        self.faults(world, moves);
        for way in &mut moves.all {
            let broken = self.watch(world, &mut way.world);
            way.violation = way.violation.or(broken);
        }
    }
}
