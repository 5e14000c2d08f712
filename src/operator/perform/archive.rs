//! The archive is made, and taken away in the end, through the agents.

use std::time::Duration;

use futures::future::{join, try_join, try_join_all};
use tokio::time::Instant;

use super::{EffectError, Performer, limits, target};
use crate::api::{DumpOrder, DumpReport, DumpTarget, NodeName, Reason, Refusal};
use crate::operator::agents::client::AgentError;
use crate::operator::drive::subject::{Journal, Subject};
use crate::protocol::{Archive, Outcome};

/// An agent of a version that knows nothing of emptyDir volumes, or of several containers, dumps the pod without them.
fn nothing_left_behind(subject: &Subject, report: &DumpReport) -> Result<(), EffectError> {
    let left = |what: &str, name: &String, reason| {
        let message = format!(
            "the agent on node {} leaves {what} `{name}` behind: is it of an earlier version? Update it",
            subject.node
        );
        Err(EffectError::failed(reason, message))
    };
    if let Some(name) = subject.empty_dirs.iter().find(|name| !report.empty_dirs.contains(name)) {
        return left("the content of emptyDir", name, Reason::EmptyDirWithContent);
    }
    match subject.beside.iter().find(|name| !report.beside.contains(name)) {
        Some(name) => left("container", name, Reason::SeveralContainers),
        None => Ok(()),
    }
}

impl Performer {
    pub(super) async fn dump(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let node = target(journal)?;
        let address = self.ctx.agents.address(node).ok_or_else(|| {
            EffectError::transient(Reason::NoAgent, format!("no ready agent on node {node}"))
        })?;
        let limit = limits::dump(journal.subject.archive_bytes.unwrap_or_default(), self.stream_rate(node));
        let order = DumpOrder {
            epoch: journal.state.epoch,
            containers: journal.subject.containers(),
            target: DumpTarget { node: node.clone(), address: address.to_string() },
            hold: journal.state.plan.hold,
            timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let begun = Instant::now();
        let dumped = self.ctx.agents.on(&journal.subject.node)?.dump(&self.uid, &order).await;
        let report = dumped.map_err(|error| {
            if is_too_slow(&error, begun.elapsed(), limit) {
                too_slow(node, limit, &error)
            } else {
                error.into()
            }
        })?;
        nothing_left_behind(&journal.subject, &report)?;
        Ok(Outcome::Dumped(Archive {
            digest: report.digest,
            bytes: report.bytes,
            frozen_ms: report.frozen_ms,
        }))
    }

    pub(super) async fn close_archives(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let on_target = self.close_on_target(journal);
        // No ticket is open there.
        let on_others =
            others(journal).map(|node| self.close_on(journal, node, Waits::WhileReporting, Keeps::Nothing));
        let closed = try_join(try_join_all(on_others), on_target);
        let (closed, ()) = join(closed, self.note_volumes(journal)).await;
        closed.map(|_| Outcome::ArchivesClosed)
    }

    async fn close_on_target(&self, journal: &Journal) -> Result<(), EffectError> {
        let Some(node) = &journal.state.target else { return Ok(()) };
        // After the commit an open ticket on the target could bring the old state back: nobody resumes before it is
        // closed for sure. In a rollback there is nothing that it could harm.
        let waits =
            if journal.state.step.is_committed() { Waits::UntilClosed } else { Waits::WhileReporting };
        self.close_on(journal, node, waits, Keeps::Nothing).await
    }

    /// Whatever becomes of the others.
    pub(super) async fn is_closed_on_target(&self, journal: &Journal) -> bool {
        self.close_on_target(journal).await.is_ok()
    }

    pub(super) async fn close_on(
        &self,
        journal: &Journal,
        node: &NodeName,
        waits: Waits,
        keeps: Keeps,
    ) -> Result<(), EffectError> {
        let epoch = journal.state.epoch;
        let closed = match (self.ctx.agents.on(node), keeps) {
            (Ok(agent), Keeps::Nothing) => agent.close(&self.uid, epoch).await,
            (Ok(agent), Keeps::Archive) => agent.close_and_keep(&self.uid, epoch).await,
            (Err(error), _) => Err(error),
        };
        match closed {
            Ok(()) => Ok(()),
            Err(error) if error.refusal() == Some(Refusal::StaleEpoch) => Ok(()),
            Err(error) if error.refusal().is_none() && waits == Waits::UntilClosed => {
                if self.is_out_of_service(node).await? { Ok(()) } else { Err(error.into()) }
            }
            Err(error)
                if error.refusal().is_none()
                    && (!self.is_reporting(node) || self.is_out_of_service(node).await?) =>
            {
                tracing::warn!(%node, %error, "archives left to the node's own sweeping");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Its time was over: who says so first, the agent or the connection that it closes, is chance.
fn is_too_slow(error: &AgentError, took: Duration, limit: Duration) -> bool {
    match error.refusal() {
        Some(Refusal::TimedOut) => true,
        Some(Refusal::TransferFailed) => took >= limit,
        _ => false,
    }
}

/// In the same words each time, but for the numbers: twice at the same node is for good.
fn too_slow(node: &NodeName, limit: Duration, error: &AgentError) -> EffectError {
    tracing::warn!(%node, %error, limit_s = limit.as_secs(), "dump and transfer took too long");
    let message =
        format!("dump and transfer to node {node} did not end in the {} s that they had", limit.as_secs());
    EffectError::failed(Reason::TooSlow, message)
}

/// Nodes beside the target on which an archive or a dump may lie.
pub(super) fn others(journal: &Journal) -> impl Iterator<Item = &NodeName> {
    let (target, home) = (journal.state.target.as_ref(), &journal.subject.node);
    let left = journal.state.left.iter().filter(move |node| *node != home);
    left.chain([home]).filter(move |node| Some(*node) != target)
}

/// How long an order to close is repeated to a node whose agent does not answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Until the node counts as down.
    WhileReporting,
    /// Until the agent has done it, or the machine is gone for good.
    UntilClosed,
}

/// What becomes of the archive where its migration is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    Nothing,
    /// For a day, for a person.
    Archive,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::OrderError;

    #[test]
    fn what_an_agent_of_an_earlier_version_leaves_behind_is_no_archive() {
        let subject = |volumes: &[&str]| Subject {
            empty_dirs: volumes.iter().map(|name| (*name).to_owned()).collect(),
            ..Subject::example("web-0")
        };
        let carried = |names: &[&str]| DumpReport {
            empty_dirs: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DumpReport::arrived("d".into(), 1, 1)
        };
        assert_eq!(nothing_left_behind(&subject(&[]), &carried(&[])), Ok(()));
        assert_eq!(nothing_left_behind(&subject(&["tmp"]), &carried(&["other", "tmp"])), Ok(()));
        let failure = nothing_left_behind(&subject(&["tmp", "run"]), &carried(&["tmp"])).unwrap_err().failure;
        assert_eq!((failure.reason, failure.retry), (Reason::EmptyDirWithContent, true));
        assert!(
            failure.message.contains("`run`") && failure.message.contains("node n1"),
            "{}",
            failure.message
        );
        let several = Subject { beside: vec!["log".into()], ..Subject::example("web-0") };
        let failure = nothing_left_behind(&several, &carried(&[])).unwrap_err().failure;
        assert_eq!(failure.reason, Reason::SeveralContainers);
        let report = DumpReport { beside: vec!["log".into()], ..carried(&[]) };
        assert_eq!(nothing_left_behind(&several, &report), Ok(()));
    }

    #[test]
    fn what_breaks_off_when_its_time_is_over_was_too_slow_and_what_breaks_off_before_may_pass() {
        let limit = Duration::from_secs(30);
        let refused = |refusal| AgentError::Refused {
            node: "n1".into(),
            error: OrderError { refusal, message: "connection closed".into(), objection: None },
        };
        for (refusal, took, expected) in [
            (Refusal::TimedOut, 12, true),
            (Refusal::TransferFailed, 30, true),
            (Refusal::TransferFailed, 29, false),
            (Refusal::RuntimeFailed, 31, false),
        ] {
            let error = refused(refusal);
            assert_eq!(is_too_slow(&error, Duration::from_secs(took), limit), expected, "{refusal:?}");
        }
        let told = too_slow(&"n2".into(), limit, &refused(Refusal::TimedOut)).failure;
        assert!(told.repeats(&too_slow(&"n2".into(), limit * 3, &refused(Refusal::TransferFailed)).failure));
    }
}
