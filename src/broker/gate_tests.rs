//! Properties of [`ConsumerGate`]: any orders, in any order, repeated at will.

use proptest::prelude::*;

use super::*;
use crate::broker::control::OrderPayload;

fn fence(migration: &str, epoch: u32) -> Fence {
    Fence { migration: migration.into(), epoch: Epoch(epoch), reply_to: format!("r.{migration}.{epoch}") }
}

fn order(kind: OrderType, migration: &str, epoch: u32) -> Order {
    let queue = match kind {
        OrderType::StartReplay => format!("p.{migration}.{epoch}"),
        OrderType::EndReplay => "primary".to_owned(),
    };
    Order { kind, payload: OrderPayload { queue }, fence: Some(fence(migration, epoch)) }
}

fn park(migration: &str, epoch: u32) -> Order {
    order(OrderType::StartReplay, migration, epoch)
}

fn resume(migration: &str, epoch: u32) -> Order {
    order(OrderType::EndReplay, migration, epoch)
}

fn plain(kind: OrderType, queue: &str) -> Order {
    Order { kind, payload: OrderPayload { queue: queue.into() }, fence: None }
}

#[test]
fn park_and_resume_are_obeyed_once_and_answered_again() {
    let mut gate = ConsumerGate::default();
    assert!(matches!(gate.decide(park("m", 1)), Decision::Park { queue, .. } if queue == "p.m.1"));
    assert_eq!(gate.decide(park("m", 1)), Decision::AnswerAgain(AnswerType::Parked, fence("m", 1)));
    assert_eq!(gate.decide(resume("m", 1)), Decision::Resume { answer: Some(fence("m", 1)) });
    assert_eq!(gate.decide(resume("m", 1)), Decision::AnswerAgain(AnswerType::Resumed, fence("m", 1)));
    assert_eq!(gate.parked_on(), None);
}

#[test]
fn a_late_park_of_a_finished_attempt_moves_nothing() {
    let mut gate = ConsumerGate::default();
    gate.decide(park("m", 1));
    gate.decide(resume("m", 1));
    assert_eq!(gate.decide(park("m", 1)), Decision::Ignore);
    assert!(matches!(gate.decide(park("m", 2)), Decision::Park { .. }), "a new attempt is obeyed");
    assert_eq!(gate.decide(park("m", 1)), Decision::Ignore);
    assert_eq!(gate.decide(resume("m", 1)), Decision::Ignore);
    assert_eq!(gate.parked_on(), Some("p.m.2"));
}

#[test]
fn a_resume_that_overtakes_its_park_cancels_it() {
    let mut gate = ConsumerGate::default();
    assert_eq!(gate.decide(resume("m", 1)), Decision::AnswerAgain(AnswerType::Resumed, fence("m", 1)));
    assert_eq!(gate.decide(park("m", 1)), Decision::Ignore);
}

#[test]
fn another_migration_takes_a_parked_consumer_over() {
    let mut gate = ConsumerGate::default();
    gate.decide(park("gone", 5));
    assert!(matches!(gate.decide(park("m", 1)), Decision::Park { queue, .. } if queue == "p.m.1"));
    assert_eq!(gate.decide(resume("gone", 5)), Decision::Ignore);
    assert_eq!(gate.decide(park("gone", 5)), Decision::Ignore);
    assert!(matches!(gate.decide(resume("m", 1)), Decision::Resume { .. }));
}

#[test]
fn plain_messages_are_obeyed_unless_a_fenced_order_holds_the_consumer() {
    let mut gate = ConsumerGate::default();
    let start = || plain(OrderType::StartReplay, "replay");
    let end = || plain(OrderType::EndReplay, "primary");
    assert_eq!(gate.decide(end()), Decision::Ignore);
    assert_eq!(gate.decide(start()), Decision::Park { queue: "replay".into(), answer: None });
    assert_eq!(gate.decide(start()), Decision::Ignore);
    assert_eq!(gate.decide(end()), Decision::Resume { answer: None });
    gate.decide(park("m", 1));
    assert_eq!(gate.decide(end()), Decision::Ignore);
    assert_eq!(gate.decide(start()), Decision::Ignore);
    assert_eq!(gate.parked_on(), Some("p.m.1"));
}

#[test]
fn memory_is_bounded() {
    let mut gate = ConsumerGate::default();
    for n in 0..1_000 {
        gate.decide(park(&format!("m{n}"), 1));
        gate.decide(resume(&format!("m{n}"), 1));
    }
    assert_eq!(gate.seen.len(), REMEMBERED);
}

/// Up to 3 migrations, 4 epochs, parks and resumes.
fn any_order() -> impl Strategy<Value = Order> {
    (0..3u8, 1..5u32, any::<bool>()).prop_map(|(migration, epoch, park)| {
        let kind = if park { OrderType::StartReplay } else { OrderType::EndReplay };
        order(kind, &format!("m{migration}"), epoch)
    })
}

fn parts(order: &Order) -> (MigrationUid, Epoch) {
    order.fence.as_ref().map(|f| (f.migration.clone(), f.epoch)).unwrap()
}

proptest! {
    #[test]
    fn an_older_epoch_moves_nothing(orders in prop::collection::vec(any_order(), 0..60)) {
        let mut gate = ConsumerGate::default();
        let mut largest = std::collections::HashMap::<MigrationUid, Epoch>::new();
        for order in orders {
            let (migration, epoch) = parts(&order);
            let before = gate.parked_on().map(str::to_owned);
            let decision = gate.decide(order.clone());
            let known = largest.get(&migration).copied();
            match &decision {
                Decision::Park { queue, .. } => {
                    prop_assert_eq!(order.kind, OrderType::StartReplay);
                    prop_assert!(known.is_none_or(|known| epoch > known), "{:?} after {:?}", order, known);
                    prop_assert_eq!(gate.parked_on(), Some(queue.as_str()));
                }
                Decision::Resume { .. } => {
                    prop_assert_eq!(order.kind, OrderType::EndReplay);
                    prop_assert!(known.is_some_and(|known| epoch >= known));
                    let by = before.unwrap();
                    let prefix = format!("p.{migration}.");
                    prop_assert!(by.starts_with(&prefix));
                    prop_assert_eq!(gate.parked_on(), None);
                }
                Decision::AnswerAgain(..) | Decision::Ignore => {
                    prop_assert_eq!(gate.parked_on().map(str::to_owned), before, "{:?} moved it", order);
                }
            }
            if decision != Decision::Ignore {
                let entry = largest.entry(migration).or_insert(epoch);
                *entry = (*entry).max(epoch);
            }
        }
    }

    #[test]
    fn repeating_orders_changes_nothing(orders in prop::collection::vec(any_order(), 0..40)) {
        let mut once = ConsumerGate::default();
        let mut often = ConsumerGate::default();
        for order in orders {
            once.decide(order.clone());
            often.decide(order.clone());
            let state = often.clone();
            let again = often.decide(order.clone());
            let moved = !matches!(again, Decision::AnswerAgain(..) | Decision::Ignore);
            prop_assert!(!moved);
            prop_assert_eq!(&often, &state);
            prop_assert_eq!(&once, &often);
        }
    }

    #[test]
    fn an_attempt_in_order_always_ends_consuming(
        noise in prop::collection::vec(any_order(), 0..40),
    ) {
        let mut gate = ConsumerGate::default();
        for order in noise {
            gate.decide(order);
        }
        let parked = gate.decide(park("new", 1));
        let obeyed = matches!(parked, Decision::Park { .. });
        prop_assert!(obeyed);
        let resumed = gate.decide(resume("new", 1));
        let obeyed = matches!(resumed, Decision::Resume { .. });
        prop_assert!(obeyed);
        prop_assert_eq!(gate.parked_on(), None);
    }
}
