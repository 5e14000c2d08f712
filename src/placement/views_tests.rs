use futures::channel::mpsc::{UnboundedSender, unbounded};
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::api::{
    HeldRoom, NodeCapacitySpec, Phase, StatefulMigrationSpec, StatefulMigrationStatus, lease_of_agent,
};

type Events<K> = UnboundedSender<watcher::Result<Event<K>>>;

struct Watches {
    capacities: Events<Capacity>,
    leases: Events<Lease>,
    migrations: Events<StatefulMigration>,
    shadows: Events<Pod>,
    views: Views,
}

impl Watches {
    /// Follows watches that the test feeds.
    fn follow() -> Self {
        let (capacities, c) = unbounded();
        let (leases, l) = unbounded();
        let (migrations, m) = unbounded();
        let (shadows, s) = unbounded();
        let (views, following) = Views::follow(c, l, m, s);
        tokio::spawn(following);
        Self { capacities, leases, migrations, shadows, views }
    }

    fn list<K>(to: &Events<K>, objects: Vec<K>) {
        for event in std::iter::once(Event::Init).chain(objects.into_iter().map(Event::InitApply)) {
            to.unbounded_send(Ok(event)).unwrap();
        }
        to.unbounded_send(Ok(Event::InitDone)).unwrap();
    }

    /// Lists one node, its lease, and these migrations.
    async fn listed(migrations: Vec<StatefulMigration>) -> Self {
        let watches = Self::follow();
        Self::list(&watches.capacities, vec![capacity("n1", 7)]);
        Self::list(&watches.leases, vec![lease("n1")]);
        Self::list(&watches.migrations, migrations);
        Self::list(&watches.shadows, vec![]);
        watches.views.synced().await;
        watches
    }

    async fn until(&self, holds: impl Fn(&View) -> bool) -> Arc<View> {
        let mut views = self.views.clone();
        loop {
            let view = views.newest();
            if holds(&view) {
                return view;
            }
            views.changed().await;
        }
    }
}

fn capacity(node: &str, free_bytes: u64) -> Capacity {
    DeserializeGuard(Ok(NodeCapacity::new(
        node,
        NodeCapacitySpec { free_bytes, ..NodeCapacitySpec::default() },
    )))
}

fn lease(node: &str) -> Lease {
    lease_of(node, Timestamp::now())
}

fn lease_of(node: &str, renewed: Timestamp) -> Lease {
    let name = Some(lease_of_agent(&node.into()));
    let spec = LeaseSpec { renew_time: Some(MicroTime(renewed)), ..LeaseSpec::default() };
    Lease { metadata: ObjectMeta { name, ..ObjectMeta::default() }, spec: Some(spec) }
}

fn shadow(migration: &str, node: Option<&str>) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {
            "name": "web-0-shadow-1",
            "uid": format!("of-{migration}"),
            "labels": {LABEL_MIGRATION: migration},
            "ownerReferences": [{"apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration", "name": "m", "uid": migration}],
        },
        "spec": {"nodeName": node, "containers": []},
    }))
    .unwrap()
}

fn migration(uid: &str, until: &str) -> StatefulMigration {
    let spec: StatefulMigrationSpec =
        serde_json::from_value(serde_json::json!({"sourcePod": "web-0", "deadlineSeconds": 300})).unwrap();
    let mut object = StatefulMigration::new(uid, spec);
    object.metadata.uid = Some(uid.to_owned());
    object.status = Some(StatefulMigrationStatus {
        phase: Phase::Transferring,
        source_node: Some("n1".to_owned()),
        reservation: Some(HeldRoom { bytes: 5, since: "1".to_owned(), until: until.to_owned() }),
        ..StatefulMigrationStatus::default()
    });
    object
}

const FAR: &str = "2999-01-01T00:00:00Z";

#[tokio::test(start_paused = true)]
async fn nothing_is_current_before_all_have_listed_what_there_is() {
    let watches = Watches::follow();
    Watches::list(&watches.capacities, vec![capacity("n1", 7)]);
    Watches::list(&watches.leases, vec![lease("n1")]);
    tokio::time::sleep(TICK * 5).await;
    assert_eq!(watches.views.newest().must_be_current(), Err(Stale::NotSynced));
    Watches::list(&watches.migrations, vec![migration("m1", FAR)]);
    Watches::list(&watches.shadows, vec![]);
    watches.views.synced().await;
    let view = watches.views.newest();
    assert_eq!(view.must_know(&"m1".into()), Ok(()));
    assert_eq!(view.must_know(&"m2".into()), Err(Stale::NoReservation));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_silent_is_dead_after_a_while_and_alive_when_it_is_heard_of_again() {
    let watches = Watches::listed(vec![]).await;
    let alive = |view: &View| view.snapshot.nodes[&NodeName::from("n1")].is_alive;
    watches.until(alive).await;
    let from = Instant::now();
    let silent = watches.until(|view| !alive(view)).await;
    let took = from.elapsed();
    assert!(took + TICK * 3 > SILENCE && took < SILENCE * 2, "{took:?}");
    assert_eq!(silent.must_be_current(), Err(Stale::Silence));
    watches.leases.unbounded_send(Ok(Event::Apply(lease("n1")))).unwrap();
    watches.until(alive).await;
}

/// Otherwise nodes and reservations would be gone for a moment, and what others hold be given away.
#[tokio::test(start_paused = true)]
async fn while_a_watch_lists_anew_the_last_list_stands() {
    let watches = Watches::listed(vec![migration("m1", FAR)]).await;
    watches.migrations.unbounded_send(Ok(Event::Init)).unwrap();
    watches.capacities.unbounded_send(Ok(Event::Init)).unwrap();
    watches.leases.unbounded_send(Ok(Event::Apply(lease("n2")))).unwrap();
    tokio::time::sleep(TICK * 5).await;
    let view = watches.views.newest();
    assert_eq!((view.snapshot.nodes.len(), view.snapshot.reservations.len()), (1, 1));
    watches.migrations.unbounded_send(Ok(Event::InitDone)).unwrap();
    watches.until(|view| view.snapshot.reservations.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn room_that_was_held_is_free_when_the_migration_ends_is_gone_or_has_expired() {
    let held = vec![migration("ends", FAR), migration("goes", FAR), migration("old", "2001-01-01T00:00:00Z")];
    let watches = Watches::listed(held).await;
    let names = |view: &View| {
        let mut all: Vec<_> = view.snapshot.reservations.iter().map(|r| r.migration.0.clone()).collect();
        all.sort();
        all
    };
    assert_eq!(names(&watches.views.newest()), ["ends", "goes"]);
    let mut ended = migration("ends", FAR);
    ended.status.as_mut().unwrap().phase = Phase::Completed;
    watches.migrations.unbounded_send(Ok(Event::Apply(ended))).unwrap();
    watches.until(|view| names(view) == ["goes"]).await;
    watches.migrations.unbounded_send(Ok(Event::Delete(migration("goes", FAR)))).unwrap();
    watches.until(|view| names(view).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_merely_there_is_no_sign_of_life() {
    let watches = Watches::follow();
    Watches::list(&watches.capacities, vec![capacity("n1", 7), capacity("n2", 7)]);
    let old = Timestamp::now() - SILENCE * 10;
    Watches::list(&watches.leases, vec![lease("n1"), lease_of("n2", old)]);
    Watches::list(&watches.migrations, vec![]);
    Watches::list(&watches.shadows, vec![]);
    watches.views.synced().await;
    let alive = |view: &View, node: &str| view.snapshot.nodes[&NodeName::from(node)].is_alive;
    let view = watches.until(|view| alive(view, "n1")).await;
    assert!(!alive(&view, "n2"));
    // Listed again as it was, and then renewed.
    Watches::list(&watches.leases, vec![lease_of("n2", old)]);
    tokio::time::sleep(TICK * 5).await;
    assert!(!alive(&watches.views.newest(), "n2"));
    watches.leases.unbounded_send(Ok(Event::Apply(lease("n2")))).unwrap();
    watches.until(|view| alive(view, "n2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_broken_for_long_makes_what_is_known_old() {
    let watches = Watches::listed(vec![]).await;
    let broken = || Err(watcher::Error::NoResourceVersion);
    watches.capacities.unbounded_send(broken()).unwrap();
    tokio::time::sleep(TICK * 5).await;
    assert!(watches.views.newest().is_synced, "a short interruption is nothing");
    watches.until(|view| !view.is_synced).await;
    watches.capacities.unbounded_send(broken()).unwrap();
    Watches::list(&watches.capacities, vec![capacity("n1", 9)]);
    watches.until(|view| view.is_synced).await;
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_is_bound_tells_where_its_room_is_taken() {
    let watches = Watches::listed(vec![migration("m1", FAR)]).await;
    let target = |view: &View| view.snapshot.reservations[0].target.clone();
    assert_eq!(target(&watches.views.newest()), None);
    let mut forged = shadow("m1", Some("n2"));
    forged.metadata.uid = Some("of another".to_owned());
    forged.metadata.owner_references = None;
    watches.shadows.unbounded_send(Ok(Event::Apply(forged))).unwrap();
    watches.shadows.unbounded_send(Ok(Event::Apply(shadow("m1", Some("n1"))))).unwrap();
    watches.until(|view| target(view) == Some("n1".into())).await;
    let mut over = shadow("m1", Some("n1"));
    over.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    watches.shadows.unbounded_send(Ok(Event::Apply(over))).unwrap();
    watches.until(|view| target(view).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_needs_a_reservation_gets_the_first_view_that_has_it() {
    let watches = Watches::listed(vec![]).await;
    let views = watches.views.clone();
    let asked = tokio::spawn(async move { views.knowing(&"m1".into(), SILENCE).await });
    tokio::task::yield_now().await;
    watches.migrations.unbounded_send(Ok(Event::Apply(migration("m1", FAR)))).unwrap();
    let view = asked.await.unwrap();
    assert_eq!(view.must_know(&"m1".into()), Ok(()));
}
