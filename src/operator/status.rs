//! The status that people see, computed from the journal. Pure but for the clock that stamps conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::measured::Measured;
use super::shadow_pod::shadow_name;
use super::subject::Journal;
use crate::api::{
    ConditionType, Phase, Reason, StatefulMigrationStatus, is_property_of_the_pod, sentence, sentence_ending,
};
use crate::protocol::Step;

/// The status for this journal; conditions keep their transition time where nothing changed.
pub fn status(
    journal: &Journal,
    measured: &Measured,
    before: &[Condition],
    generation: Option<i64>,
) -> StatefulMigrationStatus {
    let Journal { subject, state } = journal;
    let (reason, message) = summary(journal);
    let value = serde_json::to_value(journal).ok();
    StatefulMigrationStatus {
        phase: state.step.phase(),
        step: Some(state.step.as_str().to_owned()),
        epoch: state.epoch,
        committed: state.step.is_committed(),
        reason: Some(reason.to_string()),
        message: Some(message.clone()),
        source_pod_uid: Some(subject.source.uid.clone()).filter(|uid| !uid.0.is_empty()),
        source_node: Some(subject.node.0.clone()).filter(|node| !node.is_empty()),
        target_node: state.target.as_ref().map(|node| node.0.clone()),
        shadow_pod: state.shadow_sent.then(|| shadow_name(&subject.source.name, state.epoch)),
        owner_uid: Some(subject.owner_uid.clone()).filter(|uid| !uid.is_empty()),
        source_revision: subject.revision.clone(),
        replacement_pod: state.replacement.as_ref().map(|r| r.name.clone()),
        replacement_pod_uid: state.replacement.as_ref().map(|r| r.pod.clone()),
        position: state.position,
        archive_bytes: state.archive.as_ref().map(|archive| archive.bytes),
        reservation: measured.reservation.clone(),
        phase_timings: measured.timings.clone(),
        started_at: measured.started_at.clone(),
        paused_at: measured.paused_at.clone(),
        total_ms: measured.total_ms,
        pause_ms: measured.pause_ms,
        conditions: conditions(journal, reason, &message, before, generation),
        retry_at: measured.retry_at.clone(),
        journal: value,
    }
}

/// Reason and sentence for where the migration stands.
pub fn summary(journal: &Journal) -> (Reason, String) {
    let state = &journal.state;
    let failure = state.failure.as_ref();
    // The cause first: what becomes of it stands in the reason as well.
    let caused = |ending: &str| {
        let cause = failure.map(|f| match f.reason {
            Reason::DeadlineExceeded => f.message.clone(), // it says so itself
            reason => format!("{reason}: {}", f.message),
        });
        let cause = cause.unwrap_or_default();
        sentence_ending(&cause, &format!("; {ending}"))
    };
    match state.step {
        Step::Accepted if failure.is_none() => (Reason::Queued, "waits for a slot".to_owned()),
        Step::Accepted if no_node(journal).is_some() => (Reason::NoNodeFits, caused("waits for a node")),
        Step::Accepted => (Reason::Queued, caused("tries again")),
        Step::Completed => (
            Reason::Completed,
            format!(
                "pod {} carries on on node {}",
                state.replacement.as_ref().map_or(&journal.subject.source.name, |pod| &pod.name),
                state.target.as_ref().map_or("?", |node| node.as_str())
            ),
        ),
        Step::Evicting => (failure.map_or(Reason::EvictedInstead, |f| f.reason), caused("evicted as ever")),
        Step::Failed if state.done.is_empty() && evicts(journal) => {
            (Reason::EvictedInstead, caused("evicted as ever"))
        }
        Step::BackingOff | Step::Failed | Step::Withdrawing | Step::Reverting | Step::Discarding => (
            failure.map_or(Reason::StepTimedOut, |f| f.reason),
            failure.map_or_else(String::new, |f| sentence(&f.message)),
        ),
        step if step.is_committed() => (Reason::Committed, format!("goes forward: {}", step.as_str())),
        step => (Reason::Started, format!("in progress: {}", step.as_str())),
    }
}

/// Why no node can take it.
fn no_node(journal: &Journal) -> Option<&str> {
    let failure = journal.state.failure.as_ref().filter(|f| f.reason == Reason::NoNodeFits && f.retry)?;
    Some(&failure.message)
}

/// A migration that failed under this policy ended in an eviction, unless it was called off.
fn evicts(journal: &Journal) -> bool {
    journal.state.plan.policy == crate::api::EvictionPolicy::MigrateOrEvict
        && !journal
            .state
            .failure
            .as_ref()
            .is_some_and(|f| matches!(f.reason, Reason::Aborted | Reason::SourceGone))
}

fn conditions(
    journal: &Journal,
    reason: Reason,
    message: &str,
    before: &[Condition],
    generation: Option<i64>,
) -> Vec<Condition> {
    let step = journal.state.step;
    let phase = step.phase();
    let succeeded = match phase {
        Phase::Completed => "True",
        Phase::Failed => "False",
        _ => "Unknown",
    };
    let movable =
        !journal.state.failure.as_ref().is_some_and(|f| !f.retry && is_property_of_the_pod(f.reason));
    let placeable = match step {
        Step::Accepted if no_node(journal).is_some() => "False",
        Step::Accepted => "Unknown",
        _ => as_status(journal.state.target.is_some()),
    };
    [
        (ConditionType::Progressing, as_status(!phase.is_terminal())),
        (ConditionType::Movable, as_status(movable)),
        (ConditionType::Placeable, placeable),
        (ConditionType::Committed, as_status(step.is_committed())),
        (ConditionType::Succeeded, succeeded),
    ]
    .into_iter()
    .map(|(kind, status)| {
        let unchanged = before.iter().find(|c| c.type_ == kind.as_str() && c.status == status);
        Condition {
            type_: kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: reason.to_string(),
            message: message.to_owned(),
            last_transition_time: unchanged
                .map_or_else(|| Time(Timestamp::now()), |c| c.last_transition_time.clone()),
            observed_generation: generation,
        }
    })
    .collect()
}

fn as_status(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}
