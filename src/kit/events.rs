//! Kubernetes Events about what happens to a pod or migration; repetitions become one Event with a count.
//!
//! An Event is a courtesy: it is sent aside, and a failure is logged, never the caller's problem.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder as KubeRecorder, Reporter},
};

use crate::api::Reason;

/// The API server refuses longer notes.
const NOTE_LIMIT: usize = 1024;
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes Events in the name of one role. Make one a process: it remembers what it has published.
#[derive(Clone)]
pub struct Recorder {
    recorder: KubeRecorder,
}

impl Recorder {
    /// `role` and `instance` (the pod's name) become the reporting controller and instance.
    pub fn new(client: Client, role: &str, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: format!("shadow-{role}"), instance };
        Self { recorder: KubeRecorder::new(client, reporter) }
    }

    /// Publishes aside; returns at once. `action` is what was being done, e.g. `Migrate`.
    pub fn publish(
        &self,
        object: &ObjectReference,
        reason: Reason,
        type_: EventType,
        action: &str,
        note: &str,
    ) {
        let event = Event {
            type_,
            reason: reason.as_str().to_owned(),
            note: Some(shortened(note, NOTE_LIMIT).to_owned()),
            action: action.to_owned(),
            secondary: None,
        };
        let (recorder, object) = (self.recorder.clone(), object.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(PUBLISH_TIMEOUT, recorder.publish(&event, &object)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, reason = event.reason, "Event not published"),
                Err(_) => tracing::warn!(reason = event.reason, "Event not published in time"),
            }
        });
    }
}

/// The longest start of `text` within `limit` bytes that ends at a character.
fn shortened(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        assert_eq!(shortened("abc", 5), "abc");
        assert_eq!(shortened("aä", 2), "a");
        assert_eq!(shortened("äö", 2), "ä");
    }
}
