//! Names that others rely on: API group, annotations, labels, paths on a node.

use std::collections::BTreeMap;

use super::NodeName;

/// API group of the CRD and prefix of every annotation and label.
pub const GROUP: &str = "migration.ms2m.io";
/// Field manager and `app.kubernetes.io/managed-by` value of objects that the operator writes.
pub const MANAGER: &str = "shadow-operator";

/// Namespace label that opts a namespace in (webhooks select on it).
pub const LABEL_ENABLED: &str = "migration.ms2m.io/enabled";
/// On everything made for a migration: the migration's UID.
pub const LABEL_MIGRATION: &str = "migration.ms2m.io/migration";
/// On shadow pods: `shadow`.
pub const LABEL_ROLE: &str = "migration.ms2m.io/role";
/// On pods, from their owners: which of its templates it was made from (StatefulSet, ReplicaSet).
pub const LABELS_REVISION: [&str; 2] = ["controller-revision-hash", "pod-template-hash"];

/// Which of its owner's templates a pod with these labels was made from.
pub fn revision_of(labels: &BTreeMap<String, String>) -> Option<&String> {
    LABELS_REVISION.iter().find_map(|label| labels.get(*label))
}

/// On nodes whose agent has installed the runtime: `true`.
pub const LABEL_NODE_READY: &str = "migration.ms2m.io/ready";

/// `MigrateOrEvict` | `MigrateOrBlock` | `None`.
pub const ANNOTATION_POLICY: &str = "migration.ms2m.io/policy";
/// Name of the primary queue that the pod consumes.
pub const ANNOTATION_QUEUE: &str = "migration.ms2m.io/queue";
/// Exchange that feeds the queue.
pub const ANNOTATION_EXCHANGE: &str = "migration.ms2m.io/exchange";
/// Routing key of the binding between exchange and queue.
pub const ANNOTATION_ROUTING_KEY: &str = "migration.ms2m.io/routing-key";
/// Secret in the pod's namespace whose key `url` is the broker's URL.
pub const ANNOTATION_BROKER_SECRET: &str = "migration.ms2m.io/broker-secret";
/// The container to move, where there is a choice.
pub const ANNOTATION_CONTAINER: &str = "migration.ms2m.io/container";
/// `Queue` | `Any`: what changes the pod's state.
pub const ANNOTATION_STATE_FROM: &str = "migration.ms2m.io/state-from";
/// `Auto` | `ShadowPod` | `Sequential`.
pub const ANNOTATION_STRATEGY: &str = "migration.ms2m.io/strategy";
/// `Auto` | `Quiesce` | `Replay`.
pub const ANNOTATION_SYNC: &str = "migration.ms2m.io/sync";
/// Longest pause of consumption that the user accepts, e.g. `5s`.
pub const ANNOTATION_MAX_PAUSE: &str = "migration.ms2m.io/max-pause";
/// After this long the drain gets what the policy says, e.g. `120s`.
pub const ANNOTATION_DEADLINE: &str = "migration.ms2m.io/deadline";
/// Integer; higher first when migrations queue for slots.
pub const ANNOTATION_PRIORITY: &str = "migration.ms2m.io/priority";
/// `true` | `false`: whether new pods are made so that they can be moved later; without it, where nothing is against it.
pub const ANNOTATION_PREPARE: &str = "migration.ms2m.io/prepare";

/// `NAME=Run,NAME=Skip`: init containers that run again where the pod is restored, or do not; see [`super::init_run`].
pub const ANNOTATION_INIT: &str = "migration.ms2m.io/init";

/// `NAME,NAME`: containers that are not carried but started anew with the pod: log shippers, proxies.
pub const ANNOTATION_RESTART_FRESH: &str = "migration.ms2m.io/restart-fresh";
/// On restored pods: the containers that are started anew, by [`ANNOTATION_RESTART_FRESH`] of pod or owner. Means nothing
/// without a ticket.
pub const ANNOTATION_FRESH_CONTAINERS: &str = "migration.ms2m.io/fresh-containers";
/// On restored pods: sidecars with a startup probe, for which the kubelet waits before it makes another container. Means
/// nothing without a ticket.
pub const ANNOTATION_AT_ONCE: &str = "migration.ms2m.io/started-at-once";

/// On restored pods: the ticket that its containers' `create` redeems (`<migration uid>.<epoch>.<role>`). Reserved.
pub const ANNOTATION_TICKET: &str = "migration.ms2m.io/ticket";
/// On restored pods: the node selector entry was put there by the webhook and is no wish of the user's.
pub const ANNOTATION_PLACED_ON: &str = "migration.ms2m.io/placed-on";
/// On pods of annotated owners, by the webhook: [`PREPARED`], [`PREPARED_RESTORED`], or why it is not, after
/// [`NOT_PREPARED`]. `shadow-runc` prepares containers of the first two.
pub const ANNOTATION_PREPARED: &str = "migration.ms2m.io/prepared";
/// Every container of it was started prepared.
pub const PREPARED: &str = "true";
/// What starts fresh in it is prepared; what was restored is what its source was.
pub const PREPARED_RESTORED: &str = "restored";
/// Before the reason.
pub const NOT_PREPARED: &str = "false: ";
/// On restored pods: the command of each container's postStart hook, as a JSON object of lists; its restored process has
/// been through it.
pub const ANNOTATION_SKIP_POST_START: &str = "migration.ms2m.io/skip-post-start";

/// On restored pods: what becomes of their init containers, as a JSON object: those that do not run are completed at once.
/// Means nothing without a ticket.
pub const ANNOTATION_INIT_CONTAINERS: &str = "migration.ms2m.io/init-containers";

/// On shadow pods: the node that the pod comes from.
pub const ANNOTATION_SOURCE_NODE: &str = "migration.ms2m.io/source-node";
/// On shadow pods: how large its archive will be, in bytes.
pub const ANNOTATION_ARCHIVE_BYTES: &str = "migration.ms2m.io/archive-bytes";
/// On nodes, from their agents: what must be the same where a container is dumped and where it is restored.
pub const LABEL_CPU_VENDOR: &str = "migration.ms2m.io/cpu-vendor";
pub const LABEL_XSAVE_SIZE: &str = "migration.ms2m.io/xsave-size";
pub const LABEL_OCI_RUNTIME: &str = "migration.ms2m.io/oci-runtime";
pub const LABEL_ENGINE: &str = "migration.ms2m.io/engine";
pub const LABEL_CGROUP_VERSION: &str = "migration.ms2m.io/cgroup-version";
pub const LABEL_CRIU_CONFIG: &str = "migration.ms2m.io/criu-config";
pub const LABEL_SECURITY_MODULE: &str = "migration.ms2m.io/security-module";
/// On nodes: when it was last found to have room that a waiting shadow needs. Written to wake the scheduler.
pub const ANNOTATION_ROOM_SINCE: &str = "migration.ms2m.io/room-since";

/// What shadow pods ask for none of, so that their scheduler asks the extender: no node has it and none needs to.
pub const RESOURCE_CHECKPOINT: &str = "migration.ms2m.io/checkpoint";
/// The scheduler that asks the extender.
pub const SCHEDULER: &str = "shadow-scheduler";

/// RuntimeClass and containerd handler whose OCI runtime is `shadow-runc`.
pub const RUNTIME_CLASS: &str = "shadow";
/// Namespace that SHADOW is installed in by default.
pub const SYSTEM_NAMESPACE: &str = "shadow-system";

/// Everything SHADOW keeps on a node lives here, root only.
pub const NODE_DIR: &str = "/var/lib/shadow";
/// CRIU's settings for restores, in that folder: written by the agent, named to CRIU by `shadow-runc`.
pub const CRIU_RESTORE_CONFIG: &str = "criu-restore.conf";
/// First argument by which `shadow-runc` is asked what it can do beside what runc can; an older one does not know it.
pub const RUNTIME_ABILITIES: &str = "shadow-abilities";
/// An answer to it: what is restored under cgroup v2 gets its cgroup namespace back.
pub const ABILITY_CGROUP_NAMESPACE: &str = "cgroup-namespace";
/// Unix socket of the node's agent, for `shadow-runc`, root only.
pub const AGENT_SOCKET: &str = "/run/shadow/agent.sock";
/// TCP port of the agent (mTLS), on the node's address.
pub const AGENT_PORT: u16 = 9443;

/// An agent that has not renewed its Lease for so long is taken for dead.
pub const LEASE_SECONDS: i32 = 20;

/// The Lease by which the agent on `node` shows that it lives, in SHADOW's namespace.
pub fn lease_of_agent(node: &NodeName) -> String {
    format!("agent-{node}")
}

/// The Lease, in SHADOW's namespace, of the one node whose agent may restart containerd now.
pub const LEASE_RESTART: &str = "containerd-restart";

/// The node whose agent's Lease has this name.
pub fn node_of_lease(name: &str) -> Option<NodeName> {
    name.strip_prefix("agent-").map(NodeName::from)
}

/// TLS name of the operator in client and server certificates.
pub const TLS_NAME_OPERATOR: &str = "operator.shadow.internal";

/// TLS name of the agent on `node`.
pub fn tls_name_agent(node: &str) -> String {
    format!("{node}.agent.shadow.internal")
}

/// Control queue of a consumer (`pod` is the content of its /etc/hostname).
pub fn control_queue(pod: &str) -> String {
    format!("ms2m.control.{pod}")
}
