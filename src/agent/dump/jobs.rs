//! The dumps that run, and how those of this process ended. In memory only.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::agent::failure::Failure;
use crate::api::{DumpReport, Epoch, MigrationUid};

pub type Outcome = Result<DumpReport, Failure>;
/// `None` while the dump runs.
pub type Ending = watch::Receiver<Option<Outcome>>;

/// The dumps that run, and how those of this process ended.
#[derive(Default)]
pub struct Jobs {
    pub(super) jobs: Mutex<HashMap<(MigrationUid, Epoch), Ending>>,
}

impl Jobs {
    /// Forgets what ended up to that epoch.
    pub fn forget(&self, uid: &MigrationUid, epoch: Epoch) {
        self.jobs.lock().retain(|(of, at), job| of != uid || *at > epoch || job.borrow().is_none());
    }
}
