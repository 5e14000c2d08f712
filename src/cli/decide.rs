//! `kubectl shadow retry` and `give-up`: what a person says of a pod that could be restored nowhere. Does I/O.

use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::api::{Phase, Reason, StatefulMigration};

/// It waits for nobody's word, or did not hear it.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error("migrations were not listed: {0}")]
    List(kube::Error),
    #[error("pod {0} has no migration that waits for somebody: `kubectl shadow status` lists all")]
    None(String),
    #[error("migration {name} of pod {pod} does not wait for anybody: it is in step {step} ({message})")]
    NotWaiting { pod: String, name: String, step: String, message: String },
    #[error("migration {name} was not told: {error}")]
    Patch { name: String, error: kube::Error },
}

/// The migration of that pod which waits for a person.
pub async fn waiting(
    migrations: &Api<StatefulMigration>,
    namespace: &str,
    pod: &str,
) -> Result<StatefulMigration, DecideError> {
    let all = migrations.list(&ListParams::default()).await.map_err(DecideError::List)?;
    choose(all.items, namespace, pod)
}

/// Writes what the person wants into the spec.
pub async fn decide(
    migrations: &Api<StatefulMigration>,
    migration: &StatefulMigration,
    spec: &Value,
) -> Result<(), DecideError> {
    let name = migration.name_any();
    let patch = json!({"spec": spec, "metadata": {"uid": migration.uid()}});
    let patched = migrations.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map(drop).map_err(|error| DecideError::Patch { name, error })
}

fn choose(all: Vec<StatefulMigration>, namespace: &str, pod: &str) -> Result<StatefulMigration, DecideError> {
    let is_its = |migration: &StatefulMigration| {
        let replacement = migration.status.as_ref().and_then(|status| status.replacement_pod.as_deref());
        migration.spec.source_pod == pod || replacement == Some(pod)
    };
    let waits = |migration: &StatefulMigration| {
        let reason = migration.status.as_ref().and_then(|status| status.reason.as_deref());
        reason == Some(Reason::Stranded.as_str())
    };
    let (mut waiting, others): (Vec<_>, Vec<_>) =
        all.into_iter().filter(is_its).partition(|migration| waits(migration));
    if let Some(found) = waiting.pop() {
        return Ok(found);
    }
    let running = others.into_iter().find_map(|migration| {
        let name = migration.name_any();
        let status = migration.status.unwrap_or_default();
        let step = status.step.unwrap_or_else(|| Phase::Pending.as_str().to_owned());
        let message = status.message.unwrap_or_default();
        (!status.phase.is_terminal()).then_some((name, step, message))
    });
    Err(match running {
        Some((name, step, message)) => DecideError::NotWaiting { pod: pod.to_owned(), name, step, message },
        None => DecideError::None(format!("{namespace}/{pod}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(name: &str, pod: &str, reason: Reason, phase: &str) -> StatefulMigration {
        let object = json!({"apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
            "metadata": {"name": name}, "spec": {"sourcePod": pod},
            "status": {"phase": phase, "step": "Somewhere", "reason": reason.as_str()}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_migration_that_waits_is_found_by_its_pod() {
        let all = vec![
            migration("a", "web-0", Reason::Completed, "Completed"),
            migration("b", "web-0", Reason::Stranded, "Finalizing"),
            migration("c", "web-1", Reason::Stranded, "Finalizing"),
        ];
        assert_eq!(choose(all, "shop", "web-0").unwrap().name_any(), "b");
    }

    #[test]
    fn where_nobody_is_waited_for_it_says_what_there_is() {
        let ended = vec![migration("a", "web-0", Reason::Completed, "Completed")];
        let none = choose(ended, "shop", "web-0").unwrap_err().to_string();
        assert!(none.contains("shop/web-0"), "{none}");
        let running = vec![migration("b", "web-0", Reason::Started, "Restoring")];
        let busy = choose(running, "shop", "web-0").unwrap_err().to_string();
        assert!(busy.contains("migration b") && busy.contains("Somewhere"), "{busy}");
    }
}
