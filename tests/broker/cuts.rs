//! The connection to a real RabbitMQ is cut before, in the middle of and after every frame that the broker module sends
//! in a whole migration. Whatever was being done is done again, and the outcome is exact each time.
//!
//! `CUT_AT=23` makes the cuts at that frame only, to repeat what failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::support::{Cut, Ending, Journey, When};
use crate::sample::Sample;
use futures::future::join_all;
use parking_lot::Mutex;

/// How many journeys are under way at once.
const AT_ONCE: usize = 4;

/// Of how many frames `make test` cuts at one; `make broker` cuts at each.
const EACH: usize = 3;

/// What was struck, and how often.
type Strikes = BTreeMap<String, u32>;

/// Every frame, until a journey is over before its cut comes.
async fn cut_at_every_frame(journey: Journey) {
    let begun = Instant::now();
    let whole = journey.travel(None).await;
    assert_eq!(whole.failures, 0);
    let sample = Sample::of("BROKER", EACH);
    let mut told = Vec::new();
    for when in [When::Before, When::Midway, When::After] {
        let strikes = strike(journey, when, sample).await;
        let count: u32 = strikes.values().sum();
        // A wait for an answer looks at the broker more or less often.
        let enough =
            std::env::var("CUT_AT").is_ok() || (u64::from(count) + 1) * 2 * sample.each as u64 > whole.frames;
        assert!(enough, "{count} cuts in {} frames", whole.frames);
        told.push((when, count, strikes));
    }
    for (when, count, strikes) in &told {
        println!("{journey:?}: {count} cuts {when:?}: {strikes:?}");
    }
    let all: u32 = told.iter().map(|(_, count, _)| count).sum();
    println!("{journey:?}: {all} cuts ({sample}) in {:?}", begun.elapsed());
}

async fn strike(journey: Journey, when: When, sample: Sample) -> Strikes {
    let only: Option<u64> = std::env::var("CUT_AT").ok().map(|frame| frame.parse().unwrap());
    let (next, strikes) =
        (AtomicU64::new(only.unwrap_or(1 + sample.skip as u64)), Mutex::new(Strikes::new()));
    let worker = async || {
        loop {
            let frame = next.fetch_add(sample.each as u64, Ordering::SeqCst);
            if only.is_some_and(|only| frame > only) {
                return;
            }
            let travelled = journey.travel(Some(Cut { frame, when })).await;
            let Some(struck) = travelled.struck else { return };
            *strikes.lock().entry(struck).or_default() += 1;
        }
    };
    join_all((0..AT_ONCE).map(|_| worker())).await;
    strikes.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_on_a_classic_queue_is_exact_wherever_the_connection_is_cut() {
    cut_at_every_frame(Journey { ending: Ending::Moved, quorum: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_on_a_quorum_queue_is_exact_wherever_the_connection_is_cut() {
    cut_at_every_frame(Journey { ending: Ending::Moved, quorum: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_a_new_name_among_competitors_is_exact_wherever_the_connection_is_cut() {
    cut_at_every_frame(Journey { ending: Ending::Renamed, quorum: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_on_a_classic_queue_is_exact_wherever_the_connection_is_cut() {
    cut_at_every_frame(Journey { ending: Ending::RolledBack, quorum: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_on_a_quorum_queue_is_exact_wherever_the_connection_is_cut() {
    cut_at_every_frame(Journey { ending: Ending::RolledBack, quorum: true }).await;
}
