//! A classic queue, the example's consumer on it, and the broker module: what most tests begin with.

use shadow::broker::{AmqpBroker, Broker, Parked, Resumed};

use super::{Stage, Subject, WITHIN};

pub struct Scene {
    pub stage: Stage,
    pub subject: Subject,
    pub broker: AmqpBroker,
}

impl Scene {
    /// The consumer is connected.
    pub async fn set() -> Self {
        Self::on(Stage::set(false).await, 50, 0).await
    }

    pub async fn on(stage: Stage, prefetch: u16, work_ms: u64) -> Self {
        let subject = Subject::start(&stage, prefetch, work_ms).await;
        subject.is_connected().await;
        let broker = stage.broker();
        Self { stage, subject, broker }
    }

    /// The consumer is parked, in epoch 1.
    pub async fn parked() -> Self {
        let scene = Self::set().await;
        scene.park(1).await;
        scene
    }

    /// Declares and parks.
    pub async fn park(&self, epoch: u32) -> Parked {
        self.broker.declare_parking(&self.stage.queues(epoch)).await.unwrap();
        self.broker.park(&self.stage.park(epoch), WITHIN).await.unwrap()
    }

    pub async fn resume(&self, epoch: u32) -> Resumed {
        self.broker.resume(&self.stage.resume_answering(epoch), WITHIN).await.unwrap()
    }

    pub async fn clean(&self, epoch: u32) {
        self.broker.drop_parking(&self.stage.queues(epoch)).await.unwrap();
    }

    /// Cleans epoch 1 and takes the rest away.
    pub async fn end(self) {
        self.clean(1).await;
        self.subject.crash().await;
        self.stage.done().await;
    }
}
