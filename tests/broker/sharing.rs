//! A real RabbitMQ that several share: two migrations on one queue, two pods of one name on one virtual host, a dead
//! operator that still seems to read, a consumer that says what is not so, quorum queues by default.

use std::time::Duration;

use super::support::{Cutter, PlainConsumer, Post, Scene, Stage, Subject, WITHIN, agree, tool, until};
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use shadow::api::{Reason, control_queue};
use shadow::broker::{AmqpBroker, Broker, BrokerError, BrokerUrl, Proof};

const PACE: Duration = Duration::from_millis(2);

/// Two pods that compete for one queue, each with a migration of its own: side by side, and one inside the other.
async fn two_migrations_at_once(quorum: bool) {
    let first = Stage::set(quorum).await;
    let second = first.beside().await;
    let (a, b) = (Scene::on(first, 20, 0).await, Scene::on(second, 20, 0).await);
    let flow = Post::open(&a.stage).await.keep_sending(PACE);
    until("both take messages", async || a.subject.view().count > 5 && b.subject.view().count > 5).await;
    let at = |scene: &Scene| scene.subject.view().count;

    let (parked, other) = tokio::join!(a.park(1), b.park(1));
    assert_eq!((parked.position, other.position), (Some(at(&a)), Some(at(&b))));
    assert_eq!(a.stage.look(&a.stage.primary).await.unwrap().1, 0);
    a.resume(1).await;
    assert!(b.subject.view().parked, "one migration's resume resumed the other's consumer");
    b.resume(1).await;

    a.park(2).await;
    let still = at(&a);
    b.park(2).await;
    b.resume(2).await;
    assert_eq!((at(&a), a.subject.view().parked), (still, true));
    a.resume(2).await;

    let published = flow.stop().await.published;
    until("all is applied", async || at(&a) + at(&b) >= published).await;
    until("nothing waits", async || a.stage.look(&a.stage.primary).await == Some((0, 2))).await;
    for view in [a.subject.view(), b.subject.view()] {
        assert_eq!(view.duplicates, 0);
        // What a quorum queue was about to give a consumer that cancels, it gives to the other one a little later.
        assert!(quorum || view.out_of_order == 0, "{} out of order", view.out_of_order);
    }
    assert_eq!(at(&a) + at(&b), published);
    for scene in [&a, &b] {
        scene.clean(2).await;
    }
    b.clean(1).await;
    b.subject.crash().await;
    b.stage.delete(&control_queue(&b.stage.pod)).await;
    a.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_on_a_classic_queue_lose_and_double_nothing() {
    two_migrations_at_once(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_on_a_quorum_queue_lose_and_double_nothing() {
    two_migrations_at_once(true).await;
}

/// The later one takes it over; the earlier one's resume changes nothing until the later one has resumed it.
#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_of_one_consumer_leave_it_taking_messages_in_order() {
    let scene = Scene::parked().await;
    let Scene { stage, subject, broker } = &scene;
    let mut post = Post::open(stage).await;
    post.send(10).await;
    let mut later = stage.beside().await;
    later.pod.clone_from(&stage.pod);
    broker.declare_parking(&later.queues(1)).await.unwrap();
    assert_eq!(broker.park(&later.park(1), WITHIN).await.unwrap().position, Some(0));
    let early = broker.resume(&stage.resume_answering(1), Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(early, BrokerError::NeverResumed { .. }), "{early}");
    assert_eq!((subject.view().parked, subject.view().count), (true, 0));
    broker.resume(&later.resume_answering(1), WITHIN).await.unwrap();
    scene.resume(1).await;
    agree(subject, &post.close().await).await;
    broker.drop_parking(&later.queues(1)).await.unwrap();
    scene.end().await;
}

/// Its connection is half open: the broker believes for many seconds that it holds the answers. The next operator must
/// not take another consumer of the queue for the one that has not come yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_operator_that_seems_to_hold_the_answers_does_not_mislead_the_next() {
    let Scene { stage, subject, broker } = Scene::set().await;
    let cutter = Cutter::swallowing_channel_closes(&stage.url).await;
    let dead = AmqpBroker::new(BrokerUrl::new(cutter.url(&stage.url)), "dead");
    broker.declare_parking(&stage.queues(1)).await.unwrap();
    assert_eq!(dead.park(&stage.park(1), WITHIN).await.unwrap().proof, Proof::Acknowledged);
    until("it is dead", async || cutter.struck().is_some()).await;
    let other = PlainConsumer::start(&stage, &format!("{}-other", stage.pod)).await;
    until("the other one consumes", async || stage.look(&stage.primary).await == Some((0, 1))).await;
    subject.wire.block(true);

    let mut order = stage.resume_answering(1);
    order.pod = format!("{}-new", stage.pod);
    let early = broker.resume(&order, Duration::from_secs(3)).await;
    assert!(matches!(early, Err(BrokerError::NeverResumed { .. })), "{early:?}");
    subject.rename(&order.pod);
    subject.wire.block(false);
    assert_eq!(broker.resume(&order, WITHIN).await.unwrap().proof, Proof::Acknowledged);
    assert!(!subject.view().parked);
    subject.crash().await;
    broker.drop_parking(&stage.queues(1).with_helper(&order.pod)).await.unwrap();
    other.end(&stage).await;
    stage.done().await;
}

/// It answers, and sits on the parking queue, and is still subscribed to the primary as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_says_it_is_parked_and_is_not_is_found_out() {
    let Scene { stage, subject, broker } = Scene::set().await;
    broker.declare_parking(&stage.queues(1)).await.unwrap();
    let channel = stage.channel().await;
    let consume = async || {
        let options = BasicConsumeOptions::default();
        let queue = stage.primary.as_str().into();
        channel.basic_consume(queue, "".into(), options, FieldTable::default()).await.unwrap()
    };
    until("it consumes", async || stage.look(&stage.primary).await == Some((0, 1))).await;
    // What it does not give up.
    subject.wire.block(true);
    until("it is away", async || stage.look(&stage.primary).await == Some((0, 0))).await;
    let kept = consume().await;
    let order = stage.park(1);
    let park = broker.park(&order, WITHIN);
    let (parked, ()) = tokio::join!(park, async {
        until("the order is sent", async || {
            stage.look(&control_queue(&stage.pod)).await.is_some_and(|(ready, _)| ready > 0)
        })
        .await;
        subject.wire.block(false);
    });
    let error = parked.unwrap_err();
    assert!(
        matches!(&error, BrokerError::ConsumerNeverParked { seen, .. } if seen.contains("1 consumers on")),
        "{error}"
    );
    assert_eq!(error.reason(), Reason::ConsumerNeverParked);
    drop(kept);
    channel.close(200, "done".into()).await.unwrap();
    broker.resume(&stage.resume_answering(1), WITHIN).await.unwrap();
    let scene = Scene { stage, subject, broker };
    scene.end().await;
}

/// As in two namespaces that use one virtual host.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_name_another_consumer_has_is_refused_before_any_order() {
    let scene = Scene::set().await;
    let Scene { stage, subject, broker } = &scene;
    let mut namesake = stage.beside().await;
    namesake.pod.clone_from(&stage.pod);
    namesake.primary = format!("{}.other", stage.primary);
    namesake.declare(&namesake.primary, false).await;
    let second = Subject::start(&namesake, 50, 0).await;
    until("both listen", async || stage.look(&control_queue(&stage.pod)).await == Some((0, 2))).await;
    broker.declare_parking(&stage.queues(1)).await.unwrap();
    let error = broker.park(&stage.park(1), WITHIN).await.unwrap_err();
    assert_eq!(error, BrokerError::ControlQueueShared { pod: stage.pod.clone(), consumers: 2 });
    assert!(error.to_string().contains("virtual host of its own"), "{error}");
    assert!(!subject.view().parked && !second.view().parked);
    second.crash().await;
    scene.park(1).await;
    scene.resume(1).await;
    stage.delete(&namesake.primary).await;
    scene.end().await;
}

/// A virtual host of its own, removed in the end also where the test fails.
struct VirtualHost(String);

impl VirtualHost {
    async fn with_quorum_queues_by_default(name: &str) -> Self {
        tool::rabbitmqctl(&["add_vhost", name, "--default-queue-type", "quorum"]).await;
        let host = Self(name.to_owned());
        tool::rabbitmqctl(&["set_permissions", "-p", name, &tool::user(), ".*", ".*", ".*"]).await;
        host
    }
}

impl Drop for VirtualHost {
    fn drop(&mut self) {
        tool::ctl(&["delete_vhost", &self.0]);
    }
}

/// Quorum queues are not deleted on conditions (540): all of ours are such here.
#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_host_with_quorum_queues_by_default_is_left_clean() {
    let name = format!("test-{}", std::process::id());
    let _host = VirtualHost::with_quorum_queues_by_default(&name).await;
    let url = tool::amqp_url().replace("%2f", &name);
    let scene = Scene::on(Stage::at(url, true).await, 50, 0).await;
    let Scene { stage, subject, broker } = &scene;
    let mut post = Post::open(stage).await;
    post.send(100).await;
    let shadow = format!("{}-shadow-1", stage.pod);
    let mut left = stage.park(1);
    left.pod.clone_from(&shadow);
    broker.declare_parking(&stage.queues(1)).await.unwrap();
    broker.leave_park(&left).await.unwrap();
    scene.park(1).await;
    let queues = stage.queues(1).with_helper(&shadow);
    let used = broker.drop_parking(&queues).await.unwrap_err();
    assert_eq!(used, BrokerError::InUse { queue: queues.parking() });
    assert!(subject.view().parked);
    post.send(100).await;
    scene.resume(1).await;
    agree(subject, &post.close().await).await;
    stage.send(&queues.parking(), b"somebody's").await;
    let full = broker.drop_parking(&queues).await.unwrap_err();
    assert_eq!(full, BrokerError::NotEmpty { queue: queues.parking(), messages: 1 });
    stage.delete(&queues.parking()).await;
    broker.drop_parking(&queues).await.unwrap();
    for queue in [control_queue(&shadow), queues.parking(), queues.reply()] {
        assert_eq!(stage.look(&queue).await, None, "{queue} is left");
    }
    scene.end().await;
}
