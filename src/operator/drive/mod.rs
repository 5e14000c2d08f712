//! One migration: from its object to its journal and status, step by step.

pub mod accept;
pub mod attempt;
pub mod driver;
pub mod due;
pub mod error;
pub mod events;
pub mod journal;
pub mod look;
pub mod source_watch;
pub mod status;
pub mod subject;
pub mod surroundings;
pub mod timings;
pub mod volumes;
