//! What is to be made of what was found: do the findings of a look, or the log of a CRIU that failed, stand against a move,
//! and what helps? Pure. Asked when a migration is accepted, by `kubectl shadow check`, and by the agent once all stands
//! still: the three say the same.

mod circumstances;
mod criu;
mod judge;
mod pod;

pub use circumstances::{Circumstances, Liveness};
pub use criu::{cause, objection};
pub use judge::{Judgement, judge};
pub use pod::judge_pod;
