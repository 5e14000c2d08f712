//! The `StatefulMigration` resource: one move of one pod.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Epoch, InitRuns, Life, PodUid, Policy};

/// Name of the migration that an eviction of this pod object starts: one pod object, one migration.
pub fn migration_name(pod: &PodUid) -> String {
    format!("evict-{pod}")
}

/// One move of one pod to another node, with its memory, its name and its messages.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "migration.ms2m.io",
    version = "v1alpha1",
    kind = "StatefulMigration",
    plural = "statefulmigrations",
    shortname = "smig",
    category = "all",
    namespaced,
    status = "StatefulMigrationStatus",
    derive = "PartialEq",
    selectable = ".status.ownerUid",
    printcolumn = r#"{"name":"Pod","type":"string","jsonPath":".spec.sourcePod"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"From","type":"string","jsonPath":".status.sourceNode"}"#,
    printcolumn = r#"{"name":"To","type":"string","jsonPath":".status.targetNode"}"#,
    printcolumn = r#"{"name":"Total ms","type":"integer","jsonPath":".status.totalMs"}"#,
    printcolumn = r#"{"name":"Pause ms","type":"integer","jsonPath":".status.pauseMs"}"#,
    printcolumn = r#"{"name":"Step","type":"string","jsonPath":".status.step","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct StatefulMigrationSpec {
    /// Name of the pod to move, in the migration's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub source_pod: String,
    /// UID of that pod; filled in from the pod where it is missing. Another pod of that name is never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_pod_uid: Option<PodUid>,
    /// The container that the pod is for; where none is named that of `kubectl.kubernetes.io/default-container`, or the first
    /// that moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Containers that are not carried but started anew with the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_fresh: Vec<String>,
    /// Which init containers run again where the pod is restored, where that is not as it is by default.
    #[serde(default, skip_serializing_if = "InitRuns::is_empty")]
    pub init: InitRuns,
    /// Node to move to; the scheduler's choice where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node: Option<String>,
    /// Queue whose messages change the pod's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_queue: Option<MessageQueue>,
    /// What changes the pod's state.
    #[serde(default)]
    pub state_from: StateFrom,
    #[serde(default)]
    pub migration_strategy: Strategy,
    #[serde(default)]
    pub sync: SyncMode,
    /// What becomes of the pod if it cannot be moved in time. A migration that no drain asked for evicts nothing.
    #[serde(default = "block")]
    pub policy: EvictionPolicy,
    /// Longest pause of consumption accepted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pause_ms: Option<u64>,
    /// From creation to the end of patience, in seconds, under 600.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 1, max = 599))]
    pub deadline_seconds: u64,
    #[serde(default)]
    pub priority: i32,
    /// Who asked: `kubectl`, `cluster-autoscaler`, a user. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// Set to true to go back, as long as it is not committed.
    #[serde(default)]
    pub abort: bool,
    /// Raised by one while it is `Stranded`: all places are tried again (`kubectl shadow retry POD`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry: u32,
    /// Set to true while it is `Stranded`: the pod starts fresh, its archive is kept for a day
    /// (`kubectl shadow give-up POD`). Deleting the migration then means the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub give_up: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl StatefulMigrationSpec {
    /// The migration of exactly this pod object, as its policy wants it.
    pub fn of(policy: Policy, pod: &str, uid: PodUid) -> Self {
        Self {
            source_pod: pod.to_owned(),
            source_pod_uid: Some(uid),
            container_name: policy.container,
            restart_fresh: policy.restart_fresh,
            init: policy.init,
            target_node: None,
            message_queue: policy.queue,
            state_from: policy.state_from,
            migration_strategy: policy.strategy,
            sync: policy.sync,
            policy: policy.eviction,
            max_pause_ms: policy.max_pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            deadline_seconds: policy.deadline.as_secs().max(1),
            priority: policy.priority,
            requested_by: None,
            abort: false,
            retry: 0,
            give_up: false,
        }
    }
}

fn default_deadline() -> u64 {
    super::policy::DEFAULT_DEADLINE.as_secs()
}

/// Where the pod's messages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueue {
    /// The primary queue.
    #[serde(alias = "queueName")]
    pub queue: String,
    #[serde(default, alias = "exchangeName", skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
    /// Secret in the same namespace whose key `url` holds the broker's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_secret: Option<String>,
    /// The URL itself, in plain text: accepted for older manifests, with a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_url: Option<String>,
}

/// What changes the pod's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StateFrom {
    /// The queue alone: a parked pod may go on answering reads.
    Queue,
    /// Also requests, timers, anything: the pod stands still from the dump to the commit.
    #[default]
    Any,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    #[default]
    Auto,
    /// A shadow answers reads while the pod is replaced.
    ShadowPod,
    /// No shadow answers: it is a rehearsal, restored and never let go.
    Sequential,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SyncMode {
    #[default]
    Auto,
    /// The broker holds the messages while the consumer is parked.
    Quiesce,
    /// The source goes on consuming; copies are replayed to the shadow.
    Replay,
}

/// What a drain gets if the pod cannot be moved before the deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EvictionPolicy {
    #[default]
    MigrateOrEvict,
    MigrateOrBlock,
}

fn block() -> EvictionPolicy {
    EvictionPolicy::MigrateOrBlock
}

/// Phases under the names of the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    #[default]
    Pending,
    Checkpointing,
    Transferring,
    Restoring,
    Replaying,
    Finalizing,
    Completed,
    Failed,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Checkpointing => "Checkpointing",
            Self::Transferring => "Transferring",
            Self::Restoring => "Restoring",
            Self::Replaying => "Replaying",
            Self::Finalizing => "Finalizing",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }

    /// Nothing more will happen.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// Room that a migration holds, from before its shadow is made until its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldRoom {
    /// Expected size of the archive.
    pub bytes: u64,
    /// When it was taken (RFC 3339); the older has precedence.
    pub since: String,
    /// When it ends by itself (RFC 3339), should nobody release it.
    #[serde(default)]
    pub until: String,
}

/// The operator writes this and nobody else; `journal` is all it remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulMigrationStatus {
    #[serde(default)]
    pub phase: Phase,
    /// Where exactly, within the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Fencing number of the current attempt.
    #[serde(default)]
    pub epoch: Epoch,
    /// True from the durable commit on.
    #[serde(default)]
    pub committed: bool,
    /// Machine-readable cause of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_pod_uid: Option<PodUid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_node: Option<String>,
    /// Where it is to carry on, or carries on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node: Option<String>,
    /// Number of the ticket that the owner's next pod redeems: each way on after the commit has one of its own.
    #[serde(default)]
    pub life: Life,
    /// The way on after the commit that is tried: `Target`, `Again`, `Elsewhere`, `Home` or `Nowhere`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
    /// The largest `spec.retry` that was heeded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_pod: Option<String>,
    /// Controller of the source pod (StatefulSet or ReplicaSet): the next pod it makes claims the ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_uid: Option<String>,
    /// Which of the owner's templates the source was made from: a pod of another one does not get its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement_pod: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement_pod_uid: Option<PodUid>,
    /// Messages applied when the consumer was parked, if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
    /// Room that is kept for the archive, on the target or as long as there is none, anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<HeldRoom>,
    /// Milliseconds spent in each step of the last attempt, from a monotonic clock; `Replacing.detach` and `Replacing.attach`
    /// are the parts of that step in which volumes that only one node can mount were waited for, in whole seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phase_timings: BTreeMap<String, u64>,
    /// When the attempt began (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When the consumer was told to stop, or was frozen where there is no queue (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<String>,
    /// From the start of the attempt to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
    /// How long the consumer was parked, or frozen where there is no queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    pub conditions: Vec<Condition>,
    /// When the next attempt starts, after a failed one (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// State of the protocol, as `protocol::State` writes it. No interface: it may change with any version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque_object")]
    pub journal: Option<serde_json::Value>,
}

fn opaque_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
