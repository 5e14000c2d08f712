//! Pods of several containers.

use super::*;

impl Fixture {
    /// Opened for a pod of `app` and `log`.
    fn of_two(&self) {
        let manifest = self.add_archive_of(1, &["log"]);
        self.open(Role::Replacement, &manifest).unwrap();
    }

    async fn asks(&self, request: &ClaimRequest) -> Verdict {
        self.tickets.claim(request, Instant::now()).await.unwrap()
    }

    async fn comes_back(&self, request: &ClaimRequest) {
        assert_eq!(self.asks(request).await, Verdict::Restore);
        self.tickets.ended(&request.ticket, &request.container, &RestoreOutcome::Restored).unwrap();
    }

    async fn told(&self, at_least: TicketState, timeout_ms: u64) -> AwaitedTicket {
        let order = AwaitOrder::first(Epoch(1), at_least, Duration::from_millis(timeout_ms));
        self.tickets.await_ticket(&uid(), Role::Replacement, &order).await.unwrap()
    }

    fn let_go(&self) -> [u32; 2] {
        ["a", "l"].map(|id| self.hands.of(id).let_go)
    }
}

fn of(container: &str, id: &str) -> ClaimRequest {
    ClaimRequest {
        container: container.into(),
        container_id: id.into(),
        ..request(Role::Replacement, 1, "p")
    }
}

#[tokio::test]
async fn nothing_of_a_pod_runs_before_all_of_it_is_back_and_on_record() {
    let fixture = Fixture::new();
    fixture.of_two();
    fixture.hands.change("a", |life| life.is_unheard = true);
    fixture.comes_back(&of("log", "l")).await;
    assert_eq!(
        (fixture.told(TicketState::Held, 60).await.state, fixture.let_go()),
        (TicketState::Restoring, [0, 0])
    );
    fixture.comes_back(&of("app", "a")).await;
    assert_eq!(
        (fixture.told(TicketState::Started, 60).await.state, fixture.let_go()),
        (TicketState::Held, [0, 0])
    );
    fixture.hands.change("a", |life| life.is_unheard = false);
    assert_eq!(fixture.told(TicketState::Started, 20_000).await.state, TicketState::Started);
    assert_eq!(fixture.let_go(), [1, 1]);
}

#[tokio::test]
async fn each_container_gets_its_part_and_the_first_what_is_of_the_pod() {
    let fixture = Fixture::new();
    fixture.of_two();
    let id = id(Role::Replacement, 1);
    let archive = fixture.tickets.store.archive(&uid(), Epoch(1));
    let (part, pod) = fixture.tickets.handed_out(&id, "log").unwrap();
    assert_eq!((part, Path::new(&pod.archive)), (archive.join("containers/0"), archive.as_path()));
    assert!(pod.back.is_empty() && !pod.filled);
    fixture.comes_back(&of("log", "l")).await;
    let (part, pod) = fixture.tickets.handed_out(&id, "app").unwrap();
    assert_eq!((part, pod.back), (archive.clone(), vec![archive.join("containers/0").display().to_string()]));
}

#[tokio::test]
async fn one_that_ends_as_soon_as_it_runs_takes_its_pod_with_it_and_is_restored_with_it() {
    let mut fixture = Fixture::new();
    fixture.of_two();
    fixture.comes_back(&of("log", "l")).await;
    fixture.comes_back(&of("app", "a")).await;
    while fixture.let_go() != [1, 1] {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fixture.hands.change("a", |life| life.end = Some(1));
    let told = fixture.told(TicketState::Closed, 20_000).await;
    assert_eq!((told.state, told.fault), (TicketState::Waiting, Some(RestoreFault::Ended)));
    assert!(told.failure.unwrap().starts_with("container app: its process ended "));
    assert!(fixture.hands.of("l").killed, "it must not act beside one that is restored again");
    fixture.restart();
    let spend = SpendOrder { epoch: Epoch(1), life: crate::api::Life::FIRST };
    fixture.tickets.spend(&uid(), Role::Replacement, &spend, Instant::now()).await.unwrap();
}

#[tokio::test]
async fn one_that_ends_once_its_pod_is_known_to_run_is_a_container_that_crashes() {
    let mut fixture = Fixture::new();
    fixture.of_two();
    fixture.comes_back(&of("log", "l")).await;
    fixture.comes_back(&of("app", "a")).await;
    fixture.starts(Role::Replacement).await;
    fixture.hands.change("l", |life| life.end = Some(1));
    let ended = async {
        while fixture.tickets.book.lock().tickets[&id(Role::Replacement, 1)].ticket.part_in("l").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    fixture.restart();
    let told = fixture.told(TicketState::Started, 20_000).await;
    assert_eq!((told.state, told.fault), (TicketState::Started, None), "its pod carries on");
    let spend = SpendOrder { epoch: Epoch(1), life: crate::api::Life::FIRST };
    let refused = fixture.tickets.spend(&uid(), Role::Replacement, &spend, Instant::now()).await.unwrap_err();
    assert_eq!(refused.refusal, Refusal::StillLives);
    assert_eq!(fixture.asks(&of("log", "l2")).await, Verdict::Wait);
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    assert!(matches!(fixture.asks(&of("log", "l2")).await, Verdict::Fresh(_)), "as after any crash");
    assert!(!fixture.hands.of("a").killed);
}

#[tokio::test]
async fn one_that_the_kubelet_waits_for_does_not_keep_its_pods_ticket_from_being_spent() {
    let fixture = Fixture::new();
    fixture.of_two();
    fixture.comes_back(&ClaimRequest { at_once: true, ..of("log", "l") }).await;
    while fixture.let_go()[1] == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(fixture.asks(&of("app", "a")).await, Verdict::Restore);
    let failed = RestoreOutcome::Failed { reason: "x".into(), fault: RestoreFault::Criu };
    fixture.tickets.ended(&id(Role::Replacement, 1), "app", &failed).unwrap();
    assert_eq!(fixture.told(TicketState::Started, 20_000).await.fault, Some(RestoreFault::Criu));
    let spend = SpendOrder { epoch: Epoch(1), life: crate::api::Life::FIRST };
    fixture.tickets.spend(&uid(), Role::Replacement, &spend, Instant::now()).await.unwrap();
    assert!(fixture.hands.of("l").killed);
}

#[tokio::test]
async fn a_ticket_that_is_spent_kills_every_part_that_stands_still() {
    let fixture = Fixture::new();
    fixture.of_two();
    fixture.comes_back(&of("log", "l")).await;
    assert_eq!(fixture.asks(&of("app", "a")).await, Verdict::Restore);
    let failed = RestoreOutcome::Failed { reason: "x".into(), fault: RestoreFault::Criu };
    fixture.tickets.ended(&id(Role::Replacement, 1), "app", &failed).unwrap();
    assert_eq!(fixture.told(TicketState::Started, 20_000).await.fault, Some(RestoreFault::Criu));
    let spend = SpendOrder { epoch: Epoch(1), life: crate::api::Life::FIRST };
    fixture.tickets.spend(&uid(), Role::Replacement, &spend, Instant::now()).await.unwrap();
    assert!(fixture.hands.of("l").killed && fixture.let_go() == [0, 0]);
}

#[tokio::test]
async fn parts_that_stand_still_when_their_migration_is_closed_are_killed() {
    let fixture = Fixture::new();
    fixture.of_two();
    fixture.comes_back(&of("log", "l")).await;
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    let killed = async {
        while !fixture.hands.of("l").killed {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), killed).await.unwrap();
    assert!(matches!(fixture.asks(&of("app", "a")).await, Verdict::Fresh(_)), "all of it is fresh");
}
