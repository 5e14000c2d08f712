//! What takes too long for every run is done in part, another part each time, and whole by a command of its own.

use std::fmt;
use std::time::SystemTime;

/// One of `each`, from the one after `skip` others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    name: &'static str,
    pub each: usize,
    pub skip: usize,
}

impl Sample {
    /// One of `otherwise` from a place by chance, unless `NAME_EACH` and `NAME_SKIP` say it as an earlier run has told it.
    pub fn of(name: &'static str, otherwise: usize) -> Self {
        let setting =
            |what| std::env::var(format!("{name}_{what}")).ok().and_then(|value| value.parse().ok());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let by_chance = now.map_or(0, |since| usize::try_from(since.subsec_micros()).unwrap_or(0));
        let each = setting("EACH").unwrap_or(otherwise).max(1);
        Self { name, each, skip: setting("SKIP").unwrap_or(by_chance) % each }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0}_EACH={1} {0}_SKIP={2}", self.name, self.each, self.skip)
    }
}
