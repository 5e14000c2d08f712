//! Wires the role: certificates, caches, lease, the leader's loop. Does I/O, decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::net::TcpListener;
use tokio::sync::watch::Receiver;

use super::agents::client::Agents;
use super::agents::transport::MtlsTransport;
use super::certificates::{self, CertificateError, Settings};
use super::check::answer::Checks;
use super::context::Context;
use super::lead::bookings::Bookings;
use super::lead::node_labels::label_nodes;
use super::lead::orphans::close_orphans;
use super::lead::slots::Limits;
use super::lead::supervisor::lead;
use super::metrics::Metrics;
use super::shadow_pod::kept_labels;
use crate::api::SYSTEM_NAMESPACE;
use crate::broker::AmqpBroker;
use crate::kit::events::Recorder;
use crate::kit::lease::{Leadership, Lease};
use crate::kit::{
    Gate, KitError, LogFormat, Readiness, Shutdown, health_router, init_tracing, kube_client,
    kube_watch_client, serve_plain,
};
use crate::placement::watch;

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// An operator that cannot read nodes and agents for so long ends, and is started again.
const CACHE_LIMIT: Duration = Duration::from_secs(60);
const LEASE_NAME: &str = "shadow-operator";
const AGENT_SELECTOR: &str = "app.kubernetes.io/name=shadow-agent";

/// Flags of the role.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Namespace that SHADOW is installed in.
    #[arg(long, env = "POD_NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    namespace: String,
    /// Name of this pod: the lease's holder.
    #[arg(long, env = "POD_NAME")]
    pod_name: String,
    /// Where agents ask for certificates.
    #[arg(long, default_value = "0.0.0.0:8444")]
    issue_on: SocketAddr,
    /// Health, metrics, and whether a pod can move.
    #[arg(long, default_value = "0.0.0.0:8080")]
    health_on: SocketAddr,
    /// Who makes the webhook's certificate.
    #[arg(long, value_enum, default_value_t)]
    certificates: certificates::Mode,
    /// Migrations out of one node at a time.
    #[arg(long, default_value_t = Limits::default().per_node)]
    per_node: usize,
    /// Migrations in the cluster at a time.
    #[arg(long, default_value_t = Limits::default().per_cluster)]
    per_cluster: usize,
    /// A scheduler that asks the extender: it gets the shadow pods.
    #[arg(long)]
    scheduler: Option<String>,
    /// Labels and annotations that shadows get from their pods, beside those by which pods opt out of meshes. No
    /// selector of a Service, PodDisruptionBudget or workload may be made of these alone.
    #[arg(long, value_delimiter = ',')]
    shadow_labels: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    log: LogFormat,
}

/// The role could not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(
        "nodes and agents could not be read within {0:?}: does the API server answer, is the RBAC there?"
    )]
    Caches(Duration),
    #[error("the watch that feeds a cache has ended: {0}")]
    CacheEnded(#[from] reflector::store::WriterDropped),
    #[error("health endpoint cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// Runs until asked to stop.
pub async fn run(args: Args) -> Result<(), RunError> {
    let Args {
        namespace,
        pod_name,
        issue_on,
        health_on,
        certificates: mode,
        per_node,
        per_cluster,
        scheduler,
        shadow_labels,
        log,
    } = args;
    init_tracing(log)?;
    // Nobody is routed to an operator but agents for certificates: no need to linger.
    let shutdown = Shutdown::on_signals_with_lag(Duration::from_millis(500))?;
    let client = kube_client(CALL_LIMIT).await?;
    let watch_client = kube_watch_client().await?;
    let readiness = Readiness::new();
    let (certified, nodes_synced, agents_synced) =
        (readiness.gate("certificates"), readiness.gate("nodes"), readiness.gate("agents"));
    let listener = TcpListener::bind(health_on)
        .await
        .map_err(|source| RunError::Listen { address: health_on, source })?;
    let checks = Checks::default();
    let router = health_router(readiness).merge(checks.clone().router());
    let health = tokio::spawn(serve_plain(listener, router, shutdown.clone()));

    let settings = Settings { namespace: namespace.clone(), mode, listen: issue_on };
    let authority = certificates::establish(client.clone(), settings, &shutdown).await?;
    certified.open();
    let nodes =
        cache(Api::<Node>::all(watch_client.clone()), watcher::Config::default(), nodes_synced, prune_node);
    let agent_pods = cache(
        Api::<Pod>::namespaced(watch_client.clone(), &namespace),
        watcher::Config::default().labels(AGENT_SELECTOR),
        agents_synced,
        |pod: &mut Pod| pod.metadata.managed_fields = None,
    );
    let (views, following) = watch(&watch_client, &namespace);
    let following = tokio::spawn(following);
    let ctx = Context {
        namespace: namespace.clone(),
        views,
        bookings: Bookings::default(),
        agents: Agents::new(agent_pods.clone(), Arc::new(MtlsTransport::new(authority.tls()))),
        brokers: Arc::new(|url| Arc::new(AmqpBroker::new(url, "shadow-operator"))),
        agent_pods,
        nodes,
        scheduler: scheduler.map(Into::into),
        shadow_labels: kept_labels(shadow_labels),
        recorder: Arc::new(Recorder::new(client.clone(), "operator", Some(pod_name.clone()))),
        metrics: Arc::new(Metrics::new(crate::kit::metrics::registry())?),
        client: client.clone(),
        watch_client: watch_client.clone(),
    };
    // With an empty cache every node would look as if it were gone: nobody leads before both are full.
    let full = async {
        ctx.nodes.wait_until_ready().await?;
        ctx.agent_pods.wait_until_ready().await
    };
    tokio::time::timeout(CACHE_LIMIT, full).await.map_err(|_| RunError::Caches(CACHE_LIMIT))??;
    checks.open(ctx.clone());
    let lease =
        Lease { namespace, name: LEASE_NAME.to_owned(), identity: pod_name, duration: Lease::DURATION };
    let leadership = lease.campaign(client, watch_client, shutdown.clone());
    let leading = tokio::spawn(lead_while_leader(ctx, Limits { per_node, per_cluster }, leadership.clone()));
    authority.run(leadership, shutdown).await?;
    leading.abort();
    following.abort();
    health.abort();
    Ok(())
}

/// Runs the leader's loop while this process holds the lease; losing it drops the loop at once.
async fn lead_while_leader(ctx: Context, limits: Limits, mut leadership: Receiver<Option<Leadership>>) {
    loop {
        let held = *leadership.borrow_and_update();
        if let Some(held) = held {
            tracing::info!(epoch = held.epoch, "leads");
            tokio::select! {
                () = lead(ctx.clone(), limits) => tracing::warn!("the leader's loop ended, starts again"),
                () = label_nodes(ctx.clone()) => {}
                () = close_orphans(ctx.clone()) => {}
                changed = leadership.changed() => match changed {
                    Ok(()) => tracing::info!("the lease changed hands or was renewed under a new epoch"),
                    Err(_) => return,
                },
            }
        } else if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// A cache that a background task keeps current; opens the gate when it is complete.
fn cache<K>(api: Api<K>, config: watcher::Config, synced: Gate, prune: fn(&mut K)) -> Store<K>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + serde::de::DeserializeOwned
        + 'static,
{
    let (store, writer) = reflector::store();
    let stream = reflector::reflector(writer, watcher(api, config).modify(prune)).default_backoff();
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::InitDone) => synced.open(),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "watch interrupted"),
            }
        }
    });
    store
}

fn prune_node(node: &mut Node) {
    node.metadata.managed_fields = None;
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}
