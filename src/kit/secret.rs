//! Credentials from a Secret of type `kubernetes.io/tls`, current within moments of every change: a mounted volume
//! would lag by a minute or more. Watches the Kubernetes API.

use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::oneshot;

use super::{
    KitError, Shutdown,
    tls::{Credentials, TlsStore},
};

/// Waits for usable credentials in the Secret (until shutdown) and keeps the store current from then on. A Secret
/// that vanishes or breaks leaves the last usable ones in place. `client` must be one for watches.
pub async fn secret_credentials(
    client: Client,
    namespace: &str,
    name: &str,
    shutdown: Shutdown,
) -> Result<TlsStore, KitError> {
    let (first, ready) = oneshot::channel();
    let secrets = Api::<Secret>::namespaced(client, namespace);
    tokio::spawn(follow(secrets, name.to_owned(), first, shutdown));
    ready.await.map_err(|_| KitError::Stopped("the certificate's Secret"))
}

async fn follow(secrets: Api<Secret>, name: String, first: oneshot::Sender<TlsStore>, shutdown: Shutdown) {
    let mut states = pin!(watcher::watch_object(secrets, &name).default_backoff());
    let mut first = Some(first);
    let mut store: Option<TlsStore> = None;
    loop {
        let state = tokio::select! {
            () = shutdown.stopped() => return,
            state = states.next() => state,
        };
        let secret = match state {
            Some(Ok(Some(secret))) => secret,
            Some(Ok(None)) => {
                tracing::info!(secret = name, "not there, waiting for it");
                continue;
            }
            Some(Err(error)) => {
                tracing::warn!(%error, secret = name, "watch interrupted");
                continue;
            }
            None => return,
        };
        let taken = credentials(&secret).and_then(|credentials| match &store {
            Some(store) if store.credentials().same_as(&credentials) => Ok(()),
            Some(store) => store.replace(credentials),
            None => {
                let made = TlsStore::new(credentials)?;
                store = Some(made.clone());
                if let Some(first) = first.take() {
                    let _ = first.send(made); // nobody waits any more: the loop ends with the shutdown
                }
                Ok(())
            }
        });
        match taken {
            Ok(()) => tracing::info!(secret = name, "certificate loaded"),
            Err(error) => tracing::warn!(%error, secret = name, "unusable"),
        }
    }
}

fn credentials(secret: &Secret) -> Result<Credentials, KitError> {
    let value =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    Credentials::from_pem(
        value("tls.crt").unwrap_or_default(),
        value("tls.key").unwrap_or_default(),
        value("ca.crt").unwrap_or_default(),
    )
}
