//! What the tests of trouble share: a consumer under load whose policy blocks, and how such a drain must end.

use std::time::Duration;

use shadow::api::{Reason, StatefulMigration};

use crate::lab::{
    App, Drain, DrainOptions, Drained, Lab, Load, Output, Result, Scene, Snapshot, cause_is_told, eventually,
    fail, status_of, unhurt,
};

pub const RATE: u32 = 60;
/// After a failed attempt the next one starts 20 s later: this ends in between.
const DEADLINE: Duration = Duration::from_secs(18);
/// kubectl asks every five seconds: once more after that.
const GRACE: Duration = Duration::from_secs(6);

/// There while a script of [`beside`] runs on the node.
const RUNS: &str = "/run/lab-script-runs";

/// Runs a script on a node, in which it waits for its moment, and `meanwhile` once it runs.
pub async fn beside<T>(
    lab: &Lab,
    node: &str,
    script: &str,
    meanwhile: impl Future<Output = Result<T>>,
) -> Result<(Output, T)> {
    let script = format!("touch {RUNS}; trap 'rm -f {RUNS}' EXIT; {script}");
    let argv = ["sh", "-c", script.as_str()];
    let meanwhile = async {
        eventually("the script runs", Duration::from_secs(10), async || {
            let there = lab.cluster.exec(node, &["test", "-e", RUNS]).await?;
            Ok((there.code == 0).then_some(()))
        })
        .await?;
        meanwhile.await
    };
    let (ran, done) = tokio::join!(lab.cluster.exec(node, &argv), meanwhile);
    Ok((ran?, done?))
}

/// A consumer that works under load, to be drained in vain.
pub struct Trouble<'a> {
    pub scene: Scene<'a>,
    pub pod: Snapshot,
    pub queues: Vec<String>,
}

/// Like any other, but a drain is refused once the deadline has passed.
pub fn blocking_app() -> App {
    App::consumer("consumer")
        .annotated("policy", "MigrateOrBlock")
        .annotated("deadline", &format!("{}s", DEADLINE.as_secs()))
}

impl<'a> Trouble<'a> {
    pub async fn ahead(lab: &'a Lab, app: App) -> Result<Self> {
        let scene = Scene::open(lab, app, &Load::steady(RATE), None).await?;
        let pod = lab.only_pod(&scene.app).await?;
        let queues = lab.broker.queues().await?;
        scene.producer.burst(200, RATE).await?;
        Ok(Self { scene, pod, queues })
    }

    /// Three messages and no more.
    pub async fn few_messages(lab: &'a Lab, app: App) -> Result<Self> {
        let scene = Scene::open(lab, app, &Load::steady(RATE), None).await?;
        let pod = lab.only_pod(&scene.app).await?;
        let queues = lab.broker.queues().await?;
        scene.producer.publish(3).await?;
        Ok(Self { scene, pod, queues })
    }

    /// Starts draining the pod's node; kubectl is given more time than the migration has.
    pub fn drain(&self) -> Result<Drain> {
        let options = DrainOptions::of(&self.scene.app.name).timeout(DEADLINE + GRACE);
        Drain::start(&self.scene.lab.cluster, &self.pod.node, &options)
    }

    /// With patience for several attempts.
    pub fn drain_patiently(&self) -> Result<Drain> {
        let options = DrainOptions { delete_empty_dir: true, ..DrainOptions::of(&self.scene.app.name) };
        Drain::start(&self.scene.lab.cluster, &self.pod.node, &options)
    }

    /// The drain fails, the migration too, both status and Events say why; whoever drains again is told the same.
    pub async fn is_refused_because(&self, drain: Drain, causes: &[Reason]) -> Result<StatefulMigration> {
        let drained = drain.finish().await?;
        if drained.code == 0 {
            return fail(format!("the drain went through:\n{}", drained.text()));
        }
        let ended = self.scene.watch().ended(&self.pod.uid, Duration::from_secs(90)).await?;
        cause_is_told(self.scene.lab, &ended, &self.pod.name, causes).await?;
        let again = self.drain_again().await?;
        if again.code == 0 || !causes.iter().any(|cause| again.text().contains(cause.as_str())) {
            return fail(format!(
                "a second drain is not refused with one of {causes:?}: exit {}\n{}",
                again.code,
                again.text()
            ));
        }
        Ok(ended)
    }

    /// Short: it is only to be answered.
    pub async fn drain_again(&self) -> Result<Drained> {
        let options = DrainOptions::of(&self.scene.app.name).timeout(Duration::from_secs(3));
        self.scene.lab.drain(&self.pod.node, &options).await
    }

    /// The source serves and consumes as before; nothing is lost, nothing is left behind.
    pub async fn ends_as_if_nothing_had_happened(&self) -> Result {
        unhurt(&self.scene, &self.pod, &self.queues).await
    }

    /// The migration came through, whatever happened on the way: exact, on another node, nothing left behind.
    pub async fn ends_exact_on_another_node(&self, drain: Drain) -> Result {
        let lab = self.scene.lab;
        let drained = drain.finish().await?;
        if drained.code != 0 {
            return fail(format!("drain: exit {}\n{}", drained.code, drained.text()));
        }
        let ended = self.scene.watch().ended(&self.pod.uid, Duration::from_secs(120)).await?;
        let status = status_of(&ended);
        if status.phase != shadow::api::Phase::Completed {
            return fail(format!("the migration ended as {status:#?}"));
        }
        let now = lab.only_pod(&self.scene.app).await?;
        if now.node == self.pod.node || now.uid == self.pod.uid {
            return fail(format!("it has not moved: {now:?}"));
        }
        lab.uncordon(&self.pod.node).await?;
        unhurt(&self.scene, &now, &self.queues).await
    }
}
