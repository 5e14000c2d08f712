//! The role: watches, certificate, servers, and their end. Does I/O.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::cache::{Cache, follow};
use super::cluster::KubeCluster;
use super::metrics::Metrics;
use super::reviews::{Settings, Webhook};
use super::server::router;
use crate::api::{SYSTEM_NAMESPACE, StatefulMigration};
use crate::kit::{self, KitError, LogFormat, Readiness, Shutdown, WATCH_SECONDS, tls::ClientAuth};

const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Flags of the role.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Namespace that SHADOW is installed in.
    #[arg(long, env = "POD_NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    namespace: String,
    /// Secret with the serving certificate.
    #[arg(long, default_value = "shadow-webhook-tls")]
    tls_secret: String,
    /// Port that the API server calls.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Port of health checks and metrics.
    #[arg(long, default_value_t = 8080)]
    health_port: u16,
    /// Users whose evictions are never turned into migrations: the vertical pod autoscaler evicts a pod to get it made
    /// again with other requests.
    #[arg(long = "pass-user", default_value = "system:serviceaccount:kube-system:vpa-updater")]
    pass_users: Vec<String>,
    /// What log lines look like.
    #[arg(long, env = "SHADOW_LOG", value_enum, default_value = "json")]
    log: LogFormat,
}

/// The role could not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error("port {port} cannot be listened on: {source}")]
    Listen { port: u16, source: std::io::Error },
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("{0} ended before it was asked to")]
    Ended(&'static str),
}

/// Runs until asked to stop.
pub async fn run(args: Args) -> Result<(), RunError> {
    kit::init_tracing(args.log)?;
    let shutdown = Shutdown::on_signals()?;
    let ready = Readiness::new();
    let cache_gate = ready.gate("cache");
    let certificate_gate = ready.gate("certificate");
    let health = kit::serve_plain(
        listen(args.health_port).await?,
        kit::health_router(ready.clone()),
        shutdown.clone(),
    );
    let health = tokio::spawn(health);

    let metrics = Metrics::new()?;
    metrics.register(kit::metrics::registry())?;
    let webhook = Arc::new(Webhook {
        cache: Arc::new(Cache::default()),
        cluster: KubeCluster::new(kit::kube_client(CALL_TIMEOUT).await?),
        settings: Settings::in_namespace(&args.namespace, args.pass_users),
        metrics,
    });
    let watching = kit::kube_watch_client().await?;
    let opener = {
        let cache = Arc::clone(&webhook.cache);
        move || {
            if cache.is_synced() {
                cache_gate.open();
            }
        }
    };
    let mut watches = follow_all(&watching, &webhook.cache, &opener);

    let tls =
        match kit::secret_credentials(watching, &args.namespace, &args.tls_secret, shutdown.clone()).await {
            Ok(tls) => tls,
            Err(KitError::Stopped(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
    let listener = listen(args.port).await?;
    certificate_gate.open();
    tracing::info!(port = args.port, "answering reviews");
    let served = kit::serve_tls(listener, router(webhook), tls, ClientAuth::None, shutdown.clone());
    tokio::select! {
        served = served => served?,
        _ = watches.join_next() => return Err(RunError::Ended("a watch")),
    }
    let _ = health.await; // it ends with the same shutdown; how is logged
    Ok(())
}

async fn listen(port: u16) -> Result<TcpListener, RunError> {
    // A machine without IPv6 has no `::`.
    match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => {
            TcpListener::bind(("0.0.0.0", port)).await.map_err(|source| RunError::Listen { port, source })
        }
    }
}

/// Fills every index, for ever.
fn follow_all(
    client: &Client,
    cache: &Arc<Cache>,
    ready: &(impl Fn() + Clone + Send + 'static),
) -> JoinSet<()> {
    fn watch<K>(
        client: &Client,
        config: watcher::Config,
    ) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + use<K>
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + 'static,
    {
        watcher(Api::<K>::all(client.clone()), config)
    }
    let all = watcher::Config::default;
    // Migrations are few, and a pod that is created while they are not followed costs a question to the API server.
    let own = all().timeout(WATCH_SECONDS);
    let of = || (Arc::clone(cache), ready.clone());
    let mut tasks = JoinSet::new();
    let (at, done) = of();
    tasks.spawn(follow("pods", at, |c| &c.pods, watch::<Pod>(client, all()), done));
    let (at, done) = of();
    tasks.spawn(follow("nodes", at, |c| &c.nodes, watch::<Node>(client, all()), done));
    let (at, done) = of();
    tasks.spawn(follow("statefulsets", at, |c| &c.stateful_sets, watch::<StatefulSet>(client, all()), done));
    let (at, done) = of();
    let sets = watch::<PartialObjectMeta<ReplicaSet>>(client, all());
    tasks.spawn(follow("replicasets", at, |c| &c.replica_sets, sets, done));
    let (at, done) = of();
    let deployments = watch::<PartialObjectMeta<Deployment>>(client, all());
    tasks.spawn(follow("deployments", at, |c| &c.deployments, deployments, done));
    let (at, done) = of();
    let migrations = watch::<StatefulMigration>(client, own);
    tasks.spawn(follow("statefulmigrations", at, |c| &c.migrations, migrations, done));
    tasks
}
