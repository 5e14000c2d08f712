//! Orders about tickets, and what their answers mean. No I/O of its own: whoever asks an agent is an argument.
//!
//! Guarantees: a restore is waited for as long as its caller says, however short an agent makes each wait.

use std::time::Duration;

use tokio::time::Instant;

use super::EffectError;
use crate::api::{
    AwaitOrder, AwaitedTicket, LONGEST_AWAIT, Life, NodeName, OpenTicketOrder, Purpose, Reason, RestoreFault,
    Role, TicketState,
};
use crate::operator::drive::subject::Journal;
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
        once: journal.state.plan.outlived,
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

/// Asks again until the ticket has come so far, has failed, or the limit has passed; `ask` waits as long as it is told.
pub(super) async fn until_there<E, F: Future<Output = Result<AwaitedTicket, E>>>(
    wanted: TicketState,
    limit: Duration,
    mut ask: impl FnMut(Duration) -> F,
) -> Result<AwaitedTicket, E> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let ticket = ask(left.min(LONGEST_AWAIT)).await?;
        // A restore that runs is told with the fault of the one before it.
        let failed = ticket.fault.is_some() && ticket.state != TicketState::Restoring;
        let over = failed || ticket.state == TicketState::Closed || Instant::now() >= deadline;
        if over || has_come(&ticket, wanted) {
            return Ok(ticket);
        }
    }
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
            let reason = match fault {
                RestoreFault::ArchiveDamaged => Reason::ArchiveDamaged,
                RestoreFault::AnotherImage => Reason::ImageDiffers,
                _ => Reason::RestoreFailed,
            };
            EffectError::failed(reason, told)
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

    /// An agent that is asked at most [`LONGEST_AWAIT`] long, and what it says each time; how often it was asked.
    async fn asked(limit: u64, answers: &[AwaitedTicket]) -> (AwaitedTicket, usize) {
        let mut times = 0;
        let ticket = until_there(TicketState::Held, Duration::from_secs(limit), |patience| {
            let answer = answers[times.min(answers.len() - 1)].clone();
            times += 1;
            async move {
                if answer.state == TicketState::Restoring {
                    tokio::time::sleep(patience.min(LONGEST_AWAIT)).await;
                }
                Ok::<_, ()>(answer)
            }
        });
        let ticket = ticket.await.unwrap();
        (ticket, times)
    }

    #[tokio::test(start_paused = true)]
    async fn a_restore_is_waited_for_longer_than_an_agent_waits_at_a_time() {
        let restoring = ticket(TicketState::Restoring, None);
        let answers = [restoring.clone(), restoring.clone(), ticket(TicketState::Held, None)];
        let (came, times) = asked(599, &answers).await;
        assert_eq!((came.state, times), (TicketState::Held, 3), "after four minutes");
        let begun = Instant::now();
        let (never, times) = asked(300, &answers[..1]).await;
        assert_eq!((never.state, times), (TicketState::Restoring, 3));
        assert_eq!(begun.elapsed(), Duration::from_secs(300));
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_told_at_once_and_what_failed_before_is_not() {
        let before = ticket(TicketState::Restoring, Some(RestoreFault::BrokenOff));
        let failed = ticket(TicketState::Waiting, Some(RestoreFault::Criu));
        let (told, times) = asked(599, &[before, failed.clone()]).await;
        assert_eq!((told, times), (failed, 2));
        let (told, times) = asked(599, &[ticket(TicketState::Closed, None)]).await;
        assert_eq!((told.state, times), (TicketState::Closed, 1));
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
            RestoreFault::AnotherImage,
        ] {
            assert!(!transient(Some(fault)), "{fault:?}");
        }
    }
}
