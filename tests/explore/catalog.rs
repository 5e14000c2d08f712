//! What is explored by default, on request, and for which mistake.

use super::mistake::Mistake;
use super::model::Scenario;

/// Each is explored to its end; together some eighteen million worlds, within two minutes on one core.
pub fn usual() -> Vec<Scenario> {
    let base = Scenario::new;
    let rival = |scenario: Scenario| Scenario { rival: true, ..scenario };
    let renamed = |scenario: Scenario| Scenario { renamed: true, ..scenario };
    let breaks = |name, faults| Scenario { faults, breaks: true, ..base(name) };
    let crashes = |name, faults| Scenario { faults, crashes: true, ..base(name) };
    let failures = |name, faults| Scenario { faults, failures: true, ..base(name) };
    let users = |name, faults| Scenario { faults, users: true, ..base(name) };
    let operators = |name, faults| Scenario { faults, operators: true, ..base(name) };
    let machines = |name, faults| Scenario { faults, machines: true, ..base(name) };
    let restores = |name, faults| Scenario { faults, restores: true, ..base(name) };
    vec![
        base("nothing goes wrong"),
        base("nothing goes wrong, no bridge").sequential(),
        base("nothing goes wrong, state from anywhere").any(),
        base("nothing goes wrong, no queue").without_queue(),
        rival(renamed(base("nothing goes wrong, Deployment, competing consumer"))),
        Scenario { deadline: true, ..base("the deadline passes at any time") },
        rival(breaks("a connection breaks, competing consumer", 1)),
        breaks("three connections break, no bridge", 3).sequential(),
        crashes("a container or agent crashes", 1),
        rival(renamed(crashes("a crash, Deployment, competing consumer", 1))),
        crashes("three crashes, no bridge", 3).sequential(),
        crashes("three crashes, no queue", 3).without_queue(),
        failures("effects fail, dumps are damaged", 1),
        Scenario { deadline: true, ..failures("the same, blocking", 1).blocking() },
        failures("failures, state from anywhere", 2).any(),
        Scenario { broker: true, deadline: true, ..failures("the broker is lost", 1) },
        Scenario { broker: true, messages: 2, ..users("the broker is lost, and pod or owner with it", 2) },
        users("pods and owners are deleted", 1),
        renamed(users("pods and owners are deleted, Deployment", 1)),
        machines("a node reboots or is lost", 1),
        machines("two nodes are lost, no queue", 2).without_queue(),
        Scenario { third_node: false, ..machines("a node is lost, there is no third", 1).without_queue() },
        restores("restores fail, once or for good", 1),
        Scenario { crashes: true, ..restores("restores fail, things crash, no bridge", 2).sequential() },
        restores("restores fail, blocking", 2).without_queue().blocking(),
        Scenario { third_node: false, ..restores("restores fail, no third node, blocking", 1).blocking() },
        Scenario {
            users: true,
            messages: 2,
            ..restores("restores fail, pod or owner change, blocking", 2).blocking()
        },
        Scenario { silence: true, ..restores("the target does not answer, restores fail", 2).any() },
        Scenario {
            operators: true,
            ..restores("restores fail under an operator that is deposed", 2).without_queue()
        },
        operators("an operator does not know that it is deposed", 1),
        Scenario { messages: 3, ..Scenario::with_faults("anything, no bridge", 1) }.sequential(),
        Scenario::with_faults("anything twice, no queue", 2).without_queue(),
    ]
}

/// Larger bounds.
pub fn thorough() -> Vec<Scenario> {
    let all = Scenario::with_faults;
    vec![
        all("one fault of any kind", 1),
        Scenario { rival: true, renamed: true, ..all("one of any kind, Deployment, competing consumer", 1) },
        Scenario { attempts: 1, ..all("two faults of any kind, no bridge", 2).sequential() },
        all("three faults of any kind, no queue", 3).without_queue(),
    ]
}

/// Where a mistake must be caught.
pub fn trap(mistake: Mistake) -> Scenario {
    let base = Scenario::new(mistake.what());
    let small = Scenario { messages: 2, ..base.clone() };
    let faulty = Scenario { faults: 1, ..small.clone() };
    let ending = Scenario { deadline: true, attempts: 1, ..small.clone() }.blocking();
    match mistake {
        Mistake::CommitBeforeVerified => Scenario { failures: true, ..faulty }.sequential(),
        Mistake::ParkNotConfirmed | Mistake::DumpBeforePark => small.sequential(),
        Mistake::RollbackForgetsPark
        | Mistake::ResumeSourceWhileShadowServes
        | Mistake::RollbackAfterCommit
        | Mistake::ResumeNeverSent => ending,
        Mistake::RollbackForgetsThaw => ending.any(),
        Mistake::ShadowWakesUpAsItWas | Mistake::ParkedOneForgotten | Mistake::ParksOnMissingQueue => {
            Scenario { crashes: true, messages: 1, ..faulty }
        }
        Mistake::TicketClosedAfterResume => Scenario { crashes: true, ..faulty }.sequential(),
        Mistake::NobodyIsWaitedFor => {
            Scenario { broker: true, users: true, faults: 2, messages: 1, attempts: 1, ..small }
        }
        Mistake::QueueDeletedNonEmpty => Scenario { users: true, messages: 1, ..faulty },
        Mistake::IntentAfterEffect => Scenario { failures: true, faults: 2, messages: 1, ..small },
        Mistake::AgentIgnoresEpoch => {
            Scenario { operators: true, failures: true, faults: 2, messages: 1, ..small }.sequential()
        }
        Mistake::ConsumerIgnoresEpoch | Mistake::RetryKeepsEpoch | Mistake::ShadowStartsFresh => {
            Scenario { operators: true, failures: true, faults: 2, messages: 1, ..small }
        }
        Mistake::ShadowNotConfirmed => Scenario { crashes: true, ..faulty },
        Mistake::CommitWithoutRehearsal | Mistake::RehearsalLetGo => small.without_queue(),
        Mistake::LetGoBeforeOnRecord => Scenario { crashes: true, ..faulty },
        Mistake::LetGoUnchecked
        | Mistake::FailureAfterCommitIgnored
        | Mistake::SameWayForEver
        | Mistake::HomeNotTried
        | Mistake::NothingIsKept
        | Mistake::StrandedWhateverThePolicy
        | Mistake::ReplacementNotConfirmed
        | Mistake::FreezesOverAndOver => Scenario { restores: true, ..faulty }.without_queue(),
        Mistake::RetryDiscards => {
            Scenario { restores: true, users: true, faults: 2, third_node: false, ..faulty }
                .without_queue()
                .blocking()
        }
        Mistake::WayBeforeSpent | Mistake::GivenUpBeforeSpent | Mistake::SpendKillsTheLiving => {
            Scenario { restores: true, faults: 2, third_node: false, ..faulty }.without_queue()
        }
        Mistake::ClosedOneStands => Scenario { crashes: true, ..faulty }.without_queue(),
        Mistake::SpentIsForgotten => {
            Scenario { restores: true, operators: true, faults: 2, ..faulty }.without_queue()
        }
        _ => small,
    }
}
