//! Events: what people see on the pod and on the migration.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use kube::runtime::events::EventType;

use super::status::{is_home, summary};
use super::subject::{Journal, Subject};
use crate::api::{PodUid, Reason, StatefulMigration, sentence, sentence_ending};
use crate::kit::events::Recorder;
use crate::operator::context::Context;
use crate::operator::metrics::Metrics;
use crate::protocol::{Effect, Failure, Step};

const ACTION: &str = "Migrate";

#[derive(Clone)]
pub struct Announcer {
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    migration: ObjectReference,
}

impl Announcer {
    pub fn new(ctx: &Context, migration: &StatefulMigration) -> Self {
        Self {
            recorder: ctx.recorder.clone(),
            metrics: ctx.metrics.clone(),
            migration: migration.object_ref(&()),
        }
    }

    /// The migration went from `before` to the step that the journal is in.
    pub fn step(&self, journal: &Journal, before: Step) {
        let state = &journal.state;
        tracing::info!(
            migration = self.migration.name,
            pod = journal.subject.source.name,
            from = before.as_str(),
            to = state.step.as_str(),
            epoch = state.epoch.0
        );
        let (reason, note) = summary(journal);
        let type_ = match state.step {
            Step::Completed if is_home(journal) => EventType::Warning,
            Step::Preparing | Step::Freezing | Step::Completed => EventType::Normal,
            Step::Withdrawing
            | Step::Evicting
            | Step::Failed
            | Step::Spending
            | Step::Returning
            | Step::Stranded
            | Step::GivingUp => EventType::Warning,
            _ => return,
        };
        let reason = match state.step {
            Step::Failed if reason == Reason::DeadlineExceeded => Reason::Blocked,
            _ => reason,
        };
        if matches!(state.step, Step::Completed | Step::Failed | Step::Withdrawing) {
            self.metrics.ended(reason);
        }
        match &state.replacement {
            // The source is gone, and nobody looks at its Events any more.
            Some(pod) if state.step == Step::Completed || state.fell_back => {
                self.publish_of(&journal.subject, &pod.name, &pod.pod, reason, type_, &note);
            }
            _ => self.publish(&journal.subject, reason, type_, &note),
        }
    }

    /// An effect that must succeed does not.
    pub fn stuck(&self, journal: &Journal, effect: Effect, failure: &Failure) {
        let note = sentence_ending(&failure.message, &format!("; {} does not succeed yet", effect.as_str()));
        self.publish(&journal.subject, failure.reason, EventType::Warning, &note);
    }

    /// An effect did not succeed, and will not be waited for any more.
    pub fn gone_on_without(&self, journal: &Journal, failure: &Failure, why: &str) {
        let note = sentence_ending(&failure.message, &format!("; {why}"));
        self.publish(&journal.subject, failure.reason, EventType::Warning, &note);
    }

    pub fn warning(&self, subject: &Subject, reason: Reason, note: &str) {
        self.publish(subject, reason, EventType::Warning, note);
    }

    /// The migration is left alone; its pod is not known.
    pub fn left_alone(&self, note: &str) {
        self.recorder.publish(&self.migration, Reason::JournalUnreadable, EventType::Warning, ACTION, note);
    }

    fn publish(&self, subject: &Subject, reason: Reason, type_: EventType, note: &str) {
        self.publish_of(subject, &subject.source.name, &subject.source.uid, reason, type_, note);
    }

    /// Of the migration and of this pod.
    fn publish_of(
        &self,
        subject: &Subject,
        pod: &str,
        uid: &PodUid,
        reason: Reason,
        type_: EventType,
        note: &str,
    ) {
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(subject.source.namespace.clone()),
            name: Some(pod.to_owned()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        };
        let same = |type_: &EventType| match type_ {
            EventType::Normal => EventType::Normal,
            EventType::Warning => EventType::Warning,
        };
        let note = &sentence(note);
        self.recorder.publish(&pod, reason, same(&type_), ACTION, note);
        self.recorder.publish(&self.migration, reason, type_, ACTION, note);
    }
}
