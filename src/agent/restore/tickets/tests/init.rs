//! Init containers that are completed without running.

use super::*;

fn init(role: Role, pod: &str) -> ClaimRequest {
    ClaimRequest { container: "fill".into(), container_id: "i".into(), init: true, ..request(role, 1, pod) }
}

impl Fixture {
    fn barred(&self) -> Vec<PodUid> {
        self.tickets.kept().unwrap().barred
    }

    async fn completes(&self, role: Role, pod: &str) -> Verdict {
        self.tickets.claim(&init(role, pod), Instant::now()).await.unwrap()
    }
}

#[tokio::test]
async fn a_pod_whose_init_containers_were_completed_never_starts_fresh_once_its_migration_is_given_up() {
    let mut fixture = Fixture::new();
    fixture.add_pod("p");
    assert_eq!(fixture.completes(Role::Replacement, "p").await, Verdict::Complete);
    fixture.tickets.left(&id(Role::Replacement, 1)).unwrap();
    fixture.restart();
    assert!(fixture.barred().is_empty(), "it may be restored still");
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    assert_eq!(fixture.barred(), ["p".into()], "so that somebody deletes it");
    fixture.restart();
    assert_eq!(fixture.barred(), ["p".into()]);
    for verdict in
        [fixture.claim(Role::Replacement, 1, "p").await, fixture.completes(Role::Replacement, "p").await]
    {
        assert!(matches!(&verdict, Verdict::Refuse(why) if why.contains("delete the pod")), "{verdict:?}");
    }
    for verdict in
        [fixture.completes(Role::Replacement, "q").await, fixture.claim(Role::Replacement, 1, "q").await]
    {
        assert!(matches!(verdict, Verdict::Fresh(_)), "the next pod runs its own: {verdict:?}");
    }
    fixture.add_pod("q");
    assert!(fixture.barred().is_empty(), "nobody has to delete it once more");
}

#[tokio::test]
async fn a_pod_that_was_restored_is_one_like_any_other_and_runs_them_in_a_new_sandbox() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    assert_eq!(fixture.completes(Role::Replacement, "p").await, Verdict::Complete);
    fixture.open(Role::Replacement, &manifest).unwrap();
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.restored(Role::Replacement);
    fixture.starts(Role::Replacement).await;
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    assert!(matches!(fixture.completes(Role::Replacement, "p").await, Verdict::Fresh(_)));
    let next = ClaimRequest { container_id: "d".into(), ..request(Role::Replacement, 1, "p") };
    assert!(matches!(fixture.tickets.claim(&next, Instant::now()).await.unwrap(), Verdict::Fresh(_)));
}

#[tokio::test]
async fn a_shadows_are_completed_and_after_its_end_refused() {
    let fixture = Fixture::new();
    assert_eq!(fixture.completes(Role::Shadow, "s").await, Verdict::Complete);
    assert_eq!(fixture.claim(Role::Shadow, 1, "s").await, Verdict::Wait);
    fixture.add_pod("s");
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    assert!(fixture.barred().is_empty(), "it never starts fresh anyway");
    assert!(matches!(fixture.completes(Role::Shadow, "s").await, Verdict::Refuse(_)));
}

#[tokio::test]
async fn of_a_pod_that_is_gone_before_its_ticket_was_opened_nothing_is_kept() {
    let mut fixture = Fixture::new();
    fixture.add_pod("p");
    assert_eq!(fixture.completes(Role::Replacement, "p").await, Verdict::Complete);
    fixture.restart();
    assert_eq!(fixture.tickets.store.tickets().unwrap().len(), 1);
    fixture.add_pod("other");
    fixture.restart();
    assert!(fixture.tickets.store.tickets().unwrap().is_empty());
}
