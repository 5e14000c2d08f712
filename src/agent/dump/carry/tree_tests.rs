use super::*;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};

use proptest::prelude::*;

fn carried_as(kind: TreeKind, from: &Path, to: &Path) -> Result<u64, TreeError> {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("rootfs.tar");
    write(from, kind, &tar)?.finish()?;
    crate::runtime::apply_tree(&tar, to, kind).unwrap();
    Ok(fs::metadata(&tar).unwrap().len())
}

fn carried(upper: &Path, lower: &Path) -> Result<(), TreeError> {
    carried_as(TreeKind::Layer, upper, lower).map(drop)
}

#[test]
fn what_is_written_is_what_shadow_runc_puts_in_place() {
    let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long = format!("d/{}", "n".repeat(180));
    fs::create_dir(upper.path().join("d")).unwrap();
    fs::write(upper.path().join(&long), vec![7; 100_000]).unwrap();
    fs::set_permissions(upper.path().join(&long), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(upper.path().join(&long), upper.path().join("d/other")).unwrap();
    symlink("/etc/passwd", upper.path().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(upper.path().join("socket")).unwrap();
    carried(upper.path(), lower.path()).unwrap();
    let file = fs::metadata(lower.path().join(&long)).unwrap();
    assert_eq!((file.len(), file.nlink(), file.mode() & 0o7777), (100_000, 2, 0o4711));
    assert_eq!(fs::read_link(lower.path().join("link")).unwrap(), Path::new("/etc/passwd"));
    assert!(!lower.path().join("socket").exists());
}

#[test]
fn whiteouts_of_the_overlay_remove_files_on_the_other_side() {
    let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let char_0_0 = rustix::fs::mknodat(
        rustix::fs::CWD,
        upper.path().join("gone"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    );
    if char_0_0.is_err() {
        return; // not root
    }
    fs::create_dir(upper.path().join("opaque")).unwrap();
    let opaque = fs::File::open(upper.path().join("opaque")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let marked = rustix::fs::fsetxattr(&opaque, "trusted.overlay.opaque", b"y", flags).is_ok();
    fs::write(lower.path().join("gone"), "").unwrap();
    fs::create_dir(lower.path().join("opaque")).unwrap();
    fs::write(lower.path().join("opaque/x"), "").unwrap();
    carried(upper.path(), lower.path()).unwrap();
    assert!(!lower.path().join("gone").exists());
    assert_eq!(lower.path().join("opaque/x").exists(), !marked);
}

#[test]
fn a_name_that_would_be_read_as_a_whiteout_is_refused() {
    let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(upper.path().join(".wh.x"), "").unwrap();
    assert!(matches!(carried(upper.path(), lower.path()), Err(TreeError::CannotCarry { .. })));
    carried_as(TreeKind::Plain, upper.path(), lower.path()).unwrap();
    assert!(lower.path().join(".wh.x").exists(), "in a plain tree it is a name like any other");
}

#[test]
fn two_hundred_gigabytes_of_holes_move_as_holes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = format!("{}/sparse", "n".repeat(120));
    fs::create_dir(from.path().join("n".repeat(120))).unwrap();
    let file = File::create(from.path().join(&name)).unwrap();
    file.set_len(200 << 30).unwrap();
    for at in [0, 77 << 30, (200 << 30) - 5] {
        file.write_all_at(b"state", at).unwrap();
    }
    fs::set_permissions(from.path().join(&name), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(from.path().join(&name), from.path().join("other")).unwrap();
    let tar = carried_as(TreeKind::Layer, from.path(), to.path()).unwrap();
    assert!(tar < 100_000, "{tar}");
    let moved = File::open(to.path().join(&name)).unwrap();
    let facts = moved.metadata().unwrap();
    assert_eq!((facts.len(), facts.mode() & 0o7777, facts.nlink()), (200 << 30, 0o640, 2));
    assert!(facts.blocks() * sparse::BLOCK < 1 << 20, "{}", facts.blocks());
    for at in [0, 77 << 30, (200 << 30) - 5] {
        let mut read = [0; 5];
        moved.read_exact_at(&mut read, at).unwrap();
        assert_eq!(&read, b"state");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_is_the_same_to_whoever_reads_it_and_takes_no_more_room(
        size in 0_u64..600_000, pieces in prop::collection::vec((0_u64..600_000, 1_usize..20_000, any::<u8>()), 0..8)
    ) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = File::create(from.path().join("f")).unwrap();
        file.set_len(size).unwrap();
        for (at, length, byte) in pieces {
            file.write_all_at(&vec![byte; length], at).unwrap();
        }
        carried_as(TreeKind::Plain, from.path(), to.path()).unwrap();
        let [before, after] = [&from, &to].map(|dir| dir.path().join("f"));
        prop_assert!(fs::read(&before).unwrap() == fs::read(&after).unwrap());
        let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
        prop_assert!(blocks(&after) <= blocks(&before), "{} {}", blocks(&after), blocks(&before));
    }
}
