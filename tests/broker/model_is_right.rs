//! The explorer's model of RabbitMQ does what RabbitMQ does: the same scripts of operations, drawn from a seed, on both,
//! with the same answer to every operation, the same messages in the same order for every consumer, and the same queues.
//!
//! Which of several consumers is served next is the broker's choice: the model must allow what it chose, and when the
//! broker rests the model must have nothing left to deliver. Classic queues, as parking and control queues are.

#[allow(dead_code)] // the explorer uses the rest
#[path = "../explore/broker.rs"]
mod model;

#[path = "model/both.rs"]
mod both;
#[path = "model/script.rs"]
mod script;

use both::Both;
use script::Dice;

const SCRIPTS: u64 = 30;
const OPERATIONS: usize = 60;

async fn run(seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let prefetch = u16::try_from(1 + dice.roll(3)).unwrap();
    let mut both = Both::begin(prefetch).await;
    let mut performed = 0;
    for _ in 0..OPERATIONS {
        let operation = dice.operation();
        let Some((expected, real)) = both.perform(operation).await else { continue };
        both.told.push(format!("{operation:?}: {real:?}"));
        assert_eq!(expected, real, "seed {seed}, prefetch {prefetch}:\n{}", both.told.join("\n"));
        both.settle().await;
        performed += 1;
    }
    both.end().await;
    performed
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_and_a_real_broker_do_the_same() {
    let mut performed = 0;
    for seed in 1..=SCRIPTS {
        performed += run(seed).await;
    }
    println!("{SCRIPTS} scripts, {performed} operations, no difference");
    assert!(performed > 1000, "only {performed} operations made sense");
}
