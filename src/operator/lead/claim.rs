//! What a live migration claims: a slot, its owner, room on nodes. Read off its object and journal; pure.

use kube::ResourceExt as _;

use super::slot::{Slot, Standing};
use crate::api::{Epoch, HeldRoom, MigrationUid, NodeName, StatefulMigration};
use crate::operator::drive::journal::on_record;
use crate::operator::drive::subject::Journal;
use crate::placement::Reservation;
use crate::protocol::Step;

/// How large the next attempt's archive will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    NotAsked,
    /// The source's agent did not say; why.
    Unknown(String),
    Bytes(u64),
}

/// A live migration as far as slots and room are concerned.
#[derive(Clone, Debug)]
pub struct Claim {
    pub uid: MigrationUid,
    pub epoch: Epoch,
    pub owner: String,
    pub node: NodeName,
    pub priority: i32,
    /// RFC 3339, sorts as text.
    pub created: String,
    pub standing: Standing,
    /// Expected size of its archive; why it is not known.
    pub bytes: Result<u64, String>,
    /// The node that somebody wants it on.
    pub wanted: Option<NodeName>,
    /// Room that it holds.
    pub reservation: Option<Reservation>,
    /// Its shadow is on the reservation's node: somebody has booked that.
    pub is_placed: bool,
}

impl Claim {
    pub fn of(
        object: &StatefulMigration,
        journal: &Journal,
        room: Option<&HeldRoom>,
        expected: &Expected,
        slot: Slot,
    ) -> Self {
        let Journal { subject, state } = journal;
        let uid = MigrationUid(object.uid().unwrap_or_default());
        let reservation = room.map(|room| Reservation {
            migration: uid.clone(),
            source: subject.node.clone(),
            target: state.target.clone(),
            bytes: room.bytes,
            since: room.since.clone(),
        });
        Self {
            uid,
            epoch: state.epoch,
            owner: subject.owner_uid.clone(),
            node: subject.node.clone(),
            priority: object.spec.priority,
            created: object.creation_timestamp().map(|t| t.0.to_string()).unwrap_or_default(),
            standing: standing(state.step, expected, slot),
            bytes: match expected {
                Expected::Bytes(bytes) => Ok(*bytes),
                Expected::NotAsked => Err("its agent was not asked yet".to_owned()),
                Expected::Unknown(why) => Err(why.clone()),
            },
            wanted: object.spec.target_node.clone().map(NodeName),
            reservation,
            is_placed: state.shadow.is_some(),
        }
    }

    /// Of one that no driver of this leader has taken up yet: its slot is taken all the same. None where there is no
    /// journal, or none that can be read: then nobody drives it.
    pub fn on_record(object: &StatefulMigration) -> Option<Self> {
        let journal = on_record(object)?.ok()?;
        let room = object.status.as_ref().and_then(|status| status.reservation.as_ref());
        Some(Self::of(object, &journal, room, &Expected::NotAsked, Slot::Held))
    }

    /// No other pod of its owner may begin to move.
    pub fn holds_owner(&self) -> bool {
        matches!(self.standing, Standing::Moves | Standing::Returns(_) | Standing::TidiesUp)
    }
}

/// What is only taken back, evicted or tidied up moves no memory, and may take as long as a broker or a
/// `PodDisruptionBudget` likes: it keeps nobody else waiting. The same where a person is waited for; and a machine or a
/// broker that is silent, as far as the migration's own [`Slot`] knows. Names of shadows and of their queues are the
/// owner's: while they are tidied up, no other pod of it may begin to move.
fn standing(step: Step, expected: &Expected, slot: Slot) -> Standing {
    match step {
        Step::Accepted if *expected == Expected::NotAsked => Standing::Rests,
        Step::Accepted => Standing::Waits,
        Step::Spending | Step::Stranded | Step::GivingUp | Step::StartingFresh | Step::Cleaning => {
            Standing::TidiesUp
        }
        step if step.is_terminal() => Standing::Rests,
        step if step.is_revocable() || step.is_committed() || step == Step::Withdrawing => slot.standing(),
        _ => Standing::Rests,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::EvictionPolicy;
    use crate::operator::drive::subject::Subject;
    use crate::protocol::{Plan, State};

    fn journal(step: Step) -> Journal {
        let plan = Plan::plain(EvictionPolicy::MigrateOrBlock);
        let subject = Subject { owner_uid: "web".into(), ..Subject::example("web-0") };
        Journal { subject, state: State { step, ..State::new(plan, Some("n2".into())) } }
    }

    fn object(status: serde_json::Value) -> StatefulMigration {
        let object = json!({"apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
            "metadata": {"name": "m", "uid": "u"}, "spec": {"sourcePod": "web-0"}, "status": status});
        serde_json::from_value(object).unwrap()
    }

    fn on_record(step: Step) -> Claim {
        let room = json!({"bytes": 7, "since": "1", "until": "2"});
        let journal = serde_json::to_value(journal(step)).unwrap();
        let status = json!({"phase": "Transferring", "journal": journal, "reservation": room});
        Claim::on_record(&object(status)).unwrap()
    }

    #[test]
    fn what_another_leader_began_has_its_slot_and_its_room_before_anybody_has_taken_it_up() {
        for step in [Step::Preparing, Step::Dumping, Step::Withdrawing, Step::Replacing, Step::Resuming] {
            let claim = on_record(step);
            assert_eq!((claim.standing, claim.holds_owner()), (Standing::Moves, true), "{step:?}");
            assert_eq!((claim.uid.as_str(), claim.owner.as_str(), claim.node.as_str()), ("u", "web", "n1"));
            let room = claim.reservation.unwrap();
            assert_eq!((room.target, room.bytes), (Some("n2".into()), 7));
        }
    }

    #[test]
    fn what_moves_no_memory_has_no_slot() {
        for step in [Step::Accepted, Step::Discarding, Step::BackingOff, Step::Evicting, Step::Completed] {
            assert_eq!(on_record(step).standing, Standing::Rests, "{step:?}");
        }
        for step in [Step::Cleaning, Step::Stranded, Step::Spending] {
            let tidying = on_record(step);
            assert_eq!((tidying.standing, tidying.holds_owner()), (Standing::TidiesUp, true), "{step:?}");
        }
        let waiting =
            Claim::of(&object(json!(null)), &journal(Step::Accepted), None, &Expected::Bytes(3), Slot::Held);
        assert_eq!((waiting.standing, waiting.bytes), (Standing::Waits, Ok(3)));
    }

    #[test]
    fn while_a_silent_machine_is_waited_for_the_slot_is_free_and_the_owner_is_not() {
        let of =
            |step, slot| Claim::of(&object(json!(null)), &journal(step), None, &Expected::NotAsked, slot);
        for step in [Step::Freezing, Step::Deleting, Step::Replacing, Step::Resuming] {
            let claim = of(step, Slot::GivenBack);
            assert_eq!((claim.standing, claim.holds_owner()), (Standing::TidiesUp, true), "{step:?}");
        }
        let back = of(Step::Replacing, Slot::AskedFor(2));
        assert_eq!((back.standing, back.holds_owner()), (Standing::Returns(2), true));
        assert_eq!(of(Step::Stranded, Slot::AskedFor(2)).standing, Standing::TidiesUp);
    }

    #[test]
    fn without_a_journal_that_can_be_read_nothing_is_claimed() {
        assert!(Claim::on_record(&object(json!(null))).is_none());
        let of_another_version = json!({"phase": "Pending", "journal": {"steps": 3}});
        assert!(Claim::on_record(&object(of_another_version)).is_none());
    }
}
