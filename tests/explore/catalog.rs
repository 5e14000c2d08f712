//! What is explored by default, on request, and for which mistake.

use shadow::api::{EvictionPolicy, Hold};

use super::mistake::Mistake;
use super::model::Scenario;

/// Together somewhat over a million worlds, in a minute or two on one core.
pub fn usual() -> Vec<Scenario> {
    let base = Scenario::new;
    let sequential = |mut scenario: Scenario| {
        scenario.plan.bridge = false;
        scenario
    };
    let without_queue = |mut scenario: Scenario| {
        (scenario.plan.bridge, scenario.plan.queue, scenario.plan.hold) = (false, false, Hold::Frozen);
        scenario
    };
    let blocking = |mut scenario: Scenario| {
        scenario.plan.policy = EvictionPolicy::MigrateOrBlock;
        scenario
    };
    vec![
        Scenario { messages: 6, ..base("nothing goes wrong") },
        sequential(Scenario { messages: 6, ..base("nothing goes wrong, no bridge") }),
        without_queue(Scenario { messages: 6, ..base("nothing goes wrong, no queue") }),
        Scenario { messages: 4, deadline: true, ..base("the deadline passes at any time") },
        Scenario { messages: 4, faults: 1, breaks: true, ..base("a connection breaks") },
        Scenario { messages: 2, faults: 1, failures: true, ..base("effects fail, dumps are damaged") },
        blocking(Scenario {
            messages: 2,
            faults: 1,
            failures: true,
            deadline: true,
            ..base("the same, blocking")
        }),
        Scenario { messages: 1, faults: 1, broker: true, deadline: true, ..base("the broker is lost") },
        Scenario { messages: 2, faults: 1, users: true, ..base("pods are deleted and crash") },
        Scenario {
            messages: 2,
            faults: 1,
            operators: true,
            ..base("an operator does not know it is deposed")
        },
        sequential(Scenario { messages: 2, ..Scenario::with_faults("anything, no bridge", 1) }),
        without_queue(Scenario { messages: 3, ..Scenario::with_faults("anything twice, no queue", 2) }),
    ]
}

/// Two faults of any kind: tens of millions of worlds.
pub fn thorough() -> Vec<Scenario> {
    let one = |name, faults| Scenario { messages: 1, attempts: 1, ..Scenario::with_faults(name, faults) };
    vec![
        Scenario { messages: 4, ..Scenario::with_faults("one fault of any kind", 1) },
        Scenario { operators: false, ..one("two faults, one operator", 2) },
        Scenario { users: false, ..one("two faults, no users", 2) },
    ]
}

/// Where a mistake must be caught.
pub fn trap(mistake: Mistake) -> Scenario {
    let base = Scenario::new(mistake.what());
    let small = Scenario { messages: 2, ..base.clone() };
    let faulty = Scenario { faults: 1, ..small.clone() };
    match mistake {
        Mistake::CommitBeforeVerified => Scenario { failures: true, ..faulty },
        Mistake::ParkNotConfirmed | Mistake::DumpBeforePark => small,
        Mistake::RollbackForgetsPark
        | Mistake::RollbackForgetsThaw
        | Mistake::ResumeSourceWhileShadowServes
        | Mistake::RollbackAfterCommit
        | Mistake::ResumeNeverSent => {
            let hold = if mistake == Mistake::RollbackForgetsThaw { Hold::Frozen } else { Hold::Release };
            let mut scenario = Scenario { deadline: true, attempts: 1, ..small };
            scenario.plan.hold = hold;
            scenario.plan.policy = EvictionPolicy::MigrateOrBlock;
            scenario
        }
        Mistake::ShadowWakesUpAsItWas
        | Mistake::TicketClosedAfterResume
        | Mistake::ParkedOneForgotten
        | Mistake::ParksOnMissingQueue => Scenario { users: true, messages: 1, ..faulty },
        Mistake::IntentAfterEffect => Scenario { failures: true, faults: 2, messages: 1, ..small },
        Mistake::AgentIgnoresEpoch
        | Mistake::ConsumerIgnoresEpoch
        | Mistake::RetryKeepsEpoch
        | Mistake::ShadowStartsFresh => {
            Scenario { operators: true, failures: true, faults: 2, messages: 1, ..small }
        }
        _ => small,
    }
}
