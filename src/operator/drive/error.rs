//! Why a migration is not driven on.

use super::journal::JournalError;

#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("read what the migration is about: {0}")]
    Api(#[from] kube::Error),
}

impl DriveError {
    /// Nothing changes by trying again soon.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Unreadable(..)))
    }
}
