//! All worlds seen, each once, and where it was first reached from. A world is kept as the numbers of its two halves:
//! the broker with the processes, and everything else. Far fewer halves exist than worlds, so that a world takes 16 bytes
//! in place of 180, and it is still compared exactly.

use std::hash::{BuildHasher, Hash, Hasher};

use super::broker::Broker;
use super::mixing::Mixing;
use super::model::Model;
use super::moves::{Act, Moves};
use super::world::{Process, World};

pub const NONE: u32 = u32::MAX;

/// Things with numbers: the same thing has the same number.
struct Book<T> {
    things: Vec<T>,
    slots: Vec<u32>,
}

impl<T: Copy + Eq + Hash> Book<T> {
    fn new() -> Self {
        Self { things: Vec::new(), slots: vec![NONE; 1 << 12] }
    }

    /// The number, and whether it is new.
    fn add(&mut self, thing: T) -> (u32, bool) {
        if self.things.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(&thing);
        if self.slots[slot] != NONE {
            return (self.slots[slot], false);
        }
        let number = u32::try_from(self.things.len()).expect("fewer than 2^32");
        self.slots[slot] = number;
        self.things.push(thing);
        (number, true)
    }

    fn slot(&self, thing: &T) -> usize {
        let mask = self.slots.len() - 1;
        let mut hasher = Mixing.build_hasher();
        thing.hash(&mut hasher);
        let mut slot = usize::try_from(hasher.finish()).unwrap_or(0) & mask;
        while self.slots[slot] != NONE && self.things[self.slots[slot] as usize] != *thing {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![NONE; self.slots.len() * 2];
        for number in 0..self.things.len() {
            let slot = self.slot(&self.things[number]);
            self.slots[slot] = u32::try_from(number).expect("fewer than 2^32");
        }
    }
}

pub struct Seen {
    flows: Book<(Broker, [Process; 3])>,
    rests: Book<World>,
    worlds: Book<(u32, u32)>,
    parents: Vec<u32>,
}

impl Seen {
    pub fn new() -> Self {
        Self { flows: Book::new(), rests: Book::new(), worlds: Book::new(), parents: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// The number of a world.
    pub fn add(&mut self, world: World, parent: u32) -> u32 {
        let (flow, rest) = world.split();
        let key = (self.flows.add(flow).0, self.rests.add(rest).0);
        let (number, is_new) = self.worlds.add(key);
        if is_new {
            self.parents.push(parent);
        }
        number
    }

    pub fn world(&self, number: u32) -> World {
        let (flow, rest) = self.worlds.things[number as usize];
        World::join(self.flows.things[flow as usize], self.rests.things[rest as usize])
    }

    /// How a world came about, from the beginning, in the fewest steps.
    pub fn story(&self, model: &Model, mut number: u32) -> Vec<(Act, World)> {
        let mut story = Vec::new();
        let mut moves = Moves::default();
        while self.parents[number as usize] != NONE {
            let parent = self.parents[number as usize];
            model.ways_on(&self.world(parent), &mut moves);
            let world = self.world(number);
            let act = moves.all.iter().find(|way| way.world == world).expect("it came from there").act;
            story.push((act, world));
            number = parent;
        }
        story.reverse();
        story
    }
}
