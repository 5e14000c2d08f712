//! The two answers, as functions of what was asked and what is known. Pure.

use super::protocol::{ExtenderArgs, FilterResult, HostPriority, ProtocolError};
use crate::placement::{Evaluator, Stale, View, score};

/// No answer: kube-scheduler tries again within seconds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("what is known of the nodes may be old: {0}")]
    Stale(#[from] Stale),
    #[error("the answer cannot be written: {0}")]
    Unwritable(String),
}

/// Which nodes can take it, and why not the others.
pub fn filter<'a>(args: &ExtenderArgs<'a>, view: &View) -> Result<FilterResult<'a>, AnswerError> {
    let (names, need) = (args.names()?, args.need()?);
    view.must_know(&need.migration)?;
    let mut evaluator = Evaluator::new(&need, &view.snapshot);
    let mut result = FilterResult { node_names: Vec::with_capacity(names.len()), ..FilterResult::default() };
    for (name, room) in names.iter().copied().zip(evaluator.rooms(names)) {
        match room {
            Ok(_) => result.node_names.push(name),
            Err(refusal) => result.failed_and_unresolvable_nodes.push((name, refusal)),
        }
    }
    Ok(result)
}

/// How well each would do; a node that has no room any more gets nothing.
pub fn prioritize<'a>(args: &ExtenderArgs<'a>, view: &View) -> Result<Vec<HostPriority<'a>>, AnswerError> {
    let (names, need) = (args.names()?, args.need()?);
    view.must_know(&need.migration)?;
    let mut evaluator = Evaluator::new(&need, &view.snapshot);
    let rooms: Vec<_> = evaluator.rooms(names).map(Result::ok).collect();
    let scored = names.iter().copied().zip(score(&rooms)).map(|(host, score)| HostPriority { host, score });
    Ok(scored.collect())
}
