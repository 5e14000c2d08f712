use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::agent::archive::{self, IMAGES, LAYER, Origin};
use crate::agent::host::Host;

struct Fixture {
    dir: tempfile::TempDir,
    desk: Arc<Desk>,
}

fn desk(dir: &Path) -> Arc<Desk> {
    let store = Store::open(&dir.join("s")).unwrap();
    Arc::new(Desk::open(store, Containers::new(Host::at(&dir.join("node")))).unwrap())
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("node/run/containerd/io.containerd.runtime.v2.task/k8s.io"))
            .unwrap();
        let desk = desk(dir.path());
        Self { dir, desk }
    }

    /// The agent is started again.
    fn restart(&mut self) {
        self.desk = desk(self.dir.path());
    }

    /// A task of this pod is on the node.
    fn add_pod(&self, pod: &str) {
        let bundle = "node/run/containerd/io.containerd.runtime.v2.task/k8s.io/x";
        let bundle = self.dir.path().join(bundle);
        std::fs::create_dir_all(&bundle).unwrap();
        let config = serde_json::json!({"annotations": {"io.kubernetes.cri.sandbox-uid": pod}});
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    }

    /// A verified archive of container `app`.
    fn add_archive(&self, epoch: u32) -> Manifest {
        let place = self.desk.store.archive(&uid(), Epoch(epoch));
        std::fs::create_dir_all(place.join(IMAGES)).unwrap();
        std::fs::write(place.join(LAYER), "x").unwrap();
        let origin = Origin { migration: uid(), epoch: Epoch(epoch), container: "app".into() };
        let manifest = archive::write(&place, &origin, &mut |_| true).unwrap();
        store::write(&place.join(MANIFEST), &manifest, Durability::Process).unwrap();
        manifest
    }

    fn open(&self, role: Role, manifest: &Manifest) -> Result<(), Failure> {
        let order = OpenTicketOrder {
            epoch: manifest.epoch,
            container: "app".into(),
            digest: manifest.digest.clone(),
        };
        self.desk.open_ticket(&uid(), role, &order)
    }

    /// Epoch 1 has its archive, and pod `p` restores from it.
    async fn restoring(&self, role: Role) {
        let manifest = self.add_archive(1);
        self.open(role, &manifest).unwrap();
        assert_eq!(self.claim(role, 1, "p").await, Verdict::Restore);
    }

    async fn claim(&self, role: Role, epoch: u32, pod: &str) -> Verdict {
        self.desk.claim(&request(role, epoch, pod), Instant::now()).await.unwrap()
    }

    async fn awaited(
        &self,
        at_least: TicketState,
        epoch: u32,
        timeout_ms: u64,
    ) -> Result<AwaitedTicket, Failure> {
        let order = AwaitOrder { epoch: Epoch(epoch), at_least, timeout_ms };
        self.desk.await_ticket(&uid(), Role::Shadow, &order).await
    }
}

fn uid() -> MigrationUid {
    "0b5c".into()
}

fn request(role: Role, epoch: u32, pod: &str) -> ClaimRequest {
    ClaimRequest {
        ticket: TicketId { migration: uid(), epoch: Epoch(epoch), role },
        pod: pod.into(),
        container: "app".into(),
        container_id: "c".into(),
        pod_ip: Some("10.0.0.1".into()),
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
        let desk = Arc::clone(&fixture.desk);
        async move { desk.claim(&request(Role::Shadow, 1, "p"), Instant::now() + Duration::from_secs(20)).await }
    });
    let waiting = fixture.awaited(TicketState::Waiting, 1, 20_000).await.unwrap();
    assert_eq!(
        (waiting.state, waiting.pod, waiting.pod_ip.as_deref()),
        (TicketState::Waiting, Some("p".into()), Some("10.0.0.1"))
    );
    fixture.open(Role::Shadow, &manifest).unwrap();
    assert_eq!(claimant.await.unwrap().unwrap(), Verdict::Restore);
    fixture.desk.ended(&id(Role::Shadow, 1), &RestoreOutcome::Restored).unwrap();
    assert_eq!(fixture.awaited(TicketState::Started, 1, 20_000).await.unwrap().state, TicketState::Started);
}

/// A kubelet that dies while its engine starts what was restored has it killed: that is not the pod that carries on.
#[tokio::test]
async fn what_is_restored_counts_only_once_the_engine_has_started_it_and_is_restored_again_if_it_never_does()
{
    let fixture = Fixture::new();
    let record = fixture.dir.path().join("node/var/lib/containerd/io.containerd.grpc.v1.cri/containers/c");
    std::fs::create_dir_all(&record).unwrap();
    std::fs::create_dir_all(record.with_file_name("c2")).unwrap();
    fixture.restoring(Role::Shadow).await;
    fixture.desk.ended(&id(Role::Shadow, 1), &RestoreOutcome::Restored).unwrap();
    assert_eq!(fixture.awaited(TicketState::Started, 1, 60).await.unwrap().state, TicketState::Restored);
    let again = ClaimRequest { container_id: "c2".into(), ..request(Role::Shadow, 1, "p") };
    let verdict = fixture.desk.claim(&again, Instant::now()).await.unwrap();
    assert_eq!(verdict, Verdict::Restore, "the first one never started");
    fixture.desk.ended(&id(Role::Shadow, 1), &RestoreOutcome::Restored).unwrap();
    let record = record.with_file_name("c2");
    let awaited = fixture.awaited(TicketState::Started, 1, 20_000);
    let started = async {
        tokio::task::yield_now().await;
        std::fs::write(record.join("status"), r#"{"StartedAt":1}"#).unwrap();
    };
    let (awaited, ()) = tokio::join!(awaited, started);
    assert_eq!(awaited.unwrap().state, TicketState::Started);
}

#[tokio::test]
async fn a_failed_restore_wakes_the_operator_once_with_its_reason() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Shadow).await;
    let failed = RestoreOutcome::Failed { reason: "no such file".into() };
    fixture.desk.ended(&id(Role::Shadow, 1), &failed).unwrap();
    let told = fixture.awaited(TicketState::Started, 1, 20_000).await.unwrap();
    assert_eq!((told.state, told.failure.as_deref()), (TicketState::Waiting, Some("no such file")));
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
async fn tickets_and_tombstones_survive_a_restart() {
    let mut fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    fixture.open(Role::Replacement, &manifest).unwrap();
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.restart(); // in the middle of the restore: it may be tried again
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.desk.ended(&id(Role::Replacement, 1), &RestoreOutcome::Restored).unwrap();
    fixture.desk.close(&uid(), Epoch(1)).unwrap();
    assert!(!fixture.desk.store.archive(&uid(), Epoch(1)).exists());
    fixture.restart();
    fixture.desk.close(&uid(), Epoch(1)).unwrap();
    // The `create` that has restored it may ask after that; the next one of the same container starts fresh.
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Recorded);
    let next = ClaimRequest { container_id: "d".into(), ..request(Role::Replacement, 1, "p") };
    assert!(matches!(fixture.desk.claim(&next, Instant::now()).await.unwrap(), Verdict::Fresh(_)));
    let shadow = ClaimRequest { container_id: "d".into(), ..request(Role::Shadow, 1, "p") };
    assert!(matches!(fixture.desk.claim(&shadow, Instant::now()).await.unwrap(), Verdict::Refuse(_)));
    assert!(fixture.desk.store.tickets().unwrap().is_empty());
    fixture.desk.ended(&id(Role::Replacement, 1), &RestoreOutcome::Restored).unwrap();
    assert!(fixture.desk.store.tickets().unwrap().is_empty());
    assert_eq!(fixture.open(Role::Shadow, &manifest).unwrap_err().refusal, Refusal::StaleEpoch);
    assert!(fixture.desk.report(&uid()).unwrap().closed);
}

#[tokio::test]
async fn who_leaves_before_the_opening_leaves_no_ticket() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.claim(Role::Shadow, 1, "p").await, Verdict::Wait);
    fixture.desk.left(&id(Role::Shadow, 1)).unwrap();
    assert!(fixture.desk.store.tickets().unwrap().is_empty());
    assert_eq!(fixture.claim(Role::Shadow, 1, "q").await, Verdict::Wait);
    fixture.restart(); // and it has not been heard of any more
    assert!(fixture.desk.store.tickets().unwrap().is_empty());
    let manifest = fixture.add_archive(1);
    fixture.open(Role::Shadow, &manifest).unwrap();
    fixture.desk.left(&id(Role::Shadow, 1)).unwrap();
    assert_eq!(fixture.claim(Role::Shadow, 1, "p").await, Verdict::Restore);
}

#[tokio::test]
async fn an_older_epoch_moves_nothing_and_restores_nothing() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    fixture.desk.pass(&uid(), |fence| fence.admit_forward(Epoch(2))).unwrap();
    assert_eq!(fixture.open(Role::Shadow, &manifest).unwrap_err().refusal, Refusal::StaleEpoch);
    assert_eq!(fixture.awaited(TicketState::Waiting, 1, 10).await.unwrap_err().refusal, Refusal::StaleEpoch);
    assert!(matches!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Fresh(_)));
    assert!(fixture.desk.close(&uid(), Epoch(1)).is_err());
    assert_eq!(fixture.claim(Role::Replacement, 3, "p").await, Verdict::Wait); // a newer attempt may be on its way
}

#[tokio::test]
async fn closing_wakes_who_waits() {
    let fixture = Fixture::new();
    let claimant = tokio::spawn({
        let desk = Arc::clone(&fixture.desk);
        async move {
            desk.claim(&request(Role::Replacement, 1, "p"), Instant::now() + Duration::from_secs(20)).await
        }
    });
    while fixture.desk.book.lock().tickets.is_empty() {
        tokio::task::yield_now().await;
    }
    fixture.desk.close(&uid(), Epoch(1)).unwrap();
    assert!(matches!(claimant.await.unwrap().unwrap(), Verdict::Fresh(_)));
}

#[tokio::test]
async fn the_next_pod_object_restores_once_the_first_one_is_gone() {
    let fixture = Fixture::new();
    let manifest = fixture.add_archive(1);
    fixture.open(Role::Replacement, &manifest).unwrap();
    fixture.add_pod("p");
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.desk.ended(&id(Role::Replacement, 1), &RestoreOutcome::Restored).unwrap();
    assert_eq!(fixture.claim(Role::Replacement, 1, "q").await, Verdict::Wait);
    fixture.add_pod("other");
    assert_eq!(fixture.claim(Role::Replacement, 1, "q").await, Verdict::Restore);
}

#[tokio::test]
async fn an_old_tombstone_stays_as_long_as_a_pod_that_held_the_ticket_is_there() {
    let mut fixture = Fixture::new();
    fixture.add_pod("p");
    fixture.claim(Role::Replacement, 1, "p").await;
    fixture.desk.close(&uid(), Epoch(1)).unwrap();
    let path = fixture.desk.store.tombstone(&uid());
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

#[test]
fn what_is_kept_is_told_with_its_largest_epoch_until_it_is_closed() {
    let fixture = Fixture::new();
    assert_eq!(fixture.desk.kept().unwrap(), Kept::default());
    fixture.add_archive(1);
    let manifest = fixture.add_archive(3);
    fixture.open(Role::Shadow, &manifest).unwrap();
    assert_eq!(fixture.desk.kept().unwrap().migrations, [(uid(), Epoch(3))].into());
    fixture.desk.close(&uid(), Epoch(3)).unwrap();
    assert_eq!(fixture.desk.kept().unwrap(), Kept::default());
}

#[tokio::test]
async fn a_restore_that_cannot_be_put_on_record_gives_its_ticket_back() {
    let fixture = Fixture::new();
    fixture.restoring(Role::Replacement).await;
    let id = request(Role::Replacement, 1, "p").ticket;
    // As a disk that is full: nothing can be written any more.
    let (folder, aside) = (fixture.dir.path().join("s/tickets"), fixture.dir.path().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    assert!(fixture.desk.ended(&id, &RestoreOutcome::Restored).is_err());
    let reason = "not put on record".to_owned();
    assert!(fixture.desk.ended(&id, &RestoreOutcome::Failed { reason }).is_err());
    std::fs::rename(&aside, &folder).unwrap();
    assert_eq!(fixture.claim(Role::Replacement, 1, "p").await, Verdict::Restore);
    fixture.desk.ended(&id, &RestoreOutcome::Restored).unwrap();
    assert_eq!(fixture.desk.look(&id).0.state, TicketState::Started);
}
