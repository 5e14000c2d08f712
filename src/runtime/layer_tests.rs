use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use tar::{Builder, Header};

struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Names are written raw: `Builder` itself would refuse the bad ones.
    fn entry(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o640 });
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(1_000_000);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    fn apply(self, root: &Path) -> Result<(), LayerError> {
        let layer = tempfile::NamedTempFile::new().unwrap();
        fs::write(layer.path(), self.0.into_inner().unwrap()).unwrap();
        super::apply(layer.path(), root, TreeKind::Layer)
    }
}

#[test]
fn files_folders_and_links_are_put_in_place() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("old"), "old").unwrap();
    Layer::new()
        .dir("d")
        .file("d/f", "new")
        .file("old", "newer")
        .entry(EntryType::Symlink, "s", "/nowhere", b"")
        .entry(EntryType::Link, "h", "d/f", b"")
        .entry(EntryType::Fifo, "p", "", b"")
        .apply(root.path())
        .unwrap();
    let at = |name: &str| root.path().join(name);
    assert_eq!(fs::read_to_string(at("d/f")).unwrap(), "new");
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "newer");
    assert_eq!(fs::read_link(at("s")).unwrap(), Path::new("/nowhere"));
    let file = fs::metadata(at("h")).unwrap();
    assert_eq!((file.nlink(), file.mtime(), file.permissions().mode() & 0o7777), (2, 1_000_000, 0o640));
    assert_eq!(fs::symlink_metadata(at("p")).unwrap().mode() & 0o170_000, 0o010_000);
}

#[test]
fn whiteouts_remove_and_opaque_folders_start_empty() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("gone/deep")).unwrap();
    fs::write(at("gone/deep/x"), "").unwrap();
    fs::create_dir_all(at("opaque/sub")).unwrap();
    fs::write(at("opaque/sub/x"), "").unwrap();
    Layer::new()
        .file(".wh.gone", "")
        .file(".wh.never-was", "")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "n")
        .apply(root.path())
        .unwrap();
    assert!(!at("gone").exists());
    let left: Vec<_> = fs::read_dir(at("opaque")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["new"]);
}

#[test]
fn a_file_takes_the_place_of_a_folder_and_a_folder_that_of_a_link() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    symlink(outside.path(), root.path().join("l")).unwrap();
    Layer::new().file("a", "file").dir("l").file("l/x", "in").apply(root.path()).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "file");
    assert_eq!(fs::read_to_string(root.path().join("l/x")).unwrap(), "in");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn nothing_leaves_the_root() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("keep"), "").unwrap();
    let out = outside.path().to_str().unwrap();
    for layer in [
        Layer::new().file("../x", "x"),
        Layer::new().file("/../x", "x"),
        Layer::new().file("l/x", "x"),
        Layer::new().file("l/.wh.keep", ""),
        Layer::new().file("l/.wh..wh..opq", ""),
        Layer::new().file(".wh...", ""),
        Layer::new().entry(EntryType::Link, "h", "l/keep", b""),
        Layer::new().entry(EntryType::Link, "h", "../keep", b""),
        Layer::new().entry(EntryType::Symlink, "n", out, b"").file("n/x", "x"),
    ] {
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("l")).unwrap();
        assert!(layer.apply(root.path()).is_err());
        let left: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["keep"]);
    }
}

#[test]
fn a_plain_tree_takes_the_place_of_all_and_its_names_mean_nothing() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("old/deep")).unwrap();
    fs::write(root.path().join("old/deep/x"), "").unwrap();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let tree =
        Layer::new().dir("./").file(".wh.x", "a").file("d.wh..wh..opq", "b").dir("d").file("d/.wh.y", "c");
    let tar = tempfile::NamedTempFile::new().unwrap();
    fs::write(tar.path(), tree.0.into_inner().unwrap()).unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
    replace(tar.path(), root.path()).unwrap();
    assert!(!root.path().join("old").exists());
    for (name, content) in [(".wh.x", "a"), ("d.wh..wh..opq", "b"), ("d/.wh.y", "c")] {
        assert_eq!(fs::read_to_string(root.path().join(name)).unwrap(), content);
    }
    let top = fs::metadata(root.path()).unwrap();
    assert_eq!((top.mode() & 0o7777, top.uid(), top.gid()), (0o755, uid, gid));
}

/// A map that was written by somebody else.
fn with_map(map: &str, size: &str, data: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut content = map.as_bytes().to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content.extend_from_slice(data);
    let mut tar = Builder::new(Vec::new());
    let keys = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", size)];
    tar.append_pax_extensions(keys.map(|(key, value)| (key, value.as_bytes())))?;
    let layer = Layer(tar).entry(EntryType::Regular, "f", "", &content);
    let (root, file) = (tempfile::tempdir()?, tempfile::NamedTempFile::new()?);
    fs::write(file.path(), layer.0.into_inner()?)?;
    super::apply(file.path(), root.path(), TreeKind::Layer).map_err(|error| error.source)?;
    fs::read(root.path().join("f"))
}

#[test]
fn a_file_with_holes_is_what_its_map_says_and_nothing_beyond() {
    assert_eq!(with_map("2\n3\n2\n10\n0\n", "10", b"ab").unwrap(), b"\0\0\0ab\0\0\0\0\0");
    assert_eq!(with_map("0\n", "4", b"").unwrap(), [0; 4]);
    for (map, size, data) in [
        ("1\n3\n2\n", "4", b"ab".as_slice()),          // beyond the end
        ("2\n3\n2\n4\n2\n", "10", b"abcd"),            // one over the other
        ("1\n3\n4\n", "10", b"ab"),                    // less than it says
        ("1\n18446744073709551615\n2\n", "10", b"ab"), // past all numbers
        ("99999999999\n", "10", b""),                  // too many
        ("x\n", "10", b""),
        ("111111111111111111111111\n", "10", b""),
        ("1\n", "10", b""),
        ("0\n", "x", b""),
    ] {
        assert!(with_map(map, size, data).is_err(), "{map:?}");
    }
}

#[test]
fn folders_that_both_have_stay_while_all_else_is_replaced() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut tar = tar::Builder::new(Vec::new());
    let owned = |header: &mut Header| {
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_mtime(1);
    };
    for folder in [".", "part", "part/deep", "was-a-file"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o750);
        header.set_size(0);
        owned(&mut header);
        tar.append_data(&mut header, folder, std::io::empty()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    owned(&mut header);
    tar.append_data(&mut header, "part/deep/file", &b"state"[..]).unwrap();
    let tree = from.path().join("tree.tar");
    std::fs::write(&tree, tar.into_inner().unwrap()).unwrap();
    let at = |name: &str| to.path().join(name);
    std::fs::create_dir_all(at("part/gone")).unwrap();
    std::fs::create_dir_all(at("gone")).unwrap();
    for name in ["part/gone/file", "gone/file", "was-a-file", "part/deep"] {
        std::fs::write(at(name), "old").unwrap();
    }
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(at(name)).unwrap());
    let before = inode("part");
    for _ in 0..2 {
        fill(&tree, to.path()).unwrap();
        assert_eq!(inode("part"), before);
        assert_eq!(std::fs::read_to_string(at("part/deep/file")).unwrap(), "state");
        assert!(!at("part/gone").exists() && !at("gone").exists() && at("was-a-file").is_dir());
    }
}
