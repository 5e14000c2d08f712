use super::*;
use TicketState as S;

fn holder(pod: &str, container: &str) -> Holder {
    Holder {
        pod: pod.into(),
        container: container.into(),
        pod_ip: None,
        container_id: String::new(),
        init: false,
    }
}

fn opening() -> Opening {
    Opening { container: "app".into(), digest: "d".into(), purpose: Purpose::Live }
}

#[test]
fn an_init_container_is_completed_as_often_as_it_asks_whether_the_ticket_is_open_or_not() {
    let mut ticket = Ticket::default();
    let init = Holder { init: true, container_id: "i".into(), ..holder("p", "fill") };
    let app = Holder { container_id: "c".into(), ..holder("p", "app") };
    assert_eq!(ticket.claim(Role::Replacement, &init, false), Verdict::Complete);
    assert_eq!(ticket.state, S::Unclaimed, "nobody waits for it yet");
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Wait);
    assert_eq!(
        (ticket.state, ticket.holder.as_ref()),
        (S::Waiting, Some(&app)),
        "the image is compared with this one's"
    );
    ticket.open(opening()).unwrap();
    assert_eq!(ticket.claim(Role::Replacement, &init, false), Verdict::Complete);
    assert_eq!((ticket.state, ticket.holder.as_ref()), (S::Waiting, Some(&app)));
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
    assert!(ticket.restored());
    assert_eq!(ticket.claim(Role::Replacement, &init, false), Verdict::Complete, "its sandbox is new");
    assert_eq!(ticket.lives_in(), Some("c"));
    let other = Holder { init: true, ..holder("q", "fill") };
    assert_eq!(ticket.claim(Role::Replacement, &other, false), Verdict::Wait, "another pod is before it");
    assert!(matches!(ticket.claim(Role::Shadow, &other, false), Verdict::Refuse(_)));
    assert_eq!(
        ticket.claim(Role::Replacement, &other, true),
        Verdict::Complete,
        "nothing is left of that one"
    );
    assert_eq!((ticket.state, ticket.lives_in()), (S::Unclaimed, None));
    ticket.spend();
    assert!(matches!(ticket.claim(Role::Replacement, &other, false), Verdict::Refuse(_)));
}

#[test]
fn a_pod_is_barred_from_a_fresh_start_between_its_init_containers_and_its_restored_life() {
    let mut ticket = Ticket::default();
    let init = Holder { init: true, ..holder("p", "fill") };
    let app = Holder { container_id: "c".into(), ..holder("p", "app") };
    ticket.claim(Role::Replacement, &app, false);
    assert!(ticket.is_forgettable() && ticket.barred().is_none(), "it has no init containers");
    ticket.claim(Role::Replacement, &init, false);
    assert!(!ticket.is_forgettable());
    assert_eq!(ticket.barred(), Some(&"p".into()));
    ticket.open(opening()).unwrap();
    ticket.claim(Role::Replacement, &app, false);
    ticket.restored();
    assert_eq!(ticket.barred(), Some(&"p".into()), "it stands still");
    assert!(ticket.let_go("c"));
    ticket.started("c");
    ticket.ended("c", RestoreFault::Ended, "over".into());
    assert_eq!(ticket.barred(), None, "from then on it is a pod like any other");
    ticket.claim(Role::Replacement, &init, false);
    assert_eq!(ticket.claim(Role::Replacement, &holder("q", "app"), true), Verdict::Restore);
    assert_eq!(ticket.barred(), None, "of that pod none was completed");
}

#[test]
fn a_claim_waits_until_it_is_opened_and_then_restores() {
    let mut ticket = Ticket::default();
    let app = holder("p", "app");
    assert_eq!(ticket.claim(Role::Shadow, &app, false), Verdict::Wait);
    assert_eq!(ticket.state, S::Waiting);
    ticket.open(opening()).unwrap();
    assert_eq!(ticket.claim(Role::Shadow, &app, false), Verdict::Restore);
    assert_eq!(ticket.state, S::Restoring);
    ticket.restored();
    assert_eq!(ticket.state, S::Held);
}

#[test]
fn opening_before_the_claim_is_the_same() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    assert_eq!(ticket.state, S::Unclaimed);
    assert_eq!(ticket.claim(Role::Replacement, &holder("p", "app"), false), Verdict::Restore);
}

#[test]
fn nobody_restores_while_another_restore_runs() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    let app = holder("p", "app");
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Wait);
    ticket.failed(RestoreFault::Criu, "x".into());
    assert_eq!((ticket.state, ticket.failure.as_deref()), (S::Waiting, Some("x")));
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
}

#[test]
fn a_process_that_died_before_the_close_is_restored_again() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    let app = holder("p", "app");
    ticket.claim(Role::Replacement, &app, false);
    ticket.restored();
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
}

#[test]
fn whoever_has_restored_and_did_not_hear_that_it_is_on_record_restores_nothing_again() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    let create = |id: &str| Holder { container_id: id.into(), ..holder("p", "app") };
    assert_eq!(ticket.claim(Role::Replacement, &create("c1"), false), Verdict::Restore);
    ticket.restored();
    assert_eq!(ticket.claim(Role::Replacement, &create("c1"), false), Verdict::Recorded);
    assert_eq!(ticket.state, S::Held);
    assert_eq!(ticket.claim(Role::Replacement, &create("c2"), false), Verdict::Restore);
}

#[test]
fn another_pod_or_container_gets_no_archive() {
    for role in [Role::Shadow, Role::Replacement] {
        let mut ticket = Ticket::default();
        ticket.open(opening()).unwrap();
        ticket.claim(role, &holder("p", "app"), false);
        let of_pod = ticket.claim(role, &holder("q", "app"), false);
        let of_container = ticket.claim(role, &holder("p", "sidecar"), false);
        match role {
            Role::Shadow => {
                assert!(matches!((of_pod, of_container), (Verdict::Refuse(_), Verdict::Refuse(_))));
            }
            Role::Replacement => {
                assert!(matches!((of_pod, of_container), (Verdict::Wait, Verdict::Fresh(_))));
            }
        }
        assert_eq!(ticket.holder, Some(holder("p", "app")));
    }
}

#[test]
fn the_next_pod_takes_over_when_nothing_is_left_of_the_first() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    ticket.claim(Role::Replacement, &holder("p", "app"), false);
    ticket.failed(RestoreFault::BrokenOff, "pod deleted".into());
    assert_eq!(ticket.claim(Role::Replacement, &holder("q", "app"), true), Verdict::Restore);
    assert_eq!(ticket.holder, Some(holder("q", "app")));
}

#[test]
fn a_shadow_never_starts_fresh() {
    assert!(matches!(without_restore(Role::Shadow, String::new()), Verdict::Refuse(_)));
    assert!(matches!(without_restore(Role::Replacement, String::new()), Verdict::Fresh(_)));
}

#[test]
fn opening_twice_must_be_for_the_same() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    ticket.open(opening()).unwrap();
    let other = Opening { digest: "e".into(), ..opening() };
    assert_eq!(ticket.open(other), Err(NotOpened::Differently(opening())));
}

#[test]
fn late_reports_change_nothing() {
    let mut ticket = Ticket::default();
    assert!(!ticket.restored());
    ticket.failed(RestoreFault::Criu, "x".into());
    ticket.started("c");
    assert!(!ticket.let_go("c") && !ticket.ended("c", RestoreFault::Ended, "x".into()));
    assert_eq!(ticket, Ticket::default());
}

fn held(purpose: Purpose) -> Ticket {
    let mut ticket = Ticket::default();
    ticket.open(Opening { purpose, ..opening() }).unwrap();
    let create = Holder { container_id: "c".into(), ..holder("p", "app") };
    assert_eq!(ticket.claim(Role::Shadow, &create, false), Verdict::Restore);
    assert!(ticket.restored());
    ticket
}

#[test]
fn what_stands_still_is_let_go_by_intent_and_then_effect_and_a_rehearsal_never() {
    let mut ticket = held(Purpose::Live);
    ticket.started("c");
    assert_eq!(ticket.state, S::Held, "nobody meant to");
    assert!(!ticket.let_go("d") && ticket.let_go("c") && ticket.let_go("c"));
    assert_eq!((ticket.state, ticket.letting_go), (S::Held, true));
    ticket.started("d");
    assert_eq!(ticket.state, S::Held);
    ticket.started("c");
    assert_eq!((ticket.state, ticket.letting_go), (S::Started, false));
    assert!(!ticket.let_go("c"), "it runs");

    let mut rehearsal = held(Purpose::Rehearsal);
    assert!(!rehearsal.let_go("c"));
    rehearsal.started("c");
    assert_eq!(rehearsal.state, S::Held);
    assert_eq!(
        rehearsal.open(opening()),
        Err(NotOpened::Differently(Opening { purpose: Purpose::Rehearsal, ..opening() }))
    );
}

#[test]
fn what_has_ended_gives_its_ticket_back_with_the_reason() {
    let mut ticket = held(Purpose::Live);
    assert!(ticket.let_go("c"));
    ticket.started("c");
    assert_eq!(ticket.lives_in(), Some("c"));
    assert!(!ticket.ended("d", RestoreFault::Ended, "x".into()));
    assert!(ticket.ended("c", RestoreFault::Ended, "x".into()));
    assert_eq!(
        (ticket.state, ticket.fault, ticket.lives_in()),
        (S::Waiting, Some(RestoreFault::Ended), None)
    );
}

#[test]
fn a_spent_ticket_restores_nothing_and_lets_nothing_go_and_cannot_be_opened() {
    for mut ticket in [Ticket::default(), held(Purpose::Live)] {
        ticket.spend();
        for role in [Role::Shadow, Role::Replacement] {
            assert!(matches!(ticket.claim(role, &holder("p", "app"), true), Verdict::Refuse(_)));
        }
        assert!(!ticket.restored(), "whoever restored meanwhile must kill it");
        assert!(!ticket.let_go("c"));
        ticket.started("c");
        ticket.failed(RestoreFault::Criu, "x".into());
        assert_eq!(ticket.state, S::Closed);
        assert_eq!(ticket.open(opening()), Err(NotOpened::Spent));
    }
}
