//! Strikes every call of a scenario in turn and says what came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::run::{Outcome, play};
use super::scenario::Scenario;
use super::wire::{Blow, Side, Strike};
use crate::sample::Sample;

/// Until SHADOW's processes are there again.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(25);
/// No scenario does with fewer.
const FEW_CALLS: usize = 20;

/// Of how many calls `make test` strikes one; `make crash` strikes all.
const EACH: usize = 4;

/// How many calls at the end some runs make and others do not: what is tidied up last depends on who is faster.
const LAST_CALLS: usize = 3;

/// What is done at every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// All of SHADOW dies, before and after, and is back soon.
    Crash,
    /// The same, and it is away for long.
    LongCrash,
    /// The connection breaks, before and after.
    Cut,
    /// A second operator starts.
    Rival,
    /// A second operator starts, and the call arrives late.
    Late,
    /// The same, with one delay only.
    LateOnce,
    /// So late that it arrives in the attempt after the next back-off.
    LateIntoNextAttempt,
}

impl Every {
    fn strikes(self) -> Vec<Strike> {
        match self {
            Self::Crash => [Side::Before, Side::After].map(|side| Strike::Crash(side, SOON)).to_vec(),
            Self::LongCrash => [Side::Before, Side::After].map(|side| Strike::Crash(side, LATE)).to_vec(),
            Self::Cut => vec![Strike::Cut(Side::Before), Strike::Cut(Side::After)],
            Self::Rival => vec![Strike::Rival],
            Self::LateOnce => vec![Strike::RivalAndLate(Duration::from_secs(2))],
            Self::LateIntoNextAttempt => {
                let delays = [20_050, 20_065, 20_080, 20_095];
                delays.map(|ms| Strike::RivalAndLate(Duration::from_millis(ms))).to_vec()
            }
            // Soon, when the other one is in the middle of it, and long after.
            Self::Late => {
                [100, 2_000, 45_000].map(|ms| Strike::RivalAndLate(Duration::from_millis(ms))).to_vec()
            }
        }
    }
}

/// What all the runs came to.
#[derive(Default)]
pub struct Summary {
    pub points: usize,
    pub calls: usize,
    pub runs: usize,
    /// The calls that were struck.
    sample: Option<Sample>,
    /// The last call that was struck.
    last: usize,
    /// Runs for a call that every run makes, and how many of them were struck.
    sure: (usize, usize),
    /// Runs in which a deposed operator left something for the sweep.
    swept: usize,
    took: Duration,
    ends: BTreeMap<String, usize>,
    failed: Vec<(Blow, Outcome)>,
}

impl Summary {
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Why the sweep shows nothing, if it does not: it struck too seldom, or hardly any run ended as it should.
    pub fn shows_nothing(&self, wanted: Option<&str>) -> Option<String> {
        let as_wanted = |end: &str| wanted.is_some_and(|wanted| end.starts_with(wanted));
        let ended: usize = self.ends.iter().filter(|(end, _)| as_wanted(end)).map(|(_, runs)| runs).sum();
        let (runs, struck) = self.sure;
        if self.calls < FEW_CALLS
            || self.last + LAST_CALLS + self.sample.map_or(1, |sample| sample.each) <= self.calls
            || !nearly_all(struck, runs)
        {
            return Some(format!(
                "{} of {} runs were struck, {struck} of {runs} at calls that all make, of {} calls, the last of them {}",
                self.points, self.runs, self.calls, self.last
            ));
        }
        let wanted = wanted.filter(|_| !nearly_all(ended, self.runs))?;
        Some(format!("{ended} of {} runs {wanted}", self.runs))
    }

    /// One line for people.
    pub fn line(&self, what: &str) -> String {
        let ends: Vec<String> = self.ends.iter().map(|(end, runs)| format!("{runs} {end}")).collect();
        let verdict = match self.failed.len() {
            0 => "all exact".to_owned(),
            failed => format!("{failed} NOT EXACT"),
        };
        let swept = match self.swept {
            0 => String::new(),
            swept => format!("; {swept} left something of a deposed operator's"),
        };
        let sample = self.sample.map(|sample| sample.to_string()).unwrap_or_default();
        format!(
            "{what}: crash points: {} ({} calls, {sample}), runs {}, {verdict}; ended: {}{swept}; {:.1} s",
            self.points,
            self.calls,
            self.runs,
            ends.join(", "),
            self.took.as_secs_f64()
        )
    }

    /// The first failure as a story, the others in a line each.
    pub fn story(&self) -> String {
        let mut story = String::new();
        for (blow, outcome) in &self.failed {
            let _ =
                writeln!(story, "{blow:?}: {} in {:?}: {:?}", outcome.end, outcome.took, outcome.violations);
        }
        if let Some((_, outcome)) = self.failed.first() {
            let _ = writeln!(story, "{}", outcome.trace.join("\n"));
        }
        story
    }
}

/// Which of the calls are struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// All of them.
    End,
    /// As many as it takes to see that something is wrong.
    FirstFailure,
}

/// Strikes the calls of `scenario` one after the other, each in a run of its own.
pub fn sweep(scenario: Scenario, every: Every, until: Until) -> Summary {
    let begun = Instant::now();
    let undisturbed = play(scenario, None);
    let calls = undisturbed.calls;
    // What comes before is struck where nothing goes wrong after the commit.
    let first = undisturbed.before_commit.filter(|_| scenario.is_about_the_time_after()).unwrap_or(1);
    let sample = (until == Until::End).then(|| Sample::of("CRASH", EACH));
    let (skip, each) = sample.map_or((0, 1), |sample| (sample.skip, sample.each));
    let mut summary = Summary { calls, sample, ..Summary::default() };
    // Some runs make more calls than the first one did: those are struck, too.
    for call in (first + skip..=calls + LAST_CALLS).step_by(each) {
        let mut struck = false;
        for strike in every.strikes() {
            let blow = Blow { call, strike };
            let outcome = play(scenario, Some(blow));
            summary.points += usize::from(outcome.was_struck);
            summary.runs += 1;
            if call + LAST_CALLS <= calls {
                summary.sure.0 += 1;
                summary.sure.1 += usize::from(outcome.was_struck);
            }
            summary.swept += usize::from(outcome.by_the_deposed);
            *summary.ends.entry(outcome.end.clone()).or_default() += 1;
            struck |= outcome.was_struck;
            if !outcome.violations.is_empty() {
                summary.failed.push((blow, outcome));
            }
        }
        if struck {
            summary.last = call;
        } else if call > calls {
            break;
        }
        if until == Until::FirstFailure && summary.failures() > 0 {
            break;
        }
    }
    summary.took = begun.elapsed();
    summary
}

/// At least 95 %, or all but one of a small sample.
fn nearly_all(some: usize, of: usize) -> bool {
    some * 20 >= of * 19 || some + 1 >= of
}
