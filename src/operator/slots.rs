//! Which waiting migrations may start: one per owner, two out of a node, five in the cluster; higher priority first,
//! then the older. Pure.

use std::collections::HashMap;

use super::subject::Subject;

/// A live migration as far as slots are concerned.
#[derive(Clone, Debug)]
pub struct Claim {
    pub uid: String,
    pub owner: String,
    pub node: String,
    pub priority: i32,
    /// RFC 3339, sorts as text.
    pub created: String,
    /// It works already (it holds a slot); otherwise it waits for one, or tidies up.
    pub active: bool,
    /// No other pod of its owner may begin to move.
    pub holds_owner: bool,
}

impl Claim {
    /// One that waits.
    pub fn new(uid: &str, subject: &Subject, priority: i32, created: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            owner: subject.owner_uid.clone(),
            node: subject.node.0.clone(),
            priority,
            created: created.to_owned(),
            active: false,
            holds_owner: false,
        }
    }
}

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

/// UIDs of the waiting migrations that may start now.
pub fn admissible(claims: &[Claim], limits: Limits) -> Vec<String> {
    let mut owners: HashMap<&str, usize> = HashMap::new();
    let mut nodes: HashMap<&str, usize> = HashMap::new();
    let mut total = 0;
    for claim in claims.iter().filter(|claim| claim.holds_owner) {
        *owners.entry(&claim.owner).or_default() += 1;
    }
    for claim in claims.iter().filter(|claim| claim.active) {
        *nodes.entry(&claim.node).or_default() += 1;
        total += 1;
    }
    let mut waiting: Vec<_> = claims.iter().filter(|claim| !claim.holds_owner).collect();
    waiting.sort_by(|a, b| {
        b.priority.cmp(&a.priority).then_with(|| a.created.cmp(&b.created)).then_with(|| a.uid.cmp(&b.uid))
    });
    let mut admitted = Vec::new();
    for claim in waiting {
        let owner = owners.entry(&claim.owner).or_default();
        let node = nodes.entry(&claim.node).or_default();
        if total < limits.per_cluster && *owner == 0 && *node < limits.per_node {
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

    fn claim(uid: &str, owner: &str, node: &str, priority: i32, active: bool) -> Claim {
        Claim {
            uid: uid.into(),
            owner: owner.into(),
            node: node.into(),
            priority,
            created: format!("2026-01-01T00:00:0{}Z", uid.len()),
            active,
            holds_owner: active,
        }
    }

    #[test]
    fn one_per_owner_two_per_node_five_per_cluster() {
        let claims: Vec<_> = (0..12)
            .map(|i| claim(&format!("m{i:02}"), &format!("o{}", i / 2), &format!("n{}", i / 6), 0, false))
            .collect();
        assert_eq!(admissible(&claims, Limits::default()), ["m00", "m02", "m06", "m08"]);
    }

    #[test]
    fn who_works_counts() {
        let claims = [
            claim("a", "o1", "n1", 0, true),
            claim("b", "o1", "n2", 0, false),
            claim("c", "o2", "n1", 0, false),
        ];
        assert_eq!(admissible(&claims, Limits::default()), ["c"]);
    }

    #[test]
    fn who_tidies_up_keeps_its_owner_and_no_slot() {
        let tidying = Claim { holds_owner: true, ..claim("a", "o1", "n1", 0, false) };
        let claims = [
            tidying,
            claim("b", "o1", "n2", 0, false),
            claim("c", "o2", "n1", 0, false),
            claim("d", "o3", "n1", 0, true),
        ];
        assert_eq!(admissible(&claims, Limits::default()), ["c"]);
    }

    #[test]
    fn higher_priority_goes_first() {
        let claims = [claim("a", "o", "n", 0, false), claim("b", "o", "n", 9, false)];
        assert_eq!(admissible(&claims, Limits::default()), ["b"]);
    }
}
