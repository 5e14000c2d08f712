//! Breadth-first search over all worlds: the first violation found has the shortest story. Then, backwards from the
//! good ends: from every world one must be reachable by what happens without further faults.
//!
//! # What makes the search smaller, and why nothing is missed
//! * All messages lie on the queue from the beginning. What a run with later publications does, this one does too: a
//!   message that is not there yet is one that is not delivered yet, for they are delivered in order, nothing asks
//!   whether the user's queue is empty, and that it exists and is bound is asked of every world (I10).
//! * A message that the other identity takes leaves the world, and those after it are numbered anew: nobody can tell.
//! * What is in the memory of a dead process whose connection is gone is forgotten: nothing reads it again.
//! * A repeated order or answer next to the same one adds nothing: the gate answers it again, answers are never taken away.
//! * A crash of the operator is no event: what it remembers beside the journal is never relied upon, so each effect and
//!   each piece of news may come any number of times.

use std::time::{Duration, Instant};

use super::model::Model;
use super::moves::Moves;
use super::seen::{NONE, Seen};
use super::story::Story;

/// What was found.
pub struct Report {
    pub states: usize,
    pub transitions: usize,
    pub depth: u32,
    pub protocol_states: usize,
    pub took: Duration,
    pub violation: Option<Story>,
    /// The search stopped at its limit.
    pub incomplete: bool,
}

/// Successors without faults, one world after the other.
#[derive(Default)]
struct Edges {
    to: Vec<u32>,
    ends: Vec<usize>,
}

impl Edges {
    fn of(&self, world: usize) -> &[u32] {
        let begin = if world == 0 { 0 } else { self.ends[world - 1] };
        &self.to[begin..self.ends[world]]
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 worlds")
}

/// Explores at most `limit` worlds.
pub fn explore(model: &Model, limit: usize) -> Report {
    let begun = Instant::now();
    let mut seen = Seen::new();
    let mut moves = Moves::default();
    let mut edges = Edges::default();
    let (mut transitions, mut depth) = (0, 0);
    let mut violation = None;
    seen.add(model.beginning(), NONE);
    let mut next = 0;
    let mut layer_ends = 1;
    while next < seen.len() && seen.len() < limit && violation.is_none() {
        if next == layer_ends {
            (depth, layer_ends) = (depth + 1, seen.len());
        }
        model.ways_on(&seen.world(number(next)), &mut moves);
        transitions += moves.all.len();
        for way in &moves.all {
            if let Some(rule) = way.violation {
                let mut story = seen.story(model, number(next));
                story.push((way.act, way.world));
                violation = Some(Story::new(model, story, vec![rule]));
                break;
            }
            let to = seen.add(way.world, number(next));
            if !way.is_fault {
                edges.to.push(to);
            }
        }
        edges.ends.push(edges.to.len());
        next += 1;
    }
    let incomplete = violation.is_none() && next < seen.len();
    if violation.is_none() && !incomplete {
        violation = stuck(model, &seen, &edges);
    }
    Report {
        states: seen.len(),
        transitions,
        depth,
        protocol_states: model.protocol.states(),
        took: begun.elapsed(),
        violation,
        incomplete,
    }
}

/// The first world from which no good end can be reached.
fn stuck(model: &Model, seen: &Seen, edges: &Edges) -> Option<Story> {
    let worlds = seen.len();
    let mut before = vec![0_u32; worlds + 1];
    for to in &edges.to {
        before[*to as usize + 1] += 1;
    }
    for number in 0..worlds {
        before[number + 1] += before[number];
    }
    let mut free = before.clone();
    let mut predecessors = vec![0_u32; edges.to.len()];
    for from in 0..worlds {
        for to in edges.of(from) {
            predecessors[free[*to as usize] as usize] = number(from);
            free[*to as usize] += 1;
        }
    }
    drop(free);
    let mut ends_well = vec![false; worlds];
    let mut todo: Vec<u32> = Vec::new();
    for (index, well) in ends_well.iter_mut().enumerate() {
        if model.is_good_end(&seen.world(number(index))) {
            *well = true;
            todo.push(number(index));
        }
    }
    while let Some(number) = todo.pop() {
        let range = before[number as usize] as usize..before[number as usize + 1] as usize;
        for from in &predecessors[range] {
            if !std::mem::replace(&mut ends_well[*from as usize], true) {
                todo.push(*from);
            }
        }
    }
    let first = number(ends_well.iter().position(|well| !well)?);
    let story = seen.story(model, first);
    Some(Story::new(model, story, best_that_follows(model, seen, edges, first)))
}

/// What is missing in the best world that can still be reached: why it is stuck. Best is one that has ended.
fn best_that_follows(model: &Model, seen: &Seen, edges: &Edges, from: u32) -> Vec<&'static str> {
    let mut visited = std::collections::HashSet::from([from]);
    let mut todo = vec![from];
    let rank = |number: u32| {
        let world = seen.world(number);
        let ended = model.protocol.facts(world.journal).state.step.is_terminal();
        (!ended, model.missing(&world))
    };
    let mut best = rank(from);
    while let Some(number) = todo.pop() {
        let (unended, missing) = rank(number);
        if (unended, missing.len()) < (best.0, best.1.len()) {
            best = (unended, missing);
        }
        todo.extend(edges.of(number as usize).iter().filter(|to| visited.insert(**to)));
    }
    best.1
}
