//! Life of one ticket on the node that restores. Pure.
//!
//! Guarantees: it restores only the container it was opened for, for one pod at a time; a shadow is never told to start
//! fresh; only what was opened for a life is ever let go, and only what stands still on record. A ticket that is spent
//! stays so; when its migration is closed it exists no more, and the migration's fence speaks for it. A pod whose init
//! containers were completed without running never starts fresh.

use serde::{Deserialize, Serialize};

use crate::api::{ArchiveDigest, ClaimRequest, PodUid, Purpose, RestoreFault, Role, TicketState};

/// A ticket as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    pub state: TicketState,
    #[serde(default)]
    pub opened: Option<Opening>,
    #[serde(default)]
    pub holder: Option<Holder>,
    /// Why the last restore failed, if it did.
    #[serde(default)]
    pub failure: Option<String>,
    #[serde(default)]
    pub fault: Option<RestoreFault>,
    /// It is being let go, or would be but for an agent that ended.
    #[serde(default)]
    pub letting_go: bool,
    /// An init container of its holder's pod was completed without running, and nothing of the pod has lived since: it must
    /// not start fresh.
    #[serde(default)]
    pub completed: bool,
}

/// What the operator opened it for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    pub container: String,
    pub digest: ArchiveDigest,
    #[serde(default)]
    pub purpose: Purpose,
}

/// Who redeems it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    pub pod: PodUid,
    pub container: String,
    pub pod_ip: Option<String>,
    /// Of this one `create`; the next one of the same container has another.
    #[serde(default)]
    pub container_id: String,
    /// It is an init container that is to be completed.
    #[serde(default)]
    pub init: bool,
}

impl From<&ClaimRequest> for Holder {
    fn from(request: &ClaimRequest) -> Self {
        Self {
            pod: request.pod.clone(),
            container: request.container.clone(),
            pod_ip: request.pod_ip.clone(),
            container_id: request.container_id.clone(),
            init: request.init,
        }
    }
}

/// What a claimant is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet: ask again when something changed.
    Wait,
    Restore,
    /// An init container that is not to run: its work is in what is restored.
    Complete,
    Fresh(String),
    Refuse(String),
    /// It has restored already, and did not hear that this is on record.
    Recorded,
}

/// The ticket cannot be opened like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("the ticket is open already, for container {} and archive {}", .0.container, .0.digest)]
    Differently(Opening),
    #[error("the ticket is spent")]
    Spent,
}

/// The answer to whoever may not restore: an ordinary pod starts like any other, a shadow never starts without its state.
pub fn without_restore(role: Role, reason: String) -> Verdict {
    match role {
        Role::Replacement => Verdict::Fresh(reason),
        Role::Shadow => Verdict::Refuse(reason),
    }
}

impl Default for Ticket {
    fn default() -> Self {
        let (opened, holder, failure, fault) = (None, None, None, None);
        let (letting_go, completed) = (false, false);
        Self { state: TicketState::Unclaimed, opened, holder, failure, fault, letting_go, completed }
    }
}

impl Ticket {
    /// A container asks. `holder_gone`: of the pod that asked before nothing runs on this node any more.
    ///
    /// While the pod that asked first is still there, a replacement of another pod object waits: if the first one is on
    /// its way out the state must not be lost to a fresh start, and if it stays, the ticket is closed within seconds.
    pub fn claim(&mut self, role: Role, claimant: &Holder, holder_gone: bool) -> Verdict {
        if self.state == TicketState::Closed {
            return Verdict::Refuse("its ticket is spent: this restore was given up".to_owned());
        }
        let differs = |opened: &&Opening| opened.container != claimant.container && !claimant.init;
        if let Some(opened) = self.opened.as_ref().filter(differs) {
            return without_restore(role, format!("the ticket is for container {}", opened.container));
        }
        if let Some(holder) = self.holder.as_ref().filter(|holder| holder.pod != claimant.pod && !holder_gone)
        {
            return match role {
                Role::Replacement => Verdict::Wait,
                Role::Shadow => Verdict::Refuse(format!("the ticket belongs to pod {}", holder.pod)),
            };
        }
        if claimant.init {
            self.complete(role, claimant);
            return Verdict::Complete;
        }
        if self.is_record_of(claimant) {
            return Verdict::Recorded;
        }
        // Before it is opened, the first container to ask stands for its pod, unless it is only completed.
        let takes_over = self.holder.as_ref().is_none_or(|holder| holder.pod != claimant.pod || holder.init);
        if takes_over || self.opened.is_some() {
            self.completed &= self.holder.as_ref().is_some_and(|holder| holder.pod == claimant.pod);
            self.holder = Some(claimant.clone());
        }
        match (self.state, &self.opened) {
            (TicketState::Restoring, _) => Verdict::Wait,
            (_, None) => {
                self.state = TicketState::Waiting;
                Verdict::Wait
            }
            // Restored before, but the process died before it was resumed: the archive still is its whole state.
            (_, Some(_)) => {
                self.state = TicketState::Restoring;
                self.letting_go = false;
                Verdict::Restore
            }
        }
    }

    /// An init container of the pod is not to run: no instruction of that pod may run but what is restored. Nothing has to
    /// be open for it, as the pod comes to nothing where its ticket does.
    fn complete(&mut self, role: Role, claimant: &Holder) {
        let is_another = self.holder.as_ref().is_none_or(|holder| holder.pod != claimant.pod);
        if is_another {
            // Of the pod before it nothing is left.
            (self.state, self.letting_go) = (TicketState::Unclaimed, false);
            self.holder = Some(claimant.clone());
        }
        self.completed = role == Role::Replacement; // a shadow never starts fresh
    }

    /// The process that this very `create` has restored is on record.
    fn is_record_of(&self, claimant: &Holder) -> bool {
        matches!(self.state, TicketState::Held | TicketState::Started)
            && !claimant.container_id.is_empty()
            && self.holder.as_ref().is_some_and(|holder| {
                (&holder.pod, &holder.container_id) == (&claimant.pod, &claimant.container_id)
            })
    }

    /// The operator lets it be redeemed.
    pub fn open(&mut self, opening: Opening) -> Result<(), NotOpened> {
        match &self.opened {
            _ if self.state == TicketState::Closed => Err(NotOpened::Spent),
            Some(opened) if *opened != opening => Err(NotOpened::Differently(opened.clone())),
            _ => {
                self.opened = Some(opening);
                Ok(())
            }
        }
    }

    /// The processes are back and stand still. False where nobody was to restore, as when it was spent: they must not live.
    pub fn restored(&mut self) -> bool {
        if self.state == TicketState::Restoring {
            self.state = TicketState::Held;
            (self.failure, self.fault) = (None, None);
        }
        matches!(self.state, TicketState::Held | TicketState::Started)
    }

    /// The restore failed, or whoever did it is gone: another attempt may follow.
    pub fn failed(&mut self, fault: RestoreFault, reason: String) {
        if self.state == TicketState::Restoring {
            self.gave_up(fault, reason);
        }
    }

    /// The intent to let go what stands still in that container. False where it is not to be let go.
    pub fn let_go(&mut self, container_id: &str) -> bool {
        let is_live = self.opened.as_ref().is_some_and(|opened| opened.purpose == Purpose::Live);
        let goes = is_live && self.state == TicketState::Held && self.is_held_in(container_id);
        self.letting_go |= goes;
        goes
    }

    /// What was to be let go in that container runs.
    pub fn started(&mut self, container_id: &str) {
        if self.letting_go && self.state == TicketState::Held && self.is_held_in(container_id) {
            self.state = TicketState::Started;
            (self.letting_go, self.completed) = (false, false);
        }
    }

    /// The first process of that container has ended. False where that is nothing new.
    pub fn ended(&mut self, container_id: &str, fault: RestoreFault, reason: String) -> bool {
        let was_there = self.lives_in().is_some_and(|id| id == container_id);
        if was_there {
            self.gave_up(fault, reason);
        }
        was_there
    }

    /// The container in which something lives by this ticket that its record knows of.
    pub fn lives_in(&self) -> Option<&str> {
        let there = matches!(self.state, TicketState::Held | TicketState::Started);
        self.holder.as_ref().filter(|_| there).map(|holder| holder.container_id.as_str())
    }

    /// Nobody has to keep it: it is not open, and nobody was told anything by it that lasts.
    pub fn is_forgettable(&self) -> bool {
        self.opened.is_none() && self.state != TicketState::Closed && !self.completed
    }

    /// The pod that must not start fresh by it, nor without it.
    pub fn barred(&self) -> Option<&PodUid> {
        self.holder.as_ref().filter(|_| self.completed).map(|holder| &holder.pod)
    }

    /// Nothing is restored by it any more.
    pub fn spend(&mut self) {
        self.state = TicketState::Closed;
        self.letting_go = false;
    }

    fn is_held_in(&self, container_id: &str) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.container_id == container_id)
    }

    fn gave_up(&mut self, fault: RestoreFault, reason: String) {
        self.state = TicketState::Waiting;
        self.letting_go = false;
        (self.failure, self.fault) = (Some(reason), Some(fault));
    }
}

#[cfg(test)]
mod tests;
