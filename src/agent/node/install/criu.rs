//! CRIU's settings for runc, which both dump and restore read.

use std::path::Path;

use super::{Files, InstallError};

const FILE: &str = "/etc/criu/runc.conf";

/// What a migration needs, a setting a line.
const SETTINGS: [&str; 6] = [
    // Connections cannot move with a pod whose address changes: the process sees them end and connects again.
    "tcp-close",
    "skip-in-flight",
    // Files that are open but deleted.
    "link-remap",
    "ghost-limit 256M",
    // Locks that the process holds on its own files.
    "file-locks",
    // The kubelet gives the files of a volume to the pod's group once more, and widens their modes.
    "skip-file-rwx-check",
];

/// Adds what is missing.
pub fn configure(files: &Files<'_>) -> Result<(), InstallError> {
    let present = files.read(Path::new(FILE))?.unwrap_or_default();
    let wanted = merged(&present);
    if files.write(Path::new(FILE), wanted.as_bytes(), 0o644)? {
        tracing::info!(path = FILE, "CRIU configured for runc");
    }
    Ok(())
}

/// The user's lines, then those of ours whose setting they do not mention.
fn merged(present: &str) -> String {
    let mentions = |setting: &str| {
        let name = setting.split_whitespace().next();
        present.lines().any(|line| line.split_whitespace().next() == name)
    };
    let mut text = present.to_owned();
    for setting in SETTINGS.iter().filter(|setting| !mentions(setting)) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(setting);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_settings_stay_and_missing_ones_are_added() {
        let text = merged("# mine\nghost-limit 1G\nlog-file /tmp/x");
        assert!(text.starts_with("# mine\nghost-limit 1G\nlog-file /tmp/x\ntcp-close\n"), "{text}");
        assert!(!text.contains("256M"));
        assert_eq!(merged(&text), text);
        assert_eq!(merged("").lines().count(), SETTINGS.len());
    }
}
