//! What becomes of restored processes.

use super::*;

async fn within<T>(what: &str, until: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(reached) = until() {
            return reached;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Fixture {
    /// Opened for a rehearsal, and restored.
    async fn rehearsed(&self) {
        let manifest = self.add_archive(1);
        let order = OpenTicketOrder {
            epoch: Epoch(1),
            container: "app".into(),
            digest: manifest.digest,
            life: crate::api::Life::FIRST,
            purpose: Purpose::Rehearsal,
            once: false,
        };
        self.tickets.open_ticket(&uid(), Role::Shadow, &order).unwrap();
        assert_eq!(self.claim(Role::Shadow, 1, "p").await, Verdict::Restore);
        self.restored(Role::Shadow);
    }

    async fn claim_as(&self, role: Role, container_id: &str) -> Verdict {
        let request = ClaimRequest { container_id: container_id.into(), ..request(role, 1, "p") };
        self.tickets.claim(&request, Instant::now()).await.unwrap()
    }

    async fn spend(&self, role: Role, patience: Duration) -> Result<(), Failure> {
        let order = SpendOrder { epoch: Epoch(1), life: crate::api::Life::FIRST };
        self.tickets.spend(&uid(), role, &order, Instant::now() + patience).await
    }

    fn state(&self, role: Role) -> TicketState {
        self.tickets.look(&id(role, 1)).0.state
    }
}

/// A kubelet that dies while its engine starts what was restored has it killed: that is not the pod that carries on.
#[tokio::test]
async fn nothing_is_let_go_before_the_engine_has_it_on_record_and_then_at_once_though_nobody_waits() {
    let fixture = Fixture::new();
    fixture.hands.change("c", |life| life.is_unheard = true);
    fixture.restoring(Role::Shadow).await;
    fixture.restored(Role::Shadow);
    let awaited = fixture.awaited(TicketState::Started, 1, 60).await.unwrap();
    assert_eq!((awaited.state, fixture.hands.of("c").let_go), (TicketState::Held, 0));
    fixture.hands.change("c", |life| life.is_unheard = false);
    within("it is let go", || (fixture.state(Role::Shadow) == TicketState::Started).then_some(())).await;
    assert_eq!(fixture.hands.of("c").let_go, 1);
}

#[tokio::test]
async fn what_the_engine_never_started_is_restored_again_and_is_not_there_beside_the_next() {
    let fixture = Fixture::new();
    fixture.hands.change("c", |life| life.is_unheard = true);
    fixture.restoring(Role::Replacement).await;
    fixture.restored(Role::Replacement);
    assert_eq!(fixture.claim_as(Role::Replacement, "c2").await, Verdict::Restore);
    assert!(fixture.hands.of("c").killed && fixture.hands.of("c").let_go == 0);
    fixture.restored(Role::Replacement);
    fixture.starts(Role::Replacement).await;
    assert_eq!((fixture.hands.of("c").let_go, fixture.hands.of("c2").let_go), (0, 1));
    // What runs is not taken away from a pod that asks once more: the next one waits for its end.
    assert_eq!(fixture.claim_as(Role::Replacement, "c3").await, Verdict::Wait);
    assert!(!fixture.hands.of("c2").killed);
    fixture.hands.change("c2", |life| life.end = Some(1));
    assert_eq!(fixture.claim_as(Role::Replacement, "c3").await, Verdict::Restore);
}

#[tokio::test]
async fn a_rehearsal_is_never_let_go() {
    let mut fixture = Fixture::new();
    fixture.rehearsed().await;
    let awaited = fixture.awaited(TicketState::Held, 1, 20_000).await.unwrap();
    assert_eq!(awaited.state, TicketState::Held);
    fixture.restart();
    let awaited = fixture.awaited(TicketState::Started, 1, 60).await.unwrap();
    assert_eq!((awaited.state, fixture.hands.of("c").let_go), (TicketState::Held, 0));
}

#[tokio::test]
async fn an_agent_that_ended_between_intent_and_effect_lets_go_when_it_is_back() {
    let mut fixture = Fixture::new();
    fixture.hands.change("c", |life| life.is_unheard = true);
    fixture.restoring(Role::Replacement).await;
    fixture.restored(Role::Replacement);
    fixture.looks_after.abort();
    assert!(fixture.tickets.change(&id(Role::Replacement, 1), |ticket| ticket.let_go("c")).unwrap());
    fixture.restart();
    fixture.starts(Role::Replacement).await;
    assert_eq!(fixture.hands.of("c").let_go, 1);
}

#[tokio::test]
async fn what_was_let_go_must_live_as_long_as_the_operator_wants_to_see() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Shadow).await;
    fixture.restored(Role::Shadow);
    fixture.starts(Role::Shadow).await;
    let begun = Instant::now();
    let order = AwaitOrder {
        lived_ms: 150,
        ..AwaitOrder::first(Epoch(1), TicketState::Started, Duration::from_secs(20))
    };
    let awaited = fixture.tickets.await_ticket(&uid(), Role::Shadow, &order).await.unwrap();
    assert_eq!(awaited.state, TicketState::Started);
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    let again = Instant::now();
    fixture.tickets.await_ticket(&uid(), Role::Shadow, &order).await.unwrap();
    assert!(again.elapsed() < Duration::from_millis(100), "it has lived that long already");

    let longer = AwaitOrder { lived_ms: 60_000, ..order };
    let hands = Arc::clone(&fixture.hands);
    let ends = async {
        tokio::task::yield_now().await;
        hands.change("c", |life| life.end = Some(3));
    };
    let migration = uid();
    let (awaited, ()) = tokio::join!(fixture.tickets.await_ticket(&migration, Role::Shadow, &longer), ends);
    let awaited = awaited.unwrap();
    assert_eq!((awaited.state, awaited.fault), (TicketState::Waiting, Some(RestoreFault::Ended)));
    let failure = awaited.failure.unwrap();
    assert!(failure.starts_with("its process ended "), "{failure}");
    let tail = " ms after it was let go (exit code 3): does it end when its connections are closed?";
    assert!(failure.ends_with(tail), "{failure}");
}

#[tokio::test]
async fn a_ticket_that_is_spent_kills_what_stands_still_by_it_and_restores_nothing_any_more() {
    for role in [Role::Shadow, Role::Replacement] {
        let mut fixture = Fixture::new();
        fixture.hands.change("c", |life| life.is_unheard = true);
        fixture.restoring(role).await;
        fixture.restored(role);
        for _ in 0..2 {
            fixture.spend(role, Duration::ZERO).await.unwrap();
            assert!(fixture.hands.of("c").killed);
            assert!(matches!(fixture.claim_as(role, "c").await, Verdict::Refuse(_)));
            assert!(matches!(fixture.claim_as(role, "c2").await, Verdict::Refuse(_)));
            assert_eq!(fixture.state(role), TicketState::Closed);
            fixture.restart();
        }
        let manifest = fixture.tickets.archive(&uid(), Epoch(1)).unwrap().unwrap();
        assert_eq!(fixture.open(role, &manifest).unwrap_err().refusal, Refusal::StaleEpoch);
        assert!(!fixture.tickets.is_opened(&uid(), Epoch(1)), "its archive may be replaced");
    }
}

#[tokio::test]
async fn a_ticket_by_which_something_acts_is_not_spent_until_that_has_ended() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Replacement).await;
    fixture.restored(Role::Replacement);
    fixture.starts(Role::Replacement).await;
    let refused = fixture.spend(Role::Replacement, Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.refusal, Refusal::StillLives);
    assert_eq!(
        (fixture.state(Role::Replacement), fixture.hands.of("c").killed),
        (TicketState::Started, false)
    );
    fixture.hands.change("c", |life| life.end = Some(1));
    fixture.spend(Role::Replacement, Duration::ZERO).await.unwrap();
    assert_eq!(fixture.state(Role::Replacement), TicketState::Closed);
}

#[tokio::test]
async fn a_ticket_that_nobody_has_shown_is_spent_all_the_same() {
    let mut fixture = Fixture::new();
    fixture.spend(Role::Replacement, Duration::ZERO).await.unwrap();
    fixture.restart();
    assert!(matches!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Refuse(_)));
    let later = TicketId { life: crate::api::Life(2), ..id(Role::Replacement, 1) };
    let of_later = ClaimRequest { ticket: later, ..request(Role::Replacement, 1, "p") };
    assert_eq!(
        fixture.tickets.claim(&of_later, Instant::now()).await.unwrap(),
        Verdict::Wait,
        "the next life is another"
    );
}

#[tokio::test]
async fn a_restore_that_runs_while_its_ticket_is_spent_is_waited_for_and_its_record_refused() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Replacement).await;
    let refused = fixture.spend(Role::Replacement, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(refused.refusal, Refusal::TimedOut);
    let late = async {
        tokio::task::yield_now().await;
        fixture.tickets.ended(&id(Role::Replacement, 1), "app", &RestoreOutcome::Restored)
    };
    let (spent, recorded) = tokio::join!(fixture.spend(Role::Replacement, Duration::from_secs(20)), late);
    spent.unwrap();
    assert!(matches!(recorded, Err(NotRecorded::Spent)));
    assert!(fixture.hands.of("c").killed && fixture.hands.of("c").let_go == 0);
}

#[tokio::test]
async fn a_restore_is_called_off_when_its_ticket_is_spent_its_pod_killed_or_its_migration_closed() {
    for how in ["spent", "killed", "closed"] {
        let fixture = Fixture::new();
        fixture.restoring(Role::Replacement).await;
        let ticket = id(Role::Replacement, 1);
        let mut called_off = std::pin::pin!(fixture.tickets.called_off(&ticket, "app"));
        assert!(futures::poll!(&mut called_off).is_pending());
        fixture.tickets.call_off(&uid(), &"another".into()).unwrap();
        assert!(futures::poll!(&mut called_off).is_pending(), "another pod's");
        match how {
            "spent" => {
                assert!(fixture.spend(Role::Replacement, Duration::ZERO).await.is_err(), "it still runs");
            }
            "killed" => fixture.tickets.call_off(&uid(), &"p".into()).unwrap(),
            _ => fixture.tickets.close(&uid(), Epoch(1), false).unwrap(),
        }
        let why = tokio::time::timeout(Duration::from_secs(20), called_off).await.expect(how);
        assert_eq!(why, CalledOff::Spent, "{how}");
        let late = fixture.tickets.ended(&ticket, "app", &RestoreOutcome::Restored);
        assert!(matches!(late, Err(NotRecorded::Spent)), "{how}");
    }
}

/// CRIU would read on behind its end for ever.
#[tokio::test]
async fn a_restore_is_called_off_when_its_archive_is_cut_short() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Replacement).await;
    std::fs::write(fixture.tickets.store.archive(&uid(), Epoch(1)).join(LAYER), "").unwrap();
    let ticket = id(Role::Replacement, 1);
    let why = tokio::time::timeout(Duration::from_secs(20), fixture.tickets.called_off(&ticket, "app"))
        .await
        .unwrap();
    assert!(matches!(why, CalledOff::Damaged(reason) if reason.contains("damaged")));
}

#[tokio::test]
async fn a_late_order_to_spend_does_not_kill_the_pod_that_carries_on() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Replacement).await;
    fixture.restored(Role::Replacement);
    fixture.starts(Role::Replacement).await;
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    let late = fixture.spend(Role::Replacement, Duration::ZERO).await.unwrap_err();
    assert_eq!(late.refusal, Refusal::StaleEpoch);
    assert!(!fixture.hands.of("c").killed);
}

#[tokio::test]
async fn what_stands_still_when_its_migration_is_closed_is_killed_also_by_the_next_agent() {
    for restarted in [false, true] {
        let mut fixture = Fixture::new();
        fixture.rehearsed().await;
        if restarted {
            fixture.looks_after.abort();
        }
        fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
        if restarted {
            fixture.restart();
        }
        within("it is killed", || fixture.hands.of("c").killed.then_some(())).await;
        assert_eq!(fixture.hands.of("c").let_go, 0);
    }
}

#[tokio::test]
async fn from_the_second_life_on_the_archive_is_read_again_before_its_ticket_opens() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    let order = |life| OpenTicketOrder {
        epoch: Epoch(1),
        container: "app".into(),
        digest: manifest.digest.clone(),
        life: crate::api::Life(life),
        purpose: Purpose::Live,
        once: false,
    };
    fixture.tickets.open_ticket(&uid(), Role::Replacement, &order(2)).unwrap();
    let layer = fixture.tickets.store.archive(&uid(), Epoch(1)).join(LAYER);
    std::fs::write(&layer, "y").unwrap();
    fixture.tickets.open_ticket(&uid(), Role::Replacement, &order(1)).unwrap();
    fixture.tickets.open_ticket(&uid(), Role::Replacement, &order(2)).expect("open already");
    let damaged = fixture.tickets.open_ticket(&uid(), Role::Replacement, &order(3)).unwrap_err();
    assert_eq!(damaged.refusal, Refusal::DigestMismatch);
    assert!(damaged.message.contains("damaged since it arrived"), "{damaged}");
}

#[tokio::test]
async fn an_archive_is_kept_a_day_for_a_person_where_that_is_ordered() {
    let mut fixture = Fixture::new();
    fixture.add_archive(1);
    fixture.add_archive(2);
    fixture.tickets.close(&uid(), Epoch(2), true).unwrap();
    let kept = fixture.tickets.store.kept_archive(&uid(), Epoch(2));
    assert!(kept.join(LAYER).exists() && fixture.tickets.store.archives().unwrap().is_empty());
    assert!(!fixture.tickets.store.kept_archive(&uid(), Epoch(1)).exists(), "only the last one");
    fixture.tickets.close(&uid(), Epoch(2), false).unwrap();
    fixture.restart();
    assert!(kept.join(LAYER).exists());
    assert_eq!(fixture.tickets.kept().unwrap(), Kept::default());
    let since = Timestamp::now() - TOMBSTONE_AGE * 2;
    store::write(&fixture.tickets.store.kept_since(&kept), &since, Durability::Process).unwrap();
    fixture.tickets.sweep_kept().unwrap();
    assert!(!kept.exists());
}
