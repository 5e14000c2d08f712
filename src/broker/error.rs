//! What can go wrong with a broker: what happened, to which object, what to do. No I/O.

use std::time::Duration;

use crate::api::Reason;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    #[error(
        "broker {broker} cannot be reached: {cause}; check the URL in the Secret and the network policies"
    )]
    Unreachable { broker: String, cause: String },
    #[error("broker {broker} refused access: {cause}; check user, password, virtual host and permissions")]
    AccessDenied { broker: String, cause: String },
    #[error("broker {broker} accepts no messages now: {cause}; free memory or disk on the broker")]
    Blocked { broker: String, cause: String },
    #[error("the broker's URL is not valid: {cause}; it should be amqp://user:password@host:port/vhost")]
    WrongUrl { cause: String },
    #[error("queue {queue} does not exist; check the annotation migration.ms2m.io/queue")]
    QueueNotFound { queue: String },
    #[error("queue {queue} {cause}")]
    QueueNotSupported { queue: String, cause: String },
    #[error(
        "consumer {pod} has no control queue ms2m.control.{pod}: it does not speak the control protocol, or is not \
         connected; see the example consumer"
    )]
    ConsumerWithoutControlQueue { pod: String },
    #[error(
        "{consumers} consumers listen on the control queue ms2m.control.{pod}: pods of the same name in several \
         namespaces share a virtual host, and orders to one may reach another; give each namespace a virtual host of \
         its own"
    )]
    ControlQueueShared { pod: String, consumers: u32 },
    #[error("consumer {pod} did not park within {within:?}: {seen}")]
    ConsumerNeverParked { pod: String, within: Duration, seen: String },
    #[error("consumer {pod} did not take messages again within {within:?}: {seen}")]
    NeverResumed { pod: String, within: Duration, seen: String },
    #[error(
        "queue {queue} holds {messages} messages and was kept; move them to where they belong, then delete it"
    )]
    NotEmpty { queue: String, messages: u32 },
    #[error("queue {queue} exists with other properties: {cause}; delete it once it is unused and empty")]
    QueueDiffers { queue: String, cause: String },
    #[error("queue {queue} is still consumed and was kept; it goes once its consumer is gone")]
    InUse { queue: String },
    #[error("the broker answered {operation} with: {cause}")]
    Protocol { operation: &'static str, cause: String },
}

impl BrokerError {
    /// True where the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self,
            Self::AccessDenied { .. }
                | Self::WrongUrl { .. }
                | Self::QueueNotFound { .. }
                | Self::QueueNotSupported { .. }
                | Self::QueueDiffers { .. }
                | Self::ControlQueueShared { .. }
        )
    }

    /// The reason for conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. }
            | Self::AccessDenied { .. }
            | Self::Blocked { .. }
            | Self::WrongUrl { .. }
            | Self::NotEmpty { .. }
            | Self::QueueDiffers { .. }
            | Self::InUse { .. }
            | Self::Protocol { .. } => Reason::BrokerUnreachable,
            Self::QueueNotFound { .. } => Reason::QueueNotFound,
            Self::QueueNotSupported { .. } => Reason::QueueNotSupported,
            Self::ConsumerWithoutControlQueue { .. }
            | Self::ControlQueueShared { .. }
            | Self::ConsumerNeverParked { .. } => Reason::ConsumerNeverParked,
            Self::NeverResumed { .. } => Reason::StepTimedOut,
        }
    }
}
