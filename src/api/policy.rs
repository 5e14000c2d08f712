//! What a user writes: annotations on a pod template or on its StatefulSet or Deployment, parsed into a [`Policy`].
//!
//! The annotations of the pod win over those of its owner. A wrong value is an error that names the annotation,
//! the value and what would be right; an unknown `migration.ms2m.io/` annotation is none (newer versions have more).

use std::collections::BTreeMap;
use std::time::Duration;

use super::names::{
    ANNOTATION_BROKER_SECRET, ANNOTATION_CONTAINER, ANNOTATION_DEADLINE, ANNOTATION_EXCHANGE,
    ANNOTATION_INIT, ANNOTATION_MAX_PAUSE, ANNOTATION_POLICY, ANNOTATION_PREPARE, ANNOTATION_PRIORITY,
    ANNOTATION_QUEUE, ANNOTATION_RESTART_FRESH, ANNOTATION_ROUTING_KEY, ANNOTATION_STATE_FROM,
    ANNOTATION_STRATEGY, ANNOTATION_SYNC,
};
use super::{EvictionPolicy, InitRuns, MessageQueue, StateFrom, Strategy, SyncMode, parse_init_runs};

/// Cluster-autoscaler waits 600 s for an accepted eviction to take effect; the answer must come before.
pub const LONGEST_DEADLINE: Duration = Duration::from_secs(599);
/// Long enough for several attempts with back-off, well inside [`LONGEST_DEADLINE`].
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(120);

/// How one pod wants to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub eviction: EvictionPolicy,
    pub queue: Option<MessageQueue>,
    pub container: Option<String>,
    pub state_from: StateFrom,
    pub strategy: Strategy,
    pub sync: SyncMode,
    pub max_pause: Option<Duration>,
    pub deadline: Duration,
    pub priority: i32,
    pub prepare: Prepare,
    pub init: InitRuns,
    /// Containers that are not carried but started anew.
    pub restart_fresh: Vec<String>,
}

impl Default for Policy {
    /// Of a pod that asks for nothing but to be moved.
    fn default() -> Self {
        Self {
            eviction: EvictionPolicy::default(),
            queue: None,
            container: None,
            state_from: StateFrom::Any,
            strategy: Strategy::Auto,
            sync: SyncMode::Auto,
            max_pause: None,
            deadline: DEFAULT_DEADLINE,
            priority: 0,
            prepare: Prepare::Auto,
            init: InitRuns::new(),
            restart_fresh: Vec::new(),
        }
    }
}

/// Whether new pods are made so that they can be moved later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prepare {
    /// Where every node that takes them can, and none is made for them by something that could not know that.
    #[default]
    Auto,
    /// The user answers for nodes that are made later.
    Always,
    Never,
}

/// An annotation has a value that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: `{value}` is not valid; expected {expected}")]
pub struct PolicyError {
    pub annotation: &'static str,
    pub value: String,
    pub expected: &'static str,
}

/// The policy of a pod with these annotations, owned by a workload with those; `None` where neither asks for SHADOW,
/// or where the policy says `None`.
pub fn pod_policy(
    pod: &BTreeMap<String, String>,
    owner: &BTreeMap<String, String>,
) -> Result<Option<Policy>, PolicyError> {
    let read = |key: &'static str| pod.get(key).or_else(|| owner.get(key)).map(|value| (key, value.trim()));
    let eviction = match read(ANNOTATION_POLICY) {
        None => None,
        Some((_, "MigrateOrEvict")) => Some(EvictionPolicy::MigrateOrEvict),
        Some((_, "MigrateOrBlock")) => Some(EvictionPolicy::MigrateOrBlock),
        Some((_, "None")) => return Ok(None),
        Some(wrong) => return Err(refuse(wrong, "MigrateOrEvict, MigrateOrBlock or None")),
    };
    let queue_name = read(ANNOTATION_QUEUE);
    if eviction.is_none() && queue_name.is_none() {
        return Ok(None);
    }
    let text = |key| read(key).map(|(_, value)| value.to_owned());
    let queue = match queue_name {
        None => None,
        Some(empty @ (_, "")) => return Err(refuse(empty, "the name of a queue")),
        Some((_, name)) => Some(MessageQueue {
            queue: name.to_owned(),
            exchange: text(ANNOTATION_EXCHANGE),
            routing_key: text(ANNOTATION_ROUTING_KEY),
            broker_secret: text(ANNOTATION_BROKER_SECRET),
            broker_url: None,
        }),
    };
    let state_from = match read(ANNOTATION_STATE_FROM) {
        None if queue.is_some() => StateFrom::Queue,
        None | Some((_, "Any")) => StateFrom::Any,
        Some((_, "Queue")) if queue.is_some() => StateFrom::Queue,
        Some(wrong @ (_, "Queue")) => {
            return Err(refuse(wrong, "Any, as no queue is named (migration.ms2m.io/queue)"));
        }
        Some(wrong) => return Err(refuse(wrong, "Queue or Any")),
    };
    let strategy = match read(ANNOTATION_STRATEGY) {
        None | Some((_, "Auto")) => Strategy::Auto,
        Some((_, "ShadowPod")) => Strategy::ShadowPod,
        Some((_, "Sequential")) => Strategy::Sequential,
        Some(wrong) => return Err(refuse(wrong, "Auto, ShadowPod or Sequential")),
    };
    let sync = match read(ANNOTATION_SYNC) {
        None | Some((_, "Auto")) => SyncMode::Auto,
        Some((_, "Quiesce")) => SyncMode::Quiesce,
        Some((_, "Replay")) => SyncMode::Replay,
        Some(wrong) => return Err(refuse(wrong, "Auto, Quiesce or Replay")),
    };
    let max_pause = match read(ANNOTATION_MAX_PAUSE) {
        None => None,
        Some(given) => Some(
            parse_duration(given.1)
                .filter(|d| !d.is_zero())
                .ok_or_else(|| refuse(given, "a duration such as 1500ms, 5s or 1m"))?,
        ),
    };
    let deadline = match read(ANNOTATION_DEADLINE) {
        None => DEFAULT_DEADLINE,
        Some(given) => parse_duration(given.1)
            .filter(|d| !d.is_zero() && *d <= LONGEST_DEADLINE)
            .ok_or_else(|| refuse(given, "a duration under 600s, such as 120s or 2m"))?,
    };
    let priority = match read(ANNOTATION_PRIORITY) {
        None => 0,
        Some(given) => given.1.parse().map_err(|_| refuse(given, "an integer"))?,
    };
    let prepare = match read(ANNOTATION_PREPARE) {
        None => Prepare::Auto,
        Some((_, "true")) => Prepare::Always,
        Some((_, "false")) => Prepare::Never,
        Some(wrong) => return Err(refuse(wrong, "true or false")),
    };
    let init = match read(ANNOTATION_INIT) {
        None => InitRuns::new(),
        Some(given) => parse_init_runs(given.1)
            .ok_or_else(|| refuse(given, "names of init containers, as in setup=Run,fill=Skip"))?,
    };
    let restart_fresh = match read(ANNOTATION_RESTART_FRESH) {
        None => Vec::new(),
        Some(given) => parse_names(given.1)
            .ok_or_else(|| refuse(given, "names of containers, as in log-shipper,proxy"))?,
    };
    Ok(Some(Policy {
        eviction: eviction.unwrap_or_default(),
        queue,
        container: text(ANNOTATION_CONTAINER),
        state_from,
        strategy,
        sync,
        max_pause,
        deadline,
        priority,
        prepare,
        init,
        restart_fresh,
    }))
}

fn refuse((annotation, value): (&'static str, &str), expected: &'static str) -> PolicyError {
    PolicyError { annotation, value: value.chars().take(100).collect(), expected }
}

/// `a,b`.
fn parse_names(text: &str) -> Option<Vec<String>> {
    let names = text.split(',').map(str::trim);
    names.map(|name| Some(name.to_owned()).filter(|name| !name.is_empty())).collect()
}

/// `1500ms`, `5s`, `2m`: a whole number and one unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<Policy>, PolicyError> {
        pod_policy(&annotations(pairs), &BTreeMap::new())
    }

    #[test]
    fn a_pod_without_annotations_is_none_of_our_business() {
        assert_eq!(parse(&[("app", "web")]), Ok(None));
        assert_eq!(parse(&[(ANNOTATION_POLICY, "None"), (ANNOTATION_QUEUE, "q")]), Ok(None));
    }

    #[test]
    fn naming_a_queue_is_enough_and_makes_it_the_source_of_state() {
        let policy = parse(&[(ANNOTATION_QUEUE, "orders")]).unwrap().unwrap();
        assert_eq!(policy.eviction, EvictionPolicy::MigrateOrEvict);
        assert_eq!(policy.queue.unwrap().queue, "orders");
        assert_eq!(policy.state_from, StateFrom::Queue);
        assert_eq!(policy.deadline, DEFAULT_DEADLINE);
    }

    #[test]
    fn without_a_queue_state_may_come_from_anywhere() {
        let policy = parse(&[(ANNOTATION_POLICY, "MigrateOrBlock")]).unwrap().unwrap();
        assert_eq!(policy.state_from, StateFrom::Any);
        assert!(parse(&[(ANNOTATION_POLICY, "MigrateOrBlock"), (ANNOTATION_STATE_FROM, "Queue")]).is_err());
    }

    #[test]
    fn the_pod_wins_over_its_owner() {
        let pod = annotations(&[(ANNOTATION_POLICY, "None")]);
        let owner = annotations(&[(ANNOTATION_POLICY, "MigrateOrEvict")]);
        assert_eq!(pod_policy(&pod, &owner), Ok(None));
        assert!(pod_policy(&BTreeMap::new(), &owner).unwrap().is_some());
    }

    #[test]
    fn every_wrong_value_is_named_with_what_would_be_right() {
        for (key, value) in [
            (ANNOTATION_POLICY, "migrate"),
            (ANNOTATION_STATE_FROM, "queue"),
            (ANNOTATION_STRATEGY, "Swap"),
            (ANNOTATION_SYNC, "Cutoff"),
            (ANNOTATION_MAX_PAUSE, "5"),
            (ANNOTATION_MAX_PAUSE, "0s"),
            (ANNOTATION_DEADLINE, "600s"),
            (ANNOTATION_DEADLINE, "-1s"),
            (ANNOTATION_DEADLINE, "99999999999999999999m"),
            (ANNOTATION_PRIORITY, "high"),
            (ANNOTATION_PREPARE, "no"),
            (ANNOTATION_INIT, "setup"),
            (ANNOTATION_RESTART_FRESH, "a,,b"),
            (ANNOTATION_QUEUE, " "),
        ] {
            let mut pairs = vec![(ANNOTATION_POLICY, "MigrateOrEvict"), (ANNOTATION_QUEUE, "q")];
            pairs.retain(|(k, _)| *k != key);
            pairs.push((key, value));
            if key != ANNOTATION_QUEUE {
                pairs.push((ANNOTATION_QUEUE, "q"));
            }
            let error = parse(&pairs).expect_err(value);
            assert_eq!(error.annotation, key);
            assert!(error.to_string().contains("expected"), "{error}");
        }
    }

    #[test]
    fn pods_are_prepared_unless_their_user_says_otherwise() {
        let with = |value| parse(&[(ANNOTATION_QUEUE, "q"), (ANNOTATION_PREPARE, value)]).unwrap().unwrap();
        assert_eq!(parse(&[(ANNOTATION_QUEUE, "q")]).unwrap().unwrap().prepare, Prepare::Auto);
        assert_eq!((with("true").prepare, with("false").prepare), (Prepare::Always, Prepare::Never));
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("2h"), None);
        assert_eq!(parse_duration(""), None);
    }
}
