//! The life of one ticket on this node. Pure: what was claimed, opened and restored goes in, what to do comes out. A ticket is
//! of one pod; each of its containers has its part in it.
//!
//! Guarantees: only the pod that came first redeems it, while something of it is there; its containers are restored one
//! after the other, and none of them is let go before the last is back, but for those that the kubelet waits for; a
//! rehearsal is never let go; once closed, a replacement starts fresh and a shadow does not start at all; once spent,
//! nothing is restored by it and nothing is let go; a pod of which an init container was completed without running never
//! starts fresh before it has lived restored; what may have written to volumes that outlive it is restored once.

mod opening;
mod part;
mod stored;

pub use opening::{Filled, Holder, NotOpened, Opening};
pub use part::{Part, PartState};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{ClaimRequest, PodUid, Purpose, RestoreFault, Role, TicketState};

/// One ticket; its record on disk.
#[expect(clippy::struct_excessive_bools, reason = "facts of their own, each told at another time")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "stored::Stored")]
pub struct Ticket {
    pub opened: Option<Opening>,
    pub holder: Option<Holder>,
    /// What became of the containers of its holder that have asked, by their names.
    pub parts: BTreeMap<String, Part>,
    /// An init container of its holder's pod was completed without running, and nothing of the pod has lived since: it must
    /// not start fresh.
    pub completed: bool,
    /// For a container that is started anew.
    pub filled: Filled,
    /// The operator has heard that all of its holder's pod runs, and may close it: from then on a sidecar that ends is a container
    /// that crashes, not its pod.
    pub proven: bool,
    /// What was restored by it was let go, and is not to be restored a second time ([`Opening::once`]): whatever becomes of it, its
    /// pod carries on by itself.
    pub lived: bool,
    pub spent: bool,
}

/// What a claimant is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet: ask again when something changed.
    Wait,
    Restore,
    /// To be started anew, once what is of its pod is in place.
    Fill,
    /// An init container that is not to run: its work is in what is restored.
    Complete,
    Fresh(String),
    Refuse(String),
    /// It has restored already, and did not hear that this is on record.
    Recorded,
}

/// The answer to whoever may not restore: an ordinary pod starts like any other, a shadow never starts without its state.
pub fn without_restore(role: Role, reason: String) -> Verdict {
    match role {
        Role::Replacement => Verdict::Fresh(reason),
        Role::Shadow => Verdict::Refuse(reason),
    }
}

impl Ticket {
    /// How far the pod has come as a whole.
    pub fn state(&self) -> TicketState {
        if self.spent {
            return TicketState::Closed;
        }
        if self.carries_on() {
            return TicketState::Started;
        }
        let states: Vec<PartState> = match &self.opened {
            Some(opened) => opened.containers.iter().map(|name| self.part_state(name)).collect(),
            None => self.parts.values().map(|part| part.state).collect(),
        };
        let (least, most) = (states.iter().min(), states.iter().max());
        match (least.copied().unwrap_or_default(), most.copied().unwrap_or_default()) {
            (PartState::Started, _) => TicketState::Started,
            (PartState::Held, _) => TicketState::Held,
            _ if states.contains(&PartState::Restoring) => TicketState::Restoring,
            // The next is still to ask, unless one has asked in vain.
            (_, PartState::Held | PartState::Started) if self.failure().is_none() => TicketState::Restoring,
            (_, PartState::Unclaimed) => TicketState::Unclaimed,
            _ => TicketState::Waiting,
        }
    }

    /// It lives, whatever becomes of its sidecars; or what it wrote is ahead of its archive, and nothing stands still any more.
    fn carries_on(&self) -> bool {
        (self.lived && !self.stands_still())
            || (self.proven && self.lives_in().any(|(name, _)| self.is_for(name)))
    }

    fn stands_still(&self) -> bool {
        self.lives_in().any(|(_, part)| part.state == PartState::Held)
    }

    /// The pod is for that container: its archive is named by it.
    fn is_for(&self, container: &str) -> bool {
        self.opened
            .as_ref()
            .and_then(|opened| opened.containers.first())
            .is_some_and(|first| first == container)
    }

    fn part_state(&self, container: &str) -> PartState {
        self.parts.get(container).map(|part| part.state).unwrap_or_default()
    }

    /// A container asks. `holder_gone`: of the pod that asked before nothing runs on this node any more.
    ///
    /// While the pod that asked first is still there, a replacement of another pod object waits: if the first one is on
    /// its way out the state must not be lost to a fresh start, and if it stays, the ticket is closed within seconds.
    pub fn claim(&mut self, role: Role, request: &ClaimRequest, holder_gone: bool) -> Verdict {
        if self.spent {
            return Verdict::Refuse("its ticket is spent: this restore was given up".to_owned());
        }
        let differs = |opened: &&Opening| !opened.containers.contains(&request.container);
        // What lies in the archive is carried, whatever a pod says.
        let in_archive = self.opened.as_ref().is_some_and(|opened| !differs(&opened));
        let is_fresh = request.fresh && !in_archive;
        let is_carried = !request.init && !is_fresh;
        if let Some(opened) = self.opened.as_ref().filter(differs).filter(|_| is_carried) {
            let of = opened.containers.join(", ");
            return without_restore(role, format!("the ticket is for container {of}"));
        }
        if let Some(holder) = self.holder.as_ref().filter(|holder| holder.pod != request.pod && !holder_gone)
        {
            return match role {
                Role::Replacement => Verdict::Wait,
                Role::Shadow => Verdict::Refuse(format!("the ticket belongs to pod {}", holder.pod)),
            };
        }
        if self.lived {
            let part = self.parts.get(&request.container).filter(|part| part.is_back());
            let is_known = part.is_some_and(|part| part.is_of(&request.container_id)) && !request.init;
            let why = "what was restored has run, and its volumes are ahead of its memory".to_owned();
            return if is_known { Verdict::Recorded } else { without_restore(role, why) };
        }
        self.take_over(request);
        if request.init {
            // Nothing has to be open for it, as the pod comes to nothing where its ticket does. A shadow never starts fresh.
            self.completed = role == Role::Replacement;
            return Verdict::Complete;
        }
        if let (Some(holder), Some(ip)) = (&mut self.holder, &request.pod_ip) {
            holder.pod_ip = Some(ip.clone());
        }
        // One after the other: the first puts in place what is the pod's. Beside what carries on nothing is restored.
        let is_their_turn = self
            .others(&request.container)
            .map(|(_, part)| part.state)
            .any(|state| matches!(state, PartState::Restoring | PartState::Ending));
        let must_wait = self.opened.is_none() || is_their_turn || self.carries_on();
        let part = self.parts.entry(request.container.clone()).or_default();
        match part.state {
            PartState::Held | PartState::Started if part.is_of(&request.container_id) => Verdict::Recorded,
            PartState::Restoring | PartState::Ending => Verdict::Wait,
            _ if must_wait => {
                part.waits(&request.container_id);
                Verdict::Wait
            }
            _ if is_fresh => {
                part.restores(&request.container_id, false);
                Verdict::Fill
            }
            // Restored before, but the process died before it was resumed: the archive still is its whole state.
            _ => {
                part.restores(&request.container_id, request.at_once);
                Verdict::Restore
            }
        }
    }

    /// Of the pod before it nothing is left.
    fn take_over(&mut self, request: &ClaimRequest) {
        if self.holder.as_ref().is_some_and(|holder| holder.pod == request.pod) {
            return;
        }
        self.holder = Some(Holder { pod: request.pod.clone(), pod_ip: None });
        self.parts.clear();
        (self.completed, self.filled, self.proven) = (false, Filled::default(), false);
    }

    /// The operator lets it be redeemed.
    pub fn open(&mut self, opening: Opening) -> Result<(), NotOpened> {
        match &self.opened {
            _ if self.spent => Err(NotOpened::Spent),
            Some(opened) if *opened != opening => Err(NotOpened::Differently(opened.clone())),
            _ => {
                self.opened = Some(opening);
                Ok(())
            }
        }
    }

    /// The container's processes are back and stand still. False where nobody was to restore, as when it was spent: they
    /// must not live.
    pub fn restored(&mut self, container: &str) -> bool {
        let is_spent = self.spent;
        let Some(part) = self.parts.get_mut(container) else { return false };
        if part.state == PartState::Restoring && !is_spent {
            part.held();
        }
        part.is_back() && !is_spent
    }

    /// What is of the pod is in place, for a container that is started anew. False where it is not to start.
    pub fn filled(&mut self, container: &str, shm: bool) -> bool {
        let Some(part) = self.parts.get_mut(container).filter(|_| !self.spent) else { return false };
        let was_to = part.state == PartState::Restoring;
        if was_to {
            (part.state, part.failure) = (PartState::Waiting, None);
            self.filled = Filled { volumes: true, shm: shm || self.filled.shm };
        }
        was_to
    }

    /// The restore of that container failed, or whoever did it is gone: another attempt may follow.
    pub fn failed(&mut self, container: &str, fault: RestoreFault, reason: String) {
        if let Some(part) = self.parts.get_mut(container)
            && part.state == PartState::Restoring
        {
            part.gave_up(fault, reason);
        }
    }

    /// Whoever was restoring when the agent ended reports again, or asks again.
    pub fn broken_off(&mut self) {
        for part in self.parts.values_mut().filter(|part| part.state == PartState::Restoring) {
            part.gave_up(RestoreFault::BrokenOff, "the agent was restarted meanwhile".to_owned());
        }
    }

    /// The intent to let go what stands still in that container. False where it is not to be let go.
    pub fn let_go(&mut self, container_id: &str) -> bool {
        let goes = !self.must_be_on_record(container_id).is_empty();
        let is_once = self.opened.as_ref().is_some_and(|opened| opened.once);
        if let Some(part) = self.parts.values_mut().find(|part| part.is_of(container_id)) {
            part.letting_go |= goes;
            // One that the kubelet waits for has no such volume.
            self.lived |= goes && is_once && !part.at_once;
        }
        self.completed &= !self.lived;
        goes
    }

    /// IDs of the containers that the engine must have on record before that one is let go; none where it is not to be let
    /// go, or not yet.
    pub fn must_be_on_record(&self, container_id: &str) -> Vec<&str> {
        let Some(opened) = self.opened.as_ref().filter(|opened| opened.purpose == Purpose::Live) else {
            return Vec::new();
        };
        let Some((_, part)) = self.part_in(container_id) else { return Vec::new() };
        match part.state {
            // What was let go before it may have ended since, and is not restored again.
            PartState::Held if part.at_once || self.lived => vec![&part.container_id],
            PartState::Held if opened.containers.iter().all(|name| self.part_state(name).is_back()) => {
                let held = self.parts.values().filter(|part| part.state == PartState::Held);
                held.map(|part| part.container_id.as_str()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What was to be let go in that container runs.
    pub fn started(&mut self, container_id: &str) {
        let is_spent = self.spent;
        let Some(part) = self.parts.values_mut().find(|part| part.is_of(container_id)) else { return };
        if part.letting_go && part.state == PartState::Held && !is_spent {
            part.started();
            self.completed &= self.state() != TicketState::Started;
        }
    }

    /// That all of its pod runs is told.
    pub fn proves(&mut self) {
        self.proven |= self.state() == TicketState::Started;
    }

    /// The first process of that container has ended. False where that is nothing new.
    ///
    /// If nobody has heard yet that its pod runs, or it is the one that its pod is for, its pod has ended: whatever else of it is there is to be
    /// killed, so that it can be restored as a whole, its volumes too.
    pub fn ended(&mut self, container_id: &str, fault: RestoreFault, reason: String) -> bool {
        let of = self.part_in(container_id).map(|(name, part)| (name.to_owned(), part.has_run()));
        let Some((name, had_run)) = of else { return false };
        let is_last = self.lives_in().count() == 1;
        let another_has_run =
            self.lives_in().any(|(other, part)| other != name && part.has_run() && !part.at_once);
        let takes_all = if self.proven { had_run && self.is_for(&name) } else { had_run || another_has_run };
        let takes_all = (takes_all || is_last) && !self.lived;
        for (other, part) in &mut self.parts {
            if *other == name {
                part.gave_up(fault, reason.clone());
            } else if takes_all {
                part.ends_with_another();
            }
        }
        if takes_all {
            (self.filled, self.proven) = (Filled::default(), false);
        }
        true
    }

    /// What was to be killed in that container is dead.
    pub fn is_dead(&mut self, container_id: &str) {
        for part in self.parts.values_mut().filter(|part| part.is_of(container_id)) {
            if part.state == PartState::Ending {
                part.state = PartState::Waiting;
            }
        }
    }

    /// Containers that are to be killed.
    pub fn ending(&self) -> impl Iterator<Item = &str> {
        let ending = self.parts.values().filter(|part| part.state == PartState::Ending);
        ending.map(|part| part.container_id.as_str())
    }

    /// Containers in which something lives by this ticket that its record knows of, by their names.
    pub fn lives_in(&self) -> impl Iterator<Item = (&str, &Part)> {
        let there = self.parts.iter().filter(|(_, part)| part.is_back() && !self.spent);
        there.map(|(name, part)| (name.as_str(), part))
    }

    /// The part of that container, if something lives in it.
    pub fn part_in(&self, container_id: &str) -> Option<(&str, &Part)> {
        self.lives_in().find(|(_, part)| part.is_of(container_id))
    }

    /// The other containers of its pod, and what became of them.
    pub fn others(&self, container: &str) -> impl Iterator<Item = (&str, &Part)> {
        let others = self.parts.iter().filter(move |(name, _)| *name != container);
        others.map(|(name, part)| (name.as_str(), part))
    }

    /// Why a restore failed, or what was restored lives no more; of a pod with several containers with the name of that one.
    pub fn failure(&self) -> Option<(RestoreFault, String)> {
        // What ended of a pod that is not restored again is told all the same: it started fresh.
        let has_lost = self.lived && !(self.proven && self.lives_in().any(|(name, _)| self.is_for(name)));
        if self.carries_on() && !has_lost {
            return None;
        }
        let failed = |(name, part): (&String, &Part)| Some((name.clone(), part.failure.clone()?));
        let mut failures: Vec<_> = self.parts.iter().filter_map(failed).collect();
        // What broke off is tried again: another's fault is what counts.
        failures.sort_by_key(|(_, failure)| failure.fault == RestoreFault::BrokenOff);
        let (name, failure) = failures.into_iter().next()?;
        let is_alone = self.opened.as_ref().is_none_or(|opened| opened.containers.len() == 1);
        let reason = if is_alone { failure.reason } else { format!("container {name}: {}", failure.reason) };
        Some((failure.fault, reason))
    }

    /// Nobody has to keep it: it is not open, and nobody was told anything by it that lasts.
    pub fn is_forgettable(&self) -> bool {
        self.opened.is_none() && !self.spent && !self.completed
    }

    /// The pod that must not start fresh by it, nor without it.
    pub fn barred(&self) -> Option<&PodUid> {
        self.holder.as_ref().filter(|_| self.completed).map(|holder| &holder.pod)
    }

    /// Nothing is restored by it any more.
    pub fn spend(&mut self) {
        self.spent = true;
        self.parts.values_mut().for_each(|part| part.letting_go = false);
    }
}

#[cfg(test)]
mod tests;
