//! Archives on their way from node to node.

pub mod archive;
pub mod peer;
pub mod receive;
pub mod relocate;
