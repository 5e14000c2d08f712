//! There and back: one pod, drained from its node to the other and from there to where it came from.

use std::time::{Duration, Instant};

use super::image;
use super::variants::Variant;
use crate::lab::{App, DrainOptions, Lab, Result, Snapshot, Watch, eventually, fail, on_cluster, status_of};

const ENDS: Duration = Duration::from_secs(60);
/// A JVM compiles its source first, and a server makes its database.
const START: Duration = Duration::from_secs(120);

/// A test of one program in each of the ways it is met.
pub fn on_tour(name: &str, variants: &[Variant], test: impl AsyncFn(&Tour<'_>, Variant) -> Result) -> Result {
    on_cluster(name, async |lab| {
        image::ensure(&lab.cluster).await?;
        let tour = Tour { lab, watch: lab.watch(), name: name.to_owned() };
        for variant in variants {
            test(&tour, *variant).await?;
        }
        Ok(())
    })
}

pub struct Tour<'a> {
    pub lab: &'a Lab,
    watch: Watch,
    name: String,
}

/// One drain.
pub struct Leg {
    pub after: Snapshot,
    pub drain: Duration,
}

impl Tour<'_> {
    /// Its only pod, once it is ready and its Service leads to it.
    pub async fn start(&self, app: &App) -> Result<(Snapshot, String)> {
        self.lab.cluster.apply(&app.objects(&self.lab.namespace)).await?;
        let pod = self.lab.ready(app, START).await?.remove(0);
        let service = self.lab.service(app).await?;
        eventually("the Service answers", START, async || {
            Ok(Some(tokio::net::TcpStream::connect(&service).await?))
        })
        .await?;
        Ok((pod, service))
    }

    /// Drains the pod's node: the pod is elsewhere, under its name, and no more than it was.
    pub async fn leg(&self, app: &App) -> Result<Leg> {
        let before = self.lab.only_pod(app).await?;
        let rights = self.rights(&before.name).await?;
        let drained = self.lab.drain(&before.node, &DrainOptions::of(&app.name)).await?;
        if drained.code != 0 {
            return fail(drained.text());
        }
        let status = status_of(&self.watch.ended(&before.uid, ENDS).await?);
        if status.phase.as_str() != "Completed" {
            let said = |text: Option<String>| text.unwrap_or_default();
            return fail(format!(
                "{}: {} {}: {}",
                before.name,
                status.phase.as_str(),
                said(status.reason),
                said(status.message)
            ));
        }
        let after = self.lab.only_pod(app).await?;
        assert_ne!((&after.uid, &after.node), (&before.uid, &before.node));
        assert_eq!((&after.name, after.restarts), (&before.name, 0));
        assert_eq!(self.rights(&after.name).await?, rights, "{}: what its process may do", after.name);
        self.lab.uncordon(&before.node).await?;
        Ok(Leg { after, drain: drained.took() })
    }

    /// Who the first process of the container is and what it may.
    async fn rights(&self, pod: &str) -> Result<Vec<String>> {
        let argv = ["-n", &self.lab.namespace, "exec", pod, "--", "cat", "/proc/1/status"];
        let status = self.lab.cluster.kubectl(&argv).await?;
        let wanted = [
            "Uid:",
            "Gid:",
            "Groups:",
            "CapInh:",
            "CapPrm:",
            "CapEff:",
            "CapBnd:",
            "CapAmb:",
            "NoNewPrivs:",
            "Seccomp:",
        ];
        let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
        Ok(lines.map(str::to_owned).collect())
    }

    /// A row of the table that `make programs` prints.
    pub fn tell(&self, variant: Variant, leg: &Leg, pause: Duration) {
        println!(
            "| {} | {} | {} | {} |",
            self.name,
            variant.name(),
            leg.drain.as_millis(),
            pause.as_millis()
        );
    }

    /// Removes the pod at once, so that the next has the node for itself.
    pub async fn end(&self, app: &App) -> Result {
        let argv = ["-n", &self.lab.namespace, "delete", "statefulset", &app.name, "--wait=false"];
        self.lab.cluster.kubectl(&argv).await.map(drop)
    }
}

/// The longest time between two events that were marked since it was last asked.
#[derive(Debug)]
pub struct Gap {
    last: Instant,
    longest: Duration,
}

impl Gap {
    pub fn new() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO }
    }

    pub fn mark(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }

    pub fn take(&mut self) -> Duration {
        std::mem::take(&mut self.longest)
    }
}
