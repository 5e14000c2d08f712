//! The cluster's own certificate authority: makes it, keeps it, hands out certificates, renews all of them in time.
//!
//! Guarantees: one authority whatever number of operators starts at once (the Secret's creation decides); nobody
//! is shown a certificate of an authority that was not published before; everything is renewed with a third of
//! its life left, by the wall clock, without a restart. Calls the Kubernetes API, serves the issuing endpoint.

mod authority;
mod issuing;
mod publish;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use kube::Client;
use tokio::{net::TcpListener, sync::watch, time::sleep};

pub use authority::{Authority, Issued};

use crate::{
    api::TLS_NAME_OPERATOR,
    kit::{
        KitError, Shutdown,
        lease::Leadership,
        serve_tls,
        tls::{ClientAuth, Credentials, TlsStore},
    },
};

/// Certificates of agents and operators. Short, because nothing else takes a stolen one back.
const PEER_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The webhook's: with `failurePolicy: Fail` it must outlive a long absence of the operator.
const WEBHOOK_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Between looks at the clock and at the published objects.
const CHECK: Duration = Duration::from_secs(60);
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Who makes the webhook's certificate. The parts' own mTLS always has its own authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The operator: nothing else need be installed.
    #[default]
    SelfSigned,
    /// cert-manager: the operator leaves the webhook's Secret and the caBundles alone.
    CertManager,
}

/// Where the authority lives and whom it serves.
#[derive(Clone, Debug)]
pub struct Settings {
    pub namespace: String,
    pub mode: Mode,
    /// Address of the issuing endpoint.
    pub listen: SocketAddr,
}

/// A certificate could not be made, kept or handed out.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("Secret {name}: {problem}; repair it, or delete it to have a new authority made")]
    Secret { name: &'static str, problem: String },
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error("certificate: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("the issuing endpoint cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// The authority as this operator holds it.
pub struct Certificates {
    client: Client,
    settings: Settings,
    authority: Arc<ArcSwap<Authority>>,
    tls: TlsStore,
}

/// Reads the authority, or makes it where there is none yet, and issues this operator's own certificate. Tries
/// until it succeeds or shutdown.
pub async fn establish(
    client: Client,
    settings: Settings,
    shutdown: &Shutdown,
) -> Result<Certificates, CertificateError> {
    loop {
        let failure = match publish::authority(&client, &settings.namespace, None).await {
            Ok(authority) => {
                let tls = TlsStore::new(own_credentials(&authority, &settings.namespace)?)?;
                let authority = Arc::new(ArcSwap::from_pointee(authority));
                return Ok(Certificates { client, settings, authority, tls });
            }
            Err(failure) => failure,
        };
        tracing::warn!(error = %failure, "no certificate authority yet");
        tokio::select! {
            () = shutdown.drain_started() => return Err(KitError::Stopped("the certificate authority").into()),
            () = sleep(RETRY) => {}
        }
    }
}

impl Certificates {
    /// This operator's identity, for its servers and for the agents it calls.
    pub fn tls(&self) -> TlsStore {
        self.tls.clone()
    }

    /// Serves the issuing endpoint and keeps everything renewed until shutdown; publishes only while leading.
    pub async fn run(
        self,
        leadership: watch::Receiver<Option<Leadership>>,
        shutdown: Shutdown,
    ) -> Result<(), CertificateError> {
        let address = self.settings.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| CertificateError::Listen { address, source })?;
        let router =
            issuing::router(self.client.clone(), &self.settings.namespace, Arc::clone(&self.authority));
        let serving = serve_tls(listener, router, self.tls.clone(), ClientAuth::None, shutdown.clone());
        let (served, ()) = tokio::join!(serving, self.maintain(leadership, &shutdown));
        Ok(served?)
    }

    async fn maintain(&self, mut leadership: watch::Receiver<Option<Leadership>>, shutdown: &Shutdown) {
        loop {
            let leading = leadership.borrow_and_update().is_some();
            let pause = match self.check(leading).await {
                Ok(()) => CHECK,
                Err(error) => {
                    tracing::warn!(%error, "certificates not up to date, trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = shutdown.stopped() => return,
                Ok(()) = leadership.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// One look at the clock and at the cluster. Idempotent.
    async fn check(&self, leading: bool) -> Result<(), CertificateError> {
        let namespace = &self.settings.namespace;
        let known = self.authority.load_full();
        let mut authority = publish::authority(&self.client, namespace, Some(&known)).await?;
        if leading && let Some(advanced) = authority.advanced(SystemTime::now())? {
            authority = publish::replace_authority(&self.client, namespace, authority, advanced).await?;
        }
        let changed = authority != *known;
        if changed {
            self.authority.store(Arc::new(authority.clone()));
        }
        if changed || self.tls.credentials().lifetime().renewal_due(SystemTime::now()) {
            self.tls.replace(own_credentials(&authority, namespace)?)?;
            tracing::info!("operator certificate renewed");
        }
        if leading {
            // The order matters: first everybody is told whom to trust, then somebody is shown a certificate.
            publish::bundle(&self.client, namespace, &authority).await?;
            if self.settings.mode == Mode::SelfSigned {
                publish::ca_bundles(&self.client, &authority).await?;
                publish::serving_secret(&self.client, namespace, &authority, publish::WEBHOOK).await?;
            }
            // Its scheduler trusts our authority, whoever makes the webhook's certificate.
            publish::serving_secret(&self.client, namespace, &authority, publish::EXTENDER).await?;
        }
        Ok(())
    }
}

fn own_credentials(authority: &Authority, namespace: &str) -> Result<Credentials, CertificateError> {
    let names = [TLS_NAME_OPERATOR.to_owned(), format!("shadow-operator.{namespace}.svc")];
    let issued = authority.issue(&names, PEER_LIFE, SystemTime::now())?;
    let bundle = authority.bundle();
    Ok(Credentials::from_pem(issued.certificate.as_bytes(), issued.key.as_bytes(), bundle.as_bytes())?)
}
