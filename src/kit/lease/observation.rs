//! When a lease may be taken, and what is written then. Pure: the caller gives the time.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use tokio::time::Instant;

/// What was last seen of the lease, and since when it looks like that.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// `None`: there is no such object.
    pub lease: Option<Lease>,
    since: Instant,
}

impl Observation {
    pub fn first(lease: Option<Lease>, now: Instant) -> Self {
        Self { lease, since: now }
    }

    /// Takes note of the lease's present state; its time runs on only if holder and renewal are the same.
    pub fn update(&mut self, lease: Option<Lease>, now: Instant) {
        let mark = |lease: &Option<Lease>| {
            let spec = lease.as_ref()?.spec.as_ref()?;
            Some((spec.holder_identity.clone(), spec.renew_time.clone(), spec.lease_transitions))
        };
        if mark(&self.lease) != mark(&lease) {
            self.since = now;
        }
        self.lease = lease;
    }

    /// From when on `identity` may take it: at once if free or its own, else when it was unchanged long enough.
    pub fn claimable_at(&self, identity: &str) -> Instant {
        match holder(self.lease.as_ref()) {
            None => self.since,
            Some(holder) if holder == identity => self.since,
            Some(_) => self.since + duration(self.lease.as_ref()),
        }
    }
}

pub(super) fn holder(lease: Option<&Lease>) -> Option<&str> {
    let holder = lease?.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

pub(super) fn epoch(lease: &Lease) -> u32 {
    let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
    transitions.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

fn duration(lease: Option<&Lease>) -> Duration {
    let seconds = lease.and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(super::Lease::DURATION, Duration::from_secs)
}

/// The object that makes `terms.identity` the holder, under the next epoch.
pub(super) fn claimed(terms: &super::Lease, seen: Option<&Lease>, now: Timestamp) -> Lease {
    let metadata = seen.map_or_else(
        || ObjectMeta {
            name: Some(terms.name.clone()),
            namespace: Some(terms.namespace.clone()),
            ..ObjectMeta::default()
        },
        |lease| lease.metadata.clone(),
    );
    let epoch = seen.map_or(0, epoch).saturating_add(1);
    let spec = LeaseSpec {
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        holder_identity: Some(terms.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(terms.duration.as_secs().max(1)).unwrap_or(i32::MAX)),
        lease_transitions: Some(i32::try_from(epoch).unwrap_or(i32::MAX)),
        ..LeaseSpec::default()
    };
    Lease { metadata, spec: Some(spec) }
}

/// The same leadership, alive at `now`.
pub(super) fn renewed(held: &Lease, now: Timestamp) -> Lease {
    let mut lease = held.clone();
    lease.spec.get_or_insert_default().renew_time = Some(MicroTime(now));
    lease
}

/// Nobody's lease; the epoch stays, so that the next holder's is larger.
pub(super) fn released(held: &Lease) -> Lease {
    let mut lease = held.clone();
    lease.spec.get_or_insert_default().holder_identity = None;
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(identity: &str) -> super::super::Lease {
        super::super::Lease {
            namespace: "shadow-system".into(),
            name: "shadow-operator".into(),
            identity: identity.into(),
            duration: Duration::from_secs(5),
        }
    }

    fn held_by(identity: &str) -> Lease {
        claimed(&terms(identity), None, Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_held_lease_is_claimable_only_after_it_was_seen_unchanged_for_its_duration() {
        let start = Instant::now();
        let mut seen = Observation::first(Some(held_by("a")), start);
        assert_eq!(seen.claimable_at("b"), start + Duration::from_secs(5));
        // Seen again, unchanged: the time runs on.
        seen.update(Some(held_by("a")), start + Duration::from_secs(3));
        assert_eq!(seen.claimable_at("b"), start + Duration::from_secs(5));
        // Renewed: it starts anew, whatever the timestamp in it says.
        let renewal = renewed(&held_by("a"), Timestamp::from_second(-1_000).unwrap());
        seen.update(Some(renewal), start + Duration::from_secs(4));
        assert_eq!(seen.claimable_at("b"), start + Duration::from_secs(9));
    }

    #[tokio::test]
    async fn a_released_missing_or_own_lease_is_claimable_at_once() {
        let now = Instant::now();
        assert_eq!(Observation::first(None, now).claimable_at("b"), now);
        assert_eq!(Observation::first(Some(released(&held_by("a"))), now).claimable_at("b"), now);
        assert_eq!(Observation::first(Some(held_by("b")), now).claimable_at("b"), now);
    }

    #[test]
    fn every_claim_has_a_larger_epoch_and_a_renewal_keeps_it() {
        let first = held_by("a");
        let second = claimed(&terms("b"), Some(&released(&first)), Timestamp::UNIX_EPOCH);
        assert!(epoch(&second) > epoch(&first));
        assert_eq!(epoch(&renewed(&second, Timestamp::UNIX_EPOCH)), epoch(&second));
        assert_eq!(holder(Some(&second)), Some("b"));
    }
}
