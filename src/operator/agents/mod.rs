//! The agents on the nodes: who is where, and the way of an order and of its answer.

pub mod client;
pub mod transport;
