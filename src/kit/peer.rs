//! HTTPS between the parts: the other side is known by its TLS name, whatever its address. Opens connections.

use std::{net::SocketAddr, time::Duration};

use reqwest::{Client, redirect};

use super::{KitError, tls::TlsStore};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client for one peer: URLs are `https://<tls_name>/...`, connections go to `addr`, the peer must prove
/// `tls_name`, and sees this process's certificate. Every request still needs its own timeout.
pub fn peer_client(tls: &TlsStore, tls_name: &str, addr: SocketAddr) -> Result<Client, KitError> {
    client(tls.client_config()?, |builder| builder.resolve(tls_name, addr))
}

pub(super) fn client(
    tls: rustls::ClientConfig,
    more: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<Client, KitError> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT);
    Ok(more(builder).build()?)
}
