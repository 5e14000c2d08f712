//! On every node: dumps containers, streams and keeps archives, hands out tickets, freezes and kills.
//!
//! What it knows it derives from the node's runtime or keeps in its folder; a restart loses nothing. It obeys the
//! operator only and never takes a path, an image or a tag from the network.

mod context;
mod dump;
pub mod failure;
mod metrics;
pub mod node;
mod orders;
pub mod restore;
pub mod store;
pub mod transfer;

#[cfg(test)]
mod loopback_tests;

pub use node::host::{SUBCOMMAND as HOST_EXEC, enter as host_exec};

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::api::{AGENT_PORT, AGENT_SOCKET, NODE_DIR, NodeName, SYSTEM_NAMESPACE};
use crate::kit::tls::{ClientAuth, Credentials, TlsStore};
use crate::kit::{
    AgentIdentity, KitError, LogFormat, Readiness, Shutdown, agent_certificate, health_router, init_tracing,
    serve_plain, serve_tls,
};
use context::Node;
use node::capacity::{Meter, Publisher};
use node::containers::Containers;
use node::engine::Engine;
use node::host::Host;
use node::install::{Site, Turns};
use restore::tickets::Tickets;
use store::Store;

/// Between attempts to prepare a node that is not as it should be.
const INSTALL_RETRY: Duration = Duration::from_secs(10);
/// Of archives that are kept for a person.
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);

/// Flags of the role.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address to listen on for orders and archives.
    #[arg(long, env = "NODE_IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    address: IpAddr,
    /// Port of all agents.
    #[arg(long, default_value_t = AGENT_PORT)]
    port: u16,
    /// Address for health and metrics.
    #[arg(long, default_value = "0.0.0.0:9444")]
    health: SocketAddr,
    /// Folder for archives and tickets; the same path here and on the node.
    #[arg(long, default_value = NODE_DIR)]
    dir: PathBuf,
    /// Socket for `shadow-runc`.
    #[arg(long, default_value = AGENT_SOCKET)]
    socket: PathBuf,
    /// Take `tls.crt`, `tls.key` and `ca.crt` from this folder in place of asking the operator: for trying things out.
    #[arg(long)]
    tls_dir: Option<PathBuf>,
    /// Name of the node, to publish its capacity under; nothing is published without it.
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// Namespace that SHADOW is installed in.
    #[arg(long, env = "POD_NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    namespace: String,
    #[arg(long, env = "SHADOW_LOG", value_enum, default_value_t)]
    log: LogFormat,
    #[command(flatten)]
    identity: AgentIdentity,
    #[command(flatten)]
    install: node::install::InstallArgs,
    #[command(flatten)]
    engine: Engine,
}

/// The role could not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error("agent's folder: {0}")]
    Store(#[from] store::StoreError),
    #[error("cannot listen on {what}: {source}")]
    Listen { what: String, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Tls { path: PathBuf, source: std::io::Error },
    #[error("an earlier dump could not be wound up: {0}")]
    Recover(failure::Failure),
}

/// Runs until asked to stop.
pub async fn run(args: Args) -> Result<(), RunError> {
    init_tracing(args.log)?;
    // Nobody finds an agent through a Service: no lag.
    let shutdown = Shutdown::on_signals_with_lag(Duration::ZERO)?;
    let ready = Readiness::new();
    let (installed, certified) = (ready.gate("runtime installed"), ready.gate("certificate"));
    let health = listen(args.health).await?;
    let healthy = tokio::spawn(serve_plain(health, health_router(ready), shutdown.clone()));

    let engine = args.engine.clone();
    let host = Host::of_pid_1().with_programs(engine.programs.clone());
    let store = Store::open(&args.dir)?;
    let containers = Containers::of(host.clone(), &engine);
    let tickets = Arc::new(Tickets::open(store.clone(), containers.clone())?);
    let unsettled = store.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = restore::settle::settle_all(&unsettled) {
            tracing::warn!(%error, "an archive is not safe from a power failure");
        }
    });
    dump::job::recover(&store, &containers).await.map_err(RunError::Recover)?;
    // The kubelet may be waiting for us already, and needs no operator for that: claims are served before orders.
    let socket = restore::claims::listen(&args.socket)
        .map_err(|source| RunError::Listen { what: args.socket.display().to_string(), source })?;
    let meter = Arc::new(Meter::default());
    let publisher = args.node_name.as_deref().map(|node| Publisher {
        node: NodeName::from(node),
        namespace: args.namespace.clone(),
        dir: args.dir.clone(),
        host: host.clone(),
        engine: engine.clone(),
        store: store.clone(),
        meter: Arc::clone(&meter),
    });
    let installing = {
        let turns = args.node_name.clone().map(|node| Turns { namespace: args.namespace.clone(), node });
        let site = Site { host: host.clone(), engine: engine.clone(), turns };
        let (install_args, shutdown) = (args.install.clone(), shutdown.clone());
        tokio::spawn(async move {
            install(site, install_args, installed, shutdown.clone()).await;
            // CRIU's settings are a part of what is published.
            if let Some(publisher) = publisher {
                publisher.publish(shutdown).await;
            }
        })
    };
    let sweeping = tokio::spawn(restore::leftovers::sweep_leftovers(host.clone()));
    let looking_after = tokio::spawn(Arc::clone(&tickets).look_after());
    let kept = tokio::spawn(sweep_kept(Arc::clone(&tickets)));
    let images = restore::images::Images { host: host.clone(), engine: engine.clone() };
    let claims = tokio::spawn(restore::claims::serve(socket, Arc::clone(&tickets), images, shutdown.clone()));

    let tls = match &args.tls_dir {
        Some(dir) => TlsStore::new(credentials(dir)?)?,
        None => agent_certificate(args.identity.clone(), shutdown.clone()).await?,
    };
    certified.open();
    let (jobs, locks) = (dump::jobs::Jobs::default(), context::Locks::default());
    let peer_port = args.port;
    let node =
        Arc::new(Node { host, engine, store, containers, tickets, tls, peer_port, jobs, locks, meter });
    let orders = listen(SocketAddr::new(args.address, args.port)).await?;
    tracing::info!(address = %args.address, port = args.port, "agent runs");
    serve_tls(orders, orders::router(Arc::clone(&node)), node.tls.clone(), ClientAuth::Required, shutdown)
        .await?;
    for task in [claims, looking_after, kept, installing, sweeping] {
        task.abort();
    }
    drop(healthy);
    Ok(())
}

/// Removes what was kept for a person long enough, for ever.
async fn sweep_kept(tickets: Arc<Tickets>) {
    let mut ticks = tokio::time::interval(SWEEP_PERIOD);
    loop {
        ticks.tick().await;
        let tickets = Arc::clone(&tickets);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || tickets.sweep_kept()).await {
            tracing::warn!(%error, "an archive that was kept long enough is left for now");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { what: address.to_string(), source })
}

fn credentials(dir: &Path) -> Result<Credentials, RunError> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|source| RunError::Tls { path, source })
    };
    Ok(Credentials::from_pem(&read("tls.crt")?, &read("tls.key")?, &read("ca.crt")?)?)
}

/// Tries until the node is prepared: what is missing may be put right meanwhile.
async fn install(site: Site, args: node::install::InstallArgs, gate: crate::kit::Gate, shutdown: Shutdown) {
    while let Err(error) = node::install::install(&site, &args).await {
        tracing::error!(%error, "this node cannot restore pods yet");
        tokio::select! {
            () = tokio::time::sleep(INSTALL_RETRY) => {}
            () = shutdown.stopped() => return,
        }
    }
    gate.open();
}
