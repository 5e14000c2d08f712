//! Publishes what this node can still take: a `NodeCapacity` of its name, and a Lease that says that the agent lives.
//!
//! Guarantees: what is published is at most [`LOOK`] older than the node, unless it hardly changed; a write that fails is made
//! again, and until then the Lease is not renewed; what somebody deletes is back within a minute; nothing else depends on it, so that a node whose API server is away serves its orders as ever.

mod facts;
mod meter;
mod publish;

pub use meter::Meter;
pub use publish::Publisher;

use std::time::Duration;

use crate::agent::dump::written::is_written;
use crate::agent::store::{Store, StoreError};
use crate::api::{Compatibility, NodeCapacitySpec};

/// Between looks at the disk.
const LOOK: Duration = Duration::from_millis(500);
/// Transfers at a time. Those out are the operator's to limit (`--per-node`): it knows of all.
const TRANSFERS: u32 = 2;
/// Smaller changes of the free space are not told at once, the less where there is much: a shadow's room is looked at once
/// more before the dump.
const GRAIN: u64 = 16 << 20;
const COARSEST_GRAIN: u64 = 256 << 20;

/// As the node is now.
fn measure(
    store: &Store,
    compatibility: &Compatibility,
    meter: &Meter,
) -> Result<NodeCapacitySpec, StoreError> {
    // Before the free room is looked at: what is finished in between counts twice for a moment, and never not at all. A
    // dump that is still being written takes room that is not gone yet.
    let dumps = store.dumps()?.into_iter().filter(|(uid, epoch)| is_written(&store.dump(uid, *epoch)));
    let holds = store.archives()?.into_iter().chain(dumps).map(|(migration, _)| migration).collect();
    Ok(NodeCapacitySpec {
        free_bytes: store.free_bytes()?.saturating_sub(crate::agent::transfer::receive::SPARE),
        holds,
        transfers_in: TRANSFERS,
        transfers_out: TRANSFERS,
        stream_bytes_per_second: meter.bytes_per_second(),
        compatibility: compatibility.clone(),
    })
}

/// Worth a write?
fn is_news(told: &NodeCapacitySpec, now: &NodeCapacitySpec) -> bool {
    let grain = (told.free_bytes / 64).clamp(GRAIN, COARSEST_GRAIN);
    let free = told.free_bytes.abs_diff(now.free_bytes) >= grain;
    let same =
        |a: &NodeCapacitySpec| NodeCapacitySpec { free_bytes: 0, stream_bytes_per_second: None, ..a.clone() };
    // A line that was not known, or has become slower: whoever plans by it must not stop a pod for nothing.
    let slower = match (told.stream_bytes_per_second, now.stream_bytes_per_second) {
        (None, Some(_)) => true,
        (Some(told), Some(now)) => now < told / 4 * 3,
        _ => false,
    };
    free || slower || same(told) != same(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bytes_are_no_news_and_an_archive_is() {
        let told = NodeCapacitySpec { free_bytes: 1 << 30, ..NodeCapacitySpec::default() };
        let with = |free_bytes| NodeCapacitySpec { free_bytes, ..told.clone() };
        assert!(!is_news(&told, &with((1 << 30) - 4096)));
        assert!(is_news(&told, &with((1 << 30) - (20 << 20))));
        assert!(is_news(&told, &with(0)));
        let mut holds = told.clone();
        holds.holds.insert("ab".into());
        assert!(is_news(&told, &holds));
        let rate = |rate| NodeCapacitySpec { stream_bytes_per_second: rate, ..told.clone() };
        assert!(is_news(&rate(None), &rate(Some(7))), "nobody knew");
        assert!(is_news(&rate(Some(80)), &rate(Some(50))), "it has become slow");
        assert!(!is_news(&rate(Some(80)), &rate(Some(70))));
        assert!(!is_news(&rate(Some(80)), &rate(Some(800))), "it is told with the next news");
    }

    #[test]
    fn what_a_dump_takes_is_gone_only_when_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let holds = || measure(&store, &Compatibility::default(), &Meter::default()).unwrap().holds;
        let dump = store.dump(&"ab".into(), crate::api::Epoch(1));
        std::fs::create_dir(&dump).unwrap();
        assert!(holds().is_empty());
        std::fs::write(dump.join("written"), "null").unwrap();
        assert_eq!(holds().into_iter().collect::<Vec<_>>(), ["ab".into()]);
    }

    #[test]
    fn what_is_kept_for_others_is_not_offered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let spec = measure(&store, &Compatibility::default(), &Meter::default()).unwrap();
        let free = store.free_bytes().unwrap();
        assert!(spec.free_bytes < free && free - spec.free_bytes < 1 << 30, "{spec:?}, {free}");
    }
}
