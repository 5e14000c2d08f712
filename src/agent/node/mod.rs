//! The node that the agent runs on: its containers, what is in them, what it can take, and how it is made able to restore.

pub mod capacity;
pub mod containers;
pub mod cri;
pub mod engine;
pub mod freezer;
pub mod host;
pub mod install;
pub mod look;
pub mod memory;
pub mod overlay;
