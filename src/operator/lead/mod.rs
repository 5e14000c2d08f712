//! The leader: which migrations may move, and where to; what is to be tidied up.

pub mod admission;
pub mod bookings;
pub mod claim;
pub mod node_labels;
pub mod orphans;
pub mod placing;
pub mod retention;
pub mod slot;
pub mod slots;
pub mod supervisor;
