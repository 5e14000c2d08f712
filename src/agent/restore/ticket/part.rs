//! What became of one container of a ticket's pod. Pure.

use serde::{Deserialize, Serialize};

use crate::api::RestoreFault;

/// How far one container has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PartState {
    /// It has not asked.
    #[default]
    Unclaimed,
    Waiting,
    /// It is to be killed, as its pod has ended with another container.
    Ending,
    Restoring,
    /// Restored and checked, it stands still.
    Held,
    Started,
}

impl PartState {
    pub fn is_back(self) -> bool {
        matches!(self, Self::Held | Self::Started)
    }
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    pub state: PartState,
    /// Of the `create` that asked last; the next one of the same container has another.
    pub container_id: String,
    /// It is being let go, or would be but for an agent that ended.
    #[serde(default)]
    pub letting_go: bool,
    /// It does not wait for the others of its pod, as the kubelet waits for it.
    #[serde(default)]
    pub at_once: bool,
    #[serde(default)]
    pub failure: Option<PartFailure>,
}

/// Why nothing lives in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartFailure {
    pub fault: RestoreFault,
    pub reason: String,
}

impl Part {
    pub fn is_back(&self) -> bool {
        self.state.is_back()
    }

    pub fn is_of(&self, container_id: &str) -> bool {
        !container_id.is_empty() && self.container_id == container_id
    }

    pub(super) fn waits(&mut self, container_id: &str) {
        self.state = PartState::Waiting;
        container_id.clone_into(&mut self.container_id);
    }

    /// What failed before is told until it has succeeded.
    pub(super) fn restores(&mut self, container_id: &str, at_once: bool) {
        self.waits(container_id);
        (self.state, self.letting_go, self.at_once) = (PartState::Restoring, false, at_once);
    }

    pub(super) fn held(&mut self) {
        (self.state, self.failure) = (PartState::Held, None);
    }

    /// It was let go, or is being let go.
    pub fn has_run(&self) -> bool {
        self.state == PartState::Started || self.letting_go
    }

    /// Killed with another: what there is to say is said there. A restore that runs breaks off; what was started anew is here
    /// by its ID only.
    pub(super) fn ends_with_another(&mut self) {
        let is_there = self.is_back() || self.state == PartState::Waiting && !self.container_id.is_empty();
        self.state = if is_there { PartState::Ending } else { PartState::Waiting };
        self.letting_go = false;
    }

    pub(super) fn started(&mut self) {
        (self.state, self.letting_go) = (PartState::Started, false);
    }

    pub(super) fn gave_up(&mut self, fault: RestoreFault, reason: String) {
        (self.state, self.letting_go) = (PartState::Waiting, false);
        self.failure = Some(PartFailure { fault, reason });
    }
}
