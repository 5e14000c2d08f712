//! What is known of a pod beside what its agent found in it, as far as somebody should be warned of it. Pure.

use std::time::Duration;

use crate::api::{Findings, sentence};

/// What a freeze takes that moves nothing.
const FIXED: Duration = Duration::from_millis(600);
/// Where nothing was measured: a dump, a stream and a restore of local disks and a 1 Gbit/s link.
const BYTES_PER_SECOND: u64 = 100 << 20;
/// Memory in files that occupy less than this part of their length is worth a word.
const SPARSE: u64 = 2;

/// Where it is asked for by somebody who does not know the pod, all is default: nothing to warn of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Environment variables that hold the pod's or its node's address or name: names, never values.
    pub stale_variables: Vec<String>,
    /// A service account token is mounted.
    pub has_bound_token: bool,
    /// The pod's hostname is not its name.
    pub hostname: Option<String>,
    pub liveness: Option<Liveness>,
    /// It consumes a queue.
    pub has_queue: bool,
    /// Expected size of the archive.
    pub archive_bytes: Option<u64>,
    /// Measured rate of archives to the best node.
    pub bytes_per_second: Option<u64>,
}

/// When the kubelet gives up on a container that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    pub patience: Duration,
}

impl Circumstances {
    /// How long the pod will stand still; nothing where its size is not known.
    pub fn predicted_freeze(&self) -> Option<Duration> {
        let rate = self.bytes_per_second.unwrap_or(BYTES_PER_SECOND).max(1);
        Some(FIXED + Duration::from_secs(self.archive_bytes? / rate))
    }

    /// What a user may want to know before the pod moves.
    pub(super) fn warnings(&self, findings: &Findings) -> Vec<String> {
        let mut told = Vec::new();
        if !self.stale_variables.is_empty() {
            let names = self.stale_variables.join(", ");
            told.push(sentence(&format!(
                "environment keeps the old pod's address or node in {names}: read it from a downwardAPI volume"
            )));
        }
        if self.has_bound_token {
            told.push(
                "its service account token ends with the old pod: a program that does not read the file again gets 401; \
                 set automountServiceAccountToken: false if it uses none"
                    .to_owned(),
            );
        }
        if let Some(hostname) = self.hostname.as_ref().filter(|_| self.has_queue) {
            told.push(sentence(&format!(
                "spec.hostname is {hostname}: orders to park go to the pod's name, so a consumer that takes its name from \
                 there never hears them"
            )));
        }
        if let (Some(liveness), Some(freeze)) = (self.liveness, self.predicted_freeze())
            && liveness.patience < freeze
        {
            told.push(format!(
                "liveness probe gives up after {} s, the pod stands still for about {} s: raise failureThreshold",
                liveness.patience.as_secs(),
                freeze.as_secs().max(1)
            ));
        }
        if let Some(layer) = &findings.layer
            && layer.apparent_bytes > (64 << 20)
            && layer.apparent_bytes / SPARSE > layer.allocated_bytes
        {
            told.push(format!(
                "changed files are {} MiB long and occupy {} MiB (sparse)",
                layer.apparent_bytes >> 20,
                layer.allocated_bytes >> 20
            ));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FoundTree;

    #[test]
    fn who_has_nothing_unusual_is_told_nothing() {
        let plain = Circumstances { archive_bytes: Some(20 << 20), ..Circumstances::default() };
        assert_eq!(plain.warnings(&Findings::default()), Vec::<String>::new());
    }

    #[test]
    fn what_goes_stale_is_named_without_its_value() {
        let told = Circumstances {
            stale_variables: vec!["POD_IP".into(), "NODE".into()],
            has_bound_token: true,
            ..Circumstances::default()
        }
        .warnings(&Findings::default());
        assert!(told[0].contains("POD_IP, NODE"), "{told:?}");
        assert!(told[1].contains("401"), "{told:?}");
        assert!(told.iter().all(|one| one.chars().count() <= 200), "{told:?}");
    }

    #[test]
    fn a_probe_that_is_less_patient_than_the_freeze_is_told_with_both_figures() {
        let of = |patience, bytes, rate| Circumstances {
            liveness: Some(Liveness { patience: Duration::from_secs(patience) }),
            archive_bytes: Some(bytes),
            bytes_per_second: rate,
            ..Circumstances::default()
        };
        let told = of(30, 4 << 30, Some(40 << 20)).warnings(&Findings::default());
        assert!(told[0].contains("after 30 s") && told[0].contains("about 102 s"), "{told:?}");
        assert!(of(30, 1 << 30, None).warnings(&Findings::default()).is_empty());
    }

    #[test]
    fn a_hostname_matters_where_orders_go_to_the_name() {
        let of = |has_queue| Circumstances {
            hostname: Some("worker".into()),
            has_queue,
            ..Circumstances::default()
        };
        assert!(of(true).warnings(&Findings::default())[0].contains("worker"));
        assert!(of(false).warnings(&Findings::default()).is_empty());
    }

    #[test]
    fn files_with_holes_are_told_with_both_sizes() {
        let layer = FoundTree { files: 1, apparent_bytes: 200 << 30, allocated_bytes: 4096, names: vec![] };
        let findings = Findings { layer: Some(layer), ..Findings::default() };
        assert!(Circumstances::default().warnings(&findings)[0].contains("204800 MiB long"));
    }
}
