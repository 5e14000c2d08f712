//! What the operator orders from an agent, over mTLS HTTP with JSON bodies. Requests carry identities, never paths,
//! images or tags: those the agent derives. Every order carries the epoch; an agent that saw a larger one for the
//! same migration refuses with [`Refusal::StaleEpoch`]. Every order may be repeated: the answer is then the same.
//!
//! | order | path | body -> answer |
//! |---|---|---|
//! | dump, stream to the target, verify there | `POST /v1/migrations/{uid}/dump` | [`DumpOrder`] -> [`DumpReport`] |
//! | freeze for good | `POST /v1/migrations/{uid}/freeze` | [`PodOrder`] -> `{}` once the pod's containers stand still |
//! | thaw (rollback) | `POST /v1/migrations/{uid}/thaw` | [`PodOrder`] -> `{}` once they run, or are gone |
//! | kill a frozen pod | `POST /v1/migrations/{uid}/kill` | [`PodOrder`] -> `{}` once no process is left |
//! | open a ticket | `POST /v1/migrations/{uid}/tickets/{role}` | [`OpenTicketOrder`] -> `{}` |
//! | await a ticket's state | `POST /v1/migrations/{uid}/tickets/{role}/await` | [`AwaitOrder`] -> [`AwaitedTicket`] |
//! | spend a ticket | `POST /v1/migrations/{uid}/tickets/{role}/spend` | [`SpendOrder`] -> `{}` once nothing is restored by it any more and nothing that was lives |
//! | bring what lies here of a dump to where it can be restored | `POST /v1/migrations/{uid}/carry` | [`CarryOrder`] -> [`DumpReport`] |
//! | close: tickets spent, archive removed, UID remembered | `POST /v1/migrations/{uid}/close` | [`CloseOrder`] -> `{}` |
//! | what do you know | `GET /v1/migrations/{uid}` | [`MigrationReport`] |
//! | how large would an archive of this pod be | `POST /v1/size` | [`PodContainers`] -> [`ArchiveSize`] |
//! | what is in this container, nothing touched | `POST /v1/look` | [`ContainerRef`] -> [`super::Findings`] |
//! | what was this container made from | `POST /v1/image` | [`ContainerRef`] -> [`ImageUsed`] |
//! | what is kept here of migrations that are not closed | `POST /v1/kept` | `{}` -> [`Kept`] |
//! | is there room for an archive of B bytes (agents only) | `POST /v1/migrations/{uid}/archive?epoch=N&bytes=B` | -> `{}` |
//! | receive an archive (agents only) | `PUT /v1/migrations/{uid}/archive?epoch=N`, with `&digest=D` only if it is that one | tar stream -> [`DumpReport`] |

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ArchiveDigest, Epoch, Life, MigrationUid, NodeName, Objection, PodIdentity, PodUid, Purpose,
    RestoreFault, TicketState,
};

/// The longest that an agent waits by one [`AwaitOrder`]: whoever is more patient orders again.
pub const LONGEST_AWAIT: Duration = Duration::from_secs(120);

/// One container of one pod object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRef {
    pub pod: PodIdentity,
    pub container: String,
}

/// The containers of one pod object that stand still together. An agent of an earlier version reads the first of them only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodContainers {
    pub pod: PodIdentity,
    /// The one by which its archive is named.
    pub container: String,
    /// The others that move with it, sidecars too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// Those that do not move: they are started anew on the other side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fresh: Vec<String>,
}

impl PodContainers {
    /// Those that move, in the order in which an archive has them.
    pub fn carried(&self) -> impl Iterator<Item = ContainerRef> {
        [&self.container].into_iter().chain(&self.beside).map(|name| self.of(name))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = ContainerRef> {
        self.carried().chain(self.fresh.iter().map(|name| self.of(name)))
    }

    /// The same containers of another pod object.
    #[must_use]
    pub fn in_pod(&self, pod: PodIdentity) -> Self {
        Self { pod, ..self.clone() }
    }

    fn of(&self, name: &str) -> ContainerRef {
        ContainerRef { pod: self.pod.clone(), container: name.to_owned() }
    }
}

/// What becomes of the source between dump and commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// Its state comes from its (parked) queue alone: it goes on answering.
    Release,
    /// Its state may change by other ways: it stays frozen, so that no acknowledged write is left behind.
    Frozen,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DumpTarget {
    pub node: NodeName,
    /// IP address of the target's agent.
    pub address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DumpOrder {
    pub epoch: Epoch,
    #[serde(rename = "container")]
    pub containers: PodContainers,
    pub target: DumpTarget,
    pub hold: Hold,
    /// The agent gives up, thaws the source and answers with an error after this long.
    pub timeout_ms: u64,
}

/// A complete archive, verified on the node that will restore it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DumpReport {
    pub digest: ArchiveDigest,
    pub bytes: u64,
    /// How long the pod stood still for the dump.
    pub frozen_ms: u64,
    /// From the order to the verified archive.
    pub total_ms: u64,
    /// Names of the emptyDir volumes that are in it; an agent that knows nothing of them leaves them behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_dirs: Vec<String>,
    /// Names of the containers that are in it beside the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
}

impl DumpReport {
    /// Of an archive that was brought from elsewhere: nobody stood still for it here.
    pub fn arrived(digest: ArchiveDigest, bytes: u64, total_ms: u64) -> Self {
        Self { digest, bytes, frozen_ms: 0, total_ms, empty_dirs: Vec::new(), beside: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodOrder {
    pub epoch: Epoch,
    #[serde(rename = "container")]
    pub containers: PodContainers,
    /// Freeze and kill only what was dumped in that epoch: where something was started since, that is refused with
    /// [`Refusal::NotAsDumped`], and it is left alone.
    #[serde(default)]
    pub as_dumped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenTicketOrder {
    pub epoch: Epoch,
    /// Name of the container that the archive is named by: those that are in it may redeem the ticket.
    pub container: String,
    /// The archive it must be restored from. From the second life on it is read once more before the ticket opens.
    pub digest: ArchiveDigest,
    #[serde(default)]
    pub life: Life,
    #[serde(default)]
    pub purpose: Purpose,
    /// What was let go is never restored a second time: it may have written to volumes that outlive it.
    #[serde(default)]
    pub once: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitOrder {
    pub epoch: Epoch,
    /// Answer as soon as the ticket is in this state or a later one ...
    pub at_least: TicketState,
    /// ... or after this long ([`LONGEST_AWAIT`] at most), with whatever state it is in then.
    pub timeout_ms: u64,
    #[serde(default)]
    pub life: Life,
    /// With `Started`: once its first process has lived this long since it was let go.
    #[serde(default)]
    pub lived_ms: u64,
}

impl AwaitOrder {
    /// For the first ticket of its role.
    pub fn first(epoch: Epoch, at_least: TicketState, patience: Duration) -> Self {
        let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        Self { epoch, at_least, timeout_ms, life: Life::FIRST, lived_ms: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitedTicket {
    pub state: TicketState,
    /// The pod that claimed it.
    pub pod: Option<PodUid>,
    pub pod_ip: Option<String>,
    /// Why the last restore failed, if it did, or why what was restored lives no more.
    pub failure: Option<String>,
    /// The same for the operator to decide by.
    #[serde(default)]
    pub fault: Option<RestoreFault>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpendOrder {
    pub epoch: Epoch,
    #[serde(default)]
    pub life: Life,
}

/// Takes what lies here of that epoch, the verified archive or else the dump, if it is the one of that digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarryOrder {
    pub epoch: Epoch,
    pub digest: ArchiveDigest,
    /// The node that gets it; none: it becomes a verified archive of this one.
    pub target: Option<DumpTarget>,
    pub timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloseOrder {
    pub epoch: Epoch,
    /// The archive is not removed, but kept a day for a person.
    #[serde(default)]
    pub keep: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    pub epoch: Epoch,
    /// A verified archive lies here.
    pub archive: Option<ArchiveDigest>,
    /// Of the largest epoch, by role and life (`replacement-2`).
    pub tickets: BTreeMap<String, TicketState>,
    pub closed: bool,
}

/// What an archive of a pod is expected to take: its memory without page cache, and its changed files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveSize {
    pub bytes: u64,
}

/// The image that a container was made from, by its content and not by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageUsed {
    /// Digest of its configuration, as the engine knows it; nothing where the engine does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Archives, dumps and tickets on a node: whose, and the largest epoch of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub migrations: BTreeMap<MigrationUid, Epoch>,
    /// Pods there that nothing starts any more: their init containers have not run, and they were not restored. To be deleted.
    #[serde(default)]
    pub barred: Vec<PodUid>,
}

/// Why an agent did not do what it was asked: machine-readable, bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// A larger epoch was seen for this migration, or it is closed (HTTP 409).
    StaleEpoch,
    /// No such container runs on this node (404).
    ContainerNotFound,
    /// Dump, freeze, thaw or kill failed (500).
    RuntimeFailed,
    /// Neither archive nor dump of that epoch lies here (404).
    NoArchive,
    /// The target's agent could not be reached or broke off (502).
    TransferFailed,
    /// What arrived is not what was sent (502).
    DigestMismatch,
    /// No room for the archive (507).
    NoSpace,
    /// The caller may not order this (403).
    Forbidden,
    /// Not understood (400).
    Malformed,
    /// Took longer than the order allows (504).
    TimedOut,
    /// What is in the container stands against a dump; the error says what (422).
    CannotBeDumped,
    /// What was restored by the ticket was let go and lives: it may have acted, so it is not killed (409).
    StillLives,
    /// A process of the pod was not dumped, or is gone: its archive may be behind its volumes (409).
    NotAsDumped,
}

/// Body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderError {
    pub refusal: Refusal,
    /// For people: what happened, to which object.
    pub message: String,
    /// What stands against it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<Objection>,
}
