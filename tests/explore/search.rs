//! Breadth-first search over all worlds: the first violation found has the shortest story. Then, backwards from the
//! good ends: from every world one must be reachable by what happens without further faults.

use std::hash::{BuildHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::mixing::Mixing;
use super::model::Model;
use super::moves::{Act, Moves};
use super::story::Story;
use super::world::World;

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

const EMPTY: u32 = u32::MAX;

/// All worlds seen, each with where it was first reached from.
struct Seen {
    worlds: Vec<World>,
    parents: Vec<u32>,
    slots: Vec<u32>,
}

impl Seen {
    fn new() -> Self {
        Self { worlds: Vec::new(), parents: Vec::new(), slots: vec![EMPTY; 1 << 16] }
    }

    /// The number of a world, and whether it is new.
    fn add(&mut self, world: World, parent: u32) -> (u32, bool) {
        if self.worlds.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(&world);
        if self.slots[slot] != EMPTY {
            return (self.slots[slot], false);
        }
        let number = u32::try_from(self.worlds.len()).expect("fewer than 2^32 worlds");
        self.slots[slot] = number;
        self.worlds.push(world);
        self.parents.push(parent);
        (number, true)
    }

    fn slot(&self, world: &World) -> usize {
        let mask = self.slots.len() - 1;
        let mut hasher = Mixing.build_hasher();
        world.hash(&mut hasher);
        let mut slot = usize::try_from(hasher.finish()).unwrap_or(0) & mask;
        while self.slots[slot] != EMPTY && self.worlds[self.slots[slot] as usize] != *world {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![EMPTY; self.slots.len() * 2];
        for number in 0..self.worlds.len() {
            let slot = self.slot(&self.worlds[number]);
            self.slots[slot] = u32::try_from(number).expect("fewer than 2^32 worlds");
        }
    }

    /// How a world came about, from the beginning.
    fn story(&self, model: &Model, mut number: u32) -> Vec<(Act, World)> {
        let mut story = Vec::new();
        let mut moves = Moves::default();
        while self.parents[number as usize] != EMPTY {
            let parent = self.parents[number as usize];
            model.ways_on(&self.worlds[parent as usize], &mut moves);
            let world = self.worlds[number as usize];
            let act = moves.all.iter().find(|way| way.world == world).expect("it came from there").act;
            story.push((act, world));
            number = parent;
        }
        story.reverse();
        story
    }
}

/// Explores at most `limit` worlds.
pub fn explore(model: &Model, limit: usize) -> Report {
    let begun = Instant::now();
    let mut seen = Seen::new();
    let mut moves = Moves::default();
    // Successors without faults, one world after the other.
    let mut edges: Vec<u32> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    let (mut transitions, mut depth) = (0, 0);
    let mut violation = None;
    seen.add(model.beginning(), EMPTY);
    let mut next = 0;
    let mut layer_ends = 1;
    while next < seen.worlds.len() && seen.worlds.len() < limit && violation.is_none() {
        if next == layer_ends {
            (depth, layer_ends) = (depth + 1, seen.worlds.len());
        }
        let number = u32::try_from(next).expect("fewer than 2^32 worlds");
        model.ways_on(&seen.worlds[next], &mut moves);
        transitions += moves.all.len();
        for way in &moves.all {
            if let Some(rule) = way.violation {
                let mut story = seen.story(model, number);
                story.push((way.act, way.world));
                violation = Some(Story::new(model, story, vec![rule]));
                break;
            }
            let (to, _) = seen.add(way.world, number);
            if !way.is_fault {
                edges.push(to);
            }
        }
        ends.push(edges.len());
        next += 1;
    }
    let incomplete = violation.is_none() && next < seen.worlds.len();
    if violation.is_none() && !incomplete {
        violation = stuck(model, &seen, &edges, &ends);
    }
    Report {
        states: seen.worlds.len(),
        transitions,
        depth,
        protocol_states: model.protocol.states(),
        took: begun.elapsed(),
        violation,
        incomplete,
    }
}

/// The first world from which no good end can be reached.
fn stuck(model: &Model, seen: &Seen, edges: &[u32], ends: &[usize]) -> Option<Story> {
    let worlds = seen.worlds.len();
    let mut before = vec![0_u32; worlds + 1];
    for to in edges {
        before[*to as usize + 1] += 1;
    }
    for number in 0..worlds {
        before[number + 1] += before[number];
    }
    let mut free = before.clone();
    let mut predecessors = vec![0_u32; edges.len()];
    let mut begin = 0;
    for (from, end) in ends.iter().enumerate() {
        for to in &edges[begin..*end] {
            predecessors[free[*to as usize] as usize] = u32::try_from(from).expect("fewer than 2^32 worlds");
            free[*to as usize] += 1;
        }
        begin = *end;
    }
    let mut ends_well = vec![false; worlds];
    let mut todo: Vec<u32> = Vec::new();
    for (number, world) in seen.worlds.iter().enumerate() {
        if model.is_good_end(world) {
            ends_well[number] = true;
            todo.push(u32::try_from(number).expect("fewer than 2^32 worlds"));
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
    let first = u32::try_from(ends_well.iter().position(|well| !well)?).expect("fewer than 2^32 worlds");
    let story = seen.story(model, first);
    let lacks = best_that_follows(model, seen, edges, ends, first);
    Some(Story::new(model, story, lacks))
}

/// What is missing in the best world that can still be reached: why it is stuck.
fn best_that_follows(
    model: &Model,
    seen: &Seen,
    edges: &[u32],
    ends: &[usize],
    from: u32,
) -> Vec<&'static str> {
    let mut visited = std::collections::HashSet::from([from]);
    let mut todo = vec![from];
    let mut best = model.missing(&seen.worlds[from as usize]);
    while let Some(number) = todo.pop() {
        let missing = model.missing(&seen.worlds[number as usize]);
        if missing.len() < best.len() {
            best = missing;
        }
        let at = number as usize;
        let begin = if at == 0 { 0 } else { ends[at - 1] };
        todo.extend(edges[begin..ends[at]].iter().filter(|to| visited.insert(**to)));
    }
    best
}
