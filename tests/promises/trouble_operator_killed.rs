//! The leading operator is killed at any moment of a migration: another one goes on where it was. Every third moment, others
//! each time; `make drains` takes them all.

use std::time::Duration;

use shadow::api::SYSTEM_NAMESPACE;

use super::sample::Sample;
use super::trouble::{RATE, Trouble};
use crate::lab::{App, Result, fail, kill_leader, on_cluster};

const STEPS: [&str; 13] = [
    "Preparing",
    "Parking",
    "Dumping",
    "RestoringShadow",
    "Bridging",
    "Confirming",
    "Freezing",
    "Deleting",
    "Replacing",
    "Switching",
    "Closing",
    "Resuming",
    "Cleaning",
];

#[test]
fn an_operator_killed_at_any_step_costs_time_and_no_message() -> Result {
    on_cluster("operator-killed", async |lab| {
        let app = App::consumer("consumer").annotated("policy", "MigrateOrBlock");
        let mut trouble = Trouble::ahead(lab, app).await?;
        let sample = Sample::of("KILLED", 3);
        println!("{sample}");
        for step in STEPS.into_iter().skip(sample.skip).step_by(sample.each) {
            trouble.scene.producer.resume(RATE).await?;
            let drain = trouble.drain_patiently()?;
            let soon = Duration::from_secs(30);
            trouble.scene.watch().reaches(&trouble.pod.uid, &[step], soon).await?;
            let killed = kill_leader(&lab.cluster, &lab.client).await?;
            match trouble.ends_exact_on_another_node(drain).await {
                Ok(()) => println!("killed at {step}: exact"),
                Err(error) => return fail(format!("killed at {step}: {error}")),
            }
            trouble.pod = lab.only_pod(&trouble.scene.app).await?;
            // The kubelet waits longer each time before it starts a killed container again; a new pod starts at once.
            lab.cluster.kubectl(&["-n", SYSTEM_NAMESPACE, "delete", "pod", &killed]).await?;
            lab.product_ready().await?;
        }
        Ok(())
    })
}
