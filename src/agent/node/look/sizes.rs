//! Files below a folder, counted within limits. Follows no link, reads no content.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use crate::api::FoundTree;

/// Entries that are counted at most.
const ENTRIES: u64 = 200_000;
/// Entries between looks at the clock.
const PER_CLOCK: u64 = 256;
/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// Counts until the deadline; whether that was all. What vanishes meanwhile is not counted.
pub fn tree(folder: &Path, names: usize, deadline: Instant) -> io::Result<(FoundTree, bool)> {
    let mut found = FoundTree::default();
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0_u64;
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && seen > 0 => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            seen += 1;
            if seen > ENTRIES || (seen.is_multiple_of(PER_CLOCK) && Instant::now() > deadline) {
                return Ok((found, false));
            }
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            if found.names.len() < names {
                found.names.push(entry.file_name().to_string_lossy().into_owned());
            }
            found.files += 1;
            if metadata.is_file() {
                found.apparent_bytes = found.apparent_bytes.saturating_add(metadata.len());
                found.allocated_bytes = found.allocated_bytes.saturating_add(metadata.blocks() * BLOCK);
            }
        }
    }
    found.names.sort();
    Ok((found, true))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn files_with_holes_have_two_sizes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a"), [7; 5000]).unwrap();
        fs::File::create(dir.path().join("b")).unwrap().set_len(1 << 30).unwrap();
        let (found, all) = tree(dir.path(), 9, Instant::now() + Duration::from_secs(5)).unwrap();
        assert!(all);
        assert_eq!((found.files, found.apparent_bytes), (2, (1 << 30) + 5000));
        assert!((4096..1 << 20).contains(&found.allocated_bytes), "{found:?}");
        assert_eq!(found.names, ["a", "b"]);
        assert!(tree(&dir.path().join("none"), 1, Instant::now()).is_err());
    }

    #[test]
    fn who_has_no_more_time_stops_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..2 * PER_CLOCK {
            fs::write(dir.path().join(at.to_string()), "").unwrap();
        }
        let (found, all) = tree(dir.path(), 3, Instant::now()).unwrap();
        assert!(!all && found.files < 2 * PER_CLOCK && found.names.len() == 3);
    }
}
