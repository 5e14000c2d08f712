//! Keeps an index equal to what the API server has: list, watch, and again after errors, with back-off. Does I/O.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, pin_mut};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};

use super::{Cache, Index, Table};

/// Applies the watch to the index that `table` names, for ever. `ready` is called after each complete listing.
pub async fn follow<K, I>(
    what: &'static str,
    cache: Arc<Cache>,
    table: fn(&Cache) -> &Table<I>,
    watch: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    ready: impl Fn() + Send,
) where
    K: Into<I::Object> + Debug + Send,
    I: Index,
{
    let table = table(&cache);
    let watch = watch.default_backoff();
    pin_mut!(watch);
    let mut listing = I::default();
    while let Some(event) = watch.next().await {
        match event {
            Ok(Event::Init) => listing = I::default(),
            Ok(Event::InitApply(object)) => listing.insert(object.into()),
            Ok(Event::InitDone) => {
                table.swap(std::mem::take(&mut listing));
                ready();
            }
            Ok(Event::Apply(object)) => table.insert(object.into()),
            Ok(Event::Delete(object)) => table.remove(&object.into()),
            Err(error) => {
                table.interrupted();
                tracing::warn!(what, %error, "watch interrupted, trying again");
            }
        }
    }
}
