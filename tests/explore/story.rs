//! A counterexample as a story, one line an action.

use std::fmt;

use super::model::Model;
use super::moves::Act;
use super::world::World;

pub struct Story {
    lines: Vec<String>,
    /// What does not hold.
    pub broken: Vec<&'static str>,
}

impl Story {
    pub fn new(model: &Model, story: Vec<(Act, World)>, broken: Vec<&'static str>) -> Self {
        let mut journal = model.beginning().journal;
        let lines = story
            .into_iter()
            .map(|(act, world)| {
                let mut line = act.to_string();
                if world.journal != journal {
                    let state = &model.protocol.facts(world.journal).state;
                    line = format!("{line}  -> {} (epoch {})", state.step.as_str(), state.epoch);
                    journal = world.journal;
                }
                line
            })
            .collect();
        Self { lines, broken }
    }

    /// That invariant is among those that do not hold.
    pub fn breaks(&self, invariant: &str) -> bool {
        self.broken.iter().any(|broken| {
            broken.strip_prefix(invariant).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.lines.iter().enumerate() {
            writeln!(f, "{:>4}  {line}", number + 1)?;
        }
        for broken in &self.broken {
            writeln!(f, "    => {broken}")?;
        }
        Ok(())
    }
}
