//! The role: watches, certificate, servers, and their end. Does I/O.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use super::metrics::Metrics;
use super::server::router;
use crate::api::SYSTEM_NAMESPACE;
use crate::kit::{self, KitError, LogFormat, Readiness, Shutdown, tls::ClientAuth};
use crate::placement::watch;

/// Flags of the role.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Namespace that SHADOW is installed in.
    #[arg(long, env = "POD_NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    namespace: String,
    /// Secret with the serving certificate.
    #[arg(long, default_value = "shadow-extender-tls")]
    tls_secret: String,
    /// Address that kube-scheduler calls.
    #[arg(long, default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8445))]
    listen: SocketAddr,
    /// Address for health checks and metrics.
    #[arg(long, default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8081))]
    health: SocketAddr,
    /// Answer only who shows a certificate that the Secret's `ca.crt` vouches for.
    #[arg(long)]
    require_client_certificate: bool,
    /// What log lines look like.
    #[arg(long, env = "SHADOW_LOG", value_enum, default_value_t)]
    log: LogFormat,
}

/// The role could not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error("{address} cannot be listened on: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the watches ended before they were asked to")]
    Ended,
}

/// Runs until asked to stop.
pub async fn run(args: Args) -> Result<(), RunError> {
    kit::init_tracing(args.log)?;
    let shutdown = Shutdown::on_signals()?;
    let ready = Readiness::new();
    let (synced, certified) = (ready.gate("cache"), ready.gate("certificate"));
    let health = kit::serve_plain(listen(args.health).await?, kit::health_router(ready), shutdown.clone());
    let health = tokio::spawn(health);

    let metrics = Metrics::new()?;
    metrics.register(kit::metrics::registry())?;
    let client = kit::kube_watch_client().await?;
    let (views, following) = watch(&client, &args.namespace);
    let following = tokio::spawn(following);
    let opened = {
        let views = views.clone();
        tokio::spawn(async move {
            views.synced().await;
            synced.open();
        })
    };
    let tls = match kit::secret_credentials(client, &args.namespace, &args.tls_secret, shutdown.clone()).await
    {
        Ok(tls) => tls,
        Err(KitError::Stopped(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let auth = if args.require_client_certificate { ClientAuth::Required } else { ClientAuth::None };
    let listener = listen(args.listen).await?;
    certified.open();
    tracing::info!(address = %args.listen, "answering kube-scheduler");
    tokio::select! {
        served = kit::serve_tls(listener, router(views, metrics), tls, auth, shutdown) => served?,
        _ = following => return Err(RunError::Ended),
    }
    opened.abort();
    drop(health); // it ends with the same shutdown
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}
