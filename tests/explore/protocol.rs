//! The product's `step`, remembered: its states are numbered, so that a world is small. Nothing is re-modelled; the
//! seeded mistakes that change the protocol change what goes into `step` or comes out of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use shadow::api::{NodeName, Reason};
use shadow::protocol::{Archive, Effect, Event, Failure, Outcome, Plan, Restored, ShadowAt, State, step};

use super::mistake::Mistake;
use super::mixing::Mixing;
use super::places::{HOME, OTHER, TARGET};

/// An event without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    Admitted,
    Refused,
    Done(Effect),
    /// For good or so that another attempt makes sense.
    Failed(Effect, bool),
    /// As it will every time.
    Stands(Effect),
    /// The machine on which it is to be done is gone.
    Lost(Effect),
    /// The ticket could not be spent: what it restored was let go and lives.
    Lives,
    /// The pod that was to carry on will never claim its ticket.
    Forsaken,
    StepTimedOut,
    Abort,
    DeadlineExceeded,
    SourceGone,
    RetryDue,
    Retry,
    GiveUp,
}

/// What the world needs to know of a state.
pub struct Facts {
    pub state: State,
    pub epoch: u8,
    pub life: u8,
    /// Where the pod is to carry on.
    pub place: usize,
    pub outstanding: Vec<Effect>,
}

impl Facts {
    fn new(state: State) -> Self {
        Self {
            epoch: u8::try_from(state.epoch.0).expect("few epochs"),
            life: u8::try_from(state.life.0).expect("few lives"),
            place: state.target.as_ref().map_or(TARGET, place),
            outstanding: state.outstanding(),
            state,
        }
    }

    /// All that have heard of this migration.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        let left = self.state.left.iter().map(place).any(|left| left == OTHER);
        let other = (self.place == OTHER || left).then_some(OTHER);
        [HOME, TARGET].into_iter().chain(other)
    }
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn place(node: &NodeName) -> usize {
    NODES.iter().position(|name| *name == node.as_str()).expect("one of the three")
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
        book.known.push(Rc::new(Facts::new(state.clone())));
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
    let failed = |effect, failure| Event::Failed(state.turn(), effect, failure);
    match happening {
        Happening::Admitted => Event::Admitted,
        Happening::Refused => Event::Refused(Failure::terminal(Reason::HostNetwork, "")),
        Happening::Done(effect) => Event::Done(state.turn(), outcome(state, effect)),
        Happening::Failed(effect, true) => failed(effect, Failure::retryable(Reason::DumpFailed, "")),
        Happening::Failed(effect, false) => failed(effect, Failure::terminal(Reason::DumpFailed, "")),
        Happening::Stands(effect) => failed(effect, Failure::retryable(Reason::RestoreFailed, "as ever")),
        Happening::Lost(effect) => failed(effect, Failure::terminal(Reason::TargetLost, "")),
        Happening::Lives => Event::Done(state.turn(), Outcome::ReplacementLives(replacement())),
        Happening::Forsaken => failed(Effect::RestoreReplacement, Failure::terminal(Reason::SourceGone, "")),
        Happening::StepTimedOut => Event::StepTimedOut,
        Happening::Abort => Event::Abort,
        Happening::DeadlineExceeded => Event::DeadlineExceeded,
        Happening::SourceGone => Event::SourceGone,
        Happening::RetryDue => Event::RetryDue,
        Happening::Retry => Event::Retry,
        Happening::GiveUp => Event::GiveUp,
    }
}

fn replacement() -> Restored {
    Restored { pod: "r".into(), name: "web-0".into(), ip: None }
}

/// What an effect finds, without what only people read.
pub fn outcome(state: &State, effect: Effect) -> Outcome {
    let node = |at: usize| NodeName::from(NODES[at]);
    match effect {
        Effect::DeclareParking => Outcome::ParkingDeclared,
        Effect::PlaceShadow => Outcome::ShadowPlaced(ShadowAt {
            node: node(TARGET),
            pod: "s".into(),
            ip: None,
            image: None,
            pulls_always: false,
        }),
        Effect::Park => Outcome::Parked { position: None },
        Effect::Dump => Outcome::Dumped(Archive { digest: "d".into(), bytes: 1, frozen_ms: 1 }),
        Effect::RestoreShadow => Outcome::ShadowRestored,
        Effect::ConfirmShadow => Outcome::ShadowConfirmed,
        Effect::AddBridge => Outcome::BridgeAdded,
        Effect::ShrinkShadow => Outcome::ShadowShrunk,
        Effect::FreezeSource => Outcome::SourceFrozen,
        Effect::DeleteSource => Outcome::SourceDeleted,
        Effect::KillSource => Outcome::SourceKilled,
        Effect::RestoreReplacement => Outcome::ReplacementRestored(replacement()),
        Effect::ConfirmReplacement => Outcome::ReplacementConfirmed,
        Effect::SpendTicket => Outcome::TicketSpent,
        Effect::ChooseNode if state.target == Some(node(OTHER)) => Outcome::NodeChosen(node(TARGET)),
        Effect::ChooseNode => Outcome::NodeChosen(node(OTHER)),
        Effect::CarryArchive => Outcome::ArchiveCarried,
        Effect::ReturnArchive => Outcome::ArchiveReturned(node(HOME)),
        Effect::KeepArchive => Outcome::ArchiveKept,
        Effect::ReleaseReplacement => Outcome::ReplacementReleased,
        Effect::SwitchReaders => Outcome::ReadersSwitched,
        Effect::Resume => Outcome::Resumed { position: None },
        Effect::RemoveShadow => Outcome::ShadowRemoved,
        Effect::CloseArchives => Outcome::ArchivesClosed,
        Effect::DropParking => Outcome::ParkingDropped,
        Effect::WithdrawShadow => Outcome::ShadowWithdrawn,
        Effect::ThawSource => Outcome::SourceThawed,
        Effect::ResumeSource => Outcome::SourceResumed,
        Effect::EvictSource => Outcome::SourceEvicted,
    }
}
