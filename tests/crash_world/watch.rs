//! Watches: JSON lines from the store's log, for ever or until the timeout that was asked for. No I/O.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::World;
use super::objects::Key;

/// Which objects.
#[derive(Clone)]
pub struct Selection {
    pub plural: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
}

impl Selection {
    fn holds(&self, key: &Key) -> bool {
        key.plural == self.plural
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }
}

/// Everything that happens to them after that version.
pub fn stream(world: World, selection: Selection, from: u64, seconds: u64) -> Body {
    let end = Instant::now() + Duration::from_secs(seconds);
    let changes = world.objects.changes();
    Body::from_stream(stream::unfold(
        (world, selection, from, changes),
        move |(world, selection, from, mut changes)| async move {
            let mut cursor = from;
            loop {
                changes.borrow_and_update();
                let (found, version) = world.objects.since(cursor, |key| selection.holds(key));
                cursor = version;
                if !found.is_empty() {
                    let lines: String = found
                        .iter()
                        .map(|change| {
                            format!("{}\n", json!({ "type": change.kind, "object": change.object }))
                        })
                        .collect();
                    let chunk = Ok::<_, std::io::Error>(Bytes::from(lines));
                    return Some((chunk, (world, selection, cursor, changes)));
                }
                match timeout_at(end, changes.changed()).await {
                    Ok(Ok(())) => {}
                    _ => return None,
                }
            }
        },
    ))
}
