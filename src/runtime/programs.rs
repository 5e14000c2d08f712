//! Where programs of this node are. Reads the file system.

use std::env;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Looked through after PATH, which may be empty where a service manager starts us.
const FALLBACK: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];

/// Folders to look through, in their order.
pub fn folders() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let named: Vec<PathBuf> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    named.into_iter().chain(FALLBACK.iter().map(PathBuf::from))
}

/// All programs of that name, the one that would be executed first.
pub fn all(name: &str) -> impl Iterator<Item = PathBuf> {
    folders().map(move |folder| folder.join(name)).filter(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
