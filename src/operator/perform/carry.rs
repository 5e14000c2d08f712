//! The archive goes to another node, or home. It lies on the target that failed and, as a dump, on the source's node;
//! whichever of them can give it away does.

use std::time::Duration;

use super::ticket::{archive, patience_of};
use super::trouble::transfer_time;
use super::{EffectError, Performer, target};
use crate::api::{CarryOrder, DumpTarget, NodeName, Reason, Refusal};
use crate::operator::agents::client::AgentError;
use crate::operator::drive::subject::Journal;
use crate::protocol::Outcome;

/// Beside the time that its bytes take.
const LEAST_TIME: Duration = Duration::from_secs(20);

impl Performer {
    /// To the chosen node, from wherever it lies; verified there.
    pub(super) async fn carry_archive(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let to = target(journal)?;
        let address = self.ctx.agents.address(to).ok_or_else(|| AgentError::NoAgent(to.clone()))?;
        let there = DumpTarget { node: to.clone(), address: address.to_string() };
        let order = carrying(journal, Some(there))?;
        let (mut said, mut may_pass) = (Vec::new(), false);
        for from in sources(journal, to) {
            if self.is_out_of_service(from).await? {
                said.push(format!("node {from} is down for good"));
                continue;
            }
            match self.carry_from(from, &order).await {
                Ok(()) => return Ok(Outcome::ArchiveCarried),
                Err(error) if error.refusal() == Some(Refusal::NoSpace) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%from, %to, %error, "archive not carried from there");
                    may_pass |= !is_lasting(&error);
                    said.push(error.to_string());
                }
            }
        }
        let why = said.join("; ");
        Err(if may_pass {
            EffectError::transient(Reason::TransferFailed, why)
        } else {
            EffectError::failed(Reason::TransferFailed, why)
        })
    }

    /// The dump becomes an archive on the node where it was made.
    pub(super) async fn return_archive(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let home = &journal.subject.node;
        let order = carrying(journal, None)?;
        match self.carry_from(home, &order).await {
            Ok(()) => Ok(Outcome::ArchiveReturned(home.clone())),
            Err(error) if is_lasting(&error) => {
                Err(EffectError::failed(Reason::ArchiveDamaged, error.to_string()))
            }
            Err(error) if self.is_out_of_service(home).await? => {
                Err(EffectError::failed(Reason::NoAgent, format!("node {home} is down for good: {error}")))
            }
            Err(error) => Err(EffectError::transient(Reason::NoAgent, error.to_string())),
        }
    }

    async fn carry_from(&self, node: &NodeName, order: &CarryOrder) -> Result<(), AgentError> {
        self.ctx.agents.on(node)?.carry(&self.uid, order).await.map(drop)
    }
}

fn carrying(journal: &Journal, target: Option<DumpTarget>) -> Result<CarryOrder, EffectError> {
    let archive = archive(journal)?;
    let limit = LEAST_TIME + transfer_time(archive.bytes);
    Ok(CarryOrder {
        epoch: journal.state.epoch,
        digest: archive.digest.clone(),
        target,
        timeout_ms: patience_of(limit),
    })
}

/// What lies there is not what is needed, and will not be.
fn is_lasting(error: &AgentError) -> bool {
    matches!(error.refusal(), Some(Refusal::NoArchive | Refusal::DigestMismatch | Refusal::StaleEpoch))
}

/// The nodes that may have it: the last target first, home at the end.
fn sources<'a>(journal: &'a Journal, to: &'a NodeName) -> impl Iterator<Item = &'a NodeName> {
    let home = &journal.subject.node;
    let left = journal.state.left.iter().rev().filter(move |node| *node != home);
    left.chain([home]).filter(move |node| *node != to)
}
