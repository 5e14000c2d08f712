//! Clients of the Kubernetes API that never retry by themselves and never hang.
//!
//! kube's default client repeats every request, whatever its verb, up to 15 times on 429, 503 and 504, and waits
//! for ever; both would stall an eviction or repeat an effect behind our back.

use std::time::Duration;

use kube::{Client, Config, client::ClientBuilder};
use tower::timeout::TimeoutLayer;

use super::KitError;

/// The API server answers a watch at once, and a list of many thousand objects within seconds.
const WATCH_BEGINS: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For calls: each is sent once and ends within `timeout`. Not for watches, which are silent for longer.
pub async fn kube_client(timeout: Duration) -> Result<Client, KitError> {
    let mut config = base_config().await?;
    // The layer bounds the time to the answer's head, this the silence within its body.
    config.read_timeout = Some(timeout);
    config.reset_reader_on_write = true; // a pooled connection may have been idle for longer
    let builder = ClientBuilder::try_from(config).map_err(KitError::kube("client"))?;
    Ok(builder.with_layer(&TimeoutLayer::new(timeout)).build())
}

/// A watch whose connection broke silently is noticed after this: for watches that decisions hang on.
pub const WATCH_SECONDS: u32 = 60;

/// For watches (reflectors, controllers): an answer has to begin soon; then kube's watcher bounds its own silence.
pub async fn kube_watch_client() -> Result<Client, KitError> {
    let builder = ClientBuilder::try_from(base_config().await?).map_err(KitError::kube("client"))?;
    Ok(builder.with_layer(&TimeoutLayer::new(WATCH_BEGINS)).build())
}

async fn base_config() -> Result<Config, KitError> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Ok(config)
}
