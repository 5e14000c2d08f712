//! TLS configurations that follow the current credentials: what is replaced here is used by the very next
//! connection, without a restart. TLS 1.2 and 1.3, HTTP/1.1. No I/O.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::KitError;
pub use super::credentials::{Credentials, Lifetime, root_store};

const ALPN: &[u8] = b"http/1.1";

/// Whether a server wants to know who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nobody is asked for a certificate.
    None,
    /// Whoever shows a certificate must show a valid one.
    Optional,
    /// Only bearers of a valid certificate get in.
    Required,
}

/// The credentials of this process; clones share them.
#[derive(Clone, Debug)]
pub struct TlsStore {
    current: Arc<ArcSwap<Snapshot>>,
}

/// Credentials with everything derived from them, so that a connection costs no parsing.
#[derive(Debug)]
struct Snapshot {
    credentials: Credentials,
    open: Arc<ServerConfig>,
    /// `None` where no authority is trusted: then no client can be verified.
    verified: Option<VerifiedConfigs>,
}

#[derive(Debug)]
struct VerifiedConfigs {
    optional: Arc<ServerConfig>,
    required: Arc<ServerConfig>,
}

impl TlsStore {
    pub fn new(credentials: Credentials) -> Result<Self, KitError> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(Snapshot::of(credentials)?)) })
    }

    /// From here on every new connection uses these; on an error the former stay in use.
    pub fn replace(&self, credentials: Credentials) -> Result<(), KitError> {
        self.current.store(Arc::new(Snapshot::of(credentials)?));
        Ok(())
    }

    pub fn credentials(&self) -> Credentials {
        self.current.load().credentials.clone()
    }

    /// For the next connection; ask again for the one after it.
    pub fn server_config(&self, auth: ClientAuth) -> Result<Arc<ServerConfig>, KitError> {
        let current = self.current.load();
        let verified = || {
            current.verified.as_ref().ok_or_else(|| KitError::Credentials {
                subject: "authorities",
                problem: "none is given, so no client can be verified".to_owned(),
            })
        };
        Ok(Arc::clone(match auth {
            ClientAuth::None => &current.open,
            ClientAuth::Optional => &verified()?.optional,
            ClientAuth::Required => &verified()?.required,
        }))
    }

    /// Shows the current identity on every connection, also after a renewal; trusts the authorities of now.
    pub fn client_config(&self) -> Result<ClientConfig, KitError> {
        let authorities = Arc::clone(&self.current.load().credentials.authorities);
        Ok(client_builder(authorities)?.with_client_cert_resolver(Arc::new(self.clone())).with_alpn())
    }
}

/// A client that shows no certificate: the way to one's first.
pub fn anonymous_client_config(authorities: RootCertStore) -> Result<ClientConfig, KitError> {
    Ok(client_builder(Arc::new(authorities))?.with_no_client_auth().with_alpn())
}

trait WithAlpn {
    fn with_alpn(self) -> Self;
}

impl WithAlpn for ClientConfig {
    fn with_alpn(mut self) -> Self {
        self.alpn_protocols = vec![ALPN.to_vec()];
        self
    }
}

impl ResolvesClientCert for TlsStore {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().credentials.identity))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Snapshot {
    fn of(credentials: Credentials) -> Result<Self, KitError> {
        let open = Arc::new(server_config(&credentials, None)?);
        let verified = if credentials.authorities.is_empty() {
            None
        } else {
            Some(VerifiedConfigs {
                optional: server_config(&credentials, Some(ClientAuth::Optional))?.into(),
                required: server_config(&credentials, Some(ClientAuth::Required))?.into(),
            })
        };
        Ok(Self { credentials, open, verified })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn client_builder(
    authorities: Arc<RootCertStore>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, KitError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(authorities))
}

fn server_config(credentials: &Credentials, auth: Option<ClientAuth>) -> Result<ServerConfig, KitError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match auth {
        None | Some(ClientAuth::None) => builder.with_no_client_auth(),
        Some(auth) => {
            let roots = Arc::clone(&credentials.authorities);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier =
                if auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| KitError::Credentials {
                subject: "authorities",
                problem: error.to_string(),
            })?)
        }
    };
    let identity: Arc<dyn ResolvesServerCert> =
        Arc::new(SingleCertAndKey::from(Arc::clone(&credentials.identity)));
    let mut config = builder.with_cert_resolver(identity);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would be believed by what was trusted when it began, not by what is trusted now.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
