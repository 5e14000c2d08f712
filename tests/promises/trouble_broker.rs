//! The broker cannot be reached: by the operator alone, or by anybody.

use std::time::Duration;

use serde_json::json;
use shadow::api::Reason;

use super::trouble::{Trouble, blocking_app};
use crate::lab::{Result, on_cluster};

#[test]
fn where_the_operator_cannot_reach_the_broker_the_consumer_goes_on_undisturbed() -> Result {
    on_cluster("no-broker", async |lab| {
        let trouble = Trouble::ahead(lab, blocking_app()).await?;
        // The consumer has read its URL; nobody listens on the one that the operator reads now.
        let url = lab.broker.url().replace(":5672/", ":5999/");
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "stringData": { "url": url },
            "metadata": { "name": "broker", "namespace": lab.namespace } });
        lab.cluster.apply(&[secret]).await?;
        let drain = trouble.drain()?;
        trouble.is_refused_because(drain, &[Reason::BrokerUnreachable]).await?;
        trouble.ends_as_if_nothing_had_happened().await
    })
}

#[test]
fn a_broker_that_is_cut_off_while_the_pod_moves_costs_time_and_no_message() -> Result {
    on_cluster("broker-cut", async |lab| {
        let trouble = Trouble::ahead(lab, blocking_app().annotated("deadline", "90s")).await?;
        // What is in the air when the wire breaks could be in the queue or not: the ledger must be final before.
        trouble.scene.producer.pause().await?;
        let drain = trouble.drain_patiently()?;
        let soon = Duration::from_secs(30);
        trouble.scene.watch().reaches(&trouble.pod.uid, &["Preparing", "Parking"], soon).await?;
        lab.cluster.broker("cut").await?;
        // How long the fault lasts.
        tokio::time::sleep(Duration::from_secs(3)).await;
        lab.cluster.broker("heal").await?;
        trouble.ends_exact_on_another_node(drain).await
    })
}
