//! A drain of the whole node also evicts SHADOW's own operator and webhook, which are about to move the pod.

use crate::lab::{App, DrainOptions, Load, Result, Scene, leader, on_cluster, webhooks};

#[test]
fn drains_that_evict_the_leading_operator_and_a_webhook_are_exact_like_others() -> Result {
    on_cluster("own-parts", async |lab| {
        let app = App::consumer("consumer");
        let load = Load::steady(60);
        let scene = Scene::open(lab, app.clone(), &load, None).await?;
        let (mut whole, mut hit) = (0, 0);
        while whole < 4 {
            let before = lab.only_pod(&app).await?;
            let (_, leads_on) = leader(&lab.client).await?;
            let has_webhook = webhooks(&lab.client).await?.contains(&before.node);
            if leads_on == before.node && has_webhook {
                hit += 1;
            } else if whole >= 2 && hit < whole / 2 + 1 {
                // The pod goes to where the leader is, for the next one.
                scene.drain(&load, &DrainOptions::of(&app.name)).await?.must_be_exact()?;
                continue;
            }
            whole += 1;
            let figures = scene.drain(&load, &DrainOptions::default()).await?;
            figures.must_be_exact()?;
            let after = lab.only_pod(&app).await?;
            assert_ne!(after.node, before.node);
            println!(
                "whole node {}: drain {} ms, moved {} ms, pause {} ms",
                before.node, figures.total_ms, figures.moved_ms, figures.pause_ms
            );
            lab.product_ready().await?;
        }
        assert!(hit * 2 >= whole, "only {hit} of {whole} drains hit the leader and a webhook");
        Ok(())
    })
}
