//! When a migration is over, and how long its object is kept then. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::api::{ConditionType, Phase, Reason, StatefulMigration};
use crate::operator::drive::journal::FINALIZER;

/// Long enough for people to read and for late retries of drainers to be told "already moved".
const KEEP_COMPLETED: SignedDuration = SignedDuration::from_mins(10);
/// A drain that starts after this gets a new try.
const KEEP_FAILED: SignedDuration = SignedDuration::from_secs(60);

/// Nothing is left to be driven.
pub fn is_ended(object: &StatefulMigration) -> bool {
    let ended = object.status.as_ref().is_some_and(|status| status.phase.is_terminal());
    ended && !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Ended so long ago that nobody asks about it any more.
pub fn is_old(object: &StatefulMigration, now: Timestamp) -> bool {
    let Some(status) = object.status.as_ref().filter(|s| s.phase.is_terminal()) else { return false };
    let ended = status
        .conditions
        .iter()
        .find(|c| c.type_ == ConditionType::Progressing.as_str())
        .map(|c| c.last_transition_time.0)
        .or_else(|| object.creation_timestamp().map(|t| t.0));
    let aborted = status.reason.as_deref() == Some(Reason::Aborted.as_str());
    let keep = match status.phase {
        Phase::Completed => KEEP_COMPLETED,
        // Nobody drains that pod again: it is gone, and so is its state.
        _ if status.reason.as_deref() == Some(Reason::StateLost.as_str()) => KEEP_COMPLETED,
        // Whoever called it off did so for the rest of its time: no retry of the drain starts it anew.
        _ if aborted => {
            let seconds = i64::try_from(object.spec.deadline_seconds).unwrap_or(i64::MAX);
            KEEP_FAILED.max(SignedDuration::from_secs(seconds))
        }
        _ => KEEP_FAILED,
    };
    ended.is_some_and(|at| now.duration_since(at) > keep)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;
    use crate::api::{StatefulMigrationSpec, StatefulMigrationStatus};

    fn ended(phase: Phase, reason: Reason, at: Timestamp) -> StatefulMigration {
        let spec: StatefulMigrationSpec =
            serde_json::from_value(serde_json::json!({"sourcePod": "web-0", "deadlineSeconds": 300}))
                .unwrap();
        let mut object = StatefulMigration::new("m", spec);
        let progressing = Condition {
            type_: ConditionType::Progressing.as_str().to_owned(),
            status: "False".to_owned(),
            reason: reason.to_string(),
            message: String::new(),
            last_transition_time: Time(at),
            observed_generation: None,
        };
        object.status = Some(StatefulMigrationStatus {
            phase,
            reason: Some(reason.to_string()),
            conditions: vec![progressing],
            ..StatefulMigrationStatus::default()
        });
        object
    }

    fn is_old_after(seconds: i64, object: &StatefulMigration) -> bool {
        let at = object.status.as_ref().unwrap().conditions[0].last_transition_time.0;
        is_old(object, at + SignedDuration::from_secs(seconds))
    }

    #[test]
    fn an_ended_migration_is_kept_as_long_as_somebody_may_ask_about_it() {
        let now = Timestamp::now();
        let completed = ended(Phase::Completed, Reason::Completed, now);
        assert!(!is_old_after(600, &completed) && is_old_after(601, &completed));
        let failed = ended(Phase::Failed, Reason::DumpFailed, now);
        assert!(!is_old_after(60, &failed) && is_old_after(61, &failed));
        let aborted = ended(Phase::Failed, Reason::Aborted, now);
        assert!(!is_old_after(300, &aborted), "called off for the rest of its time");
        assert!(is_old_after(301, &aborted));
    }

    #[test]
    fn a_migration_under_way_is_never_old() {
        let mut object = ended(Phase::Completed, Reason::Completed, Timestamp::now());
        object.status.as_mut().unwrap().phase = Phase::Transferring;
        assert!(!is_old_after(100_000, &object));
        object.status = None;
        assert!(!is_old(&object, Timestamp::now() + SignedDuration::from_hours(24)));
    }

    #[test]
    fn what_still_carries_our_finalizer_is_driven_on_and_a_foreign_one_is_not_ours_to_wait_for() {
        let mut object = ended(Phase::Failed, Reason::DumpFailed, Timestamp::now());
        assert!(is_ended(&object));
        object.metadata.finalizers = Some(vec!["example.com/audit".to_owned()]);
        assert!(is_ended(&object));
        object.metadata.finalizers = Some(vec!["example.com/audit".to_owned(), FINALIZER.to_owned()]);
        assert!(!is_ended(&object));
        object.metadata.finalizers = None;
        object.status = None;
        assert!(!is_ended(&object));
    }
}
