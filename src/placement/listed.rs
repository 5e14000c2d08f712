//! One watch's objects, by name or UID. No I/O.

use std::collections::HashMap;
use std::time::Duration;

use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;

use crate::api::LEASE_SECONDS;

/// An agent that was not heard of for this long, by this process's own clock, is taken for dead.
pub(super) const SILENCE: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs() as u64);

/// What a watch brought. While it lists anew what there is, the last whole list stands.
pub struct Listed<V> {
    pub all: HashMap<String, V>,
    coming: HashMap<String, V>,
    is_complete: bool,
    /// Since when nothing but errors came.
    broken: Option<Instant>,
}

impl<V> Default for Listed<V> {
    fn default() -> Self {
        Self { all: HashMap::new(), coming: HashMap::new(), is_complete: false, broken: None }
    }
}

impl<V: PartialEq> Listed<V> {
    /// It has listed all there is, and was not broken for long.
    pub fn is_current(&self, now: Instant) -> bool {
        self.is_complete && self.broken.is_none_or(|since| now.duration_since(since) <= SILENCE)
    }

    /// Takes an event in; true if that changed anything.
    pub fn take<K>(
        &mut self,
        event: watcher::Result<Event<K>>,
        what: &'static str,
        read: impl Fn(K) -> Option<(String, Option<V>)>,
    ) -> bool {
        match &event {
            // A new list has been asked for; nothing has come yet.
            Ok(Event::Init) => {}
            Ok(_) => self.broken = None,
            Err(_) => {
                self.broken.get_or_insert_with(Instant::now);
            }
        }
        match event {
            Ok(Event::Apply(object)) => match read(object) {
                Some((key, Some(value))) => {
                    let is_new = self.all.get(&key) != Some(&value);
                    self.all.insert(key, value);
                    is_new
                }
                Some((key, None)) => self.all.remove(&key).is_some(),
                None => false,
            },
            Ok(Event::Delete(object)) => read(object).is_some_and(|(key, _)| self.all.remove(&key).is_some()),
            Ok(Event::Init) => {
                self.coming.clear();
                false
            }
            Ok(Event::InitApply(object)) => {
                if let Some((key, Some(value))) = read(object) {
                    self.coming.insert(key, value);
                }
                false
            }
            Ok(Event::InitDone) => {
                self.all = std::mem::take(&mut self.coming);
                self.is_complete = true;
                true
            }
            Err(error) => {
                tracing::warn!(%error, what, "watch interrupted");
                false
            }
        }
    }
}
