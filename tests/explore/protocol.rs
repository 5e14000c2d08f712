//! The product's `step`, remembered: its states are numbered, so that a world is small. Nothing is re-modelled; the
//! seeded mistakes that change the protocol change what goes into `step` or comes out of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use shadow::api::Reason;
use shadow::protocol::{Archive, Effect, Event, Failure, Outcome, Plan, Restored, ShadowAt, State, step};

use super::mistake::Mistake;
use super::mixing::Mixing;

/// An event without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    Admitted,
    Refused,
    Done(Effect),
    /// For good or so that another attempt makes sense.
    Failed(Effect, bool),
    /// The pod that was to carry on will never claim its ticket.
    Forsaken,
    StepTimedOut,
    Abort,
    DeadlineExceeded,
    SourceGone,
    RetryDue,
}

/// What the world needs to know of a state.
pub struct Facts {
    pub state: State,
    pub epoch: u8,
    pub outstanding: Vec<Effect>,
}

#[derive(Default)]
struct Book {
    known: Vec<Rc<Facts>>,
    numbers: HashMap<State, u16>,
    steps: HashMap<(u16, Happening), u16, Mixing>,
}

pub struct Protocol {
    mistake: Option<Mistake>,
    book: RefCell<Book>,
}

impl Protocol {
    pub fn new(mistake: Option<Mistake>) -> Self {
        Self { mistake, book: RefCell::default() }
    }

    pub fn accept(&self, plan: Plan) -> u16 {
        self.number(State::new(plan, None))
    }

    pub fn facts(&self, number: u16) -> Rc<Facts> {
        self.book.borrow().known[usize::from(number)].clone()
    }

    pub fn states(&self) -> usize {
        self.book.borrow().known.len()
    }

    fn number(&self, state: State) -> u16 {
        let mut book = self.book.borrow_mut();
        if let Some(number) = book.numbers.get(&state) {
            return *number;
        }
        let number = u16::try_from(book.known.len()).expect("few states");
        let epoch = u8::try_from(state.epoch.0).expect("few epochs");
        book.known.push(Rc::new(Facts { epoch, outstanding: state.outstanding(), state: state.clone() }));
        book.numbers.insert(state, number);
        number
    }

    /// The state after an event.
    pub fn after(&self, number: u16, happening: Happening) -> u16 {
        if let Some(next) = self.book.borrow().steps.get(&(number, happening)) {
            return *next;
        }
        let before = self.facts(number);
        let (mut next, effects) = step(&before.state, event(&before.state, happening));
        let moved = next.step != before.state.step || next.epoch != before.state.epoch;
        assert_eq!(
            effects,
            if moved { next.outstanding() } else { Vec::new() },
            "{:?} {happening:?}",
            before.state
        );
        if let Some(mistake) = self.mistake {
            next = mistake.instead(&before.state, happening, next);
        }
        let next = self.number(next);
        self.book.borrow_mut().steps.insert((number, happening), next);
        next
    }
}

fn event(state: &State, happening: Happening) -> Event {
    match happening {
        Happening::Admitted => Event::Admitted,
        Happening::Refused => Event::Refused(Failure::terminal(Reason::HostNetwork, "")),
        Happening::Done(effect) => Event::Done(state.epoch, outcome(effect)),
        Happening::Failed(effect, true) => {
            Event::Failed(state.epoch, effect, Failure::retryable(Reason::DumpFailed, ""))
        }
        Happening::Failed(effect, false) => {
            Event::Failed(state.epoch, effect, Failure::terminal(Reason::DumpFailed, ""))
        }
        Happening::Forsaken => {
            Event::Failed(state.epoch, Effect::RestoreReplacement, Failure::terminal(Reason::SourceGone, ""))
        }
        Happening::StepTimedOut => Event::StepTimedOut,
        Happening::Abort => Event::Abort,
        Happening::DeadlineExceeded => Event::DeadlineExceeded,
        Happening::SourceGone => Event::SourceGone,
        Happening::RetryDue => Event::RetryDue,
    }
}

/// What an effect finds, without what only people read.
pub fn outcome(effect: Effect) -> Outcome {
    match effect {
        Effect::DeclareParking => Outcome::ParkingDeclared,
        Effect::PlaceShadow => {
            Outcome::ShadowPlaced(ShadowAt { node: "n2".into(), pod: "s".into(), ip: None })
        }
        Effect::Park => Outcome::Parked { position: None },
        Effect::Dump => Outcome::Dumped(Archive { digest: "d".into(), bytes: 1, frozen_ms: 1 }),
        Effect::RestoreShadow => Outcome::ShadowRestored,
        Effect::AddBridge => Outcome::BridgeAdded,
        Effect::ShrinkShadow => Outcome::ShadowShrunk,
        Effect::FreezeSource => Outcome::SourceFrozen,
        Effect::DeleteSource => Outcome::SourceDeleted,
        Effect::KillSource => Outcome::SourceKilled,
        Effect::RestoreReplacement => {
            Outcome::ReplacementRestored(Restored { pod: "r".into(), name: "web-0".into(), ip: None })
        }
        Effect::SwitchReaders => Outcome::ReadersSwitched,
        Effect::Resume => Outcome::Resumed,
        Effect::RemoveShadow => Outcome::ShadowRemoved,
        Effect::CloseArchives => Outcome::ArchivesClosed,
        Effect::DropParking => Outcome::ParkingDropped,
        Effect::WithdrawShadow => Outcome::ShadowWithdrawn,
        Effect::ThawSource => Outcome::SourceThawed,
        Effect::ResumeSource => Outcome::SourceResumed,
        Effect::EvictSource => Outcome::SourceEvicted,
    }
}
