//! "Can this pod move, where to, and if not, why?" over HTTP, without touching anything: what `accept`, the leader's loop,
//! the first effect and the scheduler would find now. Any replica answers. Reads the API server and asks the source's agent for the
//! archive's size and for what is in its container.
//!
//! `kubectl shadow check` comes through the API server's proxy, which knows who asks. The port itself is plain HTTP, as for
//! metrics, and whoever reaches it in the cluster's network is answered: with names of nodes, their free room and the size
//! of a pod's memory, and nothing of its content.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{StatusCode, header};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::claims::whereabouts;
use super::preflight::{Accepted, Refused, examine};
use super::properties;
use super::scheduling;
use crate::api::{
    Check, CheckRefusal, CheckedNode, Epoch, LABEL_MIGRATION, LONGEST_DEADLINE, MigrationUid, NodeName,
    PodUid, PolicyError, Reason, StatefulMigration, StatefulMigrationSpec, pod_policy, sentence,
};
use crate::judgement::Circumstances;
use crate::kit::{OwnerError, owner_annotations};
use crate::operator::agents::client::AgentError;
use crate::operator::context::Context;
use crate::operator::drive::accept::expected_bytes;
use crate::operator::drive::look::{circumstances, judged, look_into, older_agent};
use crate::operator::drive::subject::Subject;
use crate::operator::drive::surroundings::held_against_surroundings;
use crate::operator::drive::volumes::known as known_volumes;
use crate::operator::lead::placing::{Placing, Unfit, Verdicts};
use crate::operator::lead::retention::is_ended;
use crate::operator::perform::{
    EffectError, admitted, budget_allows, impatient_probe, owner_keeps, owner_makes_at_once, too_large,
};
use crate::operator::shadow_pod::{Placement, shadow_pod};
use crate::placement::{Need, Stale, score};
use crate::protocol::{Failure, Plan};

/// At a time: each is a few calls to the API server.
const AT_A_TIME: usize = 4;
const LIMIT: Duration = Duration::from_secs(10);
/// Nodes whose pods are added up, for the requests; the rest are taken to have room.
const ADDED_UP: usize = 32;
/// Lists of a node's pods that are asked for at a time.
const LISTS: usize = 4;

/// Answers once the operator knows what it needs to.
#[derive(Clone)]
pub struct Checks {
    context: Arc<OnceLock<Context>>,
    slots: Arc<Semaphore>,
}

impl Default for Checks {
    fn default() -> Self {
        Self { context: Arc::default(), slots: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

impl Checks {
    /// From now on.
    pub fn open(&self, context: Context) {
        let _ = self.context.set(context); // a second time says the same
    }

    pub fn router(self) -> Router {
        Router::new().route("/v1/check/{namespace}/{pod}", get(serve)).with_state(self)
    }
}

/// No answer.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("not ready yet: try again")]
    NotReady,
    #[error("{AT_A_TIME} checks are under way: try again")]
    Busy,
    #[error("there is no pod {0}")]
    NoPod(String),
    #[error("not answered within {} s", LIMIT.as_secs())]
    TimedOut,
    #[error("the API server does not answer: {0}")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error("pod {0} is not annotated: set migration.ms2m.io/policy on it or on its owner")]
    NotAnnotated(String),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("how large the archive would be is not known: {0}; try again")]
    NoSize(AgentError),
    #[error("what is around the pod was not read: {0}; try again")]
    NotAsked(EffectError),
    #[error("the answer cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
    #[error("what is known of the nodes may be old: {0}; try again")]
    Stale(#[from] Stale),
}

impl CheckError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotReady | Self::NoSize(_) | Self::NotAsked(_) | Self::Stale(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Unwritable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoPod(_) => StatusCode::NOT_FOUND,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Api(_) | Self::Owner(_) => StatusCode::BAD_GATEWAY,
            Self::NotAnnotated(_) | Self::Policy(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

#[derive(Deserialize)]
struct Asked {
    /// A node that it is to go to.
    to: Option<String>,
}

async fn serve(
    State(checks): State<Checks>,
    Path((namespace, pod)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Response {
    let answered = async {
        let context = checks.context.get().ok_or(CheckError::NotReady)?;
        let _slot = checks.slots.try_acquire().map_err(|_| CheckError::Busy)?;
        let checking = check(context, &namespace, &pod, asked.to.map(NodeName));
        tokio::time::timeout(LIMIT, checking).await.map_err(|_| CheckError::TimedOut)?
    };
    let answered = match answered.await {
        Ok(found) => serde_json::to_string(&found).map_err(CheckError::from),
        Err(error) => Err(error),
    };
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (error.status(), json!({ "error": error.to_string() }).to_string()),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn check(
    ctx: &Context,
    namespace: &str,
    name: &str,
    wanted: Option<NodeName>,
) -> Result<Check, CheckError> {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let pod = pods.get_opt(name).await?.ok_or_else(|| CheckError::NoPod(format!("{namespace}/{name}")))?;
    let owner = owner_annotations(&ctx.client, &pod).await?;
    let policy =
        pod_policy(pod.annotations(), &owner)?.ok_or_else(|| CheckError::NotAnnotated(name.to_owned()))?;
    if pod.metadata.deletion_timestamp.is_some() {
        return Ok(refused(&pod, Reason::SourceGone, format!("pod {name}: it is on its way out already")));
    }
    let advice = properties::warnings(&pod, policy.prepare, &policy.init);
    let spec = StatefulMigrationSpec::of(policy, name, PodUid(pod.uid().unwrap_or_default()));
    let services: Api<Service> = Api::namespaced(ctx.client.clone(), namespace);
    let services = services.list(&ListParams::default()).await?.items;
    let volumes = known_volumes(&ctx.client, &pod).await?;
    let accepted = match examine(&pod, &spec, &services, &volumes) {
        Ok(accepted) => held_against_surroundings(ctx, &pod, accepted, &volumes).await?,
        Err(Refused { first, further }) => {
            let further = further.into_iter().map(told).collect();
            return Ok(Check { further, ..refused(&pod, first.reason, first.message) });
        }
    };
    let Accepted { subject, plan, mut warnings, costs } = match accepted {
        Ok(accepted) => accepted,
        Err(failure) => return Ok(refused(&pod, failure.reason, failure.message)),
    };
    warnings.extend(costs.iter().chain(&advice).map(|one| sentence(one)));
    let (looked, around) =
        tokio::join!(look_into(ctx, &subject), stands_against_it(ctx, &subject, &plan, &pod));
    let known = circumstances(&pod, &subject);
    let judgement = judged(&looked, &subject, &known);
    let found =
        judgement.refusals.into_iter().map(|one| CheckRefusal { reason: one.reason, message: one.message });
    let mut refusals = found.chain(around?.into_iter().map(told));
    if let Some(refusal) = refusals.next() {
        warnings.extend(judgement.warnings);
        let (further, source_node) = (refusals.collect(), Some(subject.node));
        return Ok(Check { refusal: Some(refusal), further, warnings, source_node, ..Check::default() });
    }
    let bytes = expected_bytes(ctx, &subject).await.map_err(CheckError::NoSize)?;
    if let Some(why) = pod.spec.as_ref().and_then(|spec| impatient_probe(spec, &subject, bytes)) {
        return Ok(refused(&pod, Reason::ImpatientProbe, format!("pod {name}: {why}")));
    }
    let view = ctx.views.newest();
    view.must_be_current()?;
    let migration = own_migration(ctx, namespace, &pod).await?;
    let need = Need { migration, source: subject.node.clone(), bytes };
    let all = ctx.nodes.state();
    let placing = Placing::new(all.clone(), view.snapshot.clone(), &[], &ctx.bookings);
    let mut verdicts = placing.verdicts(&need, wanted.as_ref());
    let unknown = wanted.filter(|wanted| verdicts.iter().all(|(name, _)| name != wanted));
    warnings.extend(unknown.map(|node| format!("there is no node {node}")));
    let shadow = shadow_pod(
        &pod,
        &subject,
        &need.migration,
        OwnerReference::default(),
        Epoch::default(),
        &Placement {
            host_ports: !plan.bridge,
            kept: &ctx.shadow_labels,
            within: &whereabouts(&volumes),
            ..Placement::default()
        },
    );
    if let Err(failure) = admitted(&pods, &shadow).await? {
        return Ok(refused(&pod, failure.reason, failure.message));
    }
    warnings.extend(
        ask_scheduling(ctx, &need.migration, &shadow.spec.unwrap_or_default(), &all, &mut verdicts).await?,
    );
    in_time(bytes, Duration::from_secs(spec.deadline_seconds).min(LONGEST_DEADLINE), &mut verdicts);
    let known = Circumstances { archive_bytes: Some(bytes), bytes_per_second: best_rate(&verdicts), ..known };
    warnings.extend(judged(&looked, &subject, &known).warnings);
    let nodes = tell(verdicts);
    let movable = nodes.iter().any(|node| node.reason.is_none());
    let (source_node, archive_bytes) = (Some(subject.node), Some(bytes));
    Ok(Check { movable, warnings, source_node, archive_bytes, nodes, ..Check::default() })
}

/// What a drain would find around the pod before it stops anything: who debugs it, its owner, its budget. Such a thing may
/// pass.
async fn stands_against_it(
    ctx: &Context,
    subject: &Subject,
    plan: &Plan,
    pod: &Pod,
) -> Result<Vec<Failure>, CheckError> {
    let client = &ctx.client;
    let (kept, at_once, allowed) = tokio::join!(
        owner_keeps(client, subject),
        owner_makes_at_once(client, subject),
        budget_allows(client, plan, pod)
    );
    let mut found: Vec<_> =
        properties::obstacle(pod).into_iter().chain(older_agent(ctx, subject, *plan)).collect();
    for failed in [kept, at_once, allowed].into_iter().filter_map(Result::err) {
        match failed.failure.reason {
            Reason::StepTimedOut => return Err(CheckError::NotAsked(failed)), // the API server did not answer
            _ => found.push(failed.failure),
        }
    }
    // For good before for now.
    found.sort_by_key(|failure| failure.retry);
    Ok(found)
}

/// Takes the nodes away where the archive could not be in time.
fn in_time(bytes: u64, deadline: Duration, verdicts: &mut Verdicts) {
    for (_, found) in verdicts {
        let late = found.as_ref().ok().and_then(|room| too_large(bytes, room.stream, deadline, deadline));
        if let Some(why) = late {
            *found = Err(Unfit::TooLarge(why));
        }
    }
}

/// How fast archives came to the best of the nodes that fit.
fn best_rate(verdicts: &Verdicts) -> Option<u64> {
    verdicts.iter().filter_map(|(_, found)| found.as_ref().ok()?.stream).max()
}

fn told(failure: Failure) -> CheckRefusal {
    CheckRefusal { reason: failure.reason, message: sentence(&failure.message) }
}

fn refused(pod: &Pod, reason: Reason, message: String) -> Check {
    let source_node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).map(NodeName);
    let refusal = Some(CheckRefusal { reason, message: sentence(&message) });
    Check { refusal, source_node, ..Check::default() }
}

/// One that is under way already, so that what it holds is not held against it; none has an empty UID.
async fn own_migration(ctx: &Context, namespace: &str, pod: &Pod) -> Result<MigrationUid, CheckError> {
    let migrations: Api<StatefulMigration> = Api::namespaced(ctx.client.clone(), namespace);
    let all = migrations.list(&ListParams::default()).await?.items;
    let is_own = |one: &&StatefulMigration| {
        let found = one.status.as_ref().and_then(|status| status.source_pod_uid.as_ref());
        let of = one.spec.source_pod_uid.as_ref().or(found).map(PodUid::as_str);
        of.is_some() && of == pod.metadata.uid.as_deref() && !is_ended(one)
    };
    Ok(MigrationUid(all.iter().find(is_own).and_then(kube::ResourceExt::uid).unwrap_or_default()))
}

/// Takes the nodes away that the scheduler would have something against. A warning if there are too many to know.
pub async fn ask_scheduling(
    ctx: &Context,
    own: &MigrationUid,
    shadow: &PodSpec,
    nodes: &[Arc<Node>],
    verdicts: &mut Verdicts,
) -> kube::Result<Option<String>> {
    let known: HashMap<_, _> = nodes.iter().map(|node| (node.name_any(), node)).collect();
    let mut fitting = Vec::new();
    for (index, (name, found)) in verdicts.iter_mut().enumerate().filter(|(_, (_, found))| found.is_ok()) {
        let Some(node) = known.get(name.as_str()) else { continue };
        match scheduling::admits(shadow, node) {
            Ok(()) => fitting.push((index, Arc::clone(node))),
            Err(misfit) => *found = Err(Unfit::Scheduling(misfit)),
        }
    }
    let warning = (fitting.len() > ADDED_UP)
        .then(|| format!("{} nodes fit; requests were compared on {ADDED_UP} of them", fitting.len()));
    let lists: Vec<_> = fitting
        .into_iter()
        .take(ADDED_UP)
        .map(|(index, node)| pods_on(ctx.client.clone(), index, node))
        .collect();
    let mut lists = stream::iter(lists).buffer_unordered(LISTS);
    while let Some((index, node, there)) = lists.try_next().await? {
        let is_other =
            |pod: &Pod| pod.labels().get(LABEL_MIGRATION).map(String::as_str) != Some(own.as_str());
        let others: Vec<_> = there.into_iter().filter(is_other).collect();
        if let Err(misfit) = scheduling::fits(shadow, &node, &others) {
            verdicts[index].1 = Err(Unfit::Scheduling(misfit));
        }
    }
    Ok(warning)
}

async fn pods_on(
    client: Client,
    index: usize,
    node: Arc<Node>,
) -> kube::Result<(usize, Arc<Node>, Vec<Pod>)> {
    let there = ListParams::default().fields(&format!("spec.nodeName={}", node.name_any()));
    let pods = Api::<Pod>::all(client).list(&there).await?.items;
    Ok((index, node, pods))
}

fn tell(verdicts: Verdicts) -> Vec<CheckedNode> {
    let rooms: Vec<_> = verdicts.iter().map(|(_, found)| found.as_ref().ok().copied()).collect();
    let told = verdicts.into_iter().zip(score(&rooms)).map(|((node, found), score)| match found {
        Ok(room) => CheckedNode { node, reason: None, free_bytes: Some(room.free), score: Some(score) },
        Err(unfit) => CheckedNode { node, reason: Some(unfit.to_string()), free_bytes: None, score: None },
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::lead::placing::Unfit;
    use crate::placement::Room;

    #[test]
    fn each_node_is_told_with_its_score_or_its_reason() {
        let room = |free| Ok(Room { free, bytes: 10, transfers: 1, stream: None });
        let told =
            tell(vec![("a".into(), room(110)), ("b".into(), Err(Unfit::Cordoned)), ("c".into(), room(1010))]);
        let short: Vec<_> =
            told.iter().map(|node| (node.node.as_str(), node.score, node.reason.as_deref())).collect();
        assert_eq!(short, [("a", Some(0), None), ("b", None, Some("cordoned")), ("c", Some(10), None)]);
    }

    #[test]
    fn a_node_that_the_archive_cannot_reach_in_time_says_so_with_the_numbers() {
        let room = |stream| Ok(Room { free: 1 << 40, bytes: 1 << 30, transfers: 1, stream });
        let mut verdicts = vec![("slow".into(), room(Some(1 << 20))), ("new".into(), room(None))];
        in_time(1 << 30, Duration::from_secs(120), &mut verdicts);
        let told = tell(verdicts);
        assert!(told[0].reason.as_deref().unwrap().starts_with("1024.0 MiB need 1035 s"), "{told:?}");
        assert_eq!(told[1].reason, None);
    }

    #[tokio::test]
    async fn before_the_operator_is_ready_it_says_so() {
        use tower::ServiceExt as _;
        let request = http::Request::get("/v1/check/shop/web-0").body(axum::body::Body::empty()).unwrap();
        let response = Checks::default().router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
