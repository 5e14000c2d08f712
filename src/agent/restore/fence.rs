//! Which orders of a migration are still valid. Pure.
//!
//! Guarantees: whoever saw a larger epoch refuses a smaller one; what was called off or closed does not begin again.

use serde::{Deserialize, Serialize};

use crate::api::Epoch;

/// What this node knows of a migration's attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// Largest epoch ordered.
    pub seen: Epoch,
    /// Up to this one the source was thawed: its attempt failed.
    #[serde(default)]
    pub called_off: Option<Epoch>,
    /// Up to this one everything is over.
    #[serde(default)]
    pub closed: Option<Epoch>,
}

/// The order belongs to the past.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch} is over: {why}")]
pub struct Stale {
    pub epoch: Epoch,
    pub why: String,
}

impl Fence {
    /// Takes note of an order that may come at any time of an attempt (thaw, await).
    pub fn admit(&mut self, epoch: Epoch) -> Result<(), Stale> {
        if epoch < self.seen {
            return Err(Stale { epoch, why: format!("epoch {} was ordered meanwhile", self.seen) });
        }
        self.seen = epoch;
        Ok(())
    }

    /// Takes note of an order that moves an attempt on (dump, freeze, open, archive).
    pub fn admit_forward(&mut self, epoch: Epoch) -> Result<(), Stale> {
        if let Some(closed) = self.closed.filter(|closed| epoch <= *closed) {
            return Err(Stale { epoch, why: format!("the migration is closed up to epoch {closed}") });
        }
        self.admit_kill(epoch)
    }

    /// Takes note of an order to kill: never once the source was thawed, but after the closing too, when the shadow is
    /// still to go.
    pub fn admit_kill(&mut self, epoch: Epoch) -> Result<(), Stale> {
        if let Some(off) = self.called_off.filter(|off| epoch <= *off) {
            return Err(Stale { epoch, why: format!("the source was thawed in epoch {off}") });
        }
        self.admit(epoch)
    }

    /// Takes note of an order to spend a ticket: not once all is closed, when what was restored by it is the pod.
    pub fn admit_spend(&mut self, epoch: Epoch) -> Result<(), Stale> {
        if let Some(closed) = self.closed.filter(|closed| epoch <= *closed) {
            return Err(Stale { epoch, why: format!("the migration is closed up to epoch {closed}") });
        }
        self.admit(epoch)
    }

    /// The attempt failed, its source goes on.
    pub fn call_off(&mut self, epoch: Epoch) -> Result<(), Stale> {
        self.admit(epoch)?;
        self.called_off = self.called_off.max(Some(epoch));
        Ok(())
    }

    /// Everything up to `epoch` is over. True if that is new.
    pub fn close(&mut self, epoch: Epoch) -> Result<bool, Stale> {
        if self.is_closed(epoch) {
            return Ok(false);
        }
        self.admit(epoch)?;
        self.closed = Some(epoch);
        Ok(true)
    }

    pub fn is_closed(&self, epoch: Epoch) -> bool {
        self.closed.is_some_and(|closed| epoch <= closed)
    }

    /// A ticket of that epoch can never be redeemed any more.
    pub fn is_over(&self, epoch: Epoch) -> bool {
        epoch < self.seen || self.is_closed(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_epoch_is_refused_after_a_larger_one() {
        let mut fence = Fence::default();
        assert!(fence.admit_forward(Epoch(2)).is_ok());
        assert!(fence.admit_forward(Epoch(2)).is_ok());
        assert!(fence.admit_forward(Epoch(1)).is_err());
        assert!(fence.admit(Epoch(1)).is_err());
        assert!(fence.close(Epoch(1)).is_err());
        assert!(fence.admit_forward(Epoch(3)).is_ok());
    }

    #[test]
    fn nothing_begins_again_after_a_thaw_of_the_same_epoch() {
        let mut fence = Fence::default();
        fence.admit_forward(Epoch(1)).unwrap();
        fence.call_off(Epoch(1)).unwrap();
        assert!(fence.admit_forward(Epoch(1)).is_err());
        assert!(fence.call_off(Epoch(1)).is_ok());
        assert!(fence.admit_forward(Epoch(2)).is_ok());
    }

    #[test]
    fn a_shadow_is_killed_after_the_closing_too_but_no_source_after_its_thaw() {
        let mut fence = Fence::default();
        fence.admit_forward(Epoch(1)).unwrap();
        fence.close(Epoch(1)).unwrap();
        assert!(fence.admit_kill(Epoch(1)).is_ok());
        fence.admit_forward(Epoch(2)).unwrap();
        fence.call_off(Epoch(2)).unwrap();
        assert!(fence.admit_kill(Epoch(2)).is_err());
    }

    #[test]
    fn closing_is_idempotent_and_ends_everything_up_to_it() {
        let mut fence = Fence::default();
        fence.admit_forward(Epoch(2)).unwrap();
        assert_eq!(fence.close(Epoch(2)), Ok(true));
        assert_eq!(fence.close(Epoch(2)), Ok(false));
        assert_eq!(fence.close(Epoch(1)), Ok(false));
        assert!(fence.admit_forward(Epoch(2)).is_err());
        assert!(fence.is_over(Epoch(1)) && fence.is_over(Epoch(2)) && !fence.is_over(Epoch(3)));
    }
}
