//! How an agent gets its certificate: it proves its node with its pod's token, the operator signs its key. The key
//! never leaves the process. Reads files, calls the operator.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    KitError, Shutdown, peer,
    tls::{Credentials, TlsStore, anonymous_client_config, root_store},
};

/// Audience of the token that proves an agent's node.
pub const AUDIENCE: &str = "shadow";
/// On the operator's issuing endpoint.
pub const PATH: &str = "/v1/certificates";

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Between looks at the clock and at the authorities' file.
const CHECK: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What the agent sends.
#[derive(Clone, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// PEM; only its key counts.
    pub csr: String,
    /// Service account token for [`AUDIENCE`].
    pub token: String,
}

/// What the operator answers.
#[derive(Clone, Serialize, Deserialize)]
pub struct CertificateAnswer {
    /// PEM.
    pub certificate: String,
}

/// Where an agent finds the proof of its identity and the operator.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentIdentity {
    /// Projected service account token, audience `shadow`.
    #[arg(long, default_value = "/var/run/secrets/shadow/token")]
    pub token_file: PathBuf,
    /// The authorities to trust, PEM; from ConfigMap `shadow-ca`.
    #[arg(long, default_value = "/var/run/secrets/shadow/ca.crt")]
    pub ca_file: PathBuf,
    /// Host and port of the operator's issuing endpoint; the host is also the name in its certificate.
    #[arg(long, default_value = "shadow-operator.shadow-system.svc:8444")]
    pub issuer: String,
    /// Address of the Service, so that the node's DNS need not know it.
    #[arg(long, env = "SHADOW_OPERATOR_SERVICE_HOST")]
    pub issuer_address: Option<std::net::IpAddr>,
}

/// Gets the first certificate, however long that takes (until shutdown), and keeps the store renewed from then on.
pub async fn agent_certificate(identity: AgentIdentity, shutdown: Shutdown) -> Result<TlsStore, KitError> {
    let mut pause = FIRST_PAUSE;
    let (store, mut authorities) = loop {
        let failure = match issued(&identity).await {
            Ok((credentials, authorities)) => break (TlsStore::new(credentials)?, authorities),
            Err(failure) => failure,
        };
        tracing::warn!(error = %failure, "no certificate yet");
        wait(pause, &shutdown).await?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    tracing::info!("certificate received");
    let kept = store.clone();
    tokio::spawn(async move {
        while wait(CHECK, &shutdown).await.is_ok() {
            let due = kept.credentials().lifetime().renewal_due(std::time::SystemTime::now());
            let published = tokio::fs::read(&identity.ca_file).await.ok();
            if !due && published.is_none_or(|published| published == authorities) {
                continue;
            }
            let renewed = issued(&identity).await.and_then(|(credentials, published)| {
                kept.replace(credentials)?;
                Ok(published)
            });
            match renewed {
                Ok(published) => {
                    authorities = published;
                    tracing::info!("certificate renewed");
                }
                Err(error) => tracing::warn!(%error, "certificate not renewed, trying again"),
            }
        }
    });
    Ok(store)
}

/// One exchange: new key, new certificate, and the authorities as published now.
async fn issued(identity: &AgentIdentity) -> Result<(Credentials, Vec<u8>), KitError> {
    let AgentIdentity { token_file, ca_file, issuer, issuer_address } = identity;
    let authorities = read(ca_file).await?;
    let token = read(token_file).await?;
    let refused = |problem: String| KitError::NotIssued { endpoint: issuer.clone(), problem };
    let token = String::from_utf8(token).map_err(|_| refused("the token is not text".to_owned()))?;

    let (key, csr) = signing_request().map_err(|error| refused(error.to_string()))?;
    let (host, port) = host_and_port(issuer).ok_or_else(|| refused("it is not host:port".to_owned()))?;
    let tls = anonymous_client_config(root_store(&authorities)?)?;
    let client = peer::client(tls, |builder| match issuer_address {
        Some(address) => builder.resolve(host, SocketAddr::new(*address, port)),
        None => builder,
    })?;
    let request = CertificateRequest { csr, token: token.trim().to_owned() };
    let url = format!("https://{issuer}{PATH}");
    let response = client.post(url).json(&request).timeout(REQUEST_TIMEOUT).send().await?;
    let status = response.status();
    if !status.is_success() {
        let reason = response.text().await.unwrap_or_default();
        return Err(refused(format!("{status} {}", reason.chars().take(200).collect::<String>())));
    }
    let CertificateAnswer { certificate } = response.json().await?;
    let credentials =
        Credentials::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes(), &authorities)?;
    Ok((credentials, authorities))
}

fn signing_request() -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
    Ok((key, csr))
}

fn host_and_port(issuer: &str) -> Option<(&str, u16)> {
    let (host, port) = issuer.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, KitError> {
    tokio::fs::read(path).await.map_err(|source| KitError::File { path: path.clone(), source })
}

async fn wait(pause: Duration, shutdown: &Shutdown) -> Result<(), KitError> {
    tokio::select! {
        () = shutdown.drain_started() => Err(KitError::Stopped("the agent's certificate")),
        () = sleep(pause) => Ok(()),
    }
}
