//! Types that users and the parts of SHADOW exchange: the CRD, annotations, orders, tickets.
//!
//! Pure: no I/O, no clock, no async. Everything else may depend on this module, it depends on nothing of ours.

mod capacity;
mod carried;
mod check;
mod compatibility;
mod conditions;
mod difference;
mod findings;
mod ids;
mod init;
mod manifest;
mod migration;
mod names;
mod orders;
mod policy;
mod sentence;
mod ticket;

pub use capacity::{NodeCapacity, NodeCapacitySpec};
pub use carried::{
    CARRIED_FILE, Carried, IMAGE_VOLUMES, IMAGE_VOLUMES_CAP, SHM_FILE, VOLUMES, empty_dir, empty_dirs,
    image_volume, is_image_volume, is_sandbox_shm, is_volume_name, pod_folder, subpath_volume,
};
pub use check::{Check, CheckRefusal, CheckedNode, ManifestCheck, Meanwhile};
pub use compatibility::{
    AGENT_FORMAT, CgroupNamespace, Compatibility, FORMAT_OF_INIT, FORMAT_OF_PODS, FORMAT_OF_VOLUMES,
};
pub use conditions::{ConditionType, Reason, is_property_of_the_pod};
pub use difference::Difference;
pub use findings::{
    DescriptorKind, Entangled, Findings, FoundDescriptor, FoundIpc, FoundMemory, FoundMount, FoundSocket,
    FoundTree, MountKind, Objection, ProcessName, SocketKind, Tie, Visitor,
};
pub use ids::{ArchiveDigest, Epoch, Life, MigrationUid, NodeName, PodIdentity, PodUid};
pub use init::{InitRun, InitRuns, init_run, parse_init_runs};
pub use manifest::manifests;
pub use migration::{
    EvictionPolicy, HeldRoom, MessageQueue, Phase, StateFrom, StatefulMigration, StatefulMigrationSpec,
    StatefulMigrationStatus, Strategy, SyncMode, migration_name,
};
pub use names::*;
pub use orders::{
    ArchiveSize, AwaitOrder, AwaitedTicket, CarryOrder, CloseOrder, ContainerRef, DumpOrder, DumpReport,
    DumpTarget, Hold, ImageUsed, Kept, LONGEST_AWAIT, MigrationReport, OpenTicketOrder, OrderError,
    PodContainers, PodOrder, Refusal, SpendOrder,
};
pub use policy::{DEFAULT_DEADLINE, LONGEST_DEADLINE, Policy, PolicyError, Prepare, pod_policy};
pub use sentence::{SENTENCE, same_but_for_numbers, sentence, sentence_ending};
pub use ticket::{
    ClaimAnswer, ClaimRequest, PodPart, Purpose, RestoreFault, RestoreOutcome, Role, TicketId,
    TicketParseError, TicketState,
};
