//! A whole migration as the operator drives it, over a connection that is cut once: park, bridge, resume, clean up, or
//! the rollback. While it goes on, messages are published without confirms.
//!
//! What must come out does not depend on the cut: every message applied once, in order, by a consumer that takes
//! messages again; nothing left on the broker; and no failure but "cannot be reached".

use std::time::Duration;

use shadow::api::control_queue;
use shadow::broker::control::OrderType;
use shadow::broker::{
    AmqpBroker, Broker, BrokerError, BrokerUrl, MigrationQueues, ParkOrder, Parked, Proof, ResumeOrder,
};
use tokio::time::timeout;

use super::post::Flow;
use super::{Cut, Cutter, PATIENCE, PlainConsumer, Post, Stage, Subject, WITHIN, agree, until};

/// One message each.
const PACE: Duration = Duration::from_millis(3);
const PREFETCH: u16 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As a StatefulSet's pod moves: the replacement has the source's name.
    Moved,
    /// As a Deployment's: a new name, another consumer on the queue; and it connects after the order to resume.
    Renamed,
    /// The first failure, or else the parked consumer, is rolled back; a second attempt is made and rolled back.
    RolledBack,
}

#[derive(Clone, Copy, Debug)]
pub struct Journey {
    pub ending: Ending,
    pub quorum: bool,
}

/// What a journey saw.
pub struct Travelled {
    /// How many frames the broker module sent.
    pub frames: u64,
    /// The frame that the cut struck.
    pub struck: Option<String>,
    /// How many calls it broke.
    pub failures: usize,
}

/// Repeats what fails, with a connection of its own each time.
struct Operator {
    url: String,
    broker: AmqpBroker,
    failures: usize,
}

impl Operator {
    fn at(url: String) -> Self {
        let broker = AmqpBroker::new(BrokerUrl::new(&url), "test");
        Self { url, broker, failures: 0 }
    }

    async fn attempt<T>(
        &mut self,
        call: impl AsyncFnOnce(&AmqpBroker) -> Result<T, BrokerError>,
    ) -> Option<T> {
        match call(&self.broker).await {
            Ok(done) => Some(done),
            Err(error @ BrokerError::Unreachable { .. }) => {
                assert!(error.is_retryable());
                self.broker = AmqpBroker::new(BrokerUrl::new(&self.url), "test");
                self.failures += 1;
                None
            }
            Err(error) => panic!("a cut connection must not look like this: {error}"),
        }
    }

    async fn insist<T>(&mut self, call: impl AsyncFn(&AmqpBroker) -> Result<T, BrokerError>) -> T {
        loop {
            if let Some(done) = self.attempt(&call).await {
                return done;
            }
            assert!(self.failures < 5, "one cut broke {} calls", self.failures);
        }
    }
}

impl Journey {
    pub async fn travel(self, cut: Option<Cut>) -> Travelled {
        // Shown with the failure of a test.
        println!("{self:?}, {cut:?}");
        let travelled = timeout(PATIENCE * 3, self.steps(cut)).await;
        travelled.unwrap_or_else(|_| panic!("{self:?} with {cut:?} did not end"))
    }

    async fn steps(self, cut: Option<Cut>) -> Travelled {
        let stage = Stage::set(self.quorum).await;
        let cutter = Cutter::cutting(&stage.url, cut).await;
        let mut operator = Operator::at(cutter.url(&stage.url));
        let subject = Subject::start(&stage, PREFETCH, 0).await;
        let flow = Post::open(&stage).await.keep_sending(PACE);
        subject.has_applied(3).await;
        let competitor = match self.ending {
            Ending::Renamed => Some(PlainConsumer::start(&stage, &format!("{}-other", stage.pod)).await),
            Ending::Moved | Ending::RolledBack => None,
        };
        let mut pod = stage.pod.clone();
        match self.ending {
            Ending::Moved => forth(&stage, &subject, &flow, &mut operator, &pod).await,
            Ending::Renamed => {
                pod = format!("{pod}-new");
                forth(&stage, &subject, &flow, &mut operator, &pod).await;
            }
            Ending::RolledBack => {
                back(&stage, &subject, &mut operator, 1).await;
                back(&stage, &subject, &mut Operator::at(stage.url.clone()), 2).await;
            }
        }
        let published = flow.stop().await;
        if let Some(other) = &competitor {
            let all = || subject.view().count + other.applied();
            until("all is applied", async || all() >= published.published).await;
            let view = subject.view();
            assert_eq!((all(), view.duplicates, view.out_of_order), (published.published, 0, 0));
        } else {
            agree(&subject, &published).await;
        }
        assert!(!subject.view().parked);
        if let Some(other) = competitor {
            other.end(&stage).await;
        }
        nothing_is_left(stage, subject, &pod).await;
        Travelled { frames: cutter.frames(), struck: cutter.struck(), failures: operator.failures }
    }
}

fn shadow(stage: &Stage) -> String {
    format!("{}-shadow-1", stage.pod)
}

/// The effect that declares the parking queue, as one.
async fn prepare(broker: &AmqpBroker, stage: &Stage, epoch: u32) -> Result<(), BrokerError> {
    broker.preflight(&stage.primary).await?;
    broker.declare_parking(&stage.queues(epoch)).await?;
    broker.leave_park(&ParkOrder { pod: shadow(stage), queues: stage.queues(epoch) }).await
}

async fn forth(stage: &Stage, subject: &Subject, flow: &Flow, operator: &mut Operator, survivor: &str) {
    operator.insist(async |broker| prepare(broker, stage, 1).await).await;
    let parked = operator.insist(async |broker| broker.park(&stage.park(1), WITHIN).await).await;
    let at = is_parked(subject, &parked);
    let still = |when: &str| {
        let now = subject.view();
        assert_eq!((now.parked, now.count), (true, at), "{when}");
    };
    let sent = flow.sent();
    subject.moves_to(&shadow(stage)).await;
    until("messages came meanwhile", async || flow.sent() > sent).await;
    still("as the shadow");

    let mut queues = stage.queues(1).with_helper(shadow(stage));
    let order = ResumeOrder { pod: survivor.to_owned(), queues: stage.queues(1), answers: true };
    let resume = operator.insist(async |broker| broker.resume(&order, WITHIN).await);
    let resumed = if survivor == stage.pod {
        subject.moves_to(survivor).await;
        still("as the replacement");
        resume.await
    } else {
        queues = queues.with_helper(&stage.pod);
        tokio::join!(resume, subject.moves_to(survivor)).0
    };
    assert_eq!(resumed.proof, Proof::Acknowledged);
    assert!(resumed.position.is_some_and(|position| position >= at));
    operator.insist(async |broker| broker.drop_parking(&queues).await).await;
    if survivor != stage.pod {
        // For `Stage::done`, which removes it.
        stage.declare(&control_queue(&stage.pod), false).await;
    }
}

async fn back(stage: &Stage, subject: &Subject, operator: &mut Operator, epoch: u32) {
    let mut order = stage.resume(epoch);
    let prepared = operator.attempt(async |broker: &AmqpBroker| prepare(broker, stage, epoch).await).await;
    if prepared.is_some() {
        let park = async |broker: &AmqpBroker| broker.park(&stage.park(epoch), WITHIN).await;
        if let Some(parked) = operator.attempt(park).await {
            is_parked(subject, &parked);
            order = stage.resume_answering(epoch);
        }
    }
    operator.insist(async |broker| broker.resume(&order, WITHIN).await).await;
    assert!(!subject.view().parked, "rolled back and still parked");
    let queues = stage.queues(epoch).with_helper(shadow(stage));
    operator.insist(async |broker| broker.drop_parking(&queues).await).await;
}

/// The number of messages at which it is.
fn is_parked(subject: &Subject, parked: &Parked) -> u64 {
    let at = subject.view();
    assert_eq!((parked.proof, parked.position, at.parked), (Proof::Acknowledged, Some(at.count), true));
    at.count
}

/// Neither queues nor an order to park.
async fn nothing_is_left(stage: Stage, subject: Subject, pod: &str) {
    until("only the survivor consumes", async || stage.look(&stage.primary).await == Some((0, 1))).await;
    let queues = |epoch| -> MigrationQueues { stage.queues(epoch) };
    for queue in [1, 2].map(|epoch| [queues(epoch).parking(), queues(epoch).reply()]).concat() {
        assert_eq!(stage.look(&queue).await, None, "{queue} is left");
    }
    assert_eq!(stage.look(&control_queue(&shadow(&stage))).await, None, "the shadow's control queue is left");
    subject.crash().await;
    until("its end is noticed", async || stage.look(&control_queue(pod)).await.unwrap().1 == 0).await;
    for order in stage.orders(pod).await {
        assert_ne!(order.kind, OrderType::StartReplay, "whoever starts under this name would park");
    }
    if pod != stage.pod {
        stage.delete(&control_queue(pod)).await;
    }
    stage.done().await;
}
