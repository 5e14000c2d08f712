//! The four watches that [`Views`] follow. Does I/O.

use std::fmt::Debug;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::views::{Capacity, Views};
use crate::api::{LABEL_ROLE, Role, StatefulMigration};
use crate::kit::WATCH_SECONDS;

/// Watches nodes' capacities, their agents' leases in SHADOW's `namespace`, migrations and shadows; the future runs for ever.
pub fn watch(client: &Client, namespace: &str) -> (Views, impl Future<Output = ()> + Send + use<>) {
    let config = || watcher::Config::default().timeout(WATCH_SECONDS);
    let capacities = listing_anew(Api::<Capacity>::all(client.clone()), config());
    let leases = listing_anew(Api::<Lease>::namespaced(client.clone(), namespace), config());
    let migrations = listing_anew(Api::<StatefulMigration>::all(client.clone()), config());
    let of_shadows = config().labels(&format!("{LABEL_ROLE}={}", Role::Shadow));
    let shadows = listing_anew(Api::<Pod>::all(client.clone()), of_shadows).modify(|pod| {
        pod.metadata.managed_fields = None;
        pod.status = None;
    });
    Views::follow(Box::pin(capacities), Box::pin(leases), Box::pin(migrations), Box::pin(shadows))
}

/// A watch that begins again with a list after every error. kube's own goes on without a word, so that nobody could tell
/// a watch that works again, and has nothing to say, from one that is still broken.
fn listing_anew<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    restarting(move || watcher(api.clone(), config.clone()).boxed(), DefaultBackoff::default())
}

/// A new stream after every error, and after a pause.
fn restarting<T: Send + 'static, E: Send + 'static>(
    begin: impl Fn() -> BoxStream<'static, Result<T, E>> + Send + 'static,
    back_off: impl Backoff + 'static,
) -> impl Stream<Item = Result<T, E>> + Send {
    stream::unfold((begin(), None, begin, back_off), async |(mut current, pause, begin, mut back_off)| {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let item = current.next().await?;
        let mut pause = None;
        if item.is_err() {
            // It grows: that a watch begins is no sign that it works.
            pause = back_off.next();
            current = begin();
        }
        Some((item, (current, pause, begin, back_off)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::*;

    /// As kube's: after an error it goes on where it was, and says nothing.
    #[tokio::test(start_paused = true)]
    async fn after_an_error_a_list_comes_and_not_silence_and_pauses_grow() {
        let begun = AtomicU32::new(0);
        let begin = move || {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            stream::iter([Ok(number), Err("interrupted")]).chain(stream::pending()).boxed()
        };
        let seen: Vec<_> = restarting(begin, DefaultBackoff::default())
            .map(|item| (item, Instant::now()))
            .take(9)
            .collect()
            .await;
        let (items, times): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
        assert_eq!(items[..5], [Ok(0), Err("interrupted"), Ok(1), Err("interrupted"), Ok(2)]);
        let pause_before = |item: usize| times[item].duration_since(times[item - 1]);
        assert!(pause_before(8) > 2 * pause_before(2), "{times:?}");
    }
}
