//! Which migrations may move: one per owner, two out of a node, five in the cluster; higher priority first, then the older.
//! First those that have begun already and gave their slot back meanwhile, then those that wait, where a node has room. Pure.

use std::collections::HashMap;

use super::claim::Claim;
use super::slot::Standing;
use crate::api::{MigrationUid, NodeName};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub per_node: usize,
    pub per_cluster: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_node: 2, per_cluster: 5 }
    }
}

/// Who holds what.
#[derive(Default)]
struct Held<'a> {
    owners: HashMap<&'a str, usize>,
    nodes: HashMap<&'a NodeName, usize>,
    total: usize,
}

impl<'a> Held<'a> {
    fn by(claims: &'a [Claim]) -> Self {
        let mut held = Self::default();
        for claim in claims.iter().filter(|claim| claim.holds_owner()) {
            *held.owners.entry(&claim.owner).or_default() += 1;
        }
        for claim in claims.iter().filter(|claim| claim.standing == Standing::Moves) {
            held.take(claim);
        }
        held
    }

    fn has_slot(&self, claim: &Claim, limits: Limits) -> bool {
        let out = self.nodes.get(&claim.node).copied().unwrap_or_default();
        self.total < limits.per_cluster && out < limits.per_node
    }

    fn take(&mut self, claim: &'a Claim) {
        *self.nodes.entry(&claim.node).or_default() += 1;
        self.total += 1;
    }
}

/// In the order in which they are let go.
fn in_turn(claims: &[Claim], wants: impl Fn(Standing) -> bool) -> Vec<&Claim> {
    let mut found: Vec<_> = claims.iter().filter(|claim| wants(claim.standing)).collect();
    found.sort_by(|a, b| {
        b.priority.cmp(&a.priority).then_with(|| a.created.cmp(&b.created)).then_with(|| a.uid.cmp(&b.uid))
    });
    found
}

/// UIDs of the migrations that get their slot back now. They have their owner and their room; no process of their pods may
/// be alive, so they go before all that wait.
pub fn regained(claims: &[Claim], limits: Limits) -> Vec<MigrationUid> {
    let mut held = Held::by(claims);
    let mut back = Vec::new();
    for claim in in_turn(claims, |standing| matches!(standing, Standing::Returns(_))) {
        if held.has_slot(claim, limits) {
            held.take(claim);
            back.push(claim.uid.clone());
        }
    }
    back
}

/// UIDs of the waiting migrations that may start now, once nobody who could have it wants a slot back ([`regained`]). `place`
/// is asked last, for one that has a slot: is there a node for it? One without keeps nobody else waiting.
pub fn admissible(
    claims: &[Claim],
    limits: Limits,
    mut place: impl FnMut(&Claim) -> bool,
) -> Vec<MigrationUid> {
    let mut held = Held::by(claims);
    let mut admitted = Vec::new();
    for claim in in_turn(claims, |standing| standing == Standing::Waits) {
        let is_alone = held.owners.get(claim.owner.as_str()).is_none_or(|owned| *owned == 0);
        if is_alone && held.has_slot(claim, limits) && place(claim) {
            *held.owners.entry(&claim.owner).or_default() += 1;
            held.take(claim);
            admitted.push(claim.uid.clone());
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::slot::{OwnSlot, Slot};
    use super::*;
    use crate::api::Epoch;
    use crate::protocol::Step;

    fn claim(uid: &str, owner: &str, node: &str, priority: i32, standing: Standing) -> Claim {
        Claim {
            uid: uid.into(),
            epoch: Epoch(1),
            owner: owner.into(),
            node: node.into(),
            priority,
            created: format!("2026-01-01T00:00:0{}Z", uid.len()),
            standing,
            bytes: Ok(0),
            wanted: None,
            reservation: None,
            is_placed: false,
        }
    }

    fn admitted(claims: &[Claim]) -> Vec<String> {
        admissible(claims, Limits::default(), |_| true).into_iter().map(|uid| uid.0).collect()
    }

    #[test]
    fn one_per_owner_two_per_node_five_per_cluster() {
        let claims: Vec<_> = (0..12)
            .map(|i| {
                claim(&format!("m{i:02}"), &format!("o{}", i / 2), &format!("n{}", i / 6), 0, Standing::Waits)
            })
            .collect();
        assert_eq!(admitted(&claims), ["m00", "m02", "m06", "m08"]);
    }

    #[test]
    fn who_works_counts() {
        let claims = [
            claim("a", "o1", "n1", 0, Standing::Moves),
            claim("b", "o1", "n2", 0, Standing::Waits),
            claim("c", "o2", "n1", 0, Standing::Waits),
        ];
        assert_eq!(admitted(&claims), ["c"]);
    }

    #[test]
    fn who_tidies_up_keeps_its_owner_and_no_slot() {
        let claims = [
            claim("a", "o1", "n1", 0, Standing::TidiesUp),
            claim("b", "o1", "n2", 0, Standing::Waits),
            claim("c", "o2", "n1", 0, Standing::Waits),
            claim("d", "o3", "n1", 0, Standing::Moves),
        ];
        assert_eq!(admitted(&claims), ["c"]);
    }

    #[test]
    fn who_backs_off_takes_no_slot_and_gets_none() {
        let claims = [
            claim("a", "o1", "n1", 0, Standing::Rests),
            claim("b", "o1", "n1", 0, Standing::Waits),
            claim("c", "o2", "n1", 0, Standing::Waits),
        ];
        assert_eq!(admitted(&claims), ["b", "c"]);
    }

    #[test]
    fn who_comes_back_goes_first_and_breaks_no_limit() {
        let mut claims = vec![
            claim("a", "o1", "n1", 0, Standing::Returns(1)),
            claim("b", "o2", "n1", 9, Standing::Waits),
            claim("c", "o3", "n1", 0, Standing::Moves),
            claim("d", "o4", "n1", 1, Standing::Returns(7)),
        ];
        let back = |claims: &[Claim]| regained(claims, Limits::default());
        assert_eq!(back(&claims), ["d".into()], "two out of a node");
        claims[3].standing = Standing::Moves;
        assert_eq!(back(&claims), []);
        assert_eq!(admitted(&claims), Vec::<String>::new());
        claims[2].standing = Standing::Rests;
        assert_eq!(back(&claims), ["a".into()], "before any that only waits, whatever its priority");
        let mut full: Vec<_> =
            (0..5).map(|i| claim("m", &format!("x{i}"), &format!("m{i}"), 0, Standing::Moves)).collect();
        full.push(claim("z", "o9", "n9", 0, Standing::Returns(1)));
        assert_eq!(back(&full), [], "five in the cluster");
    }

    /// Of each one the machine is silent every now and then, for longer or shorter than it is borne.
    #[test]
    fn however_machines_come_and_go_no_more_move_than_may_and_each_gets_its_turn() {
        let (begun, limits) = (Instant::now(), Limits { per_node: 2, per_cluster: 3 });
        let mut all: Vec<OwnSlot> = (0..6).map(|_| OwnSlot::new(Step::Replacing, false)).collect();
        let mut moved = [0_u32; 6];
        for second in 0..3000_u64 {
            for (index, own) in (0_u64..).zip(&mut all) {
                let is_silent = (second / (11 * (index + 2))) % 2 == 1;
                own.look(Step::Replacing, is_silent, begun + Duration::from_secs(second));
            }
            let claims: Vec<Claim> = (0..6)
                .map(|index| {
                    let (name, node) = (index.to_string(), format!("n{}", index % 2));
                    claim(&name, &name, &node, 0, all[index].get().standing())
                })
                .collect();
            for uid in regained(&claims, limits) {
                let index: usize = uid.as_str().parse().unwrap();
                let Standing::Returns(time) = claims[index].standing else { panic!("it has not asked") };
                assert!(all[index].regain(time));
            }
            let held: Vec<usize> = (0..6).filter(|index| all[*index].get() == Slot::Held).collect();
            assert!(held.len() <= limits.per_cluster, "{second}: {held:?}");
            for node in 0..2 {
                assert!(held.iter().filter(|index| *index % 2 == node).count() <= limits.per_node);
            }
            for index in &held {
                moved[*index] += 1;
            }
        }
        assert!(moved.iter().all(|seconds| *seconds > 100), "{moved:?}");
    }

    #[test]
    fn who_wants_its_slot_back_keeps_its_owner() {
        let claims = [
            claim("a", "o1", "n1", 0, Standing::Returns(1)),
            claim("b", "o1", "n2", 0, Standing::Waits),
            claim("c", "o2", "n2", 0, Standing::Waits),
        ];
        assert_eq!(admitted(&claims), ["c"]);
    }

    #[test]
    fn higher_priority_goes_first() {
        let claims = [claim("a", "o", "n", 0, Standing::Waits), claim("b", "o", "n", 9, Standing::Waits)];
        assert_eq!(admitted(&claims), ["b"]);
    }

    #[test]
    fn one_that_no_node_takes_lets_the_next_go() {
        let claims = [claim("a", "o", "n", 9, Standing::Waits), claim("b", "o", "n", 0, Standing::Waits)];
        let fits = |claim: &Claim| claim.uid.as_str() == "b";
        assert_eq!(admissible(&claims, Limits::default(), fits), ["b".into()]);
    }
}
