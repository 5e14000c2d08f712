//! A node whose processor is another one, or lacks something, gets no shadow: the restore would succeed and the process
//! die later.

use std::time::Duration;

use super::nodes::{capacity, clear, deploy_on, migration, no_node, pretend, three};
use crate::lab::{App, Drain, DrainOptions, Load, Result, Scene, on_cluster};

#[test]
fn a_node_that_lacks_instructions_is_passed_over_and_where_none_fits_each_says_why() -> Result {
    on_cluster("foreign-processor", async |lab| {
        let [first, second, third] = three(lab).await?;
        let (app, load) = (App::consumer("consumer").annotated("deadline", "120s"), Load::steady(60));
        deploy_on(lab, &first, std::slice::from_ref(&app)).await?;
        let scene = Scene::open(lab, app, &load, None).await?;
        pretend(lab, &second, r#"{"cpuFeatures": ["fma"]}"#).await?;
        scene.drain(&load, &DrainOptions::of(&scene.app.name)).await?.must_be_exact()?;
        let moved = lab.only_pod(&scene.app).await?;
        assert_eq!(moved.node, third);

        let size = capacity(lab, &first).await?.compatibility.xsave_size;
        pretend(lab, &first, r#"{"xsaveSize": 11008}"#).await?;
        let drain = Drain::start(&lab.cluster, &third, &DrainOptions::of(&scene.app.name))?;
        let waiting =
            migration(lab, &moved, Duration::from_secs(20), |found| no_node(found).is_some()).await?;
        let why = no_node(&waiting).unwrap_or_default();
        assert!(why.contains(&format!("{first}: xsave size 11008, source {size}")), "{why}");
        assert!(why.contains(&format!("{second}: CPU lacks ")), "{why}");
        assert!(!moved.state().await?.parked);

        clear(lab, &second).await?;
        let drained = drain.finish().await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        assert_eq!(lab.only_pod(&scene.app).await?.node, second);
        lab.uncordon(&third).await?;
        clear(lab, &first).await?;
        let (ledger, state) = scene.quiesce().await?;
        let verdict = crate::lab::Verdict::of(&ledger, &state, &scene.cookie);
        assert!(verdict.is_exact(), "{verdict:?}");
        Ok(())
    })
}

/// In-tree filters and autoscalers see what must be the same.
#[test]
fn what_must_be_the_same_is_told_in_labels_of_the_node() -> Result {
    on_cluster("node-labels", async |lab| {
        let [first, ..] = three(lab).await?;
        let found = capacity(lab, &first).await?.compatibility;
        let label = async |key: &str| {
            let path = format!("jsonpath={{.metadata.labels.migration\\.ms2m\\.io/{key}}}");
            lab.cluster.kubectl(&["get", "node", &first, "-o", &path]).await
        };
        assert_eq!(label("xsave-size").await?, found.xsave_size.to_string());
        assert_eq!(label("oci-runtime").await?, "runc");
        pretend(lab, &first, r#"{"xsaveSize": 11008}"#).await?;
        crate::lab::eventually("the label follows", super::nodes::PUBLISHED, async || {
            Ok((label("xsave-size").await? == "11008").then_some(()))
        })
        .await?;
        clear(lab, &first).await
    })
}
