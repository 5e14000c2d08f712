use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::AbortHandle;

use hands::Hands;

use super::closing::TOMBSTONE_AGE;
use super::*;
use crate::agent::node::host::Host;
use crate::agent::transfer::archive::{self, IMAGES, LAYER, Origin};
use crate::api::{AwaitOrder, AwaitedTicket, Kept, Purpose, SpendOrder};

mod hands;
mod init;
mod lives;
mod pods;

const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

struct Fixture {
    dir: tempfile::TempDir,
    tickets: Arc<Tickets>,
    hands: Arc<Hands>,
    looks_after: AbortHandle,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.looks_after.abort();
    }
}

fn tickets(dir: &Path, hands: &Arc<Hands>) -> (Arc<Tickets>, AbortHandle) {
    let store = Store::open(&dir.join("s")).unwrap();
    let containers = Containers::new(Host::at(&dir.join("node")));
    let tickets = Arc::new(Tickets::over(store, containers, Arc::<Hands>::clone(hands)).unwrap());
    let looks_after = tokio::spawn(Arc::clone(&tickets).look_after()).abort_handle();
    (tickets, looks_after)
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("node").join(&BUNDLES[1..])).unwrap();
        let hands = Arc::default();
        let (tickets, looks_after) = tickets(dir.path(), &hands);
        Self { dir, tickets, hands, looks_after }
    }

    /// The agent is started again.
    fn restart(&mut self) {
        self.looks_after.abort();
        (self.tickets, self.looks_after) = tickets(self.dir.path(), &self.hands);
    }

    /// A task of this pod is on the node.
    fn add_pod(&self, pod: &str) {
        let bundle = self.dir.path().join("node").join(&BUNDLES[1..]).join("x");
        std::fs::create_dir_all(&bundle).unwrap();
        let config = serde_json::json!({"annotations": {"io.kubernetes.cri.sandbox-uid": pod}});
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    }

    fn add_archive(&self, epoch: u32) -> Manifest {
        self.add_archive_of(epoch, &[])
    }

    /// A verified archive of container `app` and others.
    fn add_archive_of(&self, epoch: u32, beside: &[&str]) -> Manifest {
        let place = self.tickets.store.archive(&uid(), Epoch(epoch));
        std::fs::create_dir_all(place.join(IMAGES)).unwrap();
        std::fs::write(place.join(LAYER), "x").unwrap();
        for number in 0..beside.len() {
            let part = place.join(archive::container_folder(number)).join(IMAGES);
            std::fs::create_dir_all(&part).unwrap();
            std::fs::write(part.with_file_name(LAYER), "y").unwrap();
        }
        let beside = beside.iter().map(ToString::to_string).collect();
        let origin = Origin { migration: uid(), epoch: Epoch(epoch), container: "app".into(), beside };
        let manifest = archive::write(&place, &origin, &mut |_| true).unwrap();
        store::write(&place.join(MANIFEST), &manifest, Durability::Process).unwrap();
        manifest
    }

    fn open(&self, role: Role, manifest: &Manifest) -> Result<(), Failure> {
        let order = OpenTicketOrder {
            epoch: manifest.epoch,
            container: "app".into(),
            digest: manifest.digest.clone(),
            life: crate::api::Life::FIRST,
            purpose: Purpose::Live,
            once: false,
        };
        self.tickets.open_ticket(&uid(), role, &order)
    }

    fn restored(&self, role: Role) {
        self.tickets.ended(&id(role, 1), "app", &RestoreOutcome::Restored).unwrap();
    }

    /// It is let go.
    async fn starts(&self, role: Role) {
        let order = AwaitOrder::first(Epoch(1), TicketState::Started, Duration::from_secs(20));
        let awaited = self.tickets.await_ticket(&uid(), role, &order).await.unwrap();
        assert_eq!(awaited.state, TicketState::Started);
    }

    /// Epoch 1 has its archive, and pod `p` restores from it.
    async fn restoring(&self, role: Role) {
        let manifest = self.add_archive(1);
        self.open(role, &manifest).unwrap();
        assert_eq!(self.claim(role, 1, "p").await, Verdict::Restore);
    }

    async fn claim(&self, role: Role, epoch: u32, pod: &str) -> Verdict {
        self.tickets.claim(&request(role, epoch, pod), Instant::now()).await.unwrap()
    }

    async fn awaited(
        &self,
        at_least: TicketState,
        epoch: u32,
        timeout_ms: u64,
    ) -> Result<AwaitedTicket, Failure> {
        let order = AwaitOrder::first(Epoch(epoch), at_least, Duration::from_millis(timeout_ms));
        self.tickets.await_ticket(&uid(), Role::Shadow, &order).await
    }
}

fn uid() -> MigrationUid {
    "0b5c".into()
}

fn request(role: Role, epoch: u32, pod: &str) -> ClaimRequest {
    ClaimRequest {
        ticket: TicketId { migration: uid(), epoch: Epoch(epoch), role, life: crate::api::Life::FIRST },
        pod: pod.into(),
        container: "app".into(),
        container_id: "c".into(),
        pod_ip: Some("10.0.0.1".into()),
        init: false,
        fresh: false,
        at_once: false,
    }
}

fn id(role: Role, epoch: u32) -> TicketId {
    request(role, epoch, "").ticket
}

#[tokio::test]
async fn a_waiting_claim_is_seen_by_the_operator_and_woken_by_the_opening() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    let claimant = tokio::spawn({
        let tickets = Arc::clone(&fixture.tickets);
        async move {
            tickets.claim(&request(Role::Shadow, 1, "p"), Instant::now() + Duration::from_secs(20)).await
        }
    });
    let waiting = fixture.awaited(TicketState::Waiting, 1, 20_000).await.unwrap();
    assert_eq!(
        (waiting.state, waiting.pod, waiting.pod_ip.as_deref()),
        (TicketState::Waiting, Some("p".into()), Some("10.0.0.1"))
    );
    fixture.open(Role::Shadow, &manifest).unwrap();
    assert_eq!(claimant.await.unwrap().unwrap(), Verdict::Restore);
    fixture.tickets.ended(&id(Role::Shadow, 1), "app", &RestoreOutcome::Restored).unwrap();
    assert_eq!(fixture.awaited(TicketState::Started, 1, 20_000).await.unwrap().state, TicketState::Started);
}

#[tokio::test]
async fn a_failed_restore_wakes_the_operator_once_with_its_reason() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Shadow).await;
    let failed = RestoreOutcome::Failed { reason: "no such file".into(), fault: RestoreFault::MoreThanSpec };
    fixture.tickets.ended(&id(Role::Shadow, 1), "app", &failed).unwrap();
    let told = fixture.awaited(TicketState::Started, 1, 20_000).await.unwrap();
    assert_eq!(told.failure.as_deref(), Some("no such file"));
    assert_eq!(told.fault, Some(RestoreFault::MoreThanSpec));
    let begun = Instant::now();
    let again = fixture.awaited(TicketState::Started, 1, 60).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(60) && again.failure.is_some());
}

#[tokio::test]
async fn a_ticket_opens_only_on_the_verified_archive_it_names() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    let other = Manifest { digest: "00".into(), ..manifest.clone() };
    assert_eq!(fixture.open(Role::Shadow, &other).unwrap_err().refusal, Refusal::DigestMismatch);
    let missing = Manifest { epoch: Epoch(2), ..manifest };
    assert_eq!(fixture.open(Role::Shadow, &missing).unwrap_err().refusal, Refusal::DigestMismatch);
}

#[tokio::test]
async fn an_archive_that_was_cut_short_is_neither_opened_nor_handed_out() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    let pages = fixture.tickets.store.archive(&uid(), Epoch(1)).join(LAYER);
    std::fs::write(&pages, "").unwrap();
    assert_eq!(fixture.open(Role::Shadow, &manifest).unwrap_err().refusal, Refusal::DigestMismatch);
    std::fs::write(&pages, "x").unwrap();
    fixture.open(Role::Shadow, &manifest).unwrap();
    std::fs::write(&pages, "").unwrap();
    let Verdict::Refuse(reason) = fixture.claim(Role::Shadow, 1, "p").await else { panic!() };
    assert!(reason.contains("damaged"), "{reason}");
    let (told, _, news) = fixture.tickets.look(&id(Role::Shadow, 1));
    assert_eq!((told.fault, told.failure, news), (Some(RestoreFault::ArchiveDamaged), Some(reason), true));
}

#[tokio::test]
async fn tickets_and_tombstones_survive_a_restart() {
    let mut fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    fixture.open(Role::Replacement, &manifest).unwrap();
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.restart(); // in the middle of the restore: it may be tried again
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.restored(Role::Replacement);
    fixture.starts(Role::Replacement).await;
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    assert!(!fixture.tickets.store.archive(&uid(), Epoch(1)).exists());
    fixture.restart();
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    // The `create` that has restored it may ask after that; the next one of the same container starts fresh.
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Recorded);
    let next = ClaimRequest { container_id: "d".into(), ..request(Role::Replacement, 1, "p") };
    assert!(matches!(fixture.tickets.claim(&next, Instant::now()).await.unwrap(), Verdict::Fresh(_)));
    let shadow = ClaimRequest { container_id: "d".into(), ..request(Role::Shadow, 1, "p") };
    assert!(matches!(fixture.tickets.claim(&shadow, Instant::now()).await.unwrap(), Verdict::Refuse(_)));
    assert!(fixture.tickets.store.tickets().unwrap().is_empty());
    let late = fixture.tickets.ended(&id(Role::Replacement, 1), "app", &RestoreOutcome::Restored);
    assert!(
        matches!(late, Err(NotRecorded::Spent)),
        "what is restored now is never let go, so it must not live"
    );
    assert!(fixture.tickets.store.tickets().unwrap().is_empty());
    assert_eq!(fixture.open(Role::Shadow, &manifest).unwrap_err().refusal, Refusal::StaleEpoch);
    assert!(fixture.tickets.report(&uid()).unwrap().closed);
}

#[tokio::test]
async fn who_leaves_before_the_opening_leaves_no_ticket() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.claim(Role::Shadow, 1, "p").await, Verdict::Wait);
    fixture.tickets.left(&id(Role::Shadow, 1)).unwrap();
    assert!(fixture.tickets.store.tickets().unwrap().is_empty());
    assert_eq!(fixture.claim(Role::Shadow, 1, "q").await, Verdict::Wait);
    fixture.restart(); // and it has not been heard of any more
    assert!(fixture.tickets.store.tickets().unwrap().is_empty());
    let manifest = fixture.add_archive(1);
    fixture.open(Role::Shadow, &manifest).unwrap();
    fixture.tickets.left(&id(Role::Shadow, 1)).unwrap();
    assert_eq!(fixture.claim(Role::Shadow, 1, "p").await, Verdict::Restore);
}

#[tokio::test]
async fn an_older_epoch_moves_nothing_and_restores_nothing() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    fixture.tickets.pass(&uid(), |fence| fence.admit_forward(Epoch(2))).unwrap();
    assert_eq!(fixture.open(Role::Shadow, &manifest).unwrap_err().refusal, Refusal::StaleEpoch);
    assert_eq!(fixture.awaited(TicketState::Waiting, 1, 10).await.unwrap_err().refusal, Refusal::StaleEpoch);
    let older = fixture.claim(Role::Replacement, 1, "p").await;
    assert!(
        matches!(older, Verdict::Refuse(_)),
        "fresh, it would be a second life beside the newer attempt's: {older:?}"
    );
    assert!(fixture.tickets.close(&uid(), Epoch(1), false).is_err());
    assert_eq!(fixture.claim(Role::Replacement, 3, "p").await, Verdict::Wait); // a newer attempt may be on its way
}

#[tokio::test]
async fn closing_wakes_who_waits() {
    let fixture = Fixture::new();
    let claimant = tokio::spawn({
        let tickets = Arc::clone(&fixture.tickets);
        async move {
            tickets.claim(&request(Role::Replacement, 1, "p"), Instant::now() + Duration::from_secs(20)).await
        }
    });
    while fixture.tickets.book.lock().tickets.is_empty() {
        tokio::task::yield_now().await;
    }
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    assert!(matches!(claimant.await.unwrap().unwrap(), Verdict::Fresh(_)));
}

#[tokio::test]
async fn the_next_pod_object_restores_once_the_first_one_is_gone() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    fixture.open(Role::Replacement, &manifest).unwrap();
    fixture.add_pod("p");
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.tickets.ended(&id(Role::Replacement, 1), "app", &RestoreOutcome::Restored).unwrap();
    assert_eq!(fixture.claim(Role::Replacement, 1, "q").await, Verdict::Wait);
    fixture.add_pod("other");
    assert_eq!(fixture.claim(Role::Replacement, 1, "q").await, Verdict::Restore);
}

#[tokio::test]
async fn an_old_tombstone_stays_as_long_as_a_pod_that_held_the_ticket_is_there() {
    let mut fixture = Fixture::new();
    fixture.add_pod("p");
    fixture.claim(Role::Replacement, 1, "p").await;
    fixture.tickets.close(&uid(), Epoch(1), false).unwrap();
    let path = fixture.tickets.store.tombstone(&uid());
    let mut tombstone: Tombstone = store::read(&path).unwrap().unwrap();
    assert_eq!(tombstone.pods, ["p".into()]);
    tombstone.at -= TOMBSTONE_AGE * 2;
    store::write(&path, &tombstone, Durability::Process).unwrap();
    fixture.restart();
    assert!(path.exists());
    fixture.add_pod("other");
    fixture.restart();
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_kept_is_told_with_its_largest_epoch_until_it_is_closed() {
    let fixture = Fixture::new();
    assert_eq!(fixture.tickets.kept().unwrap(), Kept::default());
    fixture.add_archive(1);
    let manifest = fixture.add_archive(3);
    fixture.open(Role::Shadow, &manifest).unwrap();
    assert_eq!(fixture.tickets.kept().unwrap().migrations, [(uid(), Epoch(3))].into());
    fixture.tickets.close(&uid(), Epoch(3), false).unwrap();
    assert_eq!(fixture.tickets.kept().unwrap(), Kept::default());
}

#[tokio::test]
async fn a_restore_that_cannot_be_put_on_record_gives_its_ticket_back() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Replacement).await;
    let id = request(Role::Replacement, 1, "p").ticket;
    // As a disk that is full: nothing can be written any more.
    let (folder, aside) = (fixture.dir.path().join("s/tickets"), fixture.dir.path().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    assert!(fixture.tickets.ended(&id, "app", &RestoreOutcome::Restored).is_err());
    let reason = "not put on record".to_owned();
    let failed = RestoreOutcome::Failed { reason, fault: RestoreFault::BrokenOff };
    assert!(fixture.tickets.ended(&id, "app", &failed).is_err());
    std::fs::rename(&aside, &folder).unwrap();
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.tickets.ended(&id, "app", &RestoreOutcome::Restored).unwrap();
    fixture.starts(Role::Replacement).await;
}
