//! Flask under gunicorn: a master and two workers, each with memory of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::tour::{Tour, on_tour};
use super::variants::{Variant, app};
use crate::lab::{App, Probe, Result, StateView, eventually, request, state_at};

const LIMIT: Duration = Duration::from_secs(2);
const WORKERS: usize = 2;

#[test]
fn a_master_with_two_workers() -> Result {
    let variants = [Variant::Root, Variant::Hardened { read_only: false }];
    on_tour("gunicorn", &variants, async |tour, variant| {
        let command = "gunicorn --chdir /programs --bind 0.0.0.0:8080 --workers 2 shop:app";
        each_keeps_its_own(tour, variant, app("gunicorn", command, variant)).await
    })
}

async fn each_keeps_its_own(tour: &Tour<'_>, variant: Variant, app: App) -> Result {
    let (pod, service) = tour.start(&app).await?;
    let mut at = format!("{}:8080", pod.ip);
    let mut before = workers(&at).await?;
    for _ in 0..2 {
        for _ in 0..50 {
            let answer = request(&at, "POST", "/add", "", b"", LIMIT).await?;
            let worker: StateView = answer.json()?;
            before.insert(worker.cookie, worker.count);
        }
        let probe = Probe::start(&service);
        let began = Instant::now();
        let leg = tour.leg(&app).await?;
        eventually("the Service answers", LIMIT, async || Ok(Some(state_at(&service).await?))).await?;
        let unanswered = probe.finish().await?.longest_gap(began);
        at = format!("{}:8080", leg.after.ip);
        assert_eq!(workers(&at).await?, before);
        tour.tell(variant, &leg, unanswered);
    }
    tour.end(&app).await
}

/// How much each of them has counted: who answers is chance.
async fn workers(at: &str) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    eventually("both workers have answered", Duration::from_secs(30), async || {
        let view = state_at(at).await?;
        found.insert(view.cookie, view.count);
        Ok((found.len() == WORKERS).then_some(()))
    })
    .await?;
    Ok(found)
}
