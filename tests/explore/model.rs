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
    /// Another identity consumes the same queue.
    pub rival: bool,
    /// The owner is a ReplicaSet: its next pod has a name of its own.
    pub renamed: bool,
    /// The policy's deadline may pass.
    pub deadline: bool,
    /// Connections break, acknowledgements are lost.
    pub breaks: bool,
    /// Containers and agents crash.
    pub crashes: bool,
    /// Effects fail, steps take too long, dumps are damaged, somebody aborts.
    pub failures: bool,
    /// Pods and their owner are deleted by somebody else, a stray message lies on the parking queue.
    pub users: bool,
    /// Nodes reboot or are lost.
    pub machines: bool,
    /// Restores fail, once or for good, at one place or everywhere; archives are damaged after the commit.
    pub restores: bool,
    /// The target does not answer for a while after the commit.
    pub silence: bool,
    /// There is a node besides the source's and the target.
    pub third_node: bool,
    /// The broker goes down for ever.
    pub broker: bool,
    /// Another operator takes over and the first one does not know; tidying up is given up.
    pub operators: bool,
}

impl Scenario {
    /// The default migration of a StatefulSet's pod that consumes a queue; nothing goes wrong.
    pub fn new(name: &'static str) -> Self {
        let plan = Plan {
            bridge: true,
            queue: true,
            hold: Hold::Release,
            policy: EvictionPolicy::MigrateOrEvict,
            outlived: false,
        };
        Self {
            name,
            plan,
            messages: 6,
            attempts: 2,
            faults: 0,
            rival: false,
            renamed: false,
            deadline: false,
            breaks: false,
            crashes: false,
            failures: false,
            users: false,
            machines: false,
            restores: false,
            silence: false,
            third_node: true,
            broker: false,
            operators: false,
        }
    }

    /// Everything goes wrong, up to `faults` times.
    pub fn with_faults(name: &'static str, faults: u8) -> Self {
        Self {
            faults,
            deadline: true,
            breaks: true,
            crashes: true,
            failures: true,
            users: true,
            machines: true,
            restores: true,
            silence: true,
            operators: true,
            ..Self::new(name)
        }
    }

    /// Asked for by the user, or needed because of a volume or host port.
    pub fn sequential(mut self) -> Self {
        self.plan.bridge = false;
        self
    }

    /// `state-from: Any`, with a queue.
    pub fn any(mut self) -> Self {
        (self.plan.bridge, self.plan.hold) = (false, Hold::Frozen);
        self
    }

    /// `state-from: Any`, as always without a queue.
    pub fn without_queue(mut self) -> Self {
        self.plan.queue = false;
        self.any()
    }

    pub fn blocking(mut self) -> Self {
        self.plan.policy = EvictionPolicy::MigrateOrBlock;
        self
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
        assert!(scenario.attempts <= 2, "the broker has queues for two attempts");
        Self { scenario, mistake, protocol: Protocol::new(mistake), gates: Gates::new(mistake) }
    }

    pub fn beginning(&self) -> World {
        let Scenario { plan, faults, messages, rival, .. } = self.scenario;
        World::new(self.protocol.accept(plan), faults, messages, plan.queue, rival)
    }

    pub fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// All ways on.
    pub fn ways_on(&self, world: &World, moves: &mut Moves) {
        moves.all.clear();
        self.operators(world, moves);
        self.broker_and_consumers(world, moves);
        self.agents_and_kubelets(world, moves);
        self.cluster(world, moves);
        self.come_back(world, moves);
        self.faults(world, moves);
        for way in &mut moves.all {
            let broken = self.watch(world, way.act, &mut way.world);
            way.violation = way.violation.or(broken);
            way.world.forget_the_dead();
        }
    }
}
