//! The status that people see, computed from the journal. Pure but for the clock that stamps conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::subject::Journal;
use super::timings::Measured;
use crate::api::{
    ConditionType, NodeName, Phase, Reason, StatefulMigrationStatus, is_property_of_the_pod, sentence,
    sentence_ending,
};
use crate::operator::shadow_pod::shadow_name;
use crate::protocol::{Step, Way};

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
        life: state.life,
        way: state.step.is_committed().then(|| format!("{:?}", state.way)),
        retries: measured.retries,
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
        Step::Completed if is_home(journal) => {
            let node = &journal.subject.node;
            let why = failure.map_or("no other node could take it", |f| f.message.as_str());
            let told =
                format!("; so pod {} carries on on node {node}, which it was to leave", survivor(journal));
            (Reason::ReturnedHome, sentence_ending(why, &told))
        }
        Step::Completed => (
            Reason::Completed,
            format!(
                "pod {} carries on on node {}",
                survivor(journal),
                state.target.as_ref().map_or("?", |node| node.as_str())
            ),
        ),
        Step::Evicting => (failure.map_or(Reason::EvictedInstead, |f| f.reason), caused("evicted as ever")),
        Step::Failed if state.given_up => {
            let message = failure.map_or("the archive is kept", |f| &f.message);
            (
                Reason::StateLost,
                sentence_ending(message, &format!(" for a day on {}", kept_on(journal).join(", "))),
            )
        }
        // It moved, and is another process all the same.
        Step::Failed if state.fell_back => {
            (Reason::StateLost, failure.map_or_else(String::new, |f| sentence(&f.message)))
        }
        Step::Failed if state.done.is_empty() && evicts(journal) => {
            (Reason::EvictedInstead, caused("evicted as ever"))
        }
        Step::BackingOff | Step::Failed | Step::Withdrawing | Step::Reverting | Step::Discarding => (
            failure.map_or(Reason::StepTimedOut, |f| f.reason),
            failure.map_or_else(String::new, |f| sentence(&f.message)),
        ),
        Step::Stranded => {
            let pod = &journal.subject.source.name;
            let remedy = format!(
                "`kubectl shadow retry {pod}` tries again, `kubectl shadow give-up {pod}` starts it fresh"
            );
            (
                Reason::Stranded,
                because(failure.map_or("it could be restored nowhere", |f| &f.message), &remedy),
            )
        }
        step if step.awaits_replacement() => match failure.filter(|_| state.way != Way::Target) {
            Some(failure) => (failure.reason, because(&failure.message, &next_way(journal))),
            None => (Reason::Committed, format!("goes forward: {}", step.as_str())),
        },
        Step::GivingUp | Step::StartingFresh => {
            (Reason::StateLost, failure.map_or_else(String::new, |f| f.message.clone()))
        }
        step if step.is_committed() => (Reason::Committed, format!("goes forward: {}", step.as_str())),
        step => (Reason::Started, format!("in progress: {}", step.as_str())),
    }
}

/// The name of the pod that carries on.
fn survivor(journal: &Journal) -> &str {
    journal.state.replacement.as_ref().map_or(&journal.subject.source.name, |pod| &pod.name)
}

/// It carries on, or is to, on the node that it was to leave.
pub fn is_home(journal: &Journal) -> bool {
    journal.state.step.is_committed() && journal.state.target.as_ref() == Some(&journal.subject.node)
}

/// The nodes on which an archive may lie.
fn kept_on(journal: &Journal) -> Vec<&str> {
    let state = &journal.state;
    let nodes = state.target.iter().chain(&state.left).chain([&journal.subject.node]);
    let mut names: Vec<&str> = nodes.map(NodeName::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What is done about a restore that failed.
fn next_way(journal: &Journal) -> String {
    let target = journal.state.target.as_ref().map_or("?", |node| node.as_str());
    match journal.state.way {
        Way::Target | Way::Again => format!("tried on {target} again, in a new sandbox"),
        Way::Elsewhere if journal.state.step == Step::Replacing => format!("tried on {target}"),
        Way::Elsewhere => "another node is looked for".to_owned(),
        Way::Home => format!("it goes back to {}", journal.subject.node),
        Way::Nowhere => "no way is left".to_owned(),
    }
}

/// Cause first, then what is done about it.
fn because(cause: &str, then: &str) -> String {
    sentence_ending(cause, &format!("; {then}"))
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
        Phase::Completed => as_status(!is_home(journal)),
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

#[cfg(test)]
mod tests {
    use super::super::subject::Subject;
    use super::*;
    use crate::api::EvictionPolicy;
    use crate::protocol::{Failure, Plan, State};

    fn journal(step: Step, change: impl FnOnce(&mut State)) -> Journal {
        let plan = Plan::plain(EvictionPolicy::MigrateOrEvict);
        let subject = Subject { owner_uid: "web".into(), ..Subject::example("web-0") };
        let mut state = State { step, ..State::new(plan, Some("n2".into())) };
        change(&mut state);
        Journal { subject, state }
    }

    fn failed(words: &str) -> Failure {
        Failure::retryable(Reason::RestoreFailed, words)
    }

    #[test]
    fn whoever_went_home_is_told_so_with_the_cause_and_did_not_succeed() {
        let home = journal(Step::Completed, |state| {
            state.target = Some("n1".into());
            state.failure = Some(failed("CRIU on n2: no such device"));
        });
        let (reason, message) = summary(&home);
        assert_eq!(reason, Reason::ReturnedHome);
        assert_eq!(
            message,
            "CRIU on n2: no such device; so pod web-0 carries on on node n1, which it was to leave"
        );
        let succeeded = |journal: &Journal| {
            let status = status(journal, &Measured::default(), &[], None);
            status.conditions.into_iter().find(|c| c.type_ == "Succeeded").unwrap().status
        };
        assert_eq!(succeeded(&home), "False");
        assert_eq!(succeeded(&journal(Step::Completed, |_| {})), "True");
    }

    #[test]
    fn whoever_is_waited_for_reads_the_cause_and_both_commands_in_two_hundred_characters() {
        let long = "x".repeat(500);
        let (reason, message) =
            summary(&journal(Step::Stranded, |state| state.failure = Some(failed(&long))));
        assert_eq!(reason, Reason::Stranded);
        assert!(message.starts_with("xxx") && message.chars().count() <= 200, "{message}");
        assert!(
            message.contains("`kubectl shadow retry web-0`")
                && message.contains("`kubectl shadow give-up web-0`")
        );
    }

    #[test]
    fn a_state_that_is_lost_is_no_eviction_and_its_archive_can_be_found() {
        let lost = journal(Step::Failed, |state| {
            state.given_up = true;
            state.left = vec!["n3".into(), "n2".into()];
            state.failure =
                Some(Failure::terminal(Reason::StateLost, "restored nowhere; the archive is kept"));
        });
        let (reason, message) = summary(&lost);
        assert_eq!(reason, Reason::StateLost);
        assert_eq!(message, "restored nowhere; the archive is kept for a day on n1, n2, n3");
    }

    #[test]
    fn whoever_moved_and_is_another_process_all_the_same_is_told_so() {
        let lost = journal(Step::Failed, |state| {
            state.fell_back = true;
            state.failure = Some(Failure::terminal(Reason::StateLost, "applied 7 and now 0"));
        });
        assert_eq!(summary(&lost), (Reason::StateLost, "applied 7 and now 0".to_owned()));
    }

    #[test]
    fn after_a_restore_that_failed_cause_and_next_way_are_told() {
        let seeking = journal(Step::Seeking, |state| {
            state.way = Way::Elsewhere;
            state.failure = Some(failed("no such device"));
        });
        assert_eq!(
            summary(&seeking),
            (Reason::RestoreFailed, "no such device; another node is looked for".to_owned())
        );
    }
}
