//! Migrations, found from either of their ends. No I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize as _;

use super::Index;
use crate::api::{
    ConditionType, Epoch, EvictionPolicy, Life, MigrationUid, NodeName, Phase, PodUid, Reason,
    StatefulMigration, TicketId,
};
use crate::protocol::Step;

/// What an answer needs to know of a migration.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each asked for by itself")]
pub struct MigrationFacts {
    pub namespace: String,
    pub name: String,
    pub uid: MigrationUid,
    pub source_pod: String,
    pub source_uid: Option<PodUid>,
    pub policy: EvictionPolicy,
    pub deadline: Duration,
    pub created: Option<Timestamp>,
    pub deleting: bool,
    pub abort: bool,
    pub phase: Phase,
    pub epoch: Epoch,
    /// Number of the ticket that the pod which takes over redeems.
    pub life: Life,
    pub committed: bool,
    /// Committed, and the source's owner has to make a pod that takes over.
    pub replacing: bool,
    /// It could be restored nowhere, and a person is waited for.
    pub stranded: bool,
    /// The pod carries on, or is to, on the node that it was to leave.
    pub went_home: bool,
    /// The pod carries on where it is; what the migration has made is taken away, however long a broker takes for that.
    pub tidying: bool,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub owner_uid: Option<String>,
    /// Which template of its owner the source was made from.
    pub source_revision: Option<String>,
    pub target_node: Option<NodeName>,
    pub replacement_uid: Option<PodUid>,
    /// Containers that are started anew.
    pub restart_fresh: Vec<String>,
    pub succeeded_at: Option<Timestamp>,
}

impl MigrationFacts {
    pub fn is_running(&self) -> bool {
        !self.phase.is_terminal()
    }

    /// The pod is on its way, or was just handed over.
    pub fn is_moving(&self) -> bool {
        self.is_running() && !self.tidying
    }

    pub fn ended_because(&self, reason: Reason) -> bool {
        self.phase == Phase::Failed && self.reason.as_deref() == Some(reason.as_str())
    }

    /// What its replacement is created with.
    pub fn replacement_ticket(&self) -> TicketId {
        TicketId::replacement(self.uid.clone(), self.epoch, self.life)
    }
}

impl From<StatefulMigration> for MigrationFacts {
    fn from(migration: StatefulMigration) -> Self {
        let (meta, spec) = (migration.metadata, migration.spec);
        let status = migration.status.unwrap_or_default();
        let step = status.step.as_deref().and_then(step_of);
        Self {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default().into(),
            source_pod: spec.source_pod,
            restart_fresh: spec.restart_fresh,
            policy: spec.policy,
            deadline: Duration::from_secs(spec.deadline_seconds),
            created: meta.creation_timestamp.map(|time| time.0),
            deleting: meta.deletion_timestamp.is_some(),
            abort: spec.abort,
            replacing: status.committed
                && !status.phase.is_terminal()
                && step.is_some_and(Step::awaits_replacement),
            stranded: step == Some(Step::Stranded),
            went_home: status.committed
                && status.target_node.is_some()
                && status.target_node == status.source_node,
            tidying: step == Some(Step::Cleaning),
            succeeded_at: status
                .conditions
                .iter()
                .find(|c| c.type_ == ConditionType::Succeeded.as_str() && c.status == "True")
                .map(|c| c.last_transition_time.0),
            phase: status.phase,
            epoch: status.epoch,
            life: status.life,
            committed: status.committed,
            reason: status.reason,
            message: status.message,
            source_uid: spec.source_pod_uid.or(status.source_pod_uid),
            owner_uid: status.owner_uid,
            source_revision: status.source_revision,
            target_node: status.target_node.map(NodeName::from),
            replacement_uid: status.replacement_pod_uid,
        }
    }
}

/// A step by the name that the status gives it, however that is capitalised.
fn step_of(name: &str) -> Option<Step> {
    let mut letters = name.chars();
    let first = letters.next()?.to_lowercase();
    let name = first.chain(letters).collect::<String>();
    Step::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&name)).ok()
}

type Found = Arc<MigrationFacts>;

/// Migrations by everything they are looked for by.
#[derive(Default)]
pub struct Migrations {
    names: HashMap<(String, String), Found>,
    uids: HashMap<MigrationUid, Found>,
    sources: HashMap<PodUid, Vec<Found>>,
    replacements: HashMap<PodUid, Vec<Found>>,
    owners: HashMap<String, Vec<Found>>,
    pod_names: HashMap<(String, String), Vec<Found>>,
}

impl Migrations {
    pub fn by_uid(&self, uid: &MigrationUid) -> Option<Found> {
        self.uids.get(uid).cloned()
    }

    pub fn from_pod(&self, source: &PodUid) -> Option<Found> {
        youngest(self.sources.get(source))
    }

    pub fn to_pod(&self, replacement: &PodUid) -> Option<Found> {
        youngest(self.replacements.get(replacement))
    }

    /// Those that may be waiting for a pod which this owner makes under this name (empty: the server's choice).
    pub fn of_owner(&self, namespace: &str, owner: &str, pod: &str) -> Vec<Found> {
        let by_owner = self.owners.get(owner).into_iter().flatten().filter(|m| m.namespace == namespace);
        let key = (namespace.to_owned(), pod.to_owned());
        // The owner is known to a migration once it was accepted; before, the name has to do.
        let by_name = self.pod_names.get(&key).into_iter().flatten().filter(|m| m.owner_uid.is_none());
        by_owner.chain(by_name).filter(|m| m.is_running()).cloned().collect()
    }

    /// The youngest that moved a pod of this name.
    pub fn of_pod_name(&self, namespace: &str, pod: &str) -> Option<Found> {
        youngest(self.pod_names.get(&(namespace.to_owned(), pod.to_owned())))
    }

    fn forget(&mut self, key: &(String, String)) {
        let Some(former) = self.names.remove(key) else { return };
        self.uids.remove(&former.uid);
        let pod_name = (former.namespace.clone(), former.source_pod.clone());
        drop_from(&mut self.pod_names, &pod_name, &former);
        if let Some(uid) = &former.source_uid {
            drop_from(&mut self.sources, uid, &former);
        }
        if let Some(uid) = &former.replacement_uid {
            drop_from(&mut self.replacements, uid, &former);
        }
        if let Some(uid) = &former.owner_uid {
            drop_from(&mut self.owners, uid, &former);
        }
    }
}

fn youngest(found: Option<&Vec<Found>>) -> Option<Found> {
    found?.iter().max_by_key(|m| (m.is_running(), m.created)).cloned()
}

fn drop_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Vec<Found>>, key: &K, former: &Found) {
    if let Some(found) = index.get_mut(key) {
        found.retain(|m| !Arc::ptr_eq(m, former));
        if found.is_empty() {
            index.remove(key);
        }
    }
}

impl Index for Migrations {
    type Object = MigrationFacts;

    fn insert(&mut self, migration: MigrationFacts) {
        let key = (migration.namespace.clone(), migration.name.clone());
        self.forget(&key);
        let found = Arc::new(migration);
        let add = || Arc::clone(&found);
        self.uids.insert(found.uid.clone(), add());
        self.pod_names.entry((found.namespace.clone(), found.source_pod.clone())).or_default().push(add());
        if let Some(uid) = &found.source_uid {
            self.sources.entry(uid.clone()).or_default().push(add());
        }
        if let Some(uid) = &found.replacement_uid {
            self.replacements.entry(uid.clone()).or_default().push(add());
        }
        if let Some(uid) = &found.owner_uid {
            self.owners.entry(uid.clone()).or_default().push(add());
        }
        self.names.insert(key, found);
    }

    fn remove(&mut self, migration: &MigrationFacts) {
        self.forget(&(migration.namespace.clone(), migration.name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(name: &str, status: &Value) -> MigrationFacts {
        let migration: StatefulMigration = serde_json::from_value(json!({
            "apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
            "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-{name}") },
            "spec": { "sourcePod": "web-0", "sourcePodUid": "source" },
            "status": status
        }))
        .unwrap();
        migration.into()
    }

    #[test]
    fn a_pod_is_awaited_from_the_commit_until_it_is_restored() {
        for (step, committed, expected) in [
            ("Bridging", false, false),
            ("Freezing", false, false),
            ("Freezing", true, true),
            ("Deleting", true, true),
            ("Replacing", true, true),
            ("replacing", true, true),
            ("Spending", true, true),
            ("Returning", true, true),
            ("Stranded", true, true),
            ("GivingUp", true, false),
            ("NoStepOfOurs", true, false),
            ("Switching", true, false),
            ("Cleaning", true, false),
        ] {
            let facts = facts("m", &json!({ "phase": "Finalizing", "step": step, "committed": committed }));
            assert_eq!(facts.replacing, expected, "{step}");
            assert_eq!(facts.is_moving(), step != "Cleaning", "{step}");
        }
    }

    #[test]
    fn a_pod_that_is_awaited_gets_the_ticket_of_the_way_that_is_tried() {
        let first = facts("m", &json!({ "committed": true, "epoch": 2 }));
        assert_eq!(first.replacement_ticket().to_string(), "uid-m.2.replacement");
        let home =
            json!({ "committed": true, "epoch": 2, "life": 3, "sourceNode": "n1", "targetNode": "n1" });
        let home = facts("m", &home);
        assert_eq!((home.replacement_ticket().life, home.went_home), (Life(3), true));
        assert!(!first.went_home);
    }

    #[test]
    fn what_changes_its_ends_is_found_by_the_new_ones_only() {
        let mut index = Migrations::default();
        index.insert(facts("m", &json!({ "ownerUid": "a", "replacementPodUid": "x" })));
        index.insert(facts("m", &json!({ "ownerUid": "b", "replacementPodUid": "y" })));
        assert!(index.of_owner("ns", "a", "web-0").is_empty());
        assert_eq!(index.of_owner("ns", "b", "").len(), 1);
        assert!(index.to_pod(&"x".into()).is_none());
        assert!(index.to_pod(&"y".into()).is_some());
        index.remove(&facts("m", &Value::Null));
        assert!(index.from_pod(&"source".into()).is_none() && index.uids.is_empty());
        assert!(index.owners.is_empty() && index.pod_names.is_empty() && index.replacements.is_empty());
    }

    #[test]
    fn one_that_is_not_accepted_yet_is_found_by_the_name_of_the_pod() {
        let mut index = Migrations::default();
        index.insert(facts("m", &Value::Null));
        assert_eq!(index.of_owner("ns", "any", "web-0").len(), 1);
        assert!(index.of_owner("ns", "any", "web-1").is_empty());
        assert!(index.of_owner("other", "any", "web-0").is_empty());
    }

    #[test]
    fn a_running_migration_hides_the_ended_ones_of_the_same_pod() {
        let mut index = Migrations::default();
        index.insert(facts("running", &json!({ "phase": "Pending" })));
        index.insert(facts("ended", &json!({ "phase": "Failed" })));
        assert_eq!(index.from_pod(&"source".into()).unwrap().name, "running");
    }
}
