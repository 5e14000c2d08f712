//! Restores: who may restore what by which ticket, and what becomes of it.

pub mod claims;
pub mod fence;
pub mod images;
pub mod leftovers;
pub mod processes;
pub mod settle;
pub mod ticket;
pub mod tickets;
