//! What the tests of the time after the commit share: something breaks on the target between the commit and the restore,
//! and the pod lives on with its memory all the same, or ends as its policy says.

use std::time::Duration;

use shadow::api::{Phase, Reason, StatefulMigration, StatefulMigrationStatus};
use tokio::process::Command;

use super::trouble::{Trouble, beside};
use crate::lab::{
    App, Drain, Lab, NodeAction, OUT_OF_SERVICE, Result, Snapshot, eventually, fail, status_of, unhurt,
};

/// All ways with all their patience.
pub const ALL_WAYS: Duration = Duration::from_secs(180);
/// The replacement's ticket is opened when the commit is done, and some tenths of a second before its restore begins.
const ONCE_COMMITTED: &str = "end=$(($(date +%s) + 25)); until ls /var/lib/shadow/tickets/*.replacement* >/dev/null 2>&1; do \
     [ $(date +%s) -lt $end ] || exit 9; sleep 0.005; done; ";
/// In place of CRIU, until the cluster is mended.
pub const BREAK_CRIU: &str = "mount --bind /bin/false $(readlink -f $(command -v criu))";

/// Nothing is restored any more.
const STOP_KUBELET: &str = "kill -STOP $(pgrep -x kubelet)";

/// A consumer with enough patience for attempts, whatever comes after the commit.
pub fn app(policy: &str) -> App {
    App::consumer("consumer").annotated("policy", policy)
}

/// Begins a drain; once it is committed, and before it is restored, `harm` happens on the target.
pub async fn harmed_once_committed(
    lab: &Lab,
    target: &str,
    harm: &str,
    drained: impl Future<Output = Result<Drain>>,
) -> Result<Drain> {
    let (harmed, drain) = beside(lab, target, &format!("{ONCE_COMMITTED}{harm}"), drained).await?;
    if harmed.code != 0 {
        return fail(format!("not harmed ({}): {}{}", harmed.code, harmed.stdout, harmed.stderr));
    }
    Ok(drain)
}

/// A consumer under load that is drained, while `harm` waits on its target for the commit.
pub struct After<'a> {
    pub trouble: Trouble<'a>,
    pub target: String,
}

impl<'a> After<'a> {
    pub async fn ahead(lab: &'a Lab, app: App) -> Result<Self> {
        let trouble = Trouble::ahead(lab, app).await?;
        let target = lab.cluster.nodes.iter().find(|node| **node != trouble.pod.node).ok_or("one node")?;
        Ok(Self { target: target.clone(), trouble })
    }

    pub fn lab(&self) -> &'a Lab {
        self.trouble.scene.lab
    }

    /// Drains; once it is committed, and before it is restored, `harm` happens on the target.
    pub async fn drained_with(&self, harm: &str) -> Result<Drain> {
        let drained = async { self.trouble.drain_patiently() };
        harmed_once_committed(self.lab(), &self.target, harm, drained).await
    }

    /// Drains; once it is committed, and before it is restored, the target's machine loses its power.
    pub async fn drained_with_power_lost(&self) -> Result<Drain> {
        let lab = self.lab();
        lab.keep_product_off(&self.target).await?;
        let drain = self.drained_with(STOP_KUBELET).await?;
        let uid = &self.trouble.pod.uid;
        self.trouble.scene.watch().reaches(uid, &["Replacing"], Duration::from_secs(30)).await?;
        lab.cluster.node(NodeAction::Kill, &self.target).await?;
        Ok(drain)
    }

    /// Somebody says that the target's machine is gone for good. It comes back, whole, once the pod lives on.
    pub async fn lives_on_without_its_target(&self) -> Result<(StatefulMigrationStatus, Snapshot)> {
        let lab = self.lab();
        let taint = format!("{OUT_OF_SERVICE}=nodeshutdown:NoExecute");
        lab.cluster.kubectl(&["taint", "node", &self.target, &taint]).await?;
        let lived = self.lives_on().await;
        lab.cluster.kubectl(&["taint", "node", &self.target, &format!("{OUT_OF_SERVICE}-")]).await?;
        lab.cluster.node(NodeAction::Start, &self.target).await?;
        lab.product_ready().await?; // the agent there too: what it kept is closed now
        self.was_caused_by(&[Reason::TargetLost])?;
        lived
    }

    /// It is back where it was, under its name, with its memory, exact; and people are told why.
    pub async fn is_home(&self, causes: &[Reason]) -> Result<StatefulMigrationStatus> {
        let (status, now) = self.lives_on().await?;
        if now.node != self.trouble.pod.node {
            return fail(format!("it is not at home, but {now:?}"));
        }
        if status.reason.as_deref() != Some(Reason::ReturnedHome.as_str()) {
            return fail(format!("it does not say that it went home: {status:#?}"));
        }
        self.is_told(&now.name, Reason::ReturnedHome).await?;
        self.was_caused_by(causes)?;
        self.lab().uncordon(&now.node).await?;
        self.trouble.unhurt_is(&now).await?;
        Ok(status)
    }

    /// The migration ends well, and the one pod is another object than before.
    pub async fn lives_on(&self) -> Result<(StatefulMigrationStatus, Snapshot)> {
        let ended = self.trouble.scene.watch().ended(&self.trouble.pod.uid, ALL_WAYS).await?;
        let status = status_of(&ended);
        if status.phase != Phase::Completed {
            return fail(format!("it ended as {status:#?}"));
        }
        let now = self.lab().only_pod(&self.trouble.scene.app).await?;
        if now.uid == self.trouble.pod.uid {
            return fail("it is still the pod that was drained");
        }
        Ok((status, now))
    }

    /// On the way there one of these reasons was given.
    pub fn was_caused_by(&self, causes: &[Reason]) -> Result {
        let sightings = self.trouble.scene.watch().sightings();
        if sightings.iter().any(|one| causes.iter().any(|cause| one.reason == cause.as_str())) {
            return Ok(());
        }
        fail(format!("none of {causes:?} was given: {sightings:#?}"))
    }

    /// An Event of that reason about the pod.
    pub async fn is_told(&self, pod: &str, reason: Reason) -> Result {
        eventually(&format!("an Event {reason} about {pod}"), Duration::from_secs(10), async || {
            let events = self.lab().events_of(pod).await?;
            Ok(events.iter().any(|(of, _)| of == reason.as_str()).then_some(()))
        })
        .await
    }

    /// The migration as it stands.
    pub fn status(&self) -> Result<StatefulMigrationStatus> {
        let latest: Option<StatefulMigration> = self.trouble.scene.watch().latest(&self.trouble.pod.name);
        latest.map(|one| status_of(&one)).ok_or_else(|| "no migration".into())
    }
}

impl Trouble<'_> {
    /// As if nothing had happened, but in the pod that carries on.
    pub async fn unhurt_is(&self, now: &Snapshot) -> Result {
        unhurt(&self.scene, now, &self.queues).await
    }
}

/// `kubectl shadow ...` for a pod of the namespace: exit code and all that it says.
pub async fn kubectl_shadow(lab: &Lab, argv: &[&str]) -> Result<(i32, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-shadow"));
    command.args(["--namespace", &lab.namespace]).args(argv);
    command.env("KUBECONFIG", &lab.cluster.kubeconfig).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await??;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.code().unwrap_or(-1), said.concat()))
}
