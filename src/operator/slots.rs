//! Which waiting migrations may start: one per owner, two out of a node, five in the cluster; higher priority first,
//! then the older; and only where a node has room. Pure.

use std::collections::HashMap;

use super::claim::{Claim, Standing};
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

/// UIDs of the waiting migrations that may start now. `place` is asked last, for one that has a slot: is there a node for
/// it? One without keeps nobody else waiting.
pub fn admissible(
    claims: &[Claim],
    limits: Limits,
    mut place: impl FnMut(&Claim) -> bool,
) -> Vec<MigrationUid> {
    let mut owners: HashMap<&str, usize> = HashMap::new();
    let mut nodes: HashMap<&NodeName, usize> = HashMap::new();
    let mut total = 0;
    for claim in claims.iter().filter(|claim| claim.holds_owner()) {
        *owners.entry(&claim.owner).or_default() += 1;
    }
    for claim in claims.iter().filter(|claim| claim.standing == Standing::Moves) {
        *nodes.entry(&claim.node).or_default() += 1;
        total += 1;
    }
    let mut waiting: Vec<_> = claims.iter().filter(|claim| claim.standing == Standing::Waits).collect();
    waiting.sort_by(|a, b| {
        b.priority.cmp(&a.priority).then_with(|| a.created.cmp(&b.created)).then_with(|| a.uid.cmp(&b.uid))
    });
    let mut admitted = Vec::new();
    for claim in waiting {
        let owner = owners.entry(&claim.owner).or_default();
        let node = nodes.entry(&claim.node).or_default();
        if total < limits.per_cluster && *owner == 0 && *node < limits.per_node && place(claim) {
            *owner += 1;
            *node += 1;
            total += 1;
            admitted.push(claim.uid.clone());
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Epoch;

    fn claim(uid: &str, owner: &str, node: &str, priority: i32, standing: Standing) -> Claim {
        Claim {
            uid: uid.into(),
            epoch: Epoch(1),
            owner: owner.into(),
            node: node.into(),
            priority,
            created: format!("2026-01-01T00:00:0{}Z", uid.len()),
            standing,
            bytes: Some(0),
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
