//! How much memory of a container a dump may have to write. Reads its cgroups.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The cgroups' folders as we reach them; nothing where there is no such controller.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub memory: Option<PathBuf>,
    /// Of cgroup v1; v2 has it in the same folder.
    pub hugetlb: Option<PathBuf>,
}

impl Memory {
    /// Bytes without page cache: what is in memory, in swap and in huge pages. 0 without a memory cgroup.
    pub fn bytes(&self) -> io::Result<u64> {
        let Some(dir) = &self.memory else { return Ok(0) };
        let stat = fs::read_to_string(dir.join("memory.stat"))?;
        let value = |name: &str| -> u64 {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        // v1 has rss and shmem, and swap where it is accounted; v2 has anon and shmem, and swap in a file of its own.
        let memory = [value("rss"), value("anon"), value("shmem"), value("swap")];
        let swap = number(&dir.join("memory.swap.current"))?;
        let mut bytes = memory.into_iter().fold(swap, u64::saturating_add);
        for dir in [Some(dir), self.hugetlb.as_ref()].into_iter().flatten() {
            bytes = bytes.saturating_add(huge_pages(dir)?);
        }
        Ok(bytes)
    }
}

/// Huge pages of all sizes in use: `hugetlb.2MB.current`, in v1 `hugetlb.2MB.usage_in_bytes`.
fn huge_pages(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let size = name.to_str().and_then(|name| name.strip_prefix("hugetlb."));
        let is_use =
            size.is_some_and(|size| matches!(size.split_once('.'), Some((_, "current" | "usage_in_bytes"))));
        if is_use {
            bytes = bytes.saturating_add(number(&entry.path())?);
        }
    }
    Ok(bytes)
}

/// The number in a file; 0 without that file.
fn number(path: &Path) -> io::Result<u64> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn all_that_is_dumped_is_summed_from_what_the_cgroup_version_offers() {
        let v1 = cgroup(&[("memory.stat", "cache 5\nrss 100\nshmem 20\nrss_huge 7\nswap 3\ntotal_swap 9\n")]);
        let huge = cgroup(&[
            ("hugetlb.2MB.usage_in_bytes", "1000\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "7777\n"),
            ("hugetlb.2MB.limit_in_bytes", "9999\n"),
            ("hugetlb.1GB.usage_in_bytes", "2000\n"),
        ]);
        let both = Memory { memory: Some(v1.path().into()), hugetlb: Some(huge.path().into()) };
        assert_eq!(both.bytes().unwrap(), 3123);
        let v2 = cgroup(&[
            ("memory.stat", "anon 100\nfile 50\nshmem 20\n"),
            ("memory.swap.current", "4\n"),
            ("hugetlb.2MB.current", "1000\n"),
            ("hugetlb.2MB.max", "max\n"),
        ]);
        assert_eq!(Memory { memory: Some(v2.path().into()), hugetlb: None }.bytes().unwrap(), 1124);
        assert_eq!(Memory::default().bytes().unwrap(), 0);
    }
}
