//! Closes on every node what is kept there of migrations that are no more or have ended: the agent did not answer when its
//! migration was closed (its machine was down), and the operator could not wait for it. Deletes the pods that nothing starts
//! any more, as they were to be restored. Run by the leader.
//!
//! Guarantees: nothing of a migration that has not ended is touched; one that has never begins again. Agents are asked first
//! and the API server after them; the object is made before any agent hears of its migration, and its UID never comes
//! again. So this is right also where it is done by an operator that does not lead any more.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, ResourceExt as _};

use super::retention::is_ended;
use crate::api::{Epoch, Kept, MigrationUid, NodeName, PodUid, Reason, StatefulMigration};
use crate::operator::context::Context;

/// What is left is closed within half a minute after its agent answers again.
const PERIOD: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
#[error("migrations could not be listed, so nothing that agents keep is closed: {0}")]
struct OrphanError(#[from] kube::Error);

/// Runs until dropped.
pub async fn close_orphans(ctx: Context) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep(&ctx).await {
            tracing::warn!(%error, "tried again in {PERIOD:?}");
        }
    }
}

async fn sweep(ctx: &Context) -> Result<(), OrphanError> {
    let mut nodes = Vec::new();
    for node in ctx.nodes.state() {
        let name = NodeName(node.name_any());
        let Ok(agent) = ctx.agents.on(&name) else { continue };
        match agent.kept().await {
            Ok(kept) => {
                // The other nodes do not wait for this one.
                if let Err(error) = delete_barred(ctx, &name, &kept.barred).await {
                    tracing::warn!(node = %name, %error, "pods that nothing starts are not deleted; tried again in {PERIOD:?}");
                }
                if !kept.migrations.is_empty() {
                    nodes.push((agent, kept));
                }
            }
            // It is asked again when it answers.
            Err(error) => tracing::debug!(node = %name, %error, "not asked what it keeps"),
        }
    }
    if nodes.is_empty() {
        return Ok(());
    }
    let api: Api<StatefulMigration> = Api::all(ctx.client.clone());
    let all = api.list(&ListParams::default()).await?.items;
    let those = |which: &dyn Fn(&StatefulMigration) -> bool| -> BTreeSet<MigrationUid> {
        all.iter().filter(|one| which(one)).filter_map(|one| one.uid().map(MigrationUid)).collect()
    };
    let live = those(&|migration| !is_ended(migration));
    let given_up = those(&is_given_up);
    for (agent, kept) in nodes {
        for (migration, epoch) in orphans(kept, &live) {
            let closed = if given_up.contains(&migration) {
                agent.close_and_keep(&migration, epoch).await
            } else {
                agent.close(&migration, epoch).await
            };
            match closed {
                Ok(()) => tracing::info!(%migration, %epoch, "closed what an agent still kept of it"),
                // The other nodes do not wait for this one.
                Err(error) => {
                    tracing::warn!(%migration, %epoch, %error, "not closed; tried again in {PERIOD:?}");
                }
            }
        }
    }
    Ok(())
}

/// The owners of these pods make others. Which are there still is told again half a minute later.
async fn delete_barred(ctx: &Context, node: &NodeName, barred: &[PodUid]) -> Result<(), kube::Error> {
    if barred.is_empty() {
        return Ok(());
    }
    let there = ListParams::default().fields(&format!("spec.nodeName={node}"));
    for pod in Api::<Pod>::all(ctx.client.clone()).list(&there).await?.items {
        let (Some(uid), Some(namespace)) = (pod.uid(), pod.namespace()) else { continue };
        if !barred.iter().any(|barred| barred.as_str() == uid) {
            continue;
        }
        tracing::warn!(
            namespace,
            pod = pod.name_any(),
            "its init containers have not run, and it was not restored: deleted"
        );
        let uid = Preconditions { uid: Some(uid), resource_version: None };
        let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
        match pods.delete(&pod.name_any(), &DeleteParams::default().preconditions(uid)).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            deleted => drop(deleted?),
        }
    }
    Ok(())
}

/// Whose archive people were promised for a day.
fn is_given_up(migration: &StatefulMigration) -> bool {
    let reason = migration.status.as_ref().and_then(|status| status.reason.as_deref());
    reason == Some(Reason::StateLost.as_str())
}

fn orphans(kept: Kept, live: &BTreeSet<MigrationUid>) -> Vec<(MigrationUid, Epoch)> {
    kept.migrations.into_iter().filter(|(migration, _)| !live.contains(migration)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_object_any_more_is_closed_and_all_of_its_attempts() {
        let kept = Kept {
            migrations: [("gone".into(), Epoch(3)), ("here".into(), Epoch(1))].into(),
            ..Kept::default()
        };
        let live = ["here".into(), "elsewhere".into()].into();
        assert_eq!(orphans(kept, &live), [("gone".into(), Epoch(3))]);
    }
}
