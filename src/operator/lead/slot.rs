//! The slot of one migration: held while memory moves, given back while a person, a machine or a broker is waited for, and
//! asked for again before memory moves once more. No I/O; the clock is an argument.
//!
//! Guarantees: whoever has given its slot back moves no memory before it has another one, so one leader breaks no limit;
//! another counts whatever has begun until it finds a machine silent, and lets nothing begin meanwhile. What is only finished
//! (the pod lives already) needs none any more.

use tokio::time::Instant;

use crate::api::NodeName;
use crate::operator::agents::client::Agents;
use crate::operator::drive::subject::Journal;
use crate::protocol::Step;

/// What a live migration does, as far as slots are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Waits for a slot.
    Waits,
    /// Holds a slot.
    Moves,
    /// Has given its slot back while somebody was waited for, and wants one again, for the so manieth time.
    Returns(u32),
    /// Holds none, but no other pod of its owner may begin to move.
    TidiesUp,
    /// Backs off, evicts, or does not know yet how large it is: nobody waits for it.
    Rests,
}

/// Whether it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Held,
    GivenBack,
    /// For the so manieth time.
    AskedFor(u32),
}

impl Slot {
    /// Of a migration that would move.
    pub fn standing(self) -> Standing {
        match self {
            Self::Held => Standing::Moves,
            Self::GivenBack => Standing::TidiesUp,
            Self::AskedFor(time) => Standing::Returns(time),
        }
    }
}

/// Who has to do something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited<'a> {
    /// This node's agent: without it nothing moves.
    Agent(&'a NodeName),
    /// Whoever it is, no memory moves.
    Others,
    /// Memory moves, and each way of it ends by itself.
    Memory,
}

fn awaited(journal: &Journal) -> Awaited<'_> {
    match (journal.state.step, &journal.state.target) {
        (Step::Freezing | Step::Deleting, _) => Awaited::Agent(&journal.subject.node),
        (Step::Replacing, Some(target)) => Awaited::Agent(target),
        (Step::Withdrawing | Step::Switching | Step::Closing | Step::Resuming, _) => Awaited::Others,
        _ => Awaited::Memory,
    }
}

/// Nobody can move anything where it stands.
pub fn is_quiet(journal: &Journal, agents: &Agents) -> bool {
    match awaited(journal) {
        Awaited::Agent(node) => agents.address(node).is_none(),
        Awaited::Others => true,
        Awaited::Memory => false,
    }
}

/// A migration's own slot, as its driver knows it.
#[derive(Debug)]
pub struct OwnSlot {
    slot: Slot,
    asked: u32,
    step: Step,
    /// Since when nobody in this step can move anything.
    quiet_since: Option<Instant>,
}

impl OwnSlot {
    /// Of a migration that is taken up in this step. `is_sure`: nobody may have its slot already.
    pub fn new(step: Step, is_sure: bool) -> Self {
        let without = waits_without(step) || needs(step) && !is_sure;
        let slot = if without { Slot::GivenBack } else { Slot::Held };
        Self { slot, asked: 0, step, quiet_since: None }
    }

    pub fn get(&self) -> Slot {
        self.slot
    }

    /// It may change though nothing happens to the migration.
    pub fn is_watched(&self) -> bool {
        self.step.is_committed() || self.step == Step::Withdrawing
    }

    /// Where the migration stands now, and whether nobody can move anything there. True if that changes its slot.
    pub fn look(&mut self, step: Step, is_quiet: bool, now: Instant) -> bool {
        if step != self.step {
            (self.step, self.quiet_since) = (step, None);
        }
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(now));
        let quiet_for = self.quiet_since.map(|since| now.duration_since(since));
        let waits = quiet_for > step.limit() && step.limit().is_some();
        let before = self.slot;
        self.slot = match before {
            // A new attempt was let go.
            _ if step == Step::Preparing => Slot::Held,
            Slot::Held if waits || waits_without(step) => Slot::GivenBack,
            Slot::GivenBack if needs(step) && !is_quiet => {
                self.asked += 1;
                Slot::AskedFor(self.asked)
            }
            Slot::AskedFor(_) if !needs(step) || is_quiet => Slot::GivenBack,
            same => same,
        };
        before != self.slot
    }

    /// The slot that was asked for that time is there. False where it is not wanted any more.
    pub fn regain(&mut self, time: u32) -> bool {
        let wanted = self.slot == Slot::AskedFor(time);
        if wanted {
            (self.slot, self.quiet_since) = (Slot::Held, None);
        }
        wanted
    }
}

/// A machine or a person is waited for in any case.
fn waits_without(step: Step) -> bool {
    matches!(step, Step::Spending | Step::Stranded)
}

/// Steps in which memory moves, and that may come after a wait.
fn needs(step: Step) -> bool {
    matches!(step, Step::Replacing | Step::Seeking | Step::Carrying | Step::Returning)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    #[test]
    fn a_slot_is_given_back_while_a_silent_machine_is_waited_for_and_asked_for_when_it_answers() {
        for step in [Step::Freezing, Step::Deleting, Step::Replacing] {
            let begun = Instant::now();
            let mut own = OwnSlot::new(step, true);
            assert!(!own.look(step, false, begun) && !own.look(step, true, after(begun, 5)), "{step:?}");
            assert!(!own.look(step, true, after(begun, 35)), "an agent may be rolled out anew");
            assert!(own.look(step, true, after(begun, 36)), "{step:?}");
            assert_eq!(own.get().standing(), Standing::TidiesUp);
            let asks = own.look(step, false, after(begun, 90));
            assert_eq!(asks, needs(step), "who freezes or kills moves no memory");
        }
    }

    #[test]
    fn an_agent_that_comes_and_goes_keeps_the_slot() {
        let begun = Instant::now();
        let mut own = OwnSlot::new(Step::Replacing, true);
        for second in 0..200 {
            assert!(!own.look(Step::Replacing, second % 20 > 0, after(begun, second)), "{second}");
        }
    }

    #[test]
    fn memory_moves_again_only_with_a_slot_that_was_asked_for_and_is_still_wanted() {
        let begun = Instant::now();
        let mut own = OwnSlot::new(Step::Replacing, true);
        assert!(own.look(Step::Spending, false, begun));
        assert_eq!(own.get(), Slot::GivenBack);
        assert!(own.look(Step::Seeking, false, begun));
        assert_eq!(own.get(), Slot::AskedFor(1));
        assert!(own.look(Step::Stranded, false, begun), "nothing is wanted any more");
        assert!(!own.regain(1));
        assert!(own.look(Step::Replacing, false, begun));
        assert_eq!(own.get(), Slot::AskedFor(2));
        assert!(own.look(Step::Replacing, true, begun), "silent again");
        assert!(own.look(Step::Replacing, false, begun));
        assert!(!own.regain(2) && own.regain(3));
        assert_eq!(own.get(), Slot::Held);
    }

    #[test]
    fn what_lives_already_needs_no_slot_and_gives_back_one_that_only_waits() {
        let begun = Instant::now();
        for step in [Step::Withdrawing, Step::Switching, Step::Closing, Step::Resuming] {
            let mut own = OwnSlot::new(step, false);
            assert_eq!(own.get(), Slot::Held);
            own.look(step, true, begun);
            assert!(own.look(step, true, after(begun, 31)), "{step:?}");
            assert!(!own.look(step, false, after(begun, 32)) && own.get() == Slot::GivenBack);
        }
        let mut late = OwnSlot::new(Step::Spending, true);
        assert!(!late.look(Step::Switching, true, begun), "it lives after all, and has none");
        assert_eq!(late.get(), Slot::GivenBack);
    }

    #[test]
    fn whoever_is_taken_up_without_a_slot_asks_for_one() {
        assert_eq!(OwnSlot::new(Step::Replacing, true).get(), Slot::Held);
        let mut own = OwnSlot::new(Step::Replacing, false);
        assert_eq!(own.get(), Slot::GivenBack);
        assert!(own.look(Step::Replacing, false, Instant::now()));
        assert_eq!(own.get(), Slot::AskedFor(1));
        let mut again = OwnSlot::new(Step::BackingOff, false);
        again.look(Step::Withdrawing, true, Instant::now());
        again.look(Step::Preparing, false, Instant::now());
        assert_eq!(again.get(), Slot::Held, "each attempt is let go by itself");
    }
}
