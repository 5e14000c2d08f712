//! Order and exactly-once at every prefetch from 1 to 500, on a real RabbitMQ: the consumer is parked in the middle of a
//! backlog, with as many messages in its hands as it may hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broker_support;

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use broker_support::{Post, Scene, Stage, agree};
use futures::future::join_all;

const LARGEST: u16 = 500;
/// How many are under way at once.
const AT_ONCE: usize = 4;
/// On top of two handfuls.
const MORE: u64 = 100;

async fn parked_in_a_backlog(prefetch: u16) {
    let stage = Stage::set(false).await;
    let mut post = Post::open(&stage).await;
    post.send(2 * u64::from(prefetch) + MORE).await;
    let scene = Scene::on(stage, prefetch, 0).await;
    scene.subject.has_applied(u64::from(prefetch) / 2 + 1).await;
    let parked = scene.park(1).await;
    let at = scene.subject.view();
    assert_eq!((parked.position, at.parked), (Some(at.count), true));
    post.send(MORE).await;
    assert_eq!(scene.resume(1).await.position, Some(at.count));
    agree(&scene.subject, &post.close().await).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_queue_is_exact_at_every_prefetch() {
    let (begun, next) = (Instant::now(), AtomicU16::new(1));
    let worker = async || {
        loop {
            let prefetch = next.fetch_add(1, Ordering::SeqCst);
            if prefetch > LARGEST {
                return;
            }
            parked_in_a_backlog(prefetch).await;
        }
    };
    join_all((0..AT_ONCE).map(|_| worker())).await;
    println!("prefetch 1 to {LARGEST} in {:?}", begun.elapsed());
}
