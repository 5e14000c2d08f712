//! Order and exactly-once at every prefetch from 1 to 500 (`make test`: a third of them), on a real RabbitMQ, on both kinds of queue: the consumer is parked in the middle of a
//! backlog, with as many messages in its hands as it may hold.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use super::support::{Post, Scene, Stage, agree, until};
use crate::sample::Sample;
use futures::future::join_all;

const LARGEST: u16 = 500;
/// How many are under way at once.
const AT_ONCE: usize = 4;
/// Of how many `make test` tries one; `make broker` tries all.
const EACH: usize = 3;
/// On top of two handfuls.
const MORE: u64 = 100;

async fn parked_in_a_backlog(quorum: bool, prefetch: u16) {
    let stage = Stage::set(quorum).await;
    let mut post = Post::open(&stage).await;
    post.send(2 * u64::from(prefetch) + MORE).await;
    let scene = Scene::on(stage, prefetch, 0).await;
    scene.subject.has_applied(u64::from(prefetch) / 2 + 1).await;
    // Where the machine is busy the broker's word may come so much sooner that the answer is not waited for: then the
    // order is given again, and the answer is there.
    let mut position = scene.park(1).await.position;
    until("the consumer's own answer is read", async || {
        if position.is_none() {
            position = scene.park(1).await.position;
        }
        position.is_some()
    })
    .await;
    let at = scene.subject.view();
    assert_eq!((position, at.parked), (Some(at.count), true));
    post.send(MORE).await;
    assert_eq!(scene.resume(1).await.position, Some(at.count));
    agree(&scene.subject, &post.close().await).await;
    scene.end().await;
}

async fn at_every_prefetch(quorum: bool) {
    let sample = Sample::of("BROKER", EACH);
    let (each, first) = (u16::try_from(sample.each).unwrap(), u16::try_from(1 + sample.skip).unwrap());
    let (begun, next) = (Instant::now(), AtomicU16::new(first));
    let worker = async || {
        loop {
            let prefetch = next.fetch_add(each, Ordering::SeqCst);
            if prefetch > LARGEST {
                return;
            }
            parked_in_a_backlog(quorum, prefetch).await;
        }
    };
    join_all((0..AT_ONCE).map(|_| worker())).await;
    println!("prefetch 1 to {LARGEST} ({sample}) in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_queue_is_exact_at_every_prefetch() {
    at_every_prefetch(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_is_exact_at_every_prefetch() {
    at_every_prefetch(true).await;
}
