//! A real RabbitMQ that is killed and started again, hangs, or takes no messages: every call ends by its limit under the
//! right name, and what is done again afterwards comes out exact. These tests disturb the whole broker, one at a time,
//! and put it in order also where they fail.

use std::time::{Duration, Instant};

use super::support::tool::{self, Disturbance};
use super::support::{PATIENCE, Post, Scene, Stage, WITHIN, agree, until};
use futures::future::join_all;
use shadow::api::{Reason, control_queue};
use shadow::broker::{AmqpBroker, Broker, BrokerError, BrokerUrl, Limits, Proof};
use tokio::sync::Barrier;

const MESSAGES: u64 = 50;
/// Above a limit: what the rest of a call may add.
const SLACK: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    BetweenDeclaringAndParking,
    BeforeTheAnswerToThePark,
    Parked,
    BeforeTheAnswerToTheResume,
    BeforeCleaning,
}

/// Kills the broker when all have reached the moment, and lets them go on when it is back.
struct Killer {
    moment: Moment,
    gate: Barrier,
}

impl Killer {
    async fn at(&self, moment: Moment) {
        if moment == self.moment {
            self.gate.wait().await;
            self.gate.wait().await;
        }
    }

    async fn strikes(&self, hold: &Disturbance, stage: &Stage) {
        self.gate.wait().await;
        hold.kill().await;
        let down = stage.broker().preflight(&stage.primary).await.unwrap_err();
        assert!(matches!(down, BrokerError::Unreachable { .. }), "{down}");
        tool::broker("start").await;
        self.gate.wait().await;
    }

    /// Breaks the call off where this is the moment: its order is sent, and nobody has answered.
    async fn breaks_off<T>(
        &self,
        moment: Moment,
        scene: &Scene,
        call: impl Future<Output = Result<T, BrokerError>>,
    ) {
        if moment != self.moment {
            return;
        }
        let Scene { stage, subject, .. } = scene;
        subject.wire.block(true);
        let control = control_queue(&stage.pod);
        let waiting = async || stage.look(&control).await.unwrap();
        until("it is gone", async || waiting().await.1 == 0).await;
        let before = waiting().await.0;
        let broken = async {
            let Err(error) = call.await else { panic!("{moment:?}: the call survived") };
            assert!(matches!(error, BrokerError::Unreachable { .. }), "{error}");
        };
        tokio::join!(broken, async {
            until("the order is sent", async || waiting().await.0 > before).await;
            self.at(moment).await;
        });
        subject.wire.block(false);
    }
}

/// Repeats a call until the broker is back. No failure may ask for anything but patience.
async fn insist<T>(call: impl AsyncFn() -> Result<T, BrokerError>) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error @ (BrokerError::Unreachable { .. } | BrokerError::Blocked { .. })) => {
                println!("{error}");
            }
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < PATIENCE, "it never came back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Both kinds of queue at once, through one restart.
async fn killed(moment: Moment) {
    let hold = Disturbance::begin().await;
    let mut scenes = Vec::new();
    for quorum in [false, true] {
        scenes.push(Scene::on(Stage::set(quorum).await, 50, 0).await);
    }
    let killer = Killer { moment, gate: Barrier::new(scenes.len() + 1) };
    let migrations = join_all(scenes.iter().map(|scene| migrates(scene, &killer)));
    tokio::join!(migrations, killer.strikes(&hold, &scenes[0].stage));
    for scene in scenes {
        scene.subject.crash().await;
        scene.stage.done().await;
    }
}

async fn migrates(scene: &Scene, killer: &Killer) {
    let Scene { stage, subject, broker } = scene;
    let (park, resume) = (stage.park(1), stage.resume_answering(1));
    let publish = async || {
        for id in 1..=MESSAGES {
            stage.send_number(id).await;
        }
    };
    broker.declare_parking(&stage.queues(1)).await.unwrap();
    killer.at(Moment::BetweenDeclaringAndParking).await;
    killer.breaks_off(Moment::BeforeTheAnswerToThePark, scene, broker.park(&park, WITHIN)).await;
    let parked = insist(async || broker.park(&park, WITHIN).await).await;
    assert_eq!((parked.proof, parked.position), (Proof::Acknowledged, Some(0)));
    // A broker that dies may forget acknowledgements; so there are none when it does.
    let late = killer.moment == Moment::BeforeCleaning;
    if !late {
        publish().await;
    }
    killer.at(Moment::Parked).await;
    until("it is connected", async || subject.view().connected).await;
    assert_eq!((subject.view().parked, subject.view().count), (true, 0));
    killer.breaks_off(Moment::BeforeTheAnswerToTheResume, scene, broker.resume(&resume, WITHIN)).await;
    assert_eq!(subject.view().count, 0);
    let resumed = insist(async || broker.resume(&resume, WITHIN).await).await;
    assert_eq!(resumed.proof, Proof::Acknowledged);
    killer.at(Moment::BeforeCleaning).await;
    insist(async || broker.drop_parking(&stage.queues(1)).await).await;
    if late {
        publish().await;
    }
    subject.has_applied(MESSAGES).await;
    until("all is taken", async || stage.look(&stage.primary).await == Some((0, 1))).await;
    let view = subject.view();
    assert_eq!((view.count, view.parked), (MESSAGES, false), "{:?}", killer.moment);
    let wrong = (view.duplicates, view.out_of_order, view.missing);
    assert_eq!((wrong, view.last_id), ((0, 0, 0), Some(MESSAGES)), "{:?}", killer.moment);
    for queue in [stage.queues(1).parking(), stage.queues(1).reply()] {
        assert_eq!(stage.look(&queue).await, None, "{queue} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_between_declaring_and_parking_changes_nothing() {
    killed(Moment::BetweenDeclaringAndParking).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_before_the_answer_to_a_park_changes_nothing() {
    killed(Moment::BeforeTheAnswerToThePark).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_while_the_consumer_is_parked_changes_nothing() {
    killed(Moment::Parked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_before_the_answer_to_a_resume_changes_nothing() {
    killed(Moment::BeforeTheAnswerToTheResume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_before_the_cleaning_changes_nothing() {
    killed(Moment::BeforeCleaning).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_on_a_broker_that_hangs_ends_by_its_limit() {
    let _hold = Disturbance::begin().await;
    let scene = Scene::set().await;
    let Scene { stage, .. } = &scene;
    let second = Duration::from_secs(1);
    let limits = Limits { connect: second, call: second };
    let broker = AmqpBroker::with_limits(BrokerUrl::new(&stage.url), "test", limits);
    broker.declare_parking(&stage.queues(1)).await.unwrap();
    tool::broker("freeze").await;
    // The first finds the connection, the second has to make one.
    for _ in 0..2 {
        let begun = Instant::now();
        let error = broker.park(&stage.park(1), WITHIN).await.unwrap_err();
        assert!(matches!(error, BrokerError::Unreachable { .. }), "{error}");
        assert!(begun.elapsed() < second + SLACK, "{:?}", begun.elapsed());
    }
    tool::broker("thaw").await;
    insist(async || broker.park(&stage.park(1), WITHIN).await).await;
    scene.resume(1).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_is_told_before_the_consumer_is_touched() {
    let hold = Disturbance::begin().await;
    let scene = Scene::set().await;
    let Scene { stage, subject, broker } = &scene;
    hold.raise_memory_alarm().await;
    assert_eq!(broker.preflight(&stage.primary).await.unwrap().messages, 0);
    // On the connection that looked, and on another.
    for _ in 0..2 {
        let begun = Instant::now();
        let error = broker.declare_parking(&stage.queues(1)).await.unwrap_err();
        println!("told after {:?}: {error}", begun.elapsed());
        assert!(matches!(error, BrokerError::Blocked { .. }), "{error}");
        assert_eq!((error.is_retryable(), error.reason()), (true, Reason::BrokerUnreachable));
        assert!(begun.elapsed() < Limits::default().call + SLACK, "{:?}", begun.elapsed());
    }
    assert_eq!(stage.look(&stage.queues(1).parking()).await, None);
    assert!(!subject.view().parked);
    hold.clear_memory_alarm().await;
    insist(async || broker.declare_parking(&stage.queues(1)).await).await;
    scene.park(1).await;
    scene.resume(1).await;
    scene.end().await;
}

/// No order gets through before that. The calls say so, each by its limit, on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_consumer_is_resumed_once_a_memory_alarm_is_over() {
    let hold = Disturbance::begin().await;
    let scene = Scene::set().await;
    let Scene { stage, subject, broker } = &scene;
    let mut post = Post::open(stage).await;
    post.send(MESSAGES).await;
    subject.has_applied(MESSAGES).await;
    scene.park(1).await;
    post.send(MESSAGES).await;
    let published = post.close().await;
    hold.raise_memory_alarm().await;
    for limit in [Limits::default().call + SLACK, SLACK, SLACK] {
        let begun = Instant::now();
        let error = broker.resume(&stage.resume_answering(1), WITHIN).await.unwrap_err();
        assert!(matches!(error, BrokerError::Blocked { .. }), "{error}");
        assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    }
    assert_eq!((subject.view().parked, subject.view().count), (true, MESSAGES));
    hold.clear_memory_alarm().await;
    let resumed = insist(async || broker.resume(&stage.resume_answering(1), WITHIN).await).await;
    assert_eq!((resumed.proof, resumed.position), (Proof::Acknowledged, Some(MESSAGES)));
    agree(subject, &published).await;
    scene.end().await;
}

/// The order is out when the alarm comes: whatever the call says, doing it again after the alarm is exact.
#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_in_the_middle_of_a_park_costs_time_only() {
    let hold = Disturbance::begin().await;
    let scene = Scene::set().await;
    let Scene { stage, subject, broker } = &scene;
    let mut post = Post::open(stage).await;
    post.send(MESSAGES).await;
    subject.has_applied(MESSAGES).await;
    broker.declare_parking(&stage.queues(1)).await.unwrap();
    hold.raise_memory_alarm().await;
    match broker.park(&stage.park(1), WITHIN).await {
        Ok(parked) => assert_eq!(parked.position, Some(MESSAGES)),
        Err(error) => assert!(matches!(error, BrokerError::Blocked { .. }), "{error}"),
    }
    hold.clear_memory_alarm().await;
    let parked = insist(async || broker.park(&stage.park(1), WITHIN).await).await;
    assert_eq!((parked.proof, parked.position), (Proof::Acknowledged, Some(MESSAGES)));
    post.send(MESSAGES).await;
    let published = post.close().await;
    scene.resume(1).await;
    agree(subject, &published).await;
    scene.end().await;
}
