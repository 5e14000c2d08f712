//! An explorer of all interleavings around the product's own `protocol::step`, `ConsumerGate` and control messages.
//! Pure: no I/O, no clock but to say how long it took.
//!
//! Only the world around is modelled: operators (`operators`, `effects`, `ways`, `proofs`), three machines with agents,
//! runtime and kubelet (`places`, `nodes`, `restores`), owner, webhook, drainer (`cluster`), consumers (`consumers`),
//! RabbitMQ (`broker`, which is checked against a real one) and all that goes wrong (`faults`). `invariants` and `ends` say
//! what must hold, `search` looks everywhere, `story` tells the shortest way to a violation, `mistake` lists what must be
//! caught.

#[allow(dead_code)] // also what only the check against a real broker uses
pub mod broker;
#[allow(dead_code)] // the test takes the usual scenarios, the example the thorough ones too
pub mod catalog;
mod cluster;
mod consumers;
mod effects;
mod ends;
mod faults;
mod gates;
mod invariants;
pub mod mistake;
mod mixing;
pub mod model;
mod moves;
mod nodes;
mod operators;
mod places;
mod proofs;
mod protocol;
mod restores;
pub mod search;
mod seen;
mod story;
mod ways;
mod world;
