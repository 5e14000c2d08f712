//! Whether a pod can be moved, and if not, why: asked before anything is begun, and by `kubectl shadow check`.

pub mod answer;
mod bridges;
pub mod claims;
pub mod containers;
mod documents;
pub mod manifest;
pub mod policies;
pub mod preflight;
pub mod properties;
pub mod scheduling;
pub mod selectors;
