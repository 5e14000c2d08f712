//! Life of one ticket on the node that restores. Pure.
//!
//! Guarantees: it restores only the container it was opened for, for one pod at a time; a shadow is never told to start
//! fresh. A closed ticket exists no more: its migration's fence speaks for it.

use serde::{Deserialize, Serialize};

use crate::api::{ArchiveDigest, ClaimRequest, PodUid, Role, TicketState};

/// A ticket as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    pub state: TicketState,
    #[serde(default)]
    pub opened: Option<Opening>,
    #[serde(default)]
    pub holder: Option<Holder>,
    /// Why the last restore failed, if it did.
    #[serde(default)]
    pub failure: Option<String>,
}

/// What the operator opened it for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    pub container: String,
    pub digest: ArchiveDigest,
}

/// Who redeems it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    pub pod: PodUid,
    pub container: String,
    pub pod_ip: Option<String>,
    /// Of this one `create`; the next one of the same container has another.
    #[serde(default)]
    pub container_id: String,
}

impl From<&ClaimRequest> for Holder {
    fn from(request: &ClaimRequest) -> Self {
        Self {
            pod: request.pod.clone(),
            container: request.container.clone(),
            pod_ip: request.pod_ip.clone(),
            container_id: request.container_id.clone(),
        }
    }
}

/// What a claimant is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet: ask again when something changed.
    Wait,
    Restore,
    Fresh(String),
    Refuse(String),
    /// It has restored already, and did not hear that this is on record.
    Recorded,
}

/// The ticket cannot be opened like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ticket is open already, for container {} and archive {}", .0.container, .0.digest)]
pub struct OpenedDifferently(pub Opening);

/// The answer to whoever may not restore: an ordinary pod starts like any other, a shadow never starts without its state.
pub fn without_restore(role: Role, reason: String) -> Verdict {
    match role {
        Role::Replacement => Verdict::Fresh(reason),
        Role::Shadow => Verdict::Refuse(reason),
    }
}

impl Default for Ticket {
    fn default() -> Self {
        Self { state: TicketState::Unclaimed, opened: None, holder: None, failure: None }
    }
}

impl Ticket {
    /// A container asks. `holder_gone`: of the pod that asked before nothing runs on this node any more.
    ///
    /// While the pod that asked first is still there, a replacement of another pod object waits: if the first one is on
    /// its way out the state must not be lost to a fresh start, and if it stays, the ticket is closed within seconds.
    pub fn claim(&mut self, role: Role, claimant: &Holder, holder_gone: bool) -> Verdict {
        if let Some(opened) = self.opened.as_ref().filter(|opened| opened.container != claimant.container) {
            return without_restore(role, format!("the ticket is for container {}", opened.container));
        }
        if let Some(holder) = self.holder.as_ref().filter(|holder| holder.pod != claimant.pod && !holder_gone)
        {
            return match role {
                Role::Replacement => Verdict::Wait,
                Role::Shadow => Verdict::Refuse(format!("the ticket belongs to pod {}", holder.pod)),
            };
        }
        if self.is_record_of(claimant) {
            return Verdict::Recorded;
        }
        // Before it is opened, the first container to ask stands for its pod.
        let takes_over = self.holder.as_ref().is_none_or(|holder| holder.pod != claimant.pod);
        if takes_over || self.opened.is_some() {
            self.holder = Some(claimant.clone());
        }
        match (self.state, &self.opened) {
            (TicketState::Restoring, _) => Verdict::Wait,
            (_, None) => {
                self.state = TicketState::Waiting;
                Verdict::Wait
            }
            // Restored before, but the process died before it was resumed: the archive still is its whole state.
            (_, Some(_)) => {
                self.state = TicketState::Restoring;
                Verdict::Restore
            }
        }
    }

    /// The process that this very `create` has restored is on record.
    fn is_record_of(&self, claimant: &Holder) -> bool {
        self.state == TicketState::Restored
            && !claimant.container_id.is_empty()
            && self.holder.as_ref().is_some_and(|holder| {
                (&holder.pod, &holder.container_id) == (&claimant.pod, &claimant.container_id)
            })
    }

    /// The operator lets it be redeemed.
    pub fn open(&mut self, opening: Opening) -> Result<(), OpenedDifferently> {
        match &self.opened {
            Some(opened) if *opened != opening => Err(OpenedDifferently(opened.clone())),
            _ => {
                self.opened = Some(opening);
                Ok(())
            }
        }
    }

    /// The process lives.
    pub fn restored(&mut self) {
        if self.state == TicketState::Restoring {
            self.state = TicketState::Restored;
            self.failure = None;
        }
    }

    /// The restore failed, or whoever did it is gone: another attempt may follow.
    pub fn failed(&mut self, reason: String) {
        if self.state == TicketState::Restoring {
            self.state = TicketState::Waiting;
            self.failure = Some(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TicketState as S;

    fn holder(pod: &str, container: &str) -> Holder {
        Holder { pod: pod.into(), container: container.into(), pod_ip: None, container_id: String::new() }
    }

    fn opening() -> Opening {
        Opening { container: "app".into(), digest: "d".into() }
    }

    #[test]
    fn a_claim_waits_until_it_is_opened_and_then_restores() {
        let mut ticket = Ticket::default();
        let app = holder("p", "app");
        assert_eq!(ticket.claim(Role::Shadow, &app, false), Verdict::Wait);
        assert_eq!(ticket.state, S::Waiting);
        ticket.open(opening()).unwrap();
        assert_eq!(ticket.claim(Role::Shadow, &app, false), Verdict::Restore);
        assert_eq!(ticket.state, S::Restoring);
        ticket.restored();
        assert_eq!(ticket.state, S::Restored);
    }

    #[test]
    fn opening_before_the_claim_is_the_same() {
        let mut ticket = Ticket::default();
        ticket.open(opening()).unwrap();
        assert_eq!(ticket.state, S::Unclaimed);
        assert_eq!(ticket.claim(Role::Replacement, &holder("p", "app"), false), Verdict::Restore);
    }

    #[test]
    fn nobody_restores_while_another_restore_runs() {
        let mut ticket = Ticket::default();
        ticket.open(opening()).unwrap();
        let app = holder("p", "app");
        assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
        assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Wait);
        ticket.failed("x".into());
        assert_eq!((ticket.state, ticket.failure.as_deref()), (S::Waiting, Some("x")));
        assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
    }

    #[test]
    fn a_process_that_died_before_the_close_is_restored_again() {
        let mut ticket = Ticket::default();
        ticket.open(opening()).unwrap();
        let app = holder("p", "app");
        ticket.claim(Role::Replacement, &app, false);
        ticket.restored();
        assert_eq!(ticket.claim(Role::Replacement, &app, false), Verdict::Restore);
    }

    #[test]
    fn whoever_has_restored_and_did_not_hear_that_it_is_on_record_restores_nothing_again() {
        let mut ticket = Ticket::default();
        ticket.open(opening()).unwrap();
        let create = |id: &str| Holder { container_id: id.into(), ..holder("p", "app") };
        assert_eq!(ticket.claim(Role::Replacement, &create("c1"), false), Verdict::Restore);
        ticket.restored();
        assert_eq!(ticket.claim(Role::Replacement, &create("c1"), false), Verdict::Recorded);
        assert_eq!(ticket.state, S::Restored);
        assert_eq!(ticket.claim(Role::Replacement, &create("c2"), false), Verdict::Restore);
    }

    #[test]
    fn another_pod_or_container_gets_no_archive() {
        for role in [Role::Shadow, Role::Replacement] {
            let mut ticket = Ticket::default();
            ticket.open(opening()).unwrap();
            ticket.claim(role, &holder("p", "app"), false);
            let of_pod = ticket.claim(role, &holder("q", "app"), false);
            let of_container = ticket.claim(role, &holder("p", "sidecar"), false);
            match role {
                Role::Shadow => {
                    assert!(matches!((of_pod, of_container), (Verdict::Refuse(_), Verdict::Refuse(_))));
                }
                Role::Replacement => {
                    assert!(matches!((of_pod, of_container), (Verdict::Wait, Verdict::Fresh(_))));
                }
            }
            assert_eq!(ticket.holder, Some(holder("p", "app")));
        }
    }

    #[test]
    fn the_next_pod_takes_over_when_nothing_is_left_of_the_first() {
        let mut ticket = Ticket::default();
        ticket.open(opening()).unwrap();
        ticket.claim(Role::Replacement, &holder("p", "app"), false);
        ticket.failed("pod deleted".into());
        assert_eq!(ticket.claim(Role::Replacement, &holder("q", "app"), true), Verdict::Restore);
        assert_eq!(ticket.holder, Some(holder("q", "app")));
    }

    #[test]
    fn a_shadow_never_starts_fresh() {
        assert!(matches!(without_restore(Role::Shadow, String::new()), Verdict::Refuse(_)));
        assert!(matches!(without_restore(Role::Replacement, String::new()), Verdict::Fresh(_)));
    }

    #[test]
    fn opening_twice_must_be_for_the_same() {
        let mut ticket = Ticket::default();
        ticket.open(opening()).unwrap();
        ticket.open(opening()).unwrap();
        let other = Opening { digest: "e".into(), ..opening() };
        assert_eq!(ticket.open(other), Err(OpenedDifferently(opening())));
    }

    #[test]
    fn late_reports_change_nothing() {
        let mut ticket = Ticket::default();
        ticket.restored();
        ticket.failed("x".into());
        assert_eq!(ticket, Ticket::default());
    }
}
