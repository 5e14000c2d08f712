//! What the supervisor says to a driver: whether an attempt may begin or go on, and what became of the object. No I/O.

use std::sync::Arc;

use tokio::sync::watch;

use crate::api::{Epoch, Reason, StatefulMigration};
use crate::protocol::{Event, Failure, State};

/// What the supervisor says to a driver.
#[derive(Clone)]
pub struct Orders {
    /// The object as last seen (for `abort` and deletion).
    pub object: watch::Receiver<Arc<StatefulMigration>>,
    /// Whether an attempt may begin.
    pub admission: watch::Receiver<Admission>,
}

/// Whether an attempt may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// For a slot.
    Waiting,
    /// And why, node by node.
    NoNodeFits(Arc<str>),
    /// This one may, and no later one. Room was found for so many bytes.
    Granted { epoch: Epoch, bytes: u64 },
    /// The slot that was asked for again that time is there.
    Returned(u32),
}

impl Orders {
    /// Resolves when the attempt may begin, or when there is something new to tell about why not.
    pub async fn admission(&self, state: &State) -> Event {
        let told = state.failure.as_ref().filter(|told| is_no_node(Some(told)));
        let mut admission = self.admission.clone();
        let news = admission.wait_for(|now| match now {
            Admission::Waiting | Admission::Returned(_) => false,
            Admission::NoNodeFits(why) => told.is_none_or(|told| *told.message != **why),
            Admission::Granted { epoch, .. } => *epoch == state.epoch,
        });
        match news.await.map(|news| news.clone()) {
            Ok(Admission::NoNodeFits(why)) => {
                Event::NoNodeFits(Failure::retryable(Reason::NoNodeFits, why.to_string()))
            }
            Ok(_) => Event::Admitted,
            Err(_) => std::future::pending().await,
        }
    }

    /// Resolves when the slot that was asked for again that time is there.
    pub async fn returned(&self, time: u32) {
        let mut admission = self.admission.clone();
        if admission.wait_for(|now| *now == Admission::Returned(time)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The bytes that room was found for.
    pub fn granted(&self, attempt: Epoch) -> Option<u64> {
        match *self.admission.borrow() {
            Admission::Granted { epoch, bytes } if epoch == attempt => Some(bytes),
            _ => None,
        }
    }

    /// Resolves when a person who is waited for has decided: another try than the `heeded` ones, or none.
    pub async fn decision(&self, heeded: u32) -> Event {
        let mut object = self.object.clone();
        let seen = object.wait_for(|object| decided(object, heeded).is_some()).await;
        let decision = seen.ok().and_then(|object| decided(&object, heeded));
        match decision {
            Some(decision) => decision,
            None => std::future::pending().await,
        }
    }

    /// The number of tries that were asked for.
    pub fn retries(&self) -> u32 {
        self.object.borrow().spec.retry
    }

    /// Resolves when somebody calls it off.
    pub async fn abort(&self) {
        if self.object.clone().wait_for(|object| wants_abort(object)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// It waits for a node, or did.
pub fn is_no_node(failure: Option<&Failure>) -> bool {
    failure.is_some_and(|failure| failure.reason == Reason::NoNodeFits)
}

/// Whoever deletes it wants nothing of it any more.
fn decided(object: &StatefulMigration, heeded: u32) -> Option<Event> {
    if object.spec.give_up || object.metadata.deletion_timestamp.is_some() {
        Some(Event::GiveUp)
    } else {
        (object.spec.retry > heeded).then_some(Event::Retry)
    }
}

fn wants_abort(object: &StatefulMigration) -> bool {
    object.spec.abort || object.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::api::EvictionPolicy;
    use crate::protocol::Plan;

    fn orders() -> (Orders, watch::Sender<Admission>) {
        let object = serde_json::json!({"apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
            "metadata": {"name": "m"}, "spec": {"sourcePod": "web-0"}});
        let object = watch::channel(Arc::new(serde_json::from_value(object).unwrap())).1;
        let (sender, admission) = watch::channel(Admission::Waiting);
        (Orders { object, admission }, sender)
    }

    fn state(epoch: u32, failure: Option<Failure>) -> State {
        let plan = Plan::plain(EvictionPolicy::MigrateOrBlock);
        State { epoch: Epoch(epoch), failure, ..State::new(plan, None) }
    }

    #[test]
    fn a_grant_is_for_one_attempt() {
        let (orders, sender) = orders();
        assert_eq!(orders.admission(&state(1, None)).now_or_never(), None);
        sender.send_replace(Admission::Granted { epoch: Epoch(1), bytes: 7 });
        assert_eq!((orders.granted(Epoch(1)), orders.granted(Epoch(2))), (Some(7), None));
        assert_eq!(orders.admission(&state(1, None)).now_or_never(), Some(Event::Admitted));
        assert_eq!(orders.admission(&state(2, None)).now_or_never(), None, "it waits for its own");
    }

    #[test]
    fn a_slot_that_was_asked_for_again_is_for_that_time() {
        let (orders, sender) = orders();
        sender.send_replace(Admission::Granted { epoch: Epoch(1), bytes: 7 });
        assert_eq!(orders.returned(1).now_or_never(), None);
        sender.send_replace(Admission::Returned(1));
        assert_eq!(orders.returned(1).now_or_never(), Some(()));
        assert_eq!(orders.returned(2).now_or_never(), None);
        assert_eq!(orders.admission(&state(2, None)).now_or_never(), None, "no attempt may begin by that");
    }

    #[test]
    fn a_person_decides_by_the_spec_or_by_deleting_it_and_each_try_is_heeded_once() {
        let object = |meta: serde_json::Value, spec: serde_json::Value| {
            let object = serde_json::json!({"apiVersion": "migration.ms2m.io/v1alpha1",
                "kind": "StatefulMigration", "metadata": meta, "spec": spec});
            serde_json::from_value::<StatefulMigration>(object).unwrap()
        };
        let named = || serde_json::json!({"name": "m"});
        let waits = object(named(), serde_json::json!({"sourcePod": "web-0"}));
        assert_eq!(decided(&waits, 0), None);
        let retried = object(named(), serde_json::json!({"sourcePod": "web-0", "retry": 2}));
        assert_eq!((decided(&retried, 1), decided(&retried, 2)), (Some(Event::Retry), None));
        let given_up = object(named(), serde_json::json!({"sourcePod": "web-0", "giveUp": true, "retry": 2}));
        assert_eq!(decided(&given_up, 0), Some(Event::GiveUp));
        let deleted = serde_json::json!({"name": "m", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(
            decided(&object(deleted, serde_json::json!({"sourcePod": "web-0"})), 0),
            Some(Event::GiveUp)
        );
    }

    #[test]
    fn why_it_waits_is_told_once() {
        let (orders, sender) = orders();
        sender.send_replace(Admission::NoNodeFits("n2: full".into()));
        let Some(Event::NoNodeFits(why)) = orders.admission(&state(1, None)).now_or_never() else { panic!() };
        assert_eq!(orders.admission(&state(1, Some(why.clone()))).now_or_never(), None);
        sender.send_replace(Admission::NoNodeFits("n2: cordoned".into()));
        assert!(orders.admission(&state(1, Some(why))).now_or_never().is_some(), "there is something new");
    }
}
