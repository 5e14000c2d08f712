//! Where an overlay keeps what was changed in it, from a mountinfo file. Pure.

use std::path::{Path, PathBuf};

/// The overlay's upper folder mounted at `target`.
pub fn upper_dir(mountinfo: &str, target: &Path) -> Option<PathBuf> {
    mountinfo.lines().rev().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        if Path::new(&unescape(head.split(' ').nth(4)?)) != target {
            return None;
        }
        let mut tail = tail.split(' ');
        if tail.next()? != "overlay" {
            return None;
        }
        let options = tail.nth(1)?;
        let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
        Some(unescape(upper).into())
    })
}

/// mountinfo writes blanks and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte.into());
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_folder_is_read_from_the_newest_mount() {
        let info = "30 20 0:26 / /b/rootfs rw - overlay overlay rw,lowerdir=/l,upperdir=/old,workdir=/w\n\
            31 20 0:27 / /b/rootfs rw,relatime shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/s/1\\0402/fs,workdir=/w\n\
            32 20 0:28 / /c/rootfs rw - ext4 /dev/sda rw\n";
        assert_eq!(upper_dir(info, Path::new("/b/rootfs")), Some("/s/1 2/fs".into()));
        assert_eq!(upper_dir(info, Path::new("/c/rootfs")), None);
        assert_eq!(upper_dir(info, Path::new("/b")), None);
    }
}
