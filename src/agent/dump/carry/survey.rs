//! How large what is to be carried is, and what an earlier CRIU has left in it. Reads folders of running containers: what
//! vanishes meanwhile is not there.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::sparse::BLOCK;

/// An entry's header, and what fills its last block.
const ENTRY_BYTES: u64 = 1024;
/// CRIU's name for an open file that has lost the one it was opened by; a number follows.
const LINK_REMAP: &[u8] = b"link_remap.";

/// What was found below one folder.
#[derive(Debug, Default)]
pub struct Survey {
    /// That a tar of it would take, roughly; holes count nothing.
    pub bytes: u64,
    /// Links that a CRIU which was killed has left, below the folder.
    pub stale: Vec<PathBuf>,
    seen: HashSet<(u64, u64)>,
}

/// Looks at everything below `root`.
pub fn survey(root: &Path) -> io::Result<Survey> {
    let mut survey = Survey::default();
    survey.folder(root, Path::new(""))?;
    Ok(survey)
}

impl Survey {
    fn folder(&mut self, root: &Path, folder: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(root.join(folder)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let name = entry.file_name();
            self.bytes = self.bytes.saturating_add(ENTRY_BYTES);
            if metadata.is_dir() {
                self.folder(root, &folder.join(name))?;
                continue;
            }
            let is_first = metadata.nlink() < 2 || self.seen.insert((metadata.dev(), metadata.ino()));
            if is_first && metadata.is_file() {
                let stored = metadata.len().min(metadata.blocks().saturating_mul(BLOCK));
                self.bytes = self.bytes.saturating_add(stored);
            }
            // Another name keeps the file: whatever it is, nothing is lost with this one.
            if metadata.is_file() && metadata.nlink() > 1 && is_link_remap(&name) {
                self.stale.push(folder.join(name));
            }
        }
        Ok(())
    }
}

fn is_link_remap(name: &OsStr) -> bool {
    let number = name.as_bytes().strip_prefix(LINK_REMAP);
    number.is_some_and(|number| (1..=10).contains(&number.len()) && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn holes_and_second_names_take_no_room() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("sparse")).unwrap().set_len(200 << 30).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/full"), vec![1; 300_000]).unwrap();
        fs::hard_link(dir.path().join("d/full"), dir.path().join("other")).unwrap();
        let bytes = survey(dir.path()).unwrap().bytes;
        assert!((300_000..310_000).contains(&bytes), "{bytes}");
        assert!(survey(&dir.path().join("gone")).unwrap().bytes == 0);
    }

    #[test]
    fn only_criu_s_own_second_names_are_stale() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("a"), "").unwrap();
        for name in ["d/link_remap.20", "link_remap.", "link_remap.x", "link_remap.1.bak", "my_link_remap.3"]
        {
            fs::hard_link(at("a"), at(name)).unwrap();
        }
        fs::write(at("link_remap.7"), "the only name").unwrap();
        fs::create_dir(at("link_remap.8")).unwrap();
        assert_eq!(survey(dir.path()).unwrap().stale, [Path::new("d/link_remap.20")]);
    }
}
