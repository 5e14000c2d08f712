//! The agent's HTTP side: who may ask what, and which part does it. The paths are documented in `api::orders`.
//!
//! Guarantees: only the operator orders, only agents bring archives; every order ends within its time limit.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::context::Node;
use super::dump::job;
use super::dump::standstill::{stands_still, unlike_its_dump, was_dumped, was_not_let_go};
use super::dump::written::{frozen_for, held_since};
use super::failure::Failure;
use super::node::cri;
use super::node::freezer::FreezerError;
use super::node::look::look;
use super::transfer::receive::{receive_only, room_for};
use super::transfer::relocate;
use crate::api::{
    ArchiveDigest, ArchiveSize, AwaitOrder, AwaitedTicket, CloseOrder, ContainerRef, DumpReport, Epoch,
    Findings, ImageUsed, Kept, LONGEST_AWAIT, MigrationReport, MigrationUid, OpenTicketOrder, PodOrder,
    Refusal, Role, SpendOrder, TLS_NAME_OPERATOR, tls_name_agent,
};
use crate::kit::PeerName;

/// For freezing or killing one container.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a thaw, which may have to wait for CRIU to wind up.
const THAW_PATIENCE: Duration = Duration::from_secs(30);

type Answer<T> = Result<Json<T>, Failure>;
type Done = Answer<serde_json::Value>;

/// All routes.
pub fn router(node: Arc<Node>) -> Router {
    let orders = Router::new()
        .route("/v1/kept", post(kept))
        .route("/v1/size", post(size))
        .route("/v1/look", post(look_into))
        .route("/v1/image", post(image))
        .route("/v1/migrations/{uid}", get(report))
        .route("/v1/migrations/{uid}/dump", post(dump_container))
        .route("/v1/migrations/{uid}/freeze", post(freeze))
        .route("/v1/migrations/{uid}/thaw", post(thaw))
        .route("/v1/migrations/{uid}/kill", post(kill))
        .route("/v1/migrations/{uid}/close", post(close))
        .route("/v1/migrations/{uid}/carry", post(carry_archive))
        .route("/v1/migrations/{uid}/tickets/{role}", post(open_ticket))
        .route("/v1/migrations/{uid}/tickets/{role}/await", post(await_ticket))
        .route("/v1/migrations/{uid}/tickets/{role}/spend", post(spend_ticket))
        .route_layer(from_fn(only_operator));
    let archives = Router::new()
        .route("/v1/migrations/{uid}/archive", put(put_archive).post(reserve))
        .route_layer(from_fn(only_agents));
    orders.merge(archives).with_state(node)
}

async fn only_operator(Extension(peer): Extension<PeerName>, request: Request, next: Next) -> Response {
    if peer.0.as_deref() == Some(TLS_NAME_OPERATOR) {
        return next.run(request).await;
    }
    forbidden(&peer, "only the operator orders")
}

async fn only_agents(Extension(peer): Extension<PeerName>, request: Request, next: Next) -> Response {
    let suffix = tls_name_agent("");
    if peer.0.as_deref().is_some_and(|name| name.len() > suffix.len() && name.ends_with(&suffix)) {
        return next.run(request).await;
    }
    forbidden(&peer, "only agents bring archives")
}

fn forbidden(peer: &PeerName, what: &str) -> Response {
    let name = peer.0.as_deref().unwrap_or("nobody");
    tracing::warn!(peer = name, what, "refused");
    Failure::new(Refusal::Forbidden, format!("{what}, and you are {name}")).into_response()
}

fn uid(text: &str) -> Result<MigrationUid, Failure> {
    let uid = MigrationUid::from(text);
    if uid.is_well_formed() {
        return Ok(uid);
    }
    Err(Failure::new(Refusal::Malformed, format!("{text:?} is no UID")))
}

fn role(text: &str) -> Result<Role, Failure> {
    match text {
        "shadow" => Ok(Role::Shadow),
        "replacement" => Ok(Role::Replacement),
        _ => Err(Failure::new(Refusal::Malformed, format!("{text:?} is no role: shadow or replacement"))),
    }
}

fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::new(Refusal::Malformed, error.to_string()))
}

#[expect(clippy::unnecessary_wraps, reason = "every order ends in an answer or a refusal")]
fn done() -> Done {
    Ok(Json(serde_json::json!({})))
}

async fn dump_container(
    State(node): State<Arc<Node>>,
    Path(of): Path<String>,
    bytes: Bytes,
) -> Answer<DumpReport> {
    job::dump(&node, &uid(&of)?, body(&bytes)?).await.map(Json)
}

/// Frozen for good, or gone: either way they will not act any more.
async fn freeze(State(node): State<Arc<Node>>, Path(of): Path<String>, bytes: Bytes) -> Done {
    let (uid, order): (_, PodOrder) = (uid(&of)?, body(&bytes)?);
    let deadline = Instant::now() + PATIENCE;
    let _lock = node.locks.lock(&order.containers.pod.uid, deadline).await?;
    node.tickets.pass(&uid, |fence| fence.admit_forward(order.epoch))?;
    let found = node.find_all(&order.containers).await?;
    let dump = node.store.dump(&uid, order.epoch);
    if order.as_dumped {
        let frozen = frozen_for(&dump)?;
        let running: Vec<_> = found.iter().map(|(name, one)| (name.as_str(), one.id.as_str())).collect();
        unlike_its_dump(&order.containers, &running, frozen.as_deref())?;
        stands_still(&node, &order.containers, &found).await?;
    }
    let held = held_since(&dump)?;
    let (held, others): (Vec<_>, Vec<_>) = found.iter().partition(|(_, one)| held.contains(&one.id));
    held.iter().try_for_each(|(name, one)| was_not_let_go(&order.containers, name, one))?;
    try_join_all(others.iter().map(|(_, one)| one.freezer.freeze(deadline))).await?;
    tracing::info!(migration = %uid, epoch = %order.epoch, pod = %order.containers.pod.uid, "frozen");
    done()
}

async fn thaw(State(node): State<Arc<Node>>, Path(of): Path<String>, bytes: Bytes) -> Done {
    let (uid, order): (_, PodOrder) = (uid(&of)?, body(&bytes)?);
    // First of all, so that a dump that has not frozen anything yet never does.
    node.tickets.pass(&uid, |fence| fence.call_off(order.epoch))?;
    let deadline = Instant::now() + THAW_PATIENCE;
    let _lock = node.locks.lock(&order.containers.pod.uid, deadline).await?;
    let found = node.find_all(&order.containers).await?;
    all_of(found.iter().map(|(_, container)| container.freezer.thaw(deadline))).await?;
    tracing::info!(migration = %uid, epoch = %order.epoch, pod = %order.containers.pod.uid, "thawed");
    done()
}

async fn kill(State(node): State<Arc<Node>>, Path(of): Path<String>, bytes: Bytes) -> Done {
    let (uid, order): (_, PodOrder) = (uid(&of)?, body(&bytes)?);
    let deadline = Instant::now() + PATIENCE;
    let _lock = node.locks.lock(&order.containers.pod.uid, deadline).await?;
    node.tickets.pass(&uid, |fence| fence.admit_kill(order.epoch))?;
    node.tickets.call_off(&uid, &order.containers.pod.uid)?;
    let found = node.find_all(&order.containers).await?;
    let tells = order.as_dumped && !found.is_empty();
    let frozen = if tells { frozen_for(&node.store.dump(&uid, order.epoch))? } else { None };
    let (dumped, started): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, one)| {
        frozen.as_ref().is_none_or(|frozen| was_dumped(&order.containers, name, &one.id, frozen))
    });
    all_of(dumped.iter().map(|(_, container)| container.freezer.kill(deadline))).await?;
    tracing::info!(migration = %uid, epoch = %order.epoch, pod = %order.containers.pod.uid, "killed");
    if let Some((name, _)) = started.first() {
        let what =
            format!("container {name} of pod {} was started since it was dumped", order.containers.pod.name);
        return Err(Failure::new(Refusal::NotAsDumped, what));
    }
    done()
}

/// All are done, also where one fails.
async fn all_of(
    each: impl Iterator<Item = impl Future<Output = Result<(), FreezerError>>>,
) -> Result<(), FreezerError> {
    join_all(each).await.into_iter().collect()
}

async fn close(State(node): State<Arc<Node>>, Path(of): Path<String>, bytes: Bytes) -> Done {
    let (uid, order): (_, CloseOrder) = (uid(&of)?, body(&bytes)?);
    // It waits for the disk: the tombstone must outlive a power failure.
    let (tickets, of) = (Arc::clone(&node.tickets), uid.clone());
    let closed = tokio::task::spawn_blocking(move || tickets.close(&of, order.epoch, order.keep)).await;
    closed.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))??;
    node.jobs.forget(&uid, order.epoch);
    tracing::info!(migration = %uid, epoch = %order.epoch, keep = order.keep, "closed");
    done()
}

async fn carry_archive(
    State(node): State<Arc<Node>>,
    Path(of): Path<String>,
    bytes: Bytes,
) -> Answer<DumpReport> {
    relocate::carry(&node, &uid(&of)?, &body(&bytes)?).await.map(Json)
}

async fn open_ticket(
    State(node): State<Arc<Node>>,
    Path((of, of_role)): Path<(String, String)>,
    bytes: Bytes,
) -> Done {
    let (uid, role, order): (_, _, OpenTicketOrder) = (uid(&of)?, role(&of_role)?, body(&bytes)?);
    let (epoch, life, purpose) = (order.epoch, order.life, order.purpose);
    // From the second life on it reads the whole archive.
    let (tickets, of) = (Arc::clone(&node.tickets), uid.clone());
    let opened = tokio::task::spawn_blocking(move || tickets.open_ticket(&of, role, &order)).await;
    opened.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))??;
    tracing::info!(migration = %uid, %epoch, %role, %life, ?purpose, "ticket open");
    done()
}

async fn await_ticket(
    State(node): State<Arc<Node>>,
    Path((of, of_role)): Path<(String, String)>,
    bytes: Bytes,
) -> Answer<AwaitedTicket> {
    let (uid, role, mut order): (_, _, AwaitOrder) = (uid(&of)?, role(&of_role)?, body(&bytes)?);
    order.timeout_ms = order.timeout_ms.min(u64::try_from(LONGEST_AWAIT.as_millis()).unwrap_or(u64::MAX));
    node.tickets.await_ticket(&uid, role, &order).await.map(Json)
}

async fn spend_ticket(
    State(node): State<Arc<Node>>,
    Path((of, of_role)): Path<(String, String)>,
    bytes: Bytes,
) -> Done {
    let (uid, role, order): (_, _, SpendOrder) = (uid(&of)?, role(&of_role)?, body(&bytes)?);
    node.tickets.spend(&uid, role, &order, Instant::now() + PATIENCE).await?;
    tracing::info!(migration = %uid, epoch = %order.epoch, %role, life = %order.life, "ticket spent");
    done()
}

async fn report(State(node): State<Arc<Node>>, Path(of): Path<String>) -> Answer<MigrationReport> {
    Ok(Json(node.tickets.report(&uid(&of)?)?))
}

async fn size(State(node): State<Arc<Node>>, bytes: Bytes) -> Answer<ArchiveSize> {
    job::size(&node, &body(&bytes)?).await.map(Json)
}

async fn look_into(State(node): State<Arc<Node>>, bytes: Bytes) -> Answer<Findings> {
    look(&node, &body(&bytes)?).await.map(Json)
}

async fn image(State(node): State<Arc<Node>>, bytes: Bytes) -> Answer<ImageUsed> {
    let of: ContainerRef = body(&bytes)?;
    let found = cri::image(&node.host, &node.engine, &of).await;
    let image = found.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))?;
    Ok(Json(ImageUsed { image }))
}

async fn kept(State(node): State<Arc<Node>>) -> Answer<Kept> {
    Ok(Json(node.tickets.kept()?))
}

#[derive(Deserialize)]
struct ArchiveQuery {
    epoch: Epoch,
    #[serde(default)]
    bytes: u64,
    /// The only one that is wanted.
    digest: Option<ArchiveDigest>,
}

async fn put_archive(
    State(node): State<Arc<Node>>,
    Path(of): Path<String>,
    Query(query): Query<ArchiveQuery>,
    body: Body,
) -> Answer<DumpReport> {
    let (uid, expected) = (uid(&of)?, query.digest.as_ref());
    receive_only(&node.tickets, &node.store, &node.meter, &uid, query.epoch, expected, body).await.map(Json)
}

/// Asked before the source is stopped: would an archive of that size be taken?
async fn reserve(
    State(node): State<Arc<Node>>,
    Path(of): Path<String>,
    Query(query): Query<ArchiveQuery>,
) -> Done {
    node.tickets.pass(&uid(&of)?, |fence| fence.admit_forward(query.epoch))?;
    room_for(&node.store, query.bytes)?;
    done()
}
