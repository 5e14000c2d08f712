//! A pod without a queue, written to over HTTP all the time: every write that was acknowledged is in its state after.

use std::time::Duration;

use crate::lab::{App, DrainOptions, Result, Writer, on_cluster};

#[test]
fn every_acknowledged_write_survives_three_drains() -> Result {
    on_cluster("without-queue", async |lab| {
        let app = App::counter("counter");
        lab.deploy(&app).await?;
        let service = lab.service(&app).await?;
        let watch = lab.watch();
        for round in 1..=3 {
            let before = lab.only_pod(&app).await?;
            let first = before.state().await?;
            let writer = Writer::start(service.clone(), &first, Duration::from_millis(5))?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let drained = lab.drain(&before.node, &DrainOptions::of(&app.name)).await?;
            assert_eq!(drained.code, 0, "{}", drained.text());
            let ended = watch.ended(&before.uid, Duration::from_secs(60)).await?;
            let status = ended.status.unwrap_or_default();
            assert_eq!(status.phase.as_str(), "Completed", "{status:?}");
            let (total, pause) = (status.total_ms.unwrap_or(0), status.pause_ms.unwrap_or(0));
            assert!(pause > 0 && pause < total, "its times are told: {status:?}");
            let after = lab.only_pod(&app).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut written = writer.finish().await?;
            let last = after.state().await?;
            written.must_be_in(&first, &last)?;
            assert!(written.acknowledged > 50, "round {round}: {written:?}");
            assert_ne!(after.node, before.node);
            println!(
                "round {round}: {} writes acknowledged, {} not, longest gap {} ms, drain {} ms",
                written.acknowledged,
                written.unknown,
                written.longest_gap.as_millis(),
                drained.took().as_millis()
            );
            lab.uncordon(&before.node).await?;
        }
        Ok(())
    })
}
