//! An explorer of all interleavings around the product's own `protocol::step` and `ConsumerGate`. Pure: no I/O, no
//! clock but to say how long it took.
//!
//! Only the world around is modelled: operators (`operators`, `effects`), agents, runtime and kubelet (`nodes`),
//! owner, webhook and faults (`cluster`), broker and consumers (`consumers`). `invariants` says what must hold, `search`
//! looks everywhere, `story` tells the shortest way to a violation, `mistake` lists what must be caught.

mod cluster;
mod consumers;
mod effects;
mod gates;
mod invariants;
mod mistake;
mod model;
mod moves;
mod nodes;
mod operators;
mod protocol;
mod search;
mod story;
mod world;

pub use mistake::Mistake;
pub use model::{Model, Scenario};
pub use search::{Report, explore};
