//! Tickets: the right to restore the containers of one pod from one archive, and what `shadow-runc` and agent say about it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Epoch, Life, MigrationUid, PodUid};

/// Which of the two restores of an archive a ticket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    Shadow,
    Replacement,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Replacement => "replacement",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Value of the annotation `migration.ms2m.io/ticket`: `<migration uid>.<epoch>.<role>`, from the second replacement on
/// `<migration uid>.<epoch>.replacement-<life>`. The epoch keeps a pod of an earlier attempt from redeeming a ticket of a
/// later one, the life keeps a replacement that was given up from redeeming that of its successor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TicketId {
    pub migration: MigrationUid,
    pub epoch: Epoch,
    pub role: Role,
    /// Of a shadow always the first.
    pub life: Life,
}

impl TicketId {
    pub fn shadow(migration: MigrationUid, epoch: Epoch) -> Self {
        Self { migration, epoch, role: Role::Shadow, life: Life::FIRST }
    }

    pub fn replacement(migration: MigrationUid, epoch: Epoch, life: Life) -> Self {
        Self { migration, epoch, role: Role::Replacement, life }
    }

    /// Role and life, as they stand in the text.
    pub fn part(&self) -> String {
        if self.life == Life::FIRST { self.role.to_string() } else { format!("{}-{}", self.role, self.life) }
    }
}

/// The text is no ticket.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no ticket: expected `<migration uid>.<epoch>.<role>`, role `shadow`, `replacement` or `replacement-<life>`"
)]
pub struct TicketParseError(pub String);

impl FromStr for TicketId {
    type Err = TicketParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let refuse = || TicketParseError(s.to_owned());
        let (rest, role) = s.rsplit_once('.').ok_or_else(refuse)?;
        let (uid, epoch) = rest.rsplit_once('.').ok_or_else(refuse)?;
        let epoch = Epoch(epoch.parse().map_err(|_| refuse())?);
        let (role, life) = match role {
            "shadow" => (Role::Shadow, Life::FIRST),
            "replacement" => (Role::Replacement, Life::FIRST),
            later => {
                let life = later.strip_prefix("replacement-").and_then(|life| life.parse().ok());
                let life = life.filter(|life| *life > Life::FIRST.0);
                (Role::Replacement, Life(life.ok_or_else(refuse)?))
            }
        };
        let migration = MigrationUid::from(uid);
        if !migration.is_well_formed() {
            return Err(refuse());
        }
        let id = Self { migration, epoch, role, life };
        // One text for each ticket: `replacement-1` or `+2` would be another file for the same right.
        if id.to_string() == s { Ok(id) } else { Err(refuse()) }
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.migration, self.epoch, self.part())
    }
}

impl TryFrom<String> for TicketId {
    type Error = TicketParseError;

    fn try_from(value: String) -> Result<Self, Self::Error> {
        value.parse()
    }
}

impl From<TicketId> for String {
    fn from(value: TicketId) -> Self {
        value.to_string()
    }
}

/// Life of a ticket on the node that restores; what did not succeed begins again at `Restoring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TicketState {
    /// Nobody asked for it yet.
    Unclaimed,
    /// A container's `create` waits for it.
    Waiting,
    /// The archive was handed out: a restore runs, or is awaited of the next container.
    Restoring,
    /// All are restored, found to be no more than their spec, and on record with the agent: they stand still.
    Held,
    /// The engine has them on record, they were let go, and their first processes live. (Up to 0.1 what is restored ran at once.)
    #[serde(alias = "restored")]
    Started,
    /// Spent: nothing is restored by it any more, and nothing that was restored by it lives unless its migration is closed.
    Closed,
}

/// What becomes of a restored container.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// It is let go once the engine has it on record.
    #[default]
    Live,
    /// It stands still until it is killed: that it could be restored and checked is all that is wanted.
    Rehearsal,
}

/// Why nothing lives by a ticket: machine-readable, bounded.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum RestoreFault {
    /// CRIU or runc failed.
    #[default]
    Criu,
    /// The restored processes were more than their spec allows, and were killed before their first instruction.
    MoreThanSpec,
    /// The archive cannot be read.
    ArchiveDamaged,
    /// It was let go, and its first process has ended.
    Ended,
    /// `shadow-runc`, the engine or the agent went away in the middle: nothing is wrong with the archive.
    BrokenOff,
    /// The container is made from another image than its source.
    AnotherImage,
}

/// `shadow-runc` -> agent, first line on the socket (one JSON object a line).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRequest {
    pub ticket: TicketId,
    pub pod: PodUid,
    /// Name of the container in the pod.
    pub container: String,
    /// Container id of the runtime.
    pub container_id: String,
    /// Address of the new pod as the kubelet wrote it into the pod's hosts file, if it did.
    pub pod_ip: Option<String>,
    /// It is an init container that is completed without running, as long as its pod is to be restored.
    #[serde(default)]
    pub init: bool,
    /// It is started anew, once its pod's volumes are filled.
    #[serde(default)]
    pub fresh: bool,
    /// The kubelet makes no other container of its pod before this one has shown that it runs.
    #[serde(default)]
    pub at_once: bool,
}

/// Agent -> `shadow-runc`, one line, as late as the ticket opens (the claim blocks meanwhile).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum ClaimAnswer {
    /// Restore from this directory on the node (CRIU images in `images/`, changed files in `rootfs.tar`).
    Restore {
        archive: String,
        /// What is of its pod; nothing of an agent that knew of one container only.
        #[serde(default)]
        pod: Option<PodPart>,
    },
    /// Put in place what is of the pod, say so, and create the container as if there were no ticket.
    Fill { pod: PodPart },
    /// The ticket is closed or belongs to another pod: create the container as if there were no ticket.
    Fresh { reason: String },
    /// Its work is done: create a container that ends at once.
    Complete,
    /// Fail `create` with this message; the kubelet tries again.
    Refuse { reason: String },
    /// This very container was restored before and is on record: its process lives on.
    Recorded,
}

/// What of an archive belongs to the pod and to no container of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPart {
    /// The archive's own folder, which has it.
    pub archive: String,
    /// Folders of the containers that are back: what was put in place for them stays.
    pub back: Vec<String>,
    /// Its volumes are in place already, and somebody uses them.
    pub filled: bool,
    /// The same of its shared memory.
    pub shm_filled: bool,
}

/// `shadow-runc` -> agent, second line: how the restore ended. The agent answers with an empty line once it is recorded, and
/// with the reason where it is not to be: then what was restored must not live. The reason may come before the outcome:
/// then the restore is broken off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum RestoreOutcome {
    /// It stands still, and is no more than its spec.
    Restored,
    /// What is of the pod is in place, with its shared memory or without; the container itself is started anew.
    Filled {
        #[serde(default)]
        shm: bool,
    },
    Failed {
        reason: String,
        #[serde(default)]
        fault: RestoreFault,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_its_annotation() {
        let first = TicketId::replacement("0b5c-1".into(), Epoch(3), Life::FIRST);
        let third = TicketId { life: Life(3), ..first.clone() };
        let shadow = TicketId::shadow("0b5c-1".into(), Epoch(3));
        for (ticket, text) in
            [(first, "0b5c-1.3.replacement"), (third, "0b5c-1.3.replacement-3"), (shadow, "0b5c-1.3.shadow")]
        {
            assert_eq!(ticket.to_string(), text);
            assert_eq!(text.parse::<TicketId>().unwrap(), ticket);
        }
    }

    #[test]
    fn a_ticket_has_one_text_only() {
        for text in
            ["replacement-1", "replacement-0", "replacement-02", "replacement-+2", "replacement-", "shadow-2"]
        {
            assert!(format!("ab.1.{text}").parse::<TicketId>().is_err(), "{text}");
        }
        assert!("ab.+1.shadow".parse::<TicketId>().is_err());
    }

    #[test]
    fn what_an_agent_of_before_had_restored_runs() {
        assert_eq!(serde_json::from_str::<TicketState>("\"restored\"").unwrap(), TicketState::Started);
    }

    #[test]
    fn what_could_leave_the_folder_is_no_ticket() {
        for text in
            ["", "x", "../a.1.shadow", "a.1.other", "a/b.1.shadow", "ab..shadow", ".1.shadow", "ab.-1.shadow"]
        {
            assert!(text.parse::<TicketId>().is_err(), "{text}");
        }
    }
}
