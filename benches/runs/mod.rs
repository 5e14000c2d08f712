//! What the benchmarks on the cluster share: their settings, and every run of theirs on the disk.

use std::path::Path;

use serde::Serialize;

use crate::lab::Result;

/// From the environment; `make` passes empty ones on.
pub fn setting(name: &str, otherwise: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.to_owned())
}

/// Written after every run, so that a benchmark that is broken off has measured something.
pub fn keep(result: &str, runs: &[impl Serialize]) -> Result {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(result);
    std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    let text = serde_json::to_string_pretty(&serde_json::json!({ "runs": runs }))?;
    Ok(std::fs::write(path, text + "\n")?)
}
