//! What lies in the folder of a dump: which containers stood still for it, and whether all of it is there. Blocking reads.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::agent::store::{self, StoreError};
use crate::api::PodContainers;

/// In a dump's folder: which containers stand still for it.
pub(super) const JOB: &str = "job.json";
/// In a dump's folder: all of it is there.
pub(super) const WRITTEN: &str = "written";

/// What [`WRITTEN`] says.
#[derive(Serialize, Deserialize)]
pub(super) struct Written {
    /// IDs of the containers that stood still for it.
    pub frozen: Vec<String>,
    /// They were not let go afterwards.
    #[serde(default)]
    pub held: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Job {
    #[serde(rename = "container")]
    pub containers: PodContainers,
}

/// All of it is written, here at `dir`; it may not have been sent yet.
pub fn is_written(dir: &Path) -> bool {
    dir.join(WRITTEN).exists()
}

/// IDs of the containers that stood still for that dump; none where it is not all written, or an earlier agent wrote it.
pub fn frozen_for(dir: &Path) -> Result<Option<Vec<String>>, StoreError> {
    Ok(read(dir)?.map(|written| written.frozen))
}

/// IDs of the containers that have stood still since that dump.
pub fn held_since(dir: &Path) -> Result<Vec<String>, StoreError> {
    Ok(read(dir)?.filter(|written| written.held).map(|written| written.frozen).unwrap_or_default())
}

fn read(dir: &Path) -> Result<Option<Written>, StoreError> {
    match store::read::<Option<Written>>(&dir.join(WRITTEN)) {
        // Of a machine that lost its power: none of what was dumped runs there.
        Err(error) if matches!(error.source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            Ok(None)
        }
        written => Ok(written?.flatten()),
    }
}

/// The containers of a dump all of which is written here.
pub fn written_of(dir: &Path) -> Result<Option<PodContainers>, StoreError> {
    let job: Option<Job> = if is_written(dir) { store::read(&dir.join(JOB))? } else { None };
    Ok(job.map(|job| job.containers))
}
