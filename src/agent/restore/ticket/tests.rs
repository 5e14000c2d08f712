use super::*;
use TicketState as S;

fn holder(pod: &str, container: &str) -> ClaimRequest {
    ClaimRequest {
        ticket: "0b5c.1.replacement".parse().unwrap(),
        pod: pod.into(),
        container: container.into(),
        pod_ip: None,
        container_id: format!("of {pod}"),
        init: false,
        fresh: false,
        at_once: false,
    }
}

fn create(container: &str, id: &str) -> ClaimRequest {
    ClaimRequest { container_id: id.into(), ..holder("p", container) }
}

fn opening() -> Opening {
    Opening { containers: vec!["app".into()], digest: "d".into(), purpose: Purpose::Live, once: false }
}

fn lives_in(ticket: &Ticket) -> Vec<&str> {
    ticket.lives_in().map(|(_, part)| part.container_id.as_str()).collect()
}

fn holds(ticket: &Ticket) -> Option<&str> {
    ticket.holder.as_ref().map(|holder| holder.pod.as_str())
}

#[test]
fn an_init_container_is_completed_as_often_as_it_asks_whether_the_ticket_is_open_or_not() {
    let mut ticket = Ticket::default();
    let init = ClaimRequest { init: true, container_id: "i".into(), ..holder("p", "fill") };
    let app = ClaimRequest { container_id: "c".into(), ..holder("p", "app") };
    assert_eq!(ticket.claim(Role::Replacement, &init, false), Verdict::Complete);
    assert_eq!(ticket.state(), S::Unclaimed, "nobody waits for it yet");
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Wait);
    assert_eq!((ticket.state(), holds(&ticket)), (S::Waiting, Some("p")));
    ticket.open(opening()).unwrap();
    assert_eq!(ticket.claim(Role::Replacement, &init, false), Verdict::Complete);
    assert_eq!(ticket.state(), S::Waiting);
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
    assert!(ticket.restored("app"));
    assert_eq!(ticket.claim(Role::Replacement, &init, false), Verdict::Complete, "its sandbox is new");
    assert_eq!(lives_in(&ticket), ["c"]);
    let other = ClaimRequest { init: true, ..holder("q", "fill") };
    assert_eq!(ticket.claim(Role::Replacement, &other, false), Verdict::Wait, "another pod is before it");
    assert!(matches!(ticket.claim(Role::Shadow, &other, false), Verdict::Refuse(_)));
    assert_eq!(
        ticket.claim(Role::Replacement, &other, true),
        Verdict::Complete,
        "nothing is left of that one"
    );
    assert!(ticket.state() == S::Unclaimed && lives_in(&ticket).is_empty());
    ticket.spend();
    assert!(matches!(ticket.claim(Role::Replacement, &other, false), Verdict::Refuse(_)));
}

#[test]
fn a_pod_is_barred_from_a_fresh_start_between_its_init_containers_and_its_restored_life() {
    let mut ticket = Ticket::default();
    let init = ClaimRequest { init: true, ..holder("p", "fill") };
    let app = ClaimRequest { container_id: "c".into(), ..holder("p", "app") };
    ticket.claim(Role::Replacement, &app, false);
    assert!(ticket.is_forgettable() && ticket.barred().is_none(), "it has no init containers");
    ticket.claim(Role::Replacement, &init, false);
    assert!(!ticket.is_forgettable());
    assert_eq!(ticket.barred(), Some(&"p".into()));
    ticket.open(opening()).unwrap();
    ticket.claim(Role::Replacement, &app, false);
    ticket.restored("app");
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
    assert_eq!(ticket.state(), S::Waiting);
    ticket.open(opening()).unwrap();
    assert_eq!(ticket.claim(Role::Shadow, &app, false), Verdict::Restore);
    assert_eq!(ticket.state(), S::Restoring);
    ticket.restored("app");
    assert_eq!(ticket.state(), S::Held);
}

#[test]
fn opening_before_the_claim_is_the_same() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    assert_eq!(ticket.state(), S::Unclaimed);
    assert_eq!(ticket.claim(Role::Replacement, &holder("p", "app"), false), Verdict::Restore);
}

#[test]
fn nobody_restores_while_another_restore_runs() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    let app = holder("p", "app");
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Wait);
    ticket.failed("app", RestoreFault::Criu, "x".into());
    assert_eq!((ticket.state(), ticket.failure()), (S::Waiting, Some((RestoreFault::Criu, "x".into()))));
    assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
}

#[test]
fn a_process_that_died_before_the_close_is_restored_again() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    let app = holder("p", "app");
    ticket.claim(Role::Replacement, &app, false);
    ticket.restored("app");
    assert_eq!(ticket.claim(Role::Replacement, &create("app", "next"), false), Verdict::Restore);
}

#[test]
fn whoever_has_restored_and_did_not_hear_that_it_is_on_record_restores_nothing_again() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    let create = |id: &str| create("app", id);
    assert_eq!(ticket.claim(Role::Replacement, &create("c1"), false), Verdict::Restore);
    ticket.restored("app");
    assert_eq!(ticket.claim(Role::Replacement, &create("c1"), false), Verdict::Recorded);
    assert_eq!(ticket.state(), S::Held);
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
        assert_eq!(holds(&ticket), Some("p"));
    }
}

#[test]
fn the_next_pod_takes_over_when_nothing_is_left_of_the_first() {
    let mut ticket = Ticket::default();
    ticket.open(opening()).unwrap();
    ticket.claim(Role::Replacement, &holder("p", "app"), false);
    ticket.failed("app", RestoreFault::BrokenOff, "pod deleted".into());
    assert_eq!(ticket.claim(Role::Replacement, &holder("q", "app"), true), Verdict::Restore);
    assert_eq!(holds(&ticket), Some("q"));
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
    assert!(!ticket.restored("app"));
    ticket.failed("app", RestoreFault::Criu, "x".into());
    ticket.started("c");
    assert!(!ticket.let_go("c") && !ticket.ended("c", RestoreFault::Ended, "x".into()));
    assert_eq!(ticket, Ticket::default());
}

fn held(purpose: Purpose) -> Ticket {
    let mut ticket = Ticket::default();
    ticket.open(Opening { purpose, ..opening() }).unwrap();
    assert_eq!(ticket.claim(Role::Shadow, &create("app", "c"), false), Verdict::Restore);
    assert!(ticket.restored("app"));
    ticket
}

#[test]
fn what_stands_still_is_let_go_by_intent_and_then_effect_and_a_rehearsal_never() {
    let mut ticket = held(Purpose::Live);
    ticket.started("c");
    assert_eq!(ticket.state(), S::Held, "nobody meant to");
    assert!(!ticket.let_go("d") && ticket.let_go("c") && ticket.let_go("c"));
    assert_eq!((ticket.state(), ticket.parts["app"].letting_go), (S::Held, true));
    ticket.started("d");
    assert_eq!(ticket.state(), S::Held);
    ticket.started("c");
    assert_eq!((ticket.state(), ticket.parts["app"].letting_go), (S::Started, false));
    assert!(!ticket.let_go("c"), "it runs");

    let mut rehearsal = held(Purpose::Rehearsal);
    assert!(!rehearsal.let_go("c"));
    rehearsal.started("c");
    assert_eq!(rehearsal.state(), S::Held);
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
    assert_eq!(lives_in(&ticket), ["c"]);
    assert!(!ticket.ended("d", RestoreFault::Ended, "x".into()));
    assert!(ticket.ended("c", RestoreFault::Ended, "x".into()));
    assert!(ticket.state() == S::Waiting && lives_in(&ticket).is_empty());
    assert_eq!(ticket.failure(), Some((RestoreFault::Ended, "x".into())));
}

#[test]
fn a_spent_ticket_restores_nothing_and_lets_nothing_go_and_cannot_be_opened() {
    for mut ticket in [Ticket::default(), held(Purpose::Live)] {
        ticket.spend();
        for role in [Role::Shadow, Role::Replacement] {
            assert!(matches!(ticket.claim(role, &holder("p", "app"), true), Verdict::Refuse(_)));
        }
        assert!(!ticket.restored("app"), "whoever restored meanwhile must kill it");
        assert!(!ticket.let_go("c"));
        ticket.started("c");
        ticket.failed("app", RestoreFault::Criu, "x".into());
        assert_eq!(ticket.state(), S::Closed);
        assert_eq!(ticket.open(opening()), Err(NotOpened::Spent));
    }
}

fn of_two() -> Ticket {
    let mut ticket = Ticket::default();
    let containers = vec!["app".into(), "log".into()];
    ticket.open(Opening { containers, ..opening() }).unwrap();
    ticket
}

fn restore(ticket: &mut Ticket, request: &ClaimRequest) {
    assert_eq!(ticket.claim(Role::Replacement, request, false), Verdict::Restore);
    assert!(ticket.restored(&request.container));
}

#[test]
fn no_container_of_a_pod_is_let_go_before_the_last_is_back() {
    let mut ticket = of_two();
    assert_eq!(ticket.claim(Role::Replacement, &create("log", "l"), false), Verdict::Restore);
    assert_eq!(ticket.claim(Role::Replacement, &create("app", "a"), false), Verdict::Wait, "one at a time");
    assert!(ticket.restored("log") && !ticket.let_go("l"));
    assert_eq!(ticket.state(), S::Restoring, "the other is still to come");
    restore(&mut ticket, &create("app", "a"));
    assert_eq!((ticket.state(), ticket.must_be_on_record("l")), (S::Held, vec!["a", "l"]));
    assert!(ticket.let_go("l"));
    ticket.started("l");
    assert_eq!((ticket.state(), ticket.must_be_on_record("a")), (S::Held, vec!["a"]));
    assert!(ticket.let_go("a"));
    ticket.started("a");
    assert_eq!(ticket.state(), S::Started);
}

#[test]
fn one_that_the_kubelet_waits_for_is_let_go_at_once() {
    let mut ticket = of_two();
    restore(&mut ticket, &ClaimRequest { at_once: true, ..create("log", "l") });
    assert_eq!(ticket.must_be_on_record("l"), ["l"]);
    assert!(ticket.let_go("l"));
    ticket.started("l");
    assert_eq!(ticket.state(), S::Restoring);
    restore(&mut ticket, &create("app", "a"));
    assert_eq!((ticket.state(), ticket.must_be_on_record("a")), (S::Held, vec!["a"]));
}

#[test]
fn a_container_that_is_not_back_is_told_with_its_name_and_may_be_restored_beside_those_that_are() {
    let mut ticket = of_two();
    restore(&mut ticket, &create("log", "l"));
    assert_eq!(ticket.claim(Role::Replacement, &create("app", "a"), false), Verdict::Restore);
    ticket.failed("app", RestoreFault::Criu, "x".into());
    assert_eq!(ticket.state(), S::Waiting, "whoever waits must hear of it");
    assert_eq!(ticket.failure(), Some((RestoreFault::Criu, "container app: x".into())));
    assert_eq!(lives_in(&ticket), ["l"]);
    restore(&mut ticket, &create("app", "b"));
    assert_eq!((ticket.state(), ticket.failure()), (S::Held, None));
    ticket.spend();
    assert!(lives_in(&ticket).is_empty() && !ticket.let_go("l") && !ticket.restored("app"));
}

#[test]
fn what_is_started_anew_waits_for_the_opening_and_finds_what_is_of_its_pod() {
    let mut ticket = Ticket::default();
    let ship = ClaimRequest { fresh: true, ..create("ship", "s") };
    assert_eq!(ticket.claim(Role::Replacement, &ship, false), Verdict::Wait);
    assert_eq!(ticket.state(), S::Waiting);
    ticket.open(opening()).unwrap();
    assert_eq!(ticket.claim(Role::Replacement, &ship, false), Verdict::Fill);
    assert_eq!(ticket.claim(Role::Replacement, &create("app", "a"), false), Verdict::Wait, "not before");
    assert!(ticket.filled("ship", true) && ticket.filled.volumes && !ticket.filled("app", true));
    restore(&mut ticket, &create("app", "a"));
    assert_eq!(ticket.state(), S::Held, "it is of no account");
    assert_eq!(ticket.claim(Role::Replacement, &ship, false), Verdict::Fill, "as after any crash");
    let of_archive = ClaimRequest { fresh: true, ..create("app", "b") };
    ticket.filled("ship", false);
    assert_eq!(
        ticket.claim(Role::Replacement, &of_archive, false),
        Verdict::Restore,
        "what moves is restored"
    );
}

fn running(ids: [&str; 2]) -> Ticket {
    let mut ticket = of_two();
    restore(&mut ticket, &create("log", ids[0]));
    restore(&mut ticket, &create("app", ids[1]));
    for id in ids {
        assert!(ticket.let_go(id));
        ticket.started(id);
    }
    ticket
}

#[test]
fn one_that_ends_as_soon_as_it_runs_ends_all_of_its_pod_before_any_of_it_is_restored_again() {
    let mut ticket = running(["l", "a"]);
    assert!(ticket.ended("a", RestoreFault::Ended, "over".into()));
    assert_eq!((ticket.state(), ticket.ending().collect::<Vec<_>>()), (S::Waiting, vec!["l"]));
    assert_eq!(ticket.failure(), Some((RestoreFault::Ended, "container app: over".into())));
    assert_eq!(ticket.claim(Role::Replacement, &create("app", "b"), false), Verdict::Wait);
    assert!(!ticket.let_go("l"));
    ticket.is_dead("l");
    restore(&mut ticket, &create("app", "b"));
    assert!(!ticket.let_go("b"), "the other is to come back too");
}

#[test]
fn one_that_the_kubelet_waits_for_and_that_ends_takes_what_stands_still_with_it() {
    let mut ticket = of_two();
    let ship = ClaimRequest { fresh: true, ..create("ship", "s") };
    assert_eq!(ticket.claim(Role::Replacement, &ship, false), Verdict::Fill);
    assert!(ticket.filled("ship", true));
    restore(&mut ticket, &ClaimRequest { at_once: true, ..create("log", "l") });
    assert!(ticket.let_go("l"));
    ticket.started("l");
    restore(&mut ticket, &create("app", "a"));
    assert!(ticket.ended("l", RestoreFault::Ended, "over".into()));
    assert_eq!(ticket.ending().collect::<Vec<_>>(), ["a", "s"], "their volumes are not what they were");
    assert_eq!(ticket.filled, Filled::default());
}

#[test]
fn a_pod_that_is_known_to_run_carries_on_without_a_sidecar_but_not_without_its_program() {
    let mut ticket = running(["l", "a"]);
    ticket.proves();
    assert!(ticket.ended("l", RestoreFault::Ended, "over".into()));
    assert_eq!((ticket.state(), ticket.failure(), ticket.ending().count()), (S::Started, None, 0));
    assert_eq!(
        ticket.claim(Role::Replacement, &create("log", "m"), false),
        Verdict::Wait,
        "until it is closed"
    );
    assert!(ticket.ended("a", RestoreFault::Ended, "over".into()) && ticket.state() == S::Waiting);
    ticket.is_dead("m");
    assert_eq!(ticket.claim(Role::Replacement, &create("app", "b"), false), Verdict::Restore);
}

#[test]
fn the_bar_on_a_fresh_start_falls_only_when_all_of_the_pod_runs() {
    let mut ticket = of_two();
    let init = ClaimRequest { init: true, ..holder("p", "fill") };
    assert_eq!(ticket.claim(Role::Replacement, &init, false), Verdict::Complete);
    restore(&mut ticket, &ClaimRequest { at_once: true, ..create("log", "l") });
    assert!(ticket.let_go("l"));
    ticket.started("l");
    assert_eq!(ticket.barred(), Some(&"p".into()));
    restore(&mut ticket, &create("app", "a"));
    assert!(ticket.let_go("a"));
    ticket.started("a");
    assert_eq!(ticket.barred(), None);
}
