//! The protocol of a migration as a pure function: [`step`] takes a state and an event and gives the next state and
//! the effects to perform. No I/O, no clock, no async; the operator and the explorer run the same code.
//!
//! # How it is used
//! The operator writes the new state into the `StatefulMigration` *before* it performs the effects (intent before
//! effect). Every effect is idempotent, so after a restart it simply performs [`State::outstanding`] again. An event
//! that the state does not wait for changes nothing: late and repeated answers are harmless.
//!
//! # Guarantees
//! * Before [`Step::Freezing`] (the commit) every failure leads to [`Step::Withdrawing`] and so back to the source.
//! * From [`Step::Freezing`] on, no event leads back: only forward, or waiting. One exception: where somebody else saw
//!   to it that no pod will ever claim the replacement's ticket, and the source has no process left, what was made
//!   for the migration is taken away and it ends as failed.
//! * The source is deleted only after it is confirmed frozen, the replacement's ticket opens only when the source has
//!   no process left, and consumption resumes only when the shadow is fenced and the tickets are closed.

mod effects;
mod event;
mod state;
mod step;

pub use effects::Effect;
pub use event::{Event, Outcome};
pub use state::{Archive, Failure, Plan, Restored, ShadowAt, State, Step};
pub use step::step;
