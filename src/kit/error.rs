//! What can go wrong in the kit: which object, and what to do about it. Pure.

use std::path::PathBuf;

/// A service of the kit could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("no configuration for the Kubernetes API: {0}; run in a pod or set KUBECONFIG")]
    KubeConfig(#[from] kube::config::InferConfigError),
    #[error("Kubernetes API, {object}: {source}")]
    Kube { object: String, source: Box<kube::Error> },
    #[error("credentials of {subject}: {problem}")]
    Credentials { subject: &'static str, problem: String },
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    #[error("HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("log filter `{filter}` is not understood: {problem}; example: info,shadow=debug")]
    LogFilter { filter: String, problem: String },
    #[error("the operator at {endpoint} issued no certificate: {problem}")]
    NotIssued { endpoint: String, problem: String },
    #[error("metric `{0}` cannot be registered")]
    Metric(String),
    #[error("asked to stop while waiting for {0}")]
    Stopped(&'static str),
}

impl KitError {
    /// Names the object that a call to the API was about.
    pub fn kube(object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Kube { object, source: Box::new(source) }
    }
}
