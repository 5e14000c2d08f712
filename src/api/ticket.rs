//! Tickets: the right to restore one container from one archive, and what `shadow-runc` and agent say about it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Epoch, MigrationUid, PodUid};

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

/// Value of the annotation `migration.ms2m.io/ticket`: `<migration uid>.<epoch>.<role>`. The epoch keeps a pod of an
/// earlier attempt from redeeming a ticket of a later one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TicketId {
    pub migration: MigrationUid,
    pub epoch: Epoch,
    pub role: Role,
}

/// The text is no ticket.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no ticket: expected `<migration uid>.<epoch>.<role>`, role `shadow` or `replacement`")]
pub struct TicketParseError(pub String);

impl FromStr for TicketId {
    type Err = TicketParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let refuse = || TicketParseError(s.to_owned());
        let (rest, role) = s.rsplit_once('.').ok_or_else(refuse)?;
        let (uid, epoch) = rest.rsplit_once('.').ok_or_else(refuse)?;
        let epoch = Epoch(epoch.parse().map_err(|_| refuse())?);
        let role = match role {
            "shadow" => Role::Shadow,
            "replacement" => Role::Replacement,
            _ => return Err(refuse()),
        };
        let migration = MigrationUid::from(uid);
        if !migration.is_well_formed() {
            return Err(refuse());
        }
        Ok(Self { migration, epoch, role })
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.migration, self.epoch, self.role)
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
    /// The archive was handed out, the restore runs.
    Restoring,
    /// The process lives again, but its `create` or `start` may still be broken off, and then it is killed.
    Restored,
    /// The engine keeps it, whoever asked for it. Read from the engine's records, never written down.
    Started,
    /// Spent: whoever shows it now starts fresh.
    Closed,
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
}

/// Agent -> `shadow-runc`, one line, as late as the ticket opens (the claim blocks meanwhile).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum ClaimAnswer {
    /// Restore from this directory on the node (CRIU images in `images/`, changed files in `rootfs.tar`).
    Restore { archive: String },
    /// The ticket is closed or belongs to another pod: create the container as if there were no ticket.
    Fresh { reason: String },
    /// Fail `create` with this message; the kubelet tries again.
    Refuse { reason: String },
    /// This very container was restored before and is on record: its process lives on.
    Recorded,
}

/// `shadow-runc` -> agent, second line: how the restore ended. The agent answers with an empty line once it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum RestoreOutcome {
    Restored,
    Failed { reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_its_annotation() {
        let ticket = TicketId { migration: "0b5c-1".into(), epoch: Epoch(3), role: Role::Replacement };
        assert_eq!(ticket.to_string().parse::<TicketId>().unwrap(), ticket);
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
