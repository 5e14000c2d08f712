//! Writes the journal into the `StatefulMigration`: intent before effect. One writer at a time: the write carries the
//! resourceVersion, and whoever finds a journal that is not the one it wrote last has lost the migration to another.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::json;

use super::status::status;
use super::subject::Journal;
use super::timings::Measured;
use crate::api::{GROUP, StatefulMigration, StatefulMigrationStatus};

/// Keeps the object until what was begun is taken back.
pub const FINALIZER: &str = "migration.ms2m.io/rollback";

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("migration {0} is driven by another operator")]
    Lost(String),
    #[error("migration {0} is gone")]
    Gone(String),
    #[error("the journal of migration {0} is not one that this version can read; it is left alone: {1}")]
    Unreadable(String, serde_json::Error),
    #[error("write status of migration {name}: {error}")]
    Api { name: String, error: kube::Error },
}

/// One migration's object as last seen, and the journal in it.
pub struct Book {
    api: Api<StatefulMigration>,
    object: StatefulMigration,
}

impl Book {
    pub fn new(client: kube::Client, object: StatefulMigration) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        Self { api: Api::namespaced(client, &namespace), object }
    }

    pub fn object(&self) -> &StatefulMigration {
        &self.object
    }

    pub fn name(&self) -> String {
        self.object.name_any()
    }

    /// The journal that was written last, by whomever; `None` before the first.
    pub fn read(&self) -> Result<Option<Journal>, JournalError> {
        on_record(&self.object).transpose().map_err(|error| JournalError::Unreadable(self.name(), error))
    }

    fn conditions(&self) -> &[Condition] {
        self.object.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    /// Writes the journal and what people see of it.
    pub async fn write(&mut self, journal: &Journal, measured: &Measured) -> Result<(), JournalError> {
        let next = status(journal, measured, self.conditions(), self.object.metadata.generation);
        self.replace_status(next).await
    }

    /// Writes a status; on a conflict that left the journal alone (somebody changed the spec), again.
    pub async fn replace_status(&mut self, next: StatefulMigrationStatus) -> Result<(), JournalError> {
        let before = written(&self.object).cloned();
        loop {
            let mut object = self.object.clone();
            object.status = Some(next.clone());
            match self.api.replace_status(&self.name(), &PostParams::default(), &object).await {
                Ok(written) => {
                    self.object = written;
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let live = self.live().await?;
                    if written(&live) != before.as_ref() {
                        return Err(JournalError::Lost(self.name()));
                    }
                    self.object = live;
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    return Err(JournalError::Gone(self.name()));
                }
                Err(error) => return Err(JournalError::Api { name: self.name(), error }),
            }
        }
    }

    async fn live(&self) -> Result<StatefulMigration, JournalError> {
        match self.api.get(&self.name()).await {
            Ok(live) if live.uid() == self.object.uid() => Ok(live),
            Ok(_) => Err(JournalError::Gone(self.name())),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(JournalError::Gone(self.name())),
            Err(error) => Err(JournalError::Api { name: self.name(), error }),
        }
    }

    /// Reads the object anew; fails if another operator has written since.
    pub async fn refresh(&mut self) -> Result<(), JournalError> {
        let live = self.live().await?;
        if written(&live) != written(&self.object) {
            return Err(JournalError::Lost(self.name()));
        }
        self.object = live;
        Ok(())
    }

    /// From here on the object outlives its deletion until [`Book::release`].
    pub async fn hold(&mut self) -> Result<(), JournalError> {
        if self.object.finalizers().iter().any(|f| f == FINALIZER)
            || self.object.metadata.deletion_timestamp.is_some()
        {
            return Ok(());
        }
        self.set_finalizer(true).await
    }

    pub async fn release(&mut self) -> Result<(), JournalError> {
        if !self.object.finalizers().iter().any(|f| f == FINALIZER) {
            return Ok(());
        }
        self.set_finalizer(false).await
    }

    /// Ours only; the others stay as they are.
    async fn set_finalizer(&mut self, held: bool) -> Result<(), JournalError> {
        let others = self.object.finalizers().iter().filter(|f| *f != FINALIZER).cloned();
        let finalizers: Vec<String> = others.chain(held.then(|| FINALIZER.to_owned())).collect();
        let patch = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "StatefulMigration",
            "metadata": {"finalizers": finalizers, "resourceVersion": self.object.resource_version()},
        });
        match self.api.patch(&self.name(), &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(written) => {
                self.object = written;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Err(JournalError::Gone(self.name())),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.refresh().await?;
                Box::pin(self.set_finalizer(held)).await
            }
            Err(error) => Err(JournalError::Api { name: self.name(), error }),
        }
    }
}

/// The journal in an object; `None` before the first.
pub fn on_record(object: &StatefulMigration) -> Option<serde_json::Result<Journal>> {
    written(object).map(Journal::deserialize)
}

fn written(object: &StatefulMigration) -> Option<&serde_json::Value> {
    object.status.as_ref()?.journal.as_ref()
}
