//! The mark of a restored container. It lies in runc's own state folder, so that it goes when the container is deleted.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use super::cmdline::CommandLine;

fn mark(line: &CommandLine, id: &OsStr) -> PathBuf {
    line.root.join(id).join("shadow-restored")
}

/// The container's process already runs: its `start` has nothing to do.
pub fn is_restored(line: &CommandLine, id: &OsStr) -> bool {
    mark(line, id).exists()
}

/// From now on [`is_restored`].
pub fn mark_restored(line: &CommandLine, id: &OsStr) -> Result<(), String> {
    let mark = mark(line, id);
    fs::write(&mark, "").map_err(|error| format!("cannot write {}: {error}", mark.display()))
}
