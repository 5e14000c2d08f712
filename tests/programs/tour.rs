//! There and back: the pods of one program, one for each way that it is met, are drained together from one node to the
//! other, and from there to where they came from.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::Barrier;

use super::image;
use super::variants::{self, Variant};
use crate::lab::{App, DrainOptions, Lab, Result, Snapshot, Watch, eventually, fail, on_cluster, status_of};

const ENDS: Duration = Duration::from_secs(60);
/// A JVM compiles its source first, and a server makes its database.
const START: Duration = Duration::from_secs(120);

/// A test of one program in each of the ways it is met, beside each other.
pub fn on_tour(name: &str, variants: &[Variant], test: impl AsyncFn(&Tour<'_>, Variant) -> Result) -> Result {
    on_cluster(name, async |lab| {
        image::ensure(&lab.cluster).await?;
        let apps: Vec<_> = variants.iter().map(|variant| variants::name(name, *variant)).collect();
        let tour = Tour {
            lab,
            watch: lab.watch(),
            name: name.to_owned(),
            selector: format!("app in ({})", apps.join(",")),
            all: Barrier::new(variants.len()),
            drained: Mutex::default(),
        };
        let begin = lab.cluster.nodes.first().ok_or("no node")?;
        tour.begins_on(begin).await?;
        try_join_all(variants.iter().map(|variant| test(&tour, *variant))).await.map(drop)
    })
}

pub struct Tour<'a> {
    pub lab: &'a Lab,
    watch: Watch,
    name: String,
    /// The pods of all variants.
    selector: String,
    /// Everything is done by all of them, or by one for all.
    all: Barrier,
    /// What the last drain took.
    drained: Mutex<Duration>,
}

/// One drain.
pub struct Leg {
    pub after: Snapshot,
    pub drain: Duration,
}

impl Tour<'_> {
    /// No other node takes a pod for now.
    async fn begins_on(&self, node: &str) -> Result {
        for other in self.lab.cluster.nodes.iter().filter(|other| *other != node) {
            self.lab.cluster.kubectl(&["cordon", other]).await?;
        }
        Ok(())
    }

    /// Its only pod, once it is ready and its Service leads to it.
    pub async fn start(&self, app: &App) -> Result<(Snapshot, String)> {
        self.lab.cluster.apply(&app.objects(&self.lab.namespace)).await?;
        let pod = self.lab.ready(app, START).await?.remove(0);
        let service = self.lab.service(app).await?;
        eventually("the Service answers", START, async || {
            Ok(Some(tokio::net::TcpStream::connect(&service).await?))
        })
        .await?;
        if self.all.wait().await.is_leader() {
            for node in &self.lab.cluster.nodes {
                self.lab.uncordon(node).await?;
            }
        }
        Ok((pod, service))
    }

    /// Drains the node of all pods: this one is elsewhere, under its name, and no more than it was.
    pub async fn leg(&self, app: &App) -> Result<Leg> {
        let before = self.lab.only_pod(app).await?;
        let rights = self.rights(&before.name).await?;
        if self.all.wait().await.is_leader() {
            *self.drained.lock() = self.drain(&before.node).await?;
        }
        self.all.wait().await;
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
        Ok(Leg { after, drain: *self.drained.lock() })
    }

    async fn drain(&self, node: &str) -> Result<Duration> {
        let options = DrainOptions { selector: Some(self.selector.clone()), ..DrainOptions::default() };
        let drained = self.lab.drain(node, &options).await?;
        self.lab.uncordon(node).await?;
        if drained.code == 0 { Ok(drained.took()) } else { fail(drained.text()) }
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

    /// Removes the pod at once, so that nothing of it works on while the next program begins.
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
