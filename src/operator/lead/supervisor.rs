//! The leader's loop: watches migrations, starts a driver for each that is not ended, hands out slots, removes old ones.
//! Holds nothing that is not in the objects: a new leader starts from them.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admission::{Admission, Orders};
use super::bookings::Bookings;
use super::claim::Claim;
use super::placing::Placing;
use super::retention::{is_ended, is_old};
use super::slot::Standing;
use super::slots::{Limits, admissible, regained};
use crate::api::{Epoch, MigrationUid, StatefulMigration};
use crate::kit::WATCH_SECONDS;
use crate::operator::context::Context;
use crate::operator::drive::driver::Driver;

/// A driver that stopped on an error is started again after this.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// And after this where only another version of the operator can go on.
const LASTING_PAUSE: Duration = Duration::from_secs(30);
const SWEEP_PERIOD: Duration = Duration::from_secs(10);
/// Why a migration waits is told no more often.
const TELL_PERIOD: Duration = Duration::from_secs(5);

struct Live {
    object: watch::Sender<Arc<StatefulMigration>>,
    admission: watch::Sender<Admission>,
    /// As its driver says; before it has said anything, as the object does. A slot that is taken is never given away
    /// because nobody has taken its migration up yet.
    claim: Option<Claim>,
    /// The attempt that may begin.
    granted: Option<Epoch>,
    /// The time for which its slot was given back to it.
    returned: Option<u32>,
    /// When it was last told why it waits.
    told: Option<Instant>,
}

enum Report {
    Progress(String, Box<Claim>),
    /// Its driver stopped on an error, and starts again after a pause.
    Pauses(String),
    /// It has come to its end, or the pause is over.
    Ended(String, End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Over,
    Stopped,
}

/// Leads until dropped: dropping it stops every driver where it stands, which the journal makes harmless.
pub async fn lead(ctx: Context, limits: Limits) {
    let api: Api<StatefulMigration> = Api::all(ctx.watch_client.clone());
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut objects = std::pin::pin!(watcher(api, config).default_backoff());
    let (reports, mut inbox) = mpsc::unbounded_channel();
    // Another leader's time may lie between: what is placed is taken over from the journals.
    let ctx = Context { bookings: Bookings::default(), ..ctx };
    let mut supervisor = Supervisor {
        ctx,
        limits,
        live: HashMap::new(),
        known: HashMap::new(),
        over: HashSet::new(),
        is_synced: false,
        drivers: JoinSet::new(),
        reports,
    };
    let mut sweep = tokio::time::interval(SWEEP_PERIOD);
    let mut views = supervisor.ctx.views.clone();
    loop {
        tokio::select! {
            event = objects.next() => match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => supervisor.seen(object),
                Some(Ok(watcher::Event::Delete(object))) => supervisor.gone(&object),
                Some(Ok(watcher::Event::Init)) => supervisor.lists_anew(),
                Some(Ok(watcher::Event::InitDone)) => supervisor.synced(),
                Some(Err(error)) => tracing::warn!(%error, "watch of migrations interrupted"),
                None => return,
            },
            Some(report) = inbox.recv() => supervisor.heard(report),
            Some(_) = supervisor.drivers.join_next() => {}
            () = views.changed() => supervisor.hand_out_slots(),
            _ = sweep.tick() => {
                supervisor.hand_out_slots();
                supervisor.sweep().await;
            }
        }
    }
}

struct Supervisor {
    ctx: Context,
    limits: Limits,
    live: HashMap<String, Live>,
    known: HashMap<String, Arc<StatefulMigration>>,
    /// Driven to their end, whatever the watch still tells of them, by UID.
    over: HashSet<String>,
    /// All that there are have been seen.
    is_synced: bool,
    drivers: JoinSet<()>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Live {
    fn waits(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.standing == Standing::Waits)
    }

    /// Each telling is a write of the status, and free bytes change all the time.
    fn tell(&mut self, why: &str) {
        if self.told.is_none_or(|at| at.elapsed() > TELL_PERIOD) {
            self.told = Some(Instant::now());
            self.admission.send_replace(Admission::NoNodeFits(why.into()));
        }
    }
}

impl Supervisor {
    fn seen(&mut self, object: StatefulMigration) {
        let Some(uid) = object.uid() else { return };
        let object = Arc::new(object);
        self.known.insert(uid.clone(), object.clone());
        if let Some(live) = self.live.get(&uid) {
            live.object.send_replace(object);
        } else if !is_ended(&object) && !self.over.contains(&uid) {
            self.start(uid, object, None);
        }
    }

    /// Nothing is given away until all have been seen again.
    fn lists_anew(&mut self) {
        self.known.clear();
        self.is_synced = false;
    }

    fn synced(&mut self) {
        self.is_synced = true;
        self.over.retain(|uid| self.known.contains_key(uid));
        self.ctx.bookings.open(&self.known);
        self.hand_out_slots();
    }

    fn gone(&mut self, object: &StatefulMigration) {
        if let Some(uid) = object.uid() {
            self.known.remove(&uid);
            self.over.remove(&uid);
            self.ctx.bookings.release(&MigrationUid(uid));
        }
    }

    /// `claim`: what the driver before this one said last.
    fn start(&mut self, uid: String, object: Arc<StatefulMigration>, claim: Option<Claim>) {
        let (object_tx, object_rx) = watch::channel(object.clone());
        let (admission, admission_rx) = watch::channel(Admission::Waiting);
        let claim = claim.filter(Claim::holds_owner).or_else(|| Claim::on_record(&object));
        if let Some(Claim { is_placed: true, reservation: Some(placed), .. }) = &claim {
            self.ctx.bookings.adopt(placed.clone());
        }
        let has_slot = claim.as_ref().is_none_or(|claim| claim.standing == Standing::Moves);
        let live = Live { object: object_tx, admission, claim, granted: None, returned: None, told: None };
        self.live.insert(uid.clone(), live);
        let orders = Orders { object: object_rx, admission: admission_rx };
        let (ctx, reports) = (self.ctx.clone(), self.reports.clone());
        self.drivers.spawn(async move {
            let driving = AssertUnwindSafe(Box::pin(drive(ctx, &uid, &object, (orders, has_slot), &reports)))
                .catch_unwind();
            let pause = match driving.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => {
                    tracing::warn!(migration = object.name_any(), %error, "driver stopped; starts again");
                    Some(if error.is_lasting() { LASTING_PAUSE } else { RESTART_PAUSE })
                }
                Err(_) => {
                    tracing::error!(migration = object.name_any(), "driver panicked; starts again");
                    Some(LASTING_PAUSE)
                }
            };
            // The receiver lives as long as the leader does.
            let end = match pause {
                Some(pause) => {
                    let _ = reports.send(Report::Pauses(uid.clone()));
                    tokio::time::sleep(pause).await;
                    End::Stopped
                }
                None => End::Over,
            };
            let _ = reports.send(Report::Ended(uid, end));
        });
    }

    fn heard(&mut self, report: Report) {
        match report {
            Report::Progress(uid, claim) => {
                if let Some(live) = self.live.get_mut(&uid) {
                    // It may have been let go and not know it yet.
                    let unheard = match claim.standing {
                        Standing::Waits => live.granted == Some(claim.epoch),
                        Standing::Returns(time) => live.returned == Some(time),
                        _ => false,
                    };
                    if !unheard {
                        live.claim = Some(*claim);
                    }
                }
            }
            Report::Pauses(uid) => {
                let claim = self.live.get_mut(&uid).and_then(|live| live.claim.as_mut());
                match claim.map(|claim| &mut claim.standing) {
                    Some(standing @ Standing::Waits) => *standing = Standing::Rests, // there is nobody to begin
                    Some(standing @ Standing::Returns(_)) => *standing = Standing::TidiesUp, // or to go on
                    _ => {}
                }
            }
            Report::Ended(uid, end) => {
                let before = self.live.remove(&uid).and_then(|live| live.claim);
                if self.is_synced && !self.known.contains_key(&uid) {
                    // It went while its driver was still booking.
                    self.ctx.bookings.release(&MigrationUid(uid));
                } else if end == End::Over {
                    self.over.insert(uid);
                } else if let Some(object) = self.known.get(&uid).filter(|object| !is_ended(object)).cloned()
                {
                    self.start(uid, object, before);
                }
            }
        }
        self.hand_out_slots();
    }

    fn claims(&self) -> Vec<Claim> {
        self.live.values().filter_map(|live| live.claim.clone()).collect()
    }

    /// To those that have begun already.
    fn hand_back_slots(&mut self) {
        for uid in regained(&self.claims(), self.limits) {
            let Some(live) = self.live.get_mut(uid.as_str()) else { continue };
            if let Some(claim) = &mut live.claim
                && let Standing::Returns(time) = claim.standing
            {
                (claim.standing, live.returned) = (Standing::Moves, Some(time));
                live.admission.send_replace(Admission::Returned(time));
            }
        }
    }

    /// To those that want theirs back, then to those that wait and some node has room for.
    fn hand_out_slots(&mut self) {
        if self.is_synced {
            self.hand_back_slots();
        }
        let claims = self.claims();
        let active = claims.iter().filter(|claim| claim.standing == Standing::Moves).count();
        self.ctx.metrics.active.set(i64::try_from(active).unwrap_or(i64::MAX));
        if !self.is_synced || !claims.iter().any(|claim| claim.standing == Standing::Waits) {
            return;
        }
        let view = self.ctx.views.newest();
        if let Err(stale) = view.must_be_current() {
            tracing::debug!(%stale, "nothing is let go before the nodes are known");
            let waiting = self.live.values_mut().filter(|live| live.waits());
            waiting.for_each(|live| live.tell(&stale.to_string()));
            return;
        }
        let bookings = &self.ctx.bookings;
        let mut placing = Placing::new(self.ctx.nodes.state(), view.snapshot.clone(), &claims, bookings);
        let (since, mut placed, mut unfit) = (Timestamp::now().to_string(), Vec::new(), Vec::new());
        admissible(&claims, self.limits, |claim| match placing.place(claim, &since) {
            Ok(reservation) => {
                placed.push((claim.epoch, reservation));
                true
            }
            Err(why) => {
                unfit.push((claim.uid.clone(), why));
                false
            }
        });
        for (epoch, reservation) in placed {
            if let Some(live) = self.live.get_mut(reservation.migration.as_str()) {
                live.granted = Some(epoch);
                live.admission.send_replace(Admission::Granted { epoch, bytes: reservation.bytes });
                if let Some(claim) = &mut live.claim {
                    (claim.standing, claim.reservation) = (Standing::Moves, Some(reservation));
                }
            }
        }
        for (uid, why) in unfit {
            if let Some(live) = self.live.get_mut(uid.as_str()) {
                live.tell(&why);
            }
        }
    }

    /// Deletes migrations that ended long ago.
    async fn sweep(&self) {
        let now = Timestamp::now();
        for object in self.known.values().filter(|object| is_old(object, now)) {
            let api: Api<StatefulMigration> =
                Api::namespaced(self.ctx.client.clone(), &object.namespace().unwrap_or_default());
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            if let Err(error) = api.delete(&object.name_any(), &params).await
                && !matches!(&error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
            {
                tracing::warn!(migration = object.name_any(), %error, "old migration not removed");
            }
        }
    }
}

async fn drive(
    ctx: Context,
    uid: &str,
    object: &StatefulMigration,
    (orders, has_slot): (Orders, bool),
    reports: &mpsc::UnboundedSender<Report>,
) -> Result<(), crate::operator::drive::error::DriveError> {
    // What the watch brought may be older than what another leader wrote.
    let api: Api<StatefulMigration> =
        Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let Some(live) = api.get_opt(&object.name_any()).await?.filter(|live| live.uid().as_deref() == Some(uid))
    else {
        return Ok(());
    };
    let Some(driver) = Box::pin(Driver::open(ctx, live, has_slot)).await? else { return Ok(()) };
    let (uid, reports) = (uid.to_owned(), reports.clone());
    driver
        .run(orders, move |driver| {
            let _ = reports.send(Report::Progress(uid.clone(), Box::new(driver.claim())));
        })
        .await?;
    Ok(())
}
