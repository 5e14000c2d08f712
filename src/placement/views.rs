//! What is known of the nodes: followed by four watches, read without a lock. [`View`] is pure; [`Views`] follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::listed::{Listed, SILENCE};
use super::snapshot::{NodeView, Reservation, Snapshot};
use crate::api::{LABEL_MIGRATION, MigrationUid, NodeCapacity, NodeName, StatefulMigration, node_of_lease};

/// News of nodes is taken in that often: with thousands of them there is some at every moment.
const TICK: Duration = Duration::from_millis(100);

/// What is known may be old: no ground for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    #[error("nodes and migrations have not been seen yet, or not for a while")]
    NotSynced,
    #[error("no agent at all was heard of lately")]
    Silence,
    #[error("the pod's own reservation is not known yet")]
    NoReservation,
}

/// One consistent view.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub snapshot: Snapshot,
    /// All watches have listed what there is, and none has been broken for long.
    pub is_synced: bool,
}

impl View {
    /// Whether a refusal can rest on it.
    pub fn must_be_current(&self) -> Result<(), Stale> {
        if !self.is_synced {
            return Err(Stale::NotSynced);
        }
        if !self.snapshot.nodes.is_empty() && self.snapshot.nodes.values().all(|node| !node.is_alive) {
            return Err(Stale::Silence);
        }
        Ok(())
    }

    /// With a migration's own reservation, those that were written before it have been seen.
    pub fn must_know(&self, migration: &MigrationUid) -> Result<(), Stale> {
        self.must_be_current()?;
        self.snapshot.reservation(migration).map(|_| ()).ok_or(Stale::NoReservation)
    }
}

/// The views, the newest of which anybody may look at.
#[derive(Clone)]
pub struct Views {
    current: Arc<ArcSwap<View>>,
    changed: watch::Receiver<u64>,
}

impl Views {
    /// The newest.
    pub fn newest(&self) -> Arc<View> {
        self.current.load_full()
    }

    /// The newest, or within `patience` a newer one that knows this migration's reservation.
    pub async fn knowing(&self, migration: &MigrationUid, patience: Duration) -> Arc<View> {
        let mut views = self.clone();
        let known = async {
            while views.newest().snapshot.reservation(migration).is_none() {
                views.changed().await;
            }
        };
        let _ = tokio::time::timeout(patience, known).await; // whoever answers sees what is missing
        self.newest()
    }

    /// Resolves at the next change.
    pub async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves once all watches have listed what there is.
    pub async fn synced(&self) {
        let mut views = self.clone();
        while !views.newest().is_synced {
            views.changed().await;
        }
    }

    /// One that never changes.
    pub fn fixed(view: View) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(view)), changed: watch::channel(0).1 }
    }

    /// Follows four watches; the future runs for ever.
    pub fn follow(
        capacities: impl Stream<Item = watcher::Result<Event<Capacity>>> + Send + Unpin + 'static,
        leases: impl Stream<Item = watcher::Result<Event<Lease>>> + Send + Unpin + 'static,
        migrations: impl Stream<Item = watcher::Result<Event<StatefulMigration>>> + Send + Unpin + 'static,
        shadows: impl Stream<Item = watcher::Result<Event<Pod>>> + Send + Unpin + 'static,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let current = Arc::new(ArcSwap::from_pointee(View::default()));
        let (count, changed) = watch::channel(0);
        let views = Self { current: Arc::clone(&current), changed };
        let mut known = Known::default();
        let following = async move {
            let (mut capacities, mut leases) = (capacities, leases);
            let (mut migrations, mut shadows) = (migrations, shadows);
            let mut tick = interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut is_due = false;
            loop {
                let news = tokio::select! {
                    Some(event) = migrations.next() => known.migration(event),
                    Some(event) = shadows.next() => known.shadow(event),
                    Some(event) = capacities.next() => known.capacity(event),
                    Some(event) = leases.next() => known.lease(event),
                    _ = tick.tick() => {
                        is_due |= known.has_aged(Instant::now(), Timestamp::now());
                        if is_due { News::Urgent } else { News::None }
                    }
                    else => return,
                };
                match news {
                    News::Urgent => {
                        is_due = false;
                        current.store(Arc::new(known.view(Instant::now(), Timestamp::now())));
                        count.send_modify(|count| *count += 1);
                    }
                    News::Soon => is_due = true,
                    News::None => {}
                }
            }
        };
        (views, following)
    }
}

/// Whether a new view is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// At once: somebody waits for it.
    Urgent,
    /// With the next tick.
    Soon,
    None,
}

/// A capacity whose object could not be read concerns its own node only.
pub type Capacity = DeserializeGuard<NodeCapacity>;

/// What the watches brought.
#[derive(Default)]
struct Known {
    capacities: Listed<NodeView>,
    reservations: Listed<Held>,
    /// Where shadows were bound to, by their UID.
    shadows: Listed<(MigrationUid, NodeName)>,
    /// Agents that live.
    heard: HashMap<NodeName, Heard>,
    leases_listed: bool,
    /// What the last view was made of, where time alone changes it.
    last: Aged,
}

/// When an agent was last heard of by this process's clock, and what it wrote then: it decides nothing but whether it is
/// new.
struct Heard {
    at: Instant,
    renewed: Option<MicroTime>,
}

/// What changes without any news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Aged {
    is_current: bool,
    alive: usize,
    live_reservations: usize,
}

/// A reservation and when it expires.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    reservation: Reservation,
    until: Option<Timestamp>,
}

impl Known {
    fn capacity(&mut self, event: watcher::Result<Event<Capacity>>) -> News {
        let read = |object: Capacity| match object.0 {
            Ok(object) => Some((object.name_any(), Some(NodeView::new(Arc::new(object.spec), false)))),
            Err(error) => {
                let name = error.metadata.name.clone()?;
                tracing::warn!(node = name, %error, "what is published of a node cannot be read: it gets nothing");
                Some((name, None))
            }
        };
        let changed = self.capacities.take(event, "capacities", read);
        self.news(changed, News::Soon)
    }

    fn lease(&mut self, event: watcher::Result<Event<Lease>>) -> News {
        let changed = match event {
            Ok(Event::Apply(lease)) => self.hear(&lease, |_| true),
            // That there is a lease is no sign of life: it must be young.
            Ok(Event::InitApply(lease)) => self.hear(&lease, is_young),
            Ok(Event::Delete(lease)) => {
                node_of_lease(&lease.name_any()).is_some_and(|node| self.heard.remove(&node).is_some())
            }
            Ok(Event::Init) => false,
            Ok(Event::InitDone) => !std::mem::replace(&mut self.leases_listed, true),
            Err(error) => {
                tracing::warn!(%error, what = "leases", "watch interrupted");
                false
            }
        };
        self.news(changed, News::Soon)
    }

    /// True where an agent that was not heard of before lives.
    fn hear(&mut self, lease: &Lease, unless_known: impl Fn(&MicroTime) -> bool) -> bool {
        let Some(node) = node_of_lease(&lease.name_any()) else { return false };
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let known = self.heard.get(&node).map(|heard| heard.renewed.clone());
        let lives = match &known {
            Some(known) => *known != renewed,
            None => renewed.as_ref().is_some_and(unless_known),
        };
        if lives {
            self.heard.insert(node, Heard { at: Instant::now(), renewed });
        }
        lives && known.is_none()
    }

    fn migration(&mut self, event: watcher::Result<Event<StatefulMigration>>) -> News {
        let read = |object: StatefulMigration| Some((object.uid()?, held(&object)));
        let changed = self.reservations.take(event, "migrations", read);
        self.news(changed, News::Urgent)
    }

    fn shadow(&mut self, event: watcher::Result<Event<Pod>>) -> News {
        let read = |pod: Pod| Some((pod.uid()?, bound(&pod)));
        let changed = self.shadows.take(event, "shadows", read);
        self.news(changed, News::Urgent)
    }

    fn news(&self, changed: bool, news: News) -> News {
        if changed && self.is_current(Instant::now()) { news } else { News::None }
    }

    fn is_current(&self, now: Instant) -> bool {
        self.leases_listed
            && self.capacities.is_current(now)
            && self.reservations.is_current(now)
            && self.shadows.is_current(now)
    }

    fn aged(&self, now: Instant, date: Timestamp) -> Aged {
        Aged {
            is_current: self.is_current(now),
            alive: self.heard.len(),
            live_reservations: self.live(date).count(),
        }
    }

    /// Forgets agents that have been silent for too long; true if time alone calls for a new view.
    fn has_aged(&mut self, now: Instant, date: Timestamp) -> bool {
        self.heard.retain(|_, heard| now.duration_since(heard.at) <= SILENCE);
        self.aged(now, date) != self.last
    }

    fn live(&self, date: Timestamp) -> impl Iterator<Item = &Reservation> {
        let live =
            self.reservations.all.values().filter(move |held| held.until.is_none_or(|until| date < until));
        live.map(|held| &held.reservation)
    }

    fn view(&mut self, now: Instant, date: Timestamp) -> View {
        self.last = self.aged(now, date);
        let nodes = self.capacities.all.iter().map(|(name, view)| {
            let name = NodeName(name.clone());
            let is_alive = self.heard.contains_key(&name);
            (name, NodeView { is_alive, ..view.clone() })
        });
        let bound: HashMap<_, _> =
            self.shadows.all.values().map(|(migration, node)| (migration, node)).collect();
        let reservations = self.live(date).cloned().map(|mut reservation| {
            if reservation.target.is_none() {
                reservation.target = bound.get(&reservation.migration).map(|node| (*node).clone());
            }
            reservation
        });
        let snapshot = Snapshot { nodes: nodes.collect(), reservations: reservations.collect() };
        View { snapshot, is_synced: self.last.is_current }
    }
}

/// Of an agent that renews every few seconds; clocks of nodes may differ a little.
fn is_young(renewed: &MicroTime) -> bool {
    Timestamp::now().duration_since(renewed.0).unsigned_abs() < SILENCE * 2
}

/// Where a shadow was bound to; one that is deleted belongs to an attempt that is over, and one that the migration does
/// not own is none.
fn bound(pod: &Pod) -> Option<(MigrationUid, NodeName)> {
    let node = pod.spec.as_ref()?.node_name.as_deref().map(NodeName::from)?;
    let migration = MigrationUid::from(pod.labels().get(LABEL_MIGRATION)?.as_str());
    let is_owned = pod.owner_references().iter().any(|owner| owner.uid == migration.as_str());
    (is_owned && pod.metadata.deletion_timestamp.is_none()).then_some((migration, node))
}

/// The room that a migration holds, if it holds any.
fn held(object: &StatefulMigration) -> Option<Held> {
    let status = object.status.as_ref().filter(|status| !status.phase.is_terminal())?;
    let room = status.reservation.as_ref()?;
    let reservation = Reservation {
        migration: MigrationUid(object.uid()?),
        source: NodeName::from(status.source_node.as_deref()?),
        target: status.target_node.as_deref().map(NodeName::from),
        bytes: room.bytes,
        since: room.since.clone(),
    };
    Some(Held { reservation, until: room.until.parse().ok() })
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
