//! The protocol of a migration as a pure function: [`step`] takes a state and an event and gives the next state and
//! the effects to perform. No I/O, no clock, no async; the operator and the explorer run the same code.
//!
//! # How it is used
//! The operator writes the new state into the `StatefulMigration` *before* it performs the effects (intent before
//! effect). Every effect is idempotent, so after a restart it simply performs [`State::outstanding`] again. An event
//! that the state does not wait for changes nothing: late and repeated answers are harmless ([`Turn`]).
//!
//! # Guarantees
//! * Before [`Step::Freezing`] (the commit) every failure leads to [`Step::Withdrawing`] and so back to the source.
//! * From [`Step::Freezing`] on, no event leads back: only forward. Forward has several ways ([`Way`]), tried in their
//!   order, each with a ticket of its own ([`crate::api::Life`]) and only once the ticket of the way before is spent:
//!   never two lives. Where none is left the policy decides: a fresh pod with the archive kept, or a person.
//! * Where somebody else saw to it that no pod will ever claim the replacement's first ticket, and the source has no
//!   process left, what was made for the migration is taken away and it ends as failed. From the second life on its
//!   archive is kept as the policy says: nothing that somebody does to the pod meanwhile takes it away.
//! * Nothing is committed that was not restored on the target from the very archive, and checked there. A shadow that
//!   was let go still lives when the commit is written.
//! * The archive is kept on the source's node until [`Step::Closing`]: a target that is lost before that costs nothing
//!   but time.
//! * The source is deleted only after it is confirmed frozen, the replacement's ticket opens only when the source has
//!   no process left, and consumption resumes only when the shadow is fenced and the tickets are closed.

mod effects;
mod event;
mod state;
mod step;
mod steps;

pub use effects::Effect;
pub use event::{Event, Outcome, Turn};
pub use state::{Archive, Failure, Plan, Restored, ShadowAt, State};
pub use step::step;
pub use steps::{Step, Way};
