//! How long dump and restore may take: a fixed part and one that grows with the bytes, at the rate that nodes have measured
//! or at one that any line has. What cannot end before the deadline by what is known is not begun. Pure, but for the clock
//! and the look at what is known.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::{EffectError, Performer};
use crate::api::{LONGEST_DEADLINE, Life, NodeName, Reason};
use crate::operator::check::containers::{is_sidecar, running};
use crate::operator::drive::subject::{Journal, Subject};

const MIB: u64 = 1 << 20;
/// Of a line that nobody has measured, in bytes per second.
const STREAM: u64 = 20 * MIB;
/// Of CRIU and a disk at the least, in bytes per second.
const RESTORE: u64 = 50 * MIB;
/// Of CRIU and a disk as they mostly are: to refuse by, not to break off by.
const USUAL: u64 = 200 * MIB;
/// Whatever the size: freezing, CRIU's start, the digest's end.
const DUMP_FIXED: Duration = Duration::from_secs(30);
const RESTORE_FIXED: Duration = Duration::from_secs(20);
/// An agent only has to write it down.
const OPEN_FIXED: Duration = Duration::from_secs(10);
const REOPEN_FIXED: Duration = Duration::from_secs(60);
/// Of a small container, with what kubelet and engine do around it.
const RESTORED_BESIDE: Duration = Duration::from_secs(1);
/// A line may have become so many times slower since it was measured.
const SLOWER: u64 = 4;

/// Longest patience with a dump and its transfer.
pub(super) fn dump(bytes: u64, measured: Option<u64>) -> Duration {
    let rate = measured.map_or(STREAM, |rate| (rate / SLOWER).max(1)).min(STREAM);
    (DUMP_FIXED + at_rate(bytes, rate)).min(LONGEST_DEADLINE)
}

/// Longest patience with a restore.
pub(super) fn restore(bytes: u64) -> Duration {
    (RESTORE_FIXED + at_rate(bytes, RESTORE)).min(LONGEST_DEADLINE)
}

/// Longest patience with the opening of a ticket: from the second life on the archive is read once more before.
pub(super) fn opening(life: Life, bytes: u64) -> Duration {
    if life == Life::FIRST { OPEN_FIXED } else { REOPEN_FIXED + at_rate(bytes, STREAM) }
}

fn at_rate(bytes: u64, rate: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1))
}

/// Why a move of so many bytes cannot be committed in the time that is left: they are dumped, brought there, and restored for
/// the rehearsal. Nothing where it can. Of a line that nobody has measured only the rest counts.
pub fn too_large(bytes: u64, measured: Option<u64>, left: Duration, deadline: Duration) -> Option<String> {
    let dumped_and_restored = at_rate(bytes, USUAL) * 2;
    let needed = dumped_and_restored + measured.map_or(Duration::ZERO, |rate| at_rate(bytes, rate));
    if needed <= left {
        return None;
    }
    let seconds = |duration: Duration| duration.as_millis().div_ceil(1000);
    let wanted = (deadline.saturating_sub(left) + needed).as_secs() / 10 * 10 + 20;
    let longest = LONGEST_DEADLINE.as_secs();
    let remedy = if wanted <= longest {
        format!("raise the deadline to {wanted}s")
    } else {
        format!("that is more than the longest deadline, {longest}s")
    };
    let line = measured.map_or_else(
        || ", its line is not measured".to_owned(),
        |rate| format!(", {} MiB/s on the line", tenths(rate)),
    );
    Some(format!(
        "{} MiB need {} s ({} MiB/s to dump and to restore{line}), {} s are left: {remedy}",
        tenths(bytes),
        seconds(needed),
        USUAL / MIB,
        left.as_secs()
    ))
}

/// Why a container of several would not outlive the restore of the others, during which it stands still: the kubelet asks it
/// from its start on. Nothing where all would.
pub fn impatient_probe(spec: &PodSpec, subject: &Subject, bytes: u64) -> Option<String> {
    let others = u32::try_from(subject.beside.len()).unwrap_or(u32::MAX);
    if others == 0 {
        return None;
    }
    // Bytes of volumes count three times among them: what is refused would surely be ended.
    let held = RESTORED_BESIDE * others + at_rate(bytes / 3, USUAL);
    let moves = |one: &&Container| one.name == subject.container || subject.beside.contains(&one.name);
    running(spec).filter(moves).find_map(|container| {
        // One with a startup probe that is a sidecar is let go at once, and the others wait for it.
        let startup = container.startup_probe.as_ref().filter(|_| !is_sidecar(container));
        let liveness = container.liveness_probe.as_ref().filter(|_| container.startup_probe.is_none());
        let (kind, probe) =
            startup.map(|probe| ("startup", probe)).or_else(|| liveness.map(|probe| ("liveness", probe)))?;
        let patience = patience_of(probe);
        (patience < held).then(|| {
            format!(
                "the {kind} probe of container `{}` gives up after {} s, and it stands still for up to {} s while the others \
                 are restored: raise failureThreshold",
                container.name,
                patience.as_secs(),
                held.as_secs() + 1
            )
        })
    })
}

/// Fails for good where a probe would end what stands still.
pub(super) fn outlives_its_probes(journal: &Journal, source: &Pod) -> Result<(), EffectError> {
    let bytes = journal.subject.archive_bytes.unwrap_or_default();
    let why = source.spec.as_ref().and_then(|spec| impatient_probe(spec, &journal.subject, bytes));
    match why {
        Some(why) => Err(EffectError::terminal(Reason::ImpatientProbe, why)),
        None => Ok(()),
    }
}

/// From the start of its container until it has failed often enough.
fn patience_of(probe: &Probe) -> Duration {
    let number = |value: Option<i32>, default: u64| {
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
    };
    let failures = number(probe.period_seconds, 10) * number(probe.failure_threshold, 3);
    Duration::from_secs(number(probe.initial_delay_seconds, 0) + failures)
}

fn tenths(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / MIB;
    format!("{}.{}", tenths / 10, tenths % 10)
}

impl Performer {
    /// How fast archives came to that node lately.
    pub(super) fn stream_rate(&self, node: &NodeName) -> Option<u64> {
        self.ctx.views.newest().snapshot.nodes.get(node)?.capacity.stream_bytes_per_second
    }

    /// Fails for good where the archive cannot be there before the deadline.
    pub(super) fn ends_in_time(&self, journal: &Journal, node: &NodeName) -> Result<(), EffectError> {
        let deadline = Duration::from_secs(self.migration.spec.deadline_seconds).min(LONGEST_DEADLINE);
        let created = self.migration.creation_timestamp().map_or_else(Timestamp::now, |at| at.0);
        let gone = Duration::try_from(Timestamp::now().duration_since(created)).unwrap_or_default();
        let bytes = journal.subject.archive_bytes.unwrap_or_default();
        match too_large(bytes, self.stream_rate(node), deadline.saturating_sub(gone), deadline) {
            Some(why) => Err(EffectError::terminal(Reason::TooLarge, why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_probe_that_gives_up_before_all_are_back_is_named_with_both_figures() {
        let subject = Subject { beside: vec!["log".into()], ..Subject::example("web-0") };
        let of = |probes: serde_json::Value| -> PodSpec {
            let mut log = serde_json::json!({ "name": "log" });
            log.as_object_mut().unwrap().extend(probes.as_object().unwrap().clone());
            serde_json::from_value(serde_json::json!({ "containers": [{ "name": "app" }, log] })).unwrap()
        };
        let quick = of(serde_json::json!({ "livenessProbe": { "periodSeconds": 1, "failureThreshold": 2 } }));
        assert_eq!(impatient_probe(&quick, &subject, 10 << 20), None);
        assert_eq!(impatient_probe(&quick, &Subject::example("web-0"), 4 * GIB), None, "it is alone");
        let why = impatient_probe(&quick, &subject, 3 * GIB).unwrap();
        assert!(
            why.contains("liveness probe of container `log` gives up after 2 s") && why.contains("up to 7 s"),
            "{why}"
        );
        let patient = of(serde_json::json!({ "livenessProbe": { "initialDelaySeconds": 30 } }));
        assert_eq!(impatient_probe(&patient, &subject, 10 * GIB), None);
    }

    #[test]
    fn limits_grow_with_the_bytes_and_are_never_less_than_a_slow_line_needs() {
        assert_eq!(dump(0, None), DUMP_FIXED);
        assert_eq!(dump(GIB, None), DUMP_FIXED + Duration::from_millis(51_200));
        assert_eq!(dump(GIB, Some(4 * MIB)), LONGEST_DEADLINE.min(DUMP_FIXED + Duration::from_secs(1024)));
        assert_eq!(dump(GIB, Some(40 * GIB)), dump(GIB, None), "a line that was fast once may be slow now");
        assert_eq!(restore(GIB), RESTORE_FIXED + Duration::from_millis(20_480));
        assert_eq!(restore(u64::MAX), LONGEST_DEADLINE);
        assert_eq!(opening(Life::FIRST, 64 * GIB), OPEN_FIXED);
        assert!(opening(Life(2), 10 * GIB) > Duration::from_secs(500), "read at the pace of a slow disk");
    }

    #[test]
    fn what_cannot_end_in_time_is_told_with_the_numbers() {
        let seconds = Duration::from_secs;
        assert_eq!(too_large(GIB, Some(100 * MIB), seconds(21), seconds(120)), None);
        assert_eq!(
            too_large(GIB, None, seconds(11), seconds(120)),
            None,
            "nobody knows how fast the line is"
        );
        assert_eq!(
            too_large(GIB, None, seconds(9), seconds(120)).unwrap(),
            "1024.0 MiB need 11 s (200 MiB/s to dump and to restore, its line is not measured), 9 s are left: raise the deadline to 140s"
        );
        assert_eq!(too_large(GIB, Some(20 * MIB), seconds(62), seconds(80)), None);
        let told = too_large(GIB, Some(20 * MIB), seconds(55), seconds(80)).unwrap();
        assert_eq!(
            told,
            "1024.0 MiB need 62 s (200 MiB/s to dump and to restore, 20.0 MiB/s on the line), 55 s are left: raise the deadline to 100s",
            "the stream alone would have fitted"
        );
        assert!(told.len() <= 200);
        let never = too_large(64 * GIB, Some(20 * MIB), seconds(100), seconds(120)).unwrap();
        assert!(never.ends_with("that is more than the longest deadline, 599s"), "{never}");
    }
}
