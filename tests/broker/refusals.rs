//! What is refused, and that everything ends: each failure of a real RabbitMQ under its own name, by its deadline.

use std::time::{Duration, Instant};

use super::support::{Scene, Stage, Wire, tool, until};
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use shadow::api::{Epoch, Reason, control_queue};
use shadow::broker::{AmqpBroker, Broker, BrokerError, BrokerUrl, Limits, MigrationQueues, QueueKind};

const WITHIN: Duration = Duration::from_secs(1);
/// Above the deadline: what connecting and single calls may add here.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_never_answers_is_reported_by_the_deadline() {
    let stage = Stage::set(false).await;
    stage.declare(&control_queue(&stage.pod), false).await;
    let begun = Instant::now();
    let error = stage.broker().park(&stage.park(1), WITHIN).await.unwrap_err();
    assert!((WITHIN..WITHIN + SLACK).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(matches!(&error, BrokerError::ConsumerNeverParked { pod, .. } if *pod == stage.pod), "{error}");
    assert_eq!((error.reason(), error.is_retryable()), (Reason::ConsumerNeverParked, true));

    let error = stage.broker().resume(&stage.resume(1), WITHIN).await.unwrap_err();
    assert!(matches!(error, BrokerError::NeverResumed { .. }), "{error}");
    stage.broker().drop_parking(&stage.queues(1)).await.unwrap();
    stage.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_without_control_queue_is_refused_at_once() {
    let stage = Stage::set(false).await;
    let error = stage.broker().park(&stage.park(1), WITHIN * 20).await.unwrap_err();
    assert_eq!(error, BrokerError::ConsumerWithoutControlQueue { pod: stage.pod.clone() });
    stage.broker().drop_parking(&stage.queues(1)).await.unwrap();
    stage.declare(&control_queue(&stage.pod), false).await;
    stage.done().await;
}

/// A rollback resumes a consumer that no order ever reached: that it consumes is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_was_never_parked_counts_as_resumed() {
    let stage = Stage::set(false).await;
    let channel = stage.channel().await;
    let options = BasicConsumeOptions::default();
    let queue = stage.primary.as_str().into();
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await.unwrap();
    stage.broker().resume(&stage.resume(1), WITHIN * 5).await.unwrap();
    drop(consumer);
    stage.broker().drop_parking(&stage.queues(1)).await.unwrap();
    stage.declare(&control_queue(&stage.pod), false).await;
    stage.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_named() {
    let stage = Stage::set(false).await;
    let nowhere = format!("{}.nowhere", stage.primary);
    let missing = BrokerError::QueueNotFound { queue: nowhere.clone() };
    assert_eq!(stage.broker().preflight(&nowhere).await.unwrap_err(), missing);
    let mut order = stage.park(1);
    order.queues = MigrationQueues::new("m".into(), Epoch(1), &nowhere);
    assert_eq!(stage.broker().park(&order, WITHIN).await.unwrap_err(), missing);
    assert_eq!((missing.reason(), missing.is_retryable()), (Reason::QueueNotFound, false));
    assert_eq!(stage.look(&nowhere).await, None, "looking at a queue made one");
    stage.declare(&control_queue(&stage.pod), false).await;
    stage.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_tells_kind_consumers_and_messages() {
    for (quorum, kind) in [(false, QueueKind::Classic), (true, QueueKind::Quorum)] {
        let stage = Stage::set(quorum).await;
        stage.send(&stage.primary, b"{}").await;
        until("the message is there", async || stage.look(&stage.primary).await == Some((1, 0))).await;
        let facts = stage.broker().preflight(&stage.primary).await.unwrap();
        assert_eq!((facts.kind, facts.consumers, facts.messages), (kind, 0, 1));
        stage.declare(&control_queue(&stage.pod), false).await;
        stage.done().await;
    }
    let stage = Stage::set(false).await;
    let mut stream = FieldTable::default();
    stream.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let name = format!("{}.stream", stage.primary);
    let channel = stage.channel().await;
    channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), stream).await.unwrap();
    assert_eq!(stage.broker().preflight(&name).await.unwrap().kind, QueueKind::Stream);
    stage.delete(&name).await;
    stage.declare(&control_queue(&stage.pod), false).await;
    stage.done().await;
}

/// 406 again and again: what a queue was declared with is told by what it refuses; nothing is declared on the way.
#[tokio::test(flavor = "multi_thread")]
async fn preflight_tells_what_a_queue_was_declared_with() {
    let stage = Stage::set(false).await;
    let channel = stage.channel().await;
    let text = |value: &str| AMQPValue::LongString(value.into());
    let declare = async |name: &str, options: QueueDeclareOptions, arguments: Vec<(&str, AMQPValue)>| {
        let mut table = FieldTable::default();
        for (key, value) in arguments {
            table.insert(key.into(), value);
        }
        channel.queue_declare(name.into(), options, table).await.unwrap();
    };
    let name = format!("{}.odd", stage.primary);
    let durable = QueueDeclareOptions::durable();
    let facts = async || stage.broker().preflight(&name).await.unwrap();

    declare(&name, QueueDeclareOptions { auto_delete: true, ..durable }, vec![]).await;
    let found = facts().await;
    assert!(found.auto_delete && found.kind == QueueKind::Classic, "{found:?}");
    assert!(matches!(found.refusal(&name), Some(BrokerError::QueueNotSupported { .. })));
    stage.delete(&name).await;

    let full = vec![
        ("x-expires", AMQPValue::LongInt(60_000)),
        ("x-max-length", AMQPValue::LongInt(9)),
        ("x-dead-letter-exchange", text("elsewhere")),
        ("x-message-ttl", AMQPValue::LongInt(5000)),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
    ];
    declare(&name, durable, full).await;
    let found = facts().await;
    assert_eq!((found.kind, found.expires_ms), (QueueKind::Classic, Some(60_000)), "{found:?}");
    assert!(found.drops_oldest && found.single_active && !found.auto_delete, "{found:?}");
    stage.delete(&name).await;

    let bounded = vec![
        ("x-queue-type", text("quorum")),
        ("x-max-length", AMQPValue::LongInt(9)),
        ("x-overflow", text("reject-publish")),
    ];
    declare(&name, durable, bounded).await;
    let found = facts().await;
    assert!(
        found.kind == QueueKind::Quorum && !found.drops_oldest && found.expires_ms.is_none(),
        "{found:?}"
    );
    assert_eq!(found.refusal(&name), None);
    stage.delete(&name).await;
    assert_eq!(stage.look(&name).await, None, "asking made a queue");

    declare(&name, QueueDeclareOptions { exclusive: true, ..durable }, vec![]).await;
    let error = stage.broker().preflight(&name).await.unwrap_err();
    assert!(matches!(&error, BrokerError::QueueNotSupported { queue, .. } if *queue == name), "{error}");
    assert_eq!((error.reason(), error.is_retryable()), (Reason::QueueNotSupported, false));
    channel.queue_delete(name.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    stage.declare(&control_queue(&stage.pod), false).await;
    stage.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parking_queue_that_holds_a_message_is_kept_and_named() {
    let stage = Stage::set(false).await;
    let (broker, queues) = (stage.broker(), stage.queues(1));
    broker.declare_parking(&queues).await.unwrap();
    broker.declare_parking(&queues).await.unwrap();
    stage.send(&queues.parking(), b"somebody's").await;
    let error = broker.drop_parking(&queues).await.unwrap_err();
    assert_eq!(error, BrokerError::NotEmpty { queue: queues.parking(), messages: 1 });
    assert_eq!(stage.look(&queues.parking()).await, Some((1, 0)));
    stage.delete(&queues.parking()).await;
    broker.drop_parking(&queues).await.unwrap();
    assert_eq!(stage.look(&queues.reply()).await, None);
    stage.declare(&control_queue(&stage.pod), false).await;
    stage.done().await;
}

fn address(url: &str, user: &str, password: &str, port: u16, vhost: &str) -> BrokerUrl {
    let uri: AMQPUri = url.parse().unwrap();
    BrokerUrl::new(format!("amqp://{user}:{password}@{}:{port}/{vhost}", uri.authority.host))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_is_told_from_one_that_refuses_access() {
    let stage = Stage::set(false).await;
    let uri: AMQPUri = stage.url.parse().unwrap();
    let (user, port) = (uri.authority.userinfo, uri.authority.port);
    let limits = Limits { connect: WITHIN, call: WITHIN };
    let look = async |url: BrokerUrl| {
        let begun = Instant::now();
        let error = AmqpBroker::with_limits(url, "test", limits).preflight(&stage.primary).await.unwrap_err();
        assert!(begun.elapsed() < WITHIN + SLACK);
        assert!(!error.to_string().contains("s3cret"), "{error}");
        error
    };

    let nobody = look(address(&stage.url, "u", "s3cret", 1, "%2f")).await;
    assert!(matches!(nobody, BrokerError::Unreachable { .. }), "{nobody}");
    assert!(nobody.is_retryable());

    let wrong = look(address(&stage.url, &user.username, "s3cret", port, "%2f")).await;
    assert!(matches!(wrong, BrokerError::AccessDenied { .. }), "{wrong}");
    let vhost = look(address(&stage.url, &user.username, &user.password, port, "nowhere")).await;
    assert!(matches!(vhost, BrokerError::AccessDenied { .. }), "{vhost}");
    let url = look(BrokerUrl::new("http://u:s3cret@h")).await;
    assert!(matches!(url, BrokerError::WrongUrl { .. }), "{url}");

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = look(BrokerUrl::new(format!("amqp://u:s3cret@{}/%2f", silent.local_addr().unwrap()))).await;
    assert!(matches!(silent, BrokerError::Unreachable { .. }), "{silent}");
    stage.declare(&control_queue(&stage.pod), false).await;
    stage.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_after_a_lost_connection_opens_another_one() {
    let scene = Scene::parked().await;
    let stage = &scene.stage;
    let wire = Wire::to(&stage.url).await;
    let broker = AmqpBroker::new(BrokerUrl::new(wire.url(&stage.url)), "test");
    broker.preflight(&stage.primary).await.unwrap();
    wire.cut();
    // The call that finds the connection broken may fail, retryably; the effect is simply asked for again.
    until("it is resumed", async || match broker.resume(&stage.resume(1), WITHIN * 10).await {
        Ok(_) => true,
        Err(error) => {
            assert!(error.is_retryable(), "{error}");
            false
        }
    })
    .await;
    assert!(!scene.subject.view().parked);
    scene.end().await;
}

/// A user of its own, removed in the end also where the test fails.
struct User(String);

impl User {
    async fn new() -> Self {
        let name = format!("test-{}", std::process::id());
        tool::rabbitmqctl(&["add_user", &name, "s3cret"]).await;
        Self(name)
    }

    async fn may(&self, configure: &str, write: &str, read: &str) {
        tool::rabbitmqctl(&["set_permissions", "-p", "/", &self.0, configure, write, read]).await;
    }
}

impl Drop for User {
    fn drop(&mut self) {
        tool::ctl(&["delete_user", &self.0]);
    }
}

/// 403, before any order: the consumer works on.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_told_before_the_consumer_is_touched() {
    let scene = Scene::set().await;
    let Scene { stage, subject, broker } = &scene;
    let user = User::new().await;
    let port = stage.url.parse::<AMQPUri>().unwrap().authority.port;
    let url = address(&stage.url, &user.0, "s3cret", port, "%2f");
    let as_user = || AmqpBroker::new(url.clone(), "test");
    let denied = |what: &str, error: BrokerError| {
        println!("without the permission to {what}: {error}");
        assert!(matches!(error, BrokerError::AccessDenied { .. }), "{what}: {error}");
        assert_eq!((error.is_retryable(), error.reason()), (false, Reason::BrokerUnreachable));
        let said = error.to_string();
        assert!(said.contains("check user, password, virtual host and permissions"), "{said}");
        assert!(said.contains("ACCESS_REFUSED") && !said.contains("s3cret"), "{said}");
    };

    user.may("^$", ".*", ".*").await;
    // Looking needs no permission; the kind is not told without one.
    assert_eq!(as_user().preflight(&stage.primary).await.unwrap().kind, QueueKind::Unknown);
    denied("configure", as_user().declare_parking(&stage.queues(1)).await.unwrap_err());
    user.may(".*", "^$", ".*").await;
    denied("write", as_user().declare_parking(&stage.queues(1)).await.unwrap_err());
    denied("write", as_user().leave_park(&stage.park(1)).await.unwrap_err());
    denied("write", as_user().park(&stage.park(1), WITHIN).await.unwrap_err());
    user.may(".*", ".*", "^$").await;
    as_user().declare_parking(&stage.queues(1)).await.unwrap();
    denied("read", as_user().park(&stage.park(1), WITHIN).await.unwrap_err());
    assert!(!subject.view().parked);
    assert_eq!(stage.look(&control_queue(&stage.pod)).await, Some((0, 1)));

    user.may(".*", ".*", ".*").await;
    as_user().park(&stage.park(1), WITHIN * 10).await.unwrap();
    user.may(".*", ".*", "^$").await;
    denied("read", as_user().resume(&stage.resume_answering(1), WITHIN).await.unwrap_err());
    broker.resume(&stage.resume_answering(1), WITHIN * 10).await.unwrap();
    scene.end().await;
}

/// 406: somebody has made a queue of that name, otherwise than we do.
#[tokio::test(flavor = "multi_thread")]
async fn a_parking_queue_with_other_properties_is_named() {
    let scene = Scene::set().await;
    let Scene { stage, broker, .. } = &scene;
    let queues = stage.queues(1);
    for queue in [queues.parking(), queues.reply()] {
        stage.declare(&queue, true).await;
        let error = broker.declare_parking(&queues).await.unwrap_err();
        println!("{error}");
        assert!(
            matches!(&error, BrokerError::QueueDiffers { queue: named, .. } if *named == queue),
            "{error}"
        );
        assert!(error.to_string().contains("delete it once it is unused and empty"), "{error}");
        assert_eq!((error.is_retryable(), error.reason()), (false, Reason::BrokerUnreachable));
        stage.delete(&queue).await;
    }
    scene.park(1).await;
    scene.resume(1).await;
    scene.end().await;
}

/// 404 in the middle: a queue of ours is deleted by somebody while it is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_parking_queue_deleted_by_somebody_costs_nothing() {
    let scene = Scene::parked().await;
    let Scene { stage, subject, .. } = &scene;
    stage.delete(&stage.queues(1).parking()).await;
    stage.delete(&stage.queues(1).reply()).await;
    stage.send(&stage.primary, b"{}").await;
    until("it is back", async || subject.view().connected).await;
    assert_eq!((subject.view().parked, stage.look(&stage.primary).await), (true, Some((1, 0))));
    scene.resume(1).await;
    subject.has_applied(1).await;
    scene.end().await;
}

/// 404 in the middle: the queue on which the answer is awaited. The call fails, the next one makes it anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_queue_deleted_while_an_answer_is_awaited_is_named_and_made_anew() {
    let scene = Scene::set().await;
    let Scene { stage, subject, broker } = &scene;
    broker.declare_parking(&stage.queues(1)).await.unwrap();
    subject.wire.block(true);
    let order = stage.park(1);
    let (parked, ()) = tokio::join!(broker.park(&order, WITHIN * 10), async {
        until("the order is sent", async || {
            stage.look(&control_queue(&stage.pod)).await.is_some_and(|(ready, _)| ready > 0)
        })
        .await;
        stage.delete(&stage.queues(1).reply()).await;
    });
    let error = parked.unwrap_err();
    assert!(
        matches!(&error, BrokerError::Protocol { cause, .. } if cause.contains(&stage.queues(1).reply())),
        "{error}"
    );
    assert!(error.is_retryable());
    subject.wire.block(false);
    broker.park(&stage.park(1), WITHIN * 10).await.unwrap();
    scene.resume(1).await;
    scene.end().await;
}

/// 404 in the middle: the user's own queue. Not ours to make; once it is there again, all goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_queue_deleted_while_its_consumer_is_parked_is_named() {
    let scene = Scene::parked().await;
    let Scene { stage, subject, broker } = &scene;
    stage.delete(&stage.primary).await;
    let error = broker.resume(&stage.resume_answering(1), WITHIN).await.unwrap_err();
    assert_eq!(error, BrokerError::QueueNotFound { queue: stage.primary.clone() });
    stage.declare(&stage.primary, false).await;
    scene.resume(1).await;
    stage.send(&stage.primary, b"{}").await;
    subject.has_applied(1).await;
    scene.end().await;
}
