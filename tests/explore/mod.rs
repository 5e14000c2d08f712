//! An explorer of all interleavings around the product's own `protocol::step` and `ConsumerGate`. Pure: no I/O, no
//! clock but to say how long it took.
//!
//! Only the world around is modelled: operators (`operators`, `effects`), agents, runtime and kubelet (`nodes`),
//! owner, webhook and faults (`cluster`), broker and consumers (`consumers`). `invariants` says what must hold, `search`
//! looks everywhere, `story` tells the shortest way to a violation, `mistake` lists what must be caught.

#[allow(dead_code)] // the test takes the usual scenarios, the example the thorough ones too
pub mod catalog;
mod cluster;
mod consumers;
mod effects;
mod gates;
mod invariants;
pub mod mistake;
mod mixing;
pub mod model;
mod moves;
mod nodes;
mod operators;
mod protocol;
pub mod search;
mod story;
mod world;
