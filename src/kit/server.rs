//! HTTP/1.1 servers that cannot be held up: handshake and header time limits, a cap on connections, and an end
//! that loses no request. New credentials are used by the next connection. Accepts connections.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use http::{HeaderValue, header::CONNECTION};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::{
    KitError, Shutdown,
    credentials::dns_name,
    tls::{ClientAuth, TlsStore},
};

const HANDSHAKE_TIMEOUT: Duration =
    if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(5) };
/// Counts idle time between requests too, so it must exceed the 90 s for which Go clients (the API server) keep
/// an idle connection: one that we close as they write to it is a failed admission.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Waiting connections stay in the listener's backlog.
const CONNECTION_CAP: usize = 512;
/// After this the process ends though requests are unfinished.
const FINISH_LIMIT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// In each request's extensions: DNS name in the client's verified certificate, if it showed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName(pub Option<String>);

/// Serves `router` over TLS until `shutdown` is stopped and the running requests are answered. While draining it
/// accepts as before, and asks each client to come back on a new connection.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    tls: TlsStore,
    auth: ClientAuth,
    shutdown: Shutdown,
) -> Result<(), KitError> {
    tls.server_config(auth)?; // wrong credentials are better noticed now than by each client
    serve(listener, shutdown.clone(), move |stream| {
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        async move {
            let Some(stream) = handshake(stream, &tls, auth).await else { return };
            let name = stream.get_ref().1.peer_certificates().and_then(|chain| dns_name(chain.first()?));
            converse(stream, router, PeerName(name), &shutdown).await;
        }
    })
    .await;
    Ok(())
}

/// As [`serve_tls`] without TLS: for health and metrics.
pub async fn serve_plain(listener: TcpListener, router: Router, shutdown: Shutdown) -> Result<(), KitError> {
    serve(listener, shutdown.clone(), move |stream| {
        let (router, shutdown) = (router.clone(), shutdown.clone());
        async move { converse(stream, router, PeerName(None), &shutdown).await }
    })
    .await;
    Ok(())
}

/// Accepts until stopped, then waits for the connections to end, within [`FINISH_LIMIT`].
async fn serve<F>(listener: TcpListener, shutdown: Shutdown, connection: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(CONNECTION_CAP));
    let connections = TaskTracker::new();
    loop {
        let (slot, stream) = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = shutdown.stopped() => break,
        };
        let conversation = connection(stream);
        connections.spawn(async move {
            conversation.await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if timeout(FINISH_LIMIT, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "stopped with requests unfinished");
    }
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (Option<OwnedSemaphorePermit>, TcpStream) {
    let slot = Arc::clone(slots).acquire_owned().await.ok(); // never closed
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                return (slot, stream);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(stream: TcpStream, tls: &TlsStore, auth: ClientAuth) -> Option<TlsStream<TcpStream>> {
    let config =
        tls.server_config(auth).inspect_err(|error| tracing::error!(%error, "no TLS configuration")).ok()?;
    match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake refused");
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake not finished in time");
            None
        }
    }
}

/// Answers the requests of one connection.
async fn converse<S>(stream: S, router: Router, peer: PeerName, shutdown: &Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let response = router.clone().oneshot(request.map(Body::new));
        async {
            let mut response = response.await?;
            if shutdown.is_draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection broken off");
    }
}
