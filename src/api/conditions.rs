//! Conditions of a `StatefulMigration` and the reasons they and Events give. Bounded: they are metric labels too.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `status.conditions[].type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// True while something is being done.
    Progressing,
    /// True from the durable commit on: it goes forward whatever happens.
    Committed,
    /// True once the pod carries on elsewhere.
    Succeeded,
    /// False, with the reason, where the pod cannot be moved as it is.
    Movable,
    /// False, with a reason for each node, while none has room or can restore it; true once its shadow has one.
    Placeable,
}

impl ConditionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Progressing => "Progressing",
            Self::Committed => "Committed",
            Self::Succeeded => "Succeeded",
            Self::Movable => "Movable",
            Self::Placeable => "Placeable",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Why: `reason` of conditions and Events, label of metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum Reason { $($(#[$doc])* $name),+ }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Self::$name),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

reasons! {
    // progress
    /// Waits for a slot (per owner, node or cluster).
    Queued,
    Started,
    /// It moves, but somebody may want to know.
    Noted,
    Committed,
    Completed,
    /// The policy's deadline passed: the pod was evicted as ever.
    EvictedInstead,
    /// The policy's deadline passed: evictions are refused with the cause.
    Blocked,
    // the pod cannot be moved as it is
    SeveralContainers,
    InitContainers,
    ContainerUnknown,
    /// A probe would end a container that stands still until all of its pod are back.
    ImpatientProbe,
    EmptyDirWithContent,
    VolumeNotSharable,
    /// Another pod mounts the same volume, which one node at a time can mount.
    VolumeInUse,
    HostNetwork,
    HostPid,
    SharedProcessNamespace,
    UserNamespace,
    /// System V objects that several containers share.
    SharedIpc,
    /// It has an SELinux label of its own, which its files on the other node would not have.
    SelinuxLabel,
    Devices,
    HostPort,
    /// Its RuntimeClass is another one than SHADOW's.
    RuntimeNotSupported,
    /// A postStart hook that cannot be kept from running again.
    PostStart,
    NotManaged,
    WrongPolicy,
    /// A socket of multipath TCP.
    MptcpSocket,
    IoUring,
    /// A socket that CRIU cannot dump.
    UnsupportedSocket,
    /// An open file that CRIU cannot dump.
    UnsupportedDescriptor,
    /// A process that is traced, or in a namespace of its own.
    UnsupportedProcess,
    /// Its other end is outside the container.
    Terminal,
    /// `kubectl exec` has a socket to the pod's program open: it can be moved once that has ended.
    ExecSession,
    /// A mount that nobody carries.
    ForeignMount,
    /// CRIU said so, for a cause that lasts.
    CannotBeDumped,
    /// A queue that does not outlive its consumer's pause, or that is no queue.
    QueueNotSupported,
    StrategyNotSupported,
    // attempts that failed
    /// A container that is to move does not run now.
    ContainerNotRunning,
    NoNodeFits,
    /// Admission refuses the shadow: a policy, a webhook, a limit.
    NotAdmitted,
    QuotaExceeded,
    /// The target has another image under the same name.
    ImageDiffers,
    /// The target cannot get the image.
    ImageUnavailable,
    /// It cannot end before the deadline.
    TooLarge,
    /// Dump and transfer did not end in the time that their bytes should take.
    TooSlow,
    /// A PodDisruptionBudget allows no disruption now, and without a bridge the move is one.
    BudgetExhausted,
    NoAgent,
    BrokerUnreachable,
    QueueNotFound,
    ConsumerNeverParked,
    DumpFailed,
    TransferFailed,
    ArchiveDamaged,
    NoSpace,
    RestoreFailed,
    /// The target's machine is down for good.
    TargetLost,
    /// Its volume is another one than before, or may be ahead of its memory: it is not restored over that.
    VolumeChanged,
    /// It could be restored nowhere after the commit: started fresh, the archive is kept for a day.
    StateLost,
    /// It could be restored nowhere after the commit: a person decides (`kubectl shadow retry`, `give-up`).
    Stranded,
    /// It carries on on the node that it was to leave.
    ReturnedHome,
    SourceGone,
    StepTimedOut,
    /// The owner would make the pod from another template, or make it no more.
    OwnerChanged,
    Aborted,
    DeadlineExceeded,
    /// Another version of the operator wrote what this one cannot read.
    JournalUnreadable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the pod is stands against moving it, whatever the cluster can do.
pub fn is_property_of_the_pod(reason: Reason) -> bool {
    reason >= Reason::SeveralContainers && reason <= Reason::StrategyNotSupported
}
