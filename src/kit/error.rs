//! What can go wrong in the kit: which object, and what to do about it. Pure.

use std::path::PathBuf;

/// A service of the kit could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("no configuration for the Kubernetes API: {0}; run in a pod or set KUBECONFIG")]
    KubeConfig(#[from] kube::config::InferConfigError),
    #[error("Kubernetes API, {object}: {}", with_causes(.source))]
    Kube { object: String, source: Box<kube::Error> },
    #[error("credentials of {subject}: {problem}")]
    Credentials { subject: &'static str, problem: String },
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    #[error("HTTP client: {}", with_causes(.0))]
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

/// HTTP errors name their cause only in their sources: "error sending request" alone helps nobody.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let this = error.to_string();
        if !text.ends_with(&this) {
            text.push_str(": ");
            text.push_str(&this);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_http_error_says_why() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let error = reqwest::get(format!("http://{address}/")).await.unwrap_err();
        let text = KitError::from(error).to_string();
        assert!(text.contains("refused"), "{text}");
    }
}
