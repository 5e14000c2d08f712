//! Park and resume with a real RabbitMQ and the example's consumer: what is published is applied exactly once and in
//! order, whatever happens in between.

use std::time::{Duration, Instant};

use super::support::{PlainConsumer, Scene, Source, Stage, Subject, WITHIN, agree, until};
use shadow::api::control_queue;
use shadow::broker::control::{Fence, Order, OrderPayload, OrderType};
use shadow::broker::{Broker, BrokerError, Proof};

/// A backlog of 5,000 and 120 more each second, parked and resumed three times.
async fn park_and_resume_under_load(quorum: bool, prefetch: u16) {
    let stage = Stage::set(quorum).await;
    let source = Source::start(&stage, 5_000, 50);
    source.has_published(5_000).await;
    source.rate(120);
    let subject = Subject::start(&stage, prefetch, 1).await;
    let broker = stage.broker();
    for epoch in 1..=3 {
        subject.has_applied(u64::from(epoch) * 500).await;
        let queues = stage.queues(epoch);
        broker.declare_parking(&queues).await.unwrap();

        let begun = Instant::now();
        let parked = broker.park(&stage.park(epoch), WITHIN).await.unwrap();
        let park_ms = begun.elapsed().as_millis();
        let at = subject.view();
        assert_eq!(parked.proof, Proof::Acknowledged);
        assert_eq!((parked.position, parked.last_id), (Some(at.count), at.last_id.map(|id| id.to_string())));

        // The publisher goes on; the parked one applies nothing, and nothing of what it applied is left behind.
        let published = source.ledger.view().published;
        source.has_published(published + 60).await;
        assert_eq!(subject.view().count, at.count, "a parked consumer applied a message");
        until("the primary holds exactly the rest", async || {
            let published = source.ledger.view().published;
            let (ready, consumers) = stage.look(&stage.primary).await.unwrap();
            // The publisher may be ahead of its ledger, never behind.
            consumers == 0 && (published..published + 100).contains(&(u64::from(ready) + at.count))
        })
        .await;

        let begun = Instant::now();
        let resumed = broker.resume(&stage.resume(epoch), WITHIN).await.unwrap();
        let resume_ms = begun.elapsed().as_millis();
        assert_eq!((resumed.proof, resumed.position), (Proof::Acknowledged, Some(at.count)));
        broker.drop_parking(&queues).await.unwrap();
        assert_eq!(stage.look(&queues.parking()).await, None);
        assert_eq!(stage.look(&queues.reply()).await, None);
        println!(
            "quorum={quorum} prefetch={prefetch} epoch={epoch}: park {park_ms} ms, resume {resume_ms} ms"
        );
    }
    let ledger = source.stop().await;
    agree(&subject, &ledger).await;
    // A quorum queue takes back what it had not sent yet when the subscription ended, flagged but in its place.
    assert!(quorum || subject.view().redelivered == 0, "parking must hand nothing back");
    subject.crash().await;
    stage.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_queue_with_prefetch_1_keeps_every_message_in_order() {
    park_and_resume_under_load(false, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_queue_with_prefetch_50_keeps_every_message_in_order() {
    park_and_resume_under_load(false, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_queue_with_prefetch_500_keeps_every_message_in_order() {
    park_and_resume_under_load(false, 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_with_prefetch_1_keeps_every_message_in_order() {
    park_and_resume_under_load(true, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_with_prefetch_50_keeps_every_message_in_order() {
    park_and_resume_under_load(true, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_with_prefetch_500_keeps_every_message_in_order() {
    park_and_resume_under_load(true, 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_orders_of_an_old_epoch_move_nothing() {
    let scene = Scene::parked().await;
    let Scene { stage, subject, broker } = &scene;
    let late = async |kind: OrderType, epoch: u32| {
        let queues = stage.queues(epoch);
        let queue = match kind {
            OrderType::StartReplay => queues.parking(),
            OrderType::EndReplay => queues.primary.clone(),
        };
        let fence =
            Fence { migration: queues.migration.clone(), epoch: queues.epoch, reply_to: queues.reply() };
        let order = Order { kind, payload: OrderPayload { queue }, fence: Some(fence) };
        let control = control_queue(&stage.pod);
        stage.send(&control, &order.to_vec().unwrap()).await;
        until("the order is taken", async || stage.look(&control).await.unwrap().0 == 0).await;
    };

    scene.resume(1).await;
    late(OrderType::StartReplay, 1).await;
    stage.send(&stage.primary, b"{}").await;
    subject.has_applied(1).await;
    assert!(!subject.view().parked, "a late PARK parked it");

    scene.park(2).await;
    late(OrderType::EndReplay, 1).await;
    late(OrderType::StartReplay, 1).await;
    // A repeated order is answered behind the late ones: they have been dealt with.
    broker.park(&stage.park(2), WITHIN).await.unwrap();
    assert!(subject.view().parked, "a late RESUME resumed it");
    assert_eq!(stage.look(&stage.primary).await, Some((0, 0)));
    assert_eq!(stage.look(&stage.queues(2).parking()).await, Some((0, 1)));

    scene.resume(2).await;
    scene.clean(2).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_operator_repeats_its_orders_and_gets_the_same_answers() {
    let scene = Scene::set().await;
    let stage = &scene.stage;
    stage.send(&stage.primary, b"{}").await;
    scene.subject.has_applied(1).await;
    let first = scene.park(1).await;
    let again = stage.broker().park(&stage.park(1), WITHIN).await.unwrap();
    assert_eq!((first.clone(), first.position), (again, Some(1)));
    let first = scene.resume(1).await;
    let again = stage.broker().resume(&stage.resume(1), WITHIN).await.unwrap();
    assert_eq!(first, again);
    scene.clean(1).await;
    scene.end().await;
}

/// As after a restore: the memory is there, the sockets are closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_consumer_whose_connection_is_cut_stays_parked_and_resumes_in_order() {
    let scene = Scene::on(Stage::set(false).await, 50, 0).await;
    let Scene { stage, subject, .. } = &scene;
    let source = Source::start(stage, 500, 1);
    subject.has_applied(100).await;
    scene.park(1).await;
    let at = subject.view();
    let begun = Instant::now();
    subject.moves_to(&stage.pod).await;
    println!("back {} ms after its sockets were closed", begun.elapsed().as_millis());
    until("it sits on the parking queue", async || {
        stage.look(&stage.queues(1).parking()).await == Some((0, 1))
    })
    .await;
    let published = source.ledger.view().published;
    source.has_published(published + 100).await;
    let now = subject.view();
    assert_eq!((now.count, now.parked), (at.count, true));
    assert_eq!(stage.look(&stage.primary).await.unwrap().1, 0);
    assert_eq!(scene.resume(1).await.proof, Proof::Acknowledged);
    agree(subject, &source.stop().await).await;
    scene.end().await;
}

/// As the shadow is: the same memory under another pod's name, while the source lives on, parked.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_pod_with_another_name_listens_on_its_own_control_queue_and_stays_parked() {
    let Scene { stage, subject, broker } = Scene::parked().await;
    let shadow = format!("{}-shadow-1", stage.pod);
    subject.moves_to(&shadow).await;
    stage.send(&stage.primary, b"{}").await;
    assert_eq!(stage.look(&stage.primary).await, Some((1, 0)));
    let queues = stage.queues(1).with_helper(&shadow);
    assert!(matches!(broker.drop_parking(&queues).await, Err(BrokerError::InUse { .. })));
    subject.crash().await;
    broker.drop_parking(&queues).await.unwrap();
    for queue in [control_queue(&shadow), queues.parking(), queues.reply()] {
        assert_eq!(stage.look(&queue).await, None, "{queue} is left");
    }
    stage.done().await;
}

/// As a Deployment's replacement is: a new name, among other consumers of the queue. Those must not pass for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_with_a_new_name_is_resumed_once_it_connects() {
    let Scene { stage, subject, broker } = Scene::parked().await;
    let other = PlainConsumer::start(&stage, &format!("{}-other", stage.pod)).await;
    until("the other one consumes", async || stage.look(&stage.primary).await == Some((0, 1))).await;
    subject.wire.block(true);
    let mut order = stage.resume_answering(1);
    order.pod = format!("{}-new", stage.pod);
    let early = broker.resume(&order, Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(early, BrokerError::NeverResumed { .. }), "{early}");
    subject.rename(&order.pod);
    subject.wire.block(false);
    assert_eq!(broker.resume(&order, WITHIN).await.unwrap().proof, Proof::Acknowledged);
    until("both consume", async || stage.look(&stage.primary).await == Some((0, 2))).await;
    subject.crash().await;
    broker.drop_parking(&stage.queues(1).with_helper(&order.pod)).await.unwrap();
    other.end(&stage).await;
    stage.done().await;
}

/// The order that parks is acknowledged at the resume only: the broker hands it to the next process of that name.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_crashed_while_parked_starts_parked() {
    let Scene { stage, subject, broker } = Scene::parked().await;
    subject.crash().await;
    until("the order lies there again", async || {
        stage.look(&control_queue(&stage.pod)).await.is_some_and(|(ready, _)| ready > 0)
    })
    .await;
    stage.send(&stage.primary, b"{}").await;
    let fresh = Scene { subject: Subject::start(&stage, 50, 0).await, stage, broker };
    until("the fresh one is parked", async || fresh.subject.view().parked).await;
    assert_eq!(fresh.subject.view().count, 0);
    assert_eq!(fresh.stage.look(&fresh.stage.primary).await, Some((1, 0)));
    fresh.resume(1).await;
    fresh.subject.has_applied(1).await;
    fresh.end().await;
}

async fn a_plain_consumer_is_proven_by_the_broker(quorum: bool, others: usize) {
    let stage = Stage::set(quorum).await;
    let subject = PlainConsumer::start(&stage, &stage.pod).await;
    let mut competing = Vec::new();
    for n in 0..others {
        competing.push(PlainConsumer::start(&stage, &format!("{}-other-{n}", stage.pod)).await);
    }
    let all = u32::try_from(others).unwrap() + 1;
    until("all consume", async || stage.look(&stage.primary).await.unwrap().1 == all).await;
    let broker = stage.broker();
    let begun = Instant::now();
    let parked = broker.park(&stage.park(1), WITHIN).await.unwrap();
    println!("plain consumer, quorum={quorum}, {others} others: parked in {:?}", begun.elapsed());
    assert_eq!((parked.proof, parked.position), (Proof::ByBroker, None));
    assert_eq!(stage.look(&stage.primary).await.unwrap().1, all - 1);
    assert_eq!(broker.park(&stage.park(1), WITHIN).await.unwrap().proof, Proof::ByBroker, "repeated");
    let resumed = broker.resume(&stage.resume(1), WITHIN).await.unwrap();
    assert_eq!(resumed.proof, Proof::ByBroker);
    assert_eq!(stage.look(&stage.primary).await.unwrap().1, all);
    broker.drop_parking(&stage.queues(1)).await.unwrap();
    for other in competing {
        other.end(&stage).await;
    }
    subject.end(&stage).await;
    stage.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_consumer_of_a_classic_queue_is_proven_parked_by_the_broker() {
    a_plain_consumer_is_proven_by_the_broker(false, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_consumer_of_a_quorum_queue_is_proven_parked_by_the_broker() {
    a_plain_consumer_is_proven_by_the_broker(true, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_consumer_among_competing_ones_is_proven_parked_by_the_broker() {
    a_plain_consumer_is_proven_by_the_broker(false, 2).await;
}

/// Late by far: an order of an attempt whose queues are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_park_on_a_queue_that_is_gone_is_void() {
    let stage = Stage::set(false).await;
    let subject = Subject::start(&stage, 50, 0).await;
    until("it consumes", async || stage.look(&stage.primary).await == Some((0, 1))).await;
    stage.broker().leave_park(&stage.park(1)).await.unwrap();
    stage.send(&stage.primary, b"{}").await;
    subject.has_applied(1).await;
    until("it has read the order", async || stage.look(&control_queue(&stage.pod)).await == Some((0, 1)))
        .await;
    until("it consumes again", async || stage.look(&stage.primary).await == Some((0, 1))).await;
    assert!(!subject.view().parked);
    subject.crash().await;
    stage.done().await;
}

/// The order left for a pod that is about to be restored is the first thing it sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_for_which_a_park_was_left_wakes_up_parked() {
    let stage = Stage::set(false).await;
    stage.send(&stage.primary, b"{}").await;
    stage.broker().declare_parking(&stage.queues(1)).await.unwrap();
    stage.broker().leave_park(&stage.park(1)).await.unwrap();
    let subject = Subject::start(&stage, 50, 0).await;
    until("it is parked", async || subject.view().parked).await;
    assert_eq!((subject.view().count, stage.look(&stage.primary).await), (0, Some((1, 0))));
    stage.broker().resume(&stage.resume(1), WITHIN).await.unwrap();
    subject.has_applied(1).await;
    stage.broker().drop_parking(&stage.queues(1)).await.unwrap();
    subject.crash().await;
    stage.done().await;
}
