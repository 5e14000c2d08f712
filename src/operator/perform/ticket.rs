//! Orders about tickets, and what their answers mean.

use std::time::Duration;

use super::super::subject::Journal;
use super::EffectError;
use crate::api::{
    AwaitOrder, AwaitedTicket, Life, NodeName, OpenTicketOrder, Purpose, Reason, RestoreFault, Role,
    TicketState,
};
use crate::protocol::Archive;

/// Longest cause that people are told, in characters, beside what becomes of it; the log has all of it.
const CAUSE: usize = 110;

/// The order to let the replacement of this life, or the shadow, be restored from the archive in the journal.
pub(super) fn opening(
    journal: &Journal,
    life: Life,
    purpose: Purpose,
) -> Result<OpenTicketOrder, EffectError> {
    Ok(OpenTicketOrder {
        epoch: journal.state.epoch,
        container: journal.subject.container.clone(),
        digest: archive(journal)?.digest.clone(),
        life,
        purpose,
    })
}

/// The order to wait until the ticket has got so far, or for so long.
pub(super) fn awaiting(
    journal: &Journal,
    life: Life,
    at_least: TicketState,
    patience: Duration,
) -> AwaitOrder {
    let epoch = journal.state.epoch;
    AwaitOrder { epoch, at_least, timeout_ms: patience_of(patience), life, lived_ms: 0 }
}

/// Milliseconds, as orders have them.
pub(super) fn patience_of(patience: Duration) -> u64 {
    u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)
}

/// The archive that was verified on the target.
pub(super) fn archive(journal: &Journal) -> Result<&Archive, EffectError> {
    let archive = journal.state.archive.as_ref();
    archive.ok_or_else(|| EffectError::failed(Reason::ArchiveDamaged, "no archive in the journal"))
}

/// One that is spent has come nowhere.
pub(super) fn has_come(ticket: &AwaitedTicket, wanted: TicketState) -> bool {
    (wanted..TicketState::Closed).contains(&ticket.state)
}

/// A cause and the node that it is told of.
pub(super) fn on_node(node: &NodeName, cause: &str) -> String {
    let mut told: String = cause.chars().take(CAUSE).collect();
    if told.len() < cause.len() {
        told.push('…');
    }
    format!("node {node}: {told}")
}

/// Why the pod does not live by its ticket; transient where it still may.
pub(super) fn not_restored(role: Role, node: &NodeName, ticket: &AwaitedTicket) -> EffectError {
    let why = ticket.failure.clone().unwrap_or_else(|| format!("the {role}'s ticket is {:?}", ticket.state));
    let told = on_node(node, &why);
    match ticket.fault {
        None | Some(RestoreFault::BrokenOff) => EffectError::transient(Reason::RestoreFailed, told),
        Some(fault) => {
            tracing::warn!(%node, %role, ?fault, why, "not restored");
            let damaged = fault == RestoreFault::ArchiveDamaged;
            EffectError::failed(if damaged { Reason::ArchiveDamaged } else { Reason::RestoreFailed }, told)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(state: TicketState, fault: Option<RestoreFault>) -> AwaitedTicket {
        AwaitedTicket { state, pod: None, pod_ip: None, failure: Some("no such device".into()), fault }
    }

    #[test]
    fn a_ticket_that_is_spent_has_come_nowhere() {
        assert!(has_come(&ticket(TicketState::Started, None), TicketState::Held));
        assert!(!has_come(&ticket(TicketState::Held, None), TicketState::Started));
        assert!(!has_come(&ticket(TicketState::Closed, None), TicketState::Held));
    }

    #[test]
    fn only_what_broke_off_may_succeed_in_a_moment() {
        let transient = |fault| {
            let ticket = ticket(TicketState::Waiting, fault);
            not_restored(Role::Shadow, &"n2".into(), &ticket).transient
        };
        assert!(transient(None) && transient(Some(RestoreFault::BrokenOff)));
        for fault in [
            RestoreFault::Criu,
            RestoreFault::MoreThanSpec,
            RestoreFault::ArchiveDamaged,
            RestoreFault::Ended,
        ] {
            assert!(!transient(Some(fault)), "{fault:?}");
        }
    }
}
