//! Dumps: processes by CRIU, and beside them the files that are the container's own.

pub mod carry;
pub mod job;
pub mod jobs;
pub mod standstill;
mod synced;
pub mod written;
