//! What a ticket was opened for, and who redeems it. Pure.

use serde::{Deserialize, Serialize};

use crate::api::{ArchiveDigest, PodUid, Purpose};

/// What of its holder's pod is in place, and in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filled {
    pub volumes: bool,
    pub shm: bool,
}

/// What the operator opened it for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// Those in the archive, the one that it is named by first.
    pub containers: Vec<String>,
    pub digest: ArchiveDigest,
    pub purpose: Purpose,
    /// What was let go is never restored a second time: it may have written to volumes that outlive it.
    #[serde(default)]
    pub once: bool,
}

/// Which pod redeems it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    pub pod: PodUid,
    pub pod_ip: Option<String>,
}

/// The ticket cannot be opened like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("the ticket is open already, for containers {} and archive {}", .0.containers.join(", "), .0.digest)]
    Differently(Opening),
    #[error("the ticket is spent")]
    Spent,
}

#[cfg(test)]
mod tests {
    use super::super::{Ticket, Verdict};
    use super::*;
    use crate::api::{ClaimRequest, RestoreFault, Role, TicketState};

    fn create(pod: &str, container: &str, id: &str) -> ClaimRequest {
        ClaimRequest {
            ticket: "0b5c.1.replacement".parse().unwrap(),
            pod: pod.into(),
            container: container.into(),
            pod_ip: None,
            container_id: id.into(),
            init: false,
            fresh: false,
            at_once: false,
        }
    }

    #[test]
    fn what_was_let_go_is_restored_once_where_its_volumes_outlive_it() {
        let mut ticket = Ticket::default();
        let containers = vec!["app".into(), "log".into()];
        ticket.open(Opening { containers, digest: "d".into(), purpose: Purpose::Live, once: true }).unwrap();
        let claim = |ticket: &mut Ticket, request| ticket.claim(Role::Replacement, &request, true);
        let init = ClaimRequest { init: true, ..create("p", "fill", "i") };
        assert_eq!(claim(&mut ticket, init.clone()), Verdict::Complete);
        for (name, id) in [("app", "c"), ("log", "l")] {
            assert_eq!(claim(&mut ticket, create("p", name, id)), Verdict::Restore);
            assert!(ticket.restored(name) && !ticket.lived);
        }
        assert!(ticket.barred().is_some());
        assert!(ticket.let_go("c") && ticket.lived && ticket.barred().is_none());
        ticket.started("c");
        assert!(ticket.let_go("l"));
        ticket.started("l");
        assert!(ticket.ended("c", RestoreFault::Ended, "out of memory".into()));
        assert_eq!(ticket.state(), TicketState::Started, "it carries on by itself");
        assert_eq!(ticket.failure().unwrap().0, RestoreFault::Ended, "and that is told");
        assert_eq!(ticket.ending().count(), 0, "nobody else is ended for it");
        assert_eq!(claim(&mut ticket, create("p", "log", "l")), Verdict::Recorded);
        for request in [create("p", "app", "c2"), create("q", "app", "c3"), init] {
            assert!(matches!(claim(&mut ticket, request), Verdict::Fresh(_)));
        }
        let read: Ticket = serde_json::from_str(&serde_json::to_string(&ticket).unwrap()).unwrap();
        assert_eq!(read, ticket);
    }

    #[test]
    fn what_stands_still_beside_what_has_ended_since_it_was_let_go_is_let_go_too() {
        let mut ticket = Ticket::default();
        let containers = vec!["app".into(), "log".into()];
        ticket.open(Opening { containers, digest: "d".into(), purpose: Purpose::Live, once: true }).unwrap();
        for (name, id) in [("app", "c"), ("log", "l")] {
            assert_eq!(ticket.claim(Role::Replacement, &create("p", name, id), true), Verdict::Restore);
            assert!(ticket.restored(name));
        }
        assert!(ticket.let_go("c"));
        assert_ne!(ticket.state(), TicketState::Started, "the intent is no life yet");
        ticket.started("c");
        assert!(ticket.ended("c", RestoreFault::Ended, "out of memory".into()));
        assert_ne!(ticket.state(), TicketState::Started);
        assert_eq!(ticket.must_be_on_record("l"), ["l"]);
        assert!(ticket.let_go("l"));
        ticket.started("l");
        assert_eq!(ticket.state(), TicketState::Started);
    }

    #[test]
    fn what_ends_before_it_was_let_go_is_restored_again() {
        let mut ticket = Ticket::default();
        let opening = Opening {
            containers: vec!["app".into()],
            digest: "d".into(),
            purpose: Purpose::Live,
            once: true,
        };
        ticket.open(opening).unwrap();
        assert_eq!(ticket.claim(Role::Replacement, &create("p", "app", "c"), true), Verdict::Restore);
        assert!(ticket.restored("app"));
        assert!(ticket.ended("c", RestoreFault::BrokenOff, "the engine ended it".into()));
        assert_eq!(ticket.claim(Role::Replacement, &create("p", "app", "c2"), true), Verdict::Restore);
    }
}
