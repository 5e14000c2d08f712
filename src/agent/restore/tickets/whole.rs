//! What is handed out of an archive: is it still what arrived, and is it still to be restored?
//!
//! Guarantees: an archive that was cut short is noticed before and during a restore, by its lengths alone; a restore that
//! nobody wants any more is broken off.

use std::path::PathBuf;

use tokio::time::{Instant, timeout_at};

use super::super::ticket::PartState;
use super::{Entry, LOOK_AGAIN, Tickets};
use crate::agent::failure::Failure;
use crate::agent::store::StoreError;
use crate::agent::transfer::archive::{self, Manifest, Origin};
use crate::api::{PodPart, Refusal, TicketId};

/// Why a restore that runs is broken off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalledOff {
    /// Or its migration was closed.
    #[error("its ticket was spent meanwhile")]
    Spent,
    #[error("{0}")]
    Damaged(String),
}

impl Tickets {
    /// CRIU reads on for ever behind the end of a file that was cut short, so that is looked at first.
    pub(super) fn whole(&self, manifest: &Manifest) -> Result<(), String> {
        let place = self.store.archive(&manifest.migration, manifest.epoch);
        match archive::length(&place) {
            Ok(length) if length == manifest.bytes => Ok(()),
            Ok(length) => Err(format!(
                "{}: damaged since it arrived: {length} bytes of {}",
                place.display(),
                manifest.bytes
            )),
            Err(error) => Err(format!("damaged since it arrived: {error}")),
        }
    }

    /// Reads the whole archive: is it still what its manifest says?
    pub(super) fn verify(&self, manifest: &Manifest) -> Result<(), Failure> {
        let place = self.store.archive(&manifest.migration, manifest.epoch);
        let damaged =
            |what: String| Failure::new(Refusal::DigestMismatch, format!("{}: {what}", place.display()));
        let found = archive::write(&place, &Origin::from(manifest), &mut |_| true);
        let found = found.map_err(|error| damaged(format!("it cannot be read any more: {error}")))?;
        if found.digest != manifest.digest {
            return Err(damaged(format!(
                "damaged since it arrived: {} is now {}",
                manifest.digest, found.digest
            )));
        }
        Ok(())
    }

    /// Where that container's part of the archive lies, and what there is of its pod.
    pub fn handed_out(&self, id: &TicketId, container: &str) -> Result<(PathBuf, PodPart), StoreError> {
        let archive = self.store.archive(&id.migration, id.epoch);
        let manifest = self.archive(&id.migration, id.epoch)?;
        let folder = |name: &str| {
            let below = manifest.as_ref().and_then(|manifest| manifest.folder_of(name)).unwrap_or_default();
            archive.join(below)
        };
        let ticket = self.book.lock().tickets.get(id).map(|entry| entry.ticket.clone()).unwrap_or_default();
        let back = ticket.others(container).filter(|(_, part)| part.is_back());
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let part = PodPart {
            back: back.map(|(name, _)| text(folder(name))).collect(),
            filled: ticket.filled.volumes,
            shm_filled: ticket.filled.shm,
            archive: text(archive.clone()),
        };
        Ok((folder(container), part))
    }

    /// Resolves once a restore of that container by that ticket is to be broken off, with the reason.
    pub async fn called_off(&self, id: &TicketId, container: &str) -> CalledOff {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let is_wanted = |entry: &Entry| {
                let part = entry.ticket.parts.get(container).filter(|_| !entry.ticket.spent);
                part.is_some_and(|part| part.state == PartState::Restoring)
            };
            if !self.book.lock().tickets.get(id).is_some_and(is_wanted) {
                return CalledOff::Spent;
            }
            if let Ok(Some(manifest)) = self.archive(&id.migration, id.epoch)
                && let Err(reason) = self.whole(&manifest)
            {
                return CalledOff::Damaged(reason);
            }
            let _ = timeout_at(Instant::now() + LOOK_AGAIN, changes.changed()).await;
        }
    }
}
