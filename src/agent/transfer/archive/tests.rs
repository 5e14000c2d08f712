use std::fs;
use std::path::Path;

use super::*;
use crate::api::empty_dir;

fn origin() -> Origin {
    Origin { migration: "0b5c".into(), epoch: Epoch(3), container: "app".into(), beside: vec!["log".into()] }
}

fn dump() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(IMAGES)).unwrap();
    fs::write(dir.path().join("images/core-1.img"), b"core").unwrap();
    fs::write(dir.path().join("images/empty.img"), b"").unwrap();
    fs::write(dir.path().join("images/pages-1.img"), vec![7; 700_000]).unwrap();
    fs::write(dir.path().join(LAYER), vec![1; 1024]).unwrap();
    fs::write(dir.path().join(CARRIED_FILE), b"{}").unwrap();
    fs::write(dir.path().join(SHM_FILE), vec![2; 1024]).unwrap();
    fs::create_dir(dir.path().join(IMAGE_VOLUMES)).unwrap();
    fs::write(dir.path().join(image_volume(0)), vec![3; 700]).unwrap();
    fs::write(dir.path().join(image_volume(10)), vec![4; 1]).unwrap();
    fs::create_dir(dir.path().join(VOLUMES)).unwrap();
    fs::write(dir.path().join(empty_dir("tmp")), vec![5; 600]).unwrap();
    let beside = dir.path().join(container_folder(0));
    fs::create_dir_all(beside.join(IMAGES)).unwrap();
    fs::write(beside.join("images/core-1.img"), b"another core").unwrap();
    fs::write(beside.join(LAYER), vec![6; 1024]).unwrap();
    dir
}

fn stream() -> (Vec<u8>, Manifest) {
    let mut bytes = Vec::new();
    let manifest = write(dump().path(), &origin(), &mut |chunk: bytes::Bytes| {
        bytes.extend_from_slice(&chunk);
        true
    });
    (bytes, manifest.unwrap())
}

fn read(stream: &[u8], step: usize, dir: &Path) -> Result<Manifest, ReadError> {
    let mut reader = Reader::new(dir)?;
    for piece in stream.chunks(step) {
        reader.feed(piece)?;
    }
    reader.finish()
}

#[test]
fn what_was_sent_arrives_however_it_is_cut_into_pieces() {
    let (stream, sent) = stream();
    for step in [1, 511, 513, 65_536, stream.len()] {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a");
        let received = read(&stream, step, &archive).unwrap();
        assert_eq!(received, sent);
        assert_eq!(received.epoch, Epoch(3));
        assert_eq!(fs::read(archive.join("images/pages-1.img")).unwrap(), vec![7; 700_000]);
        assert_eq!(fs::read(archive.join("images/empty.img")).unwrap(), b"");
        assert_eq!(fs::read(archive.join(LAYER)).unwrap(), vec![1; 1024]);
        assert_eq!(fs::read(archive.join(SHM_FILE)).unwrap(), vec![2; 1024]);
        assert_eq!(fs::read(archive.join(image_volume(0))).unwrap(), vec![3; 700]);
        assert_eq!(fs::read(archive.join(image_volume(10))).unwrap(), vec![4; 1]);
        assert_eq!(fs::read(archive.join(empty_dir("tmp"))).unwrap(), vec![5; 600]);
        assert_eq!(received.folder_of("app"), Some("".into()));
        let beside = archive.join(received.folder_of("log").unwrap());
        assert_eq!(fs::read(beside.join("images/core-1.img")).unwrap(), b"another core");
        assert_eq!(received.folder_of("other"), None);
        assert_eq!(length(&archive).unwrap(), received.bytes);
    }
}

#[test]
fn it_is_a_tar_that_others_can_read() {
    let (stream, _) = stream();
    let mut archive = tar::Archive::new(stream.as_slice());
    let names: Vec<_> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    let volumes = [image_volume(0), image_volume(10)];
    let images = ["images/core-1.img", "images/empty.img", "images/pages-1.img"].map(str::to_owned);
    let rest = [LAYER, SHM_FILE, "volumes/tmp.tar", MANIFEST].map(str::to_owned);
    let beside = ["containers/0/images/core-1.img", "containers/0/rootfs.tar"].map(str::to_owned);
    assert_eq!(names, [&[CARRIED_FILE.to_owned()], &beside[..], &volumes, &images, &rest].concat());
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let (stream, _) = stream();
    let last = stream.len() - 2 * BLOCK;
    for at in [0, 100, 600, 2_000, 300_000, last - BLOCK - 10, last - 3, stream.len() - 1] {
        let mut damaged = stream.clone();
        damaged[at] ^= 1;
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&damaged, 4096, &dir.path().join("a")).is_err(), "{at}");
    }
}

#[test]
fn a_stream_that_is_cut_is_no_archive() {
    let (stream, _) = stream();
    for length in [0, 1, 512, 5_000, stream.len() - 3 * BLOCK, stream.len() - 2 * BLOCK, stream.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            matches!(read(&stream[..length], 4096, &dir.path().join("a")), Err(ReadError::CutOff)),
            "{length}"
        );
    }
}

#[test]
fn only_expected_files_are_written() {
    for name in [
        "../x",
        "images/../x",
        "images/",
        "images/a/b",
        "images/.x",
        "etc",
        "images/a b",
        "/x",
        "image-volumes/00.tar",
        "image-volumes/100.tar",
        "image-volumes/+1.tar",
        "image-volumes/x.tar",
        "image-volumes/1",
        "image-volumes/../x.tar",
        "image-volumes",
        "containers",
        "containers/0",
        "containers/00/rootfs.tar",
        "containers/100/rootfs.tar",
        "containers/../rootfs.tar",
        "containers/0/../rootfs.tar",
        "containers/0/shm.tar",
        "containers/0/volumes/tmp.tar",
        "containers/0/containers/0/rootfs.tar",
        "containers/0/images/../x",
    ] {
        assert!(!is_allowed(name), "{name}");
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(0);
        header.set_cksum();
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(&dir.path().join("a")).unwrap();
        assert!(matches!(reader.feed(header.as_bytes()), Err(ReadError::Damaged(_))), "{name}");
    }
    let mut header = tar::Header::new_gnu();
    header.set_path("images/link").unwrap();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_cksum();
    let dir = tempfile::tempdir().unwrap();
    let mut reader = Reader::new(&dir.path().join("a")).unwrap();
    assert!(reader.feed(header.as_bytes()).is_err());
}

#[test]
fn sending_ends_when_nobody_listens() {
    let mut sent = 0;
    let result = write(dump().path(), &origin(), &mut |_| {
        sent += 1;
        sent < 3
    });
    assert!(matches!(result, Err(WriteError::BrokenOff)));
    assert_eq!(sent, 3);
}

#[test]
fn a_dump_with_a_folder_or_link_among_its_images_is_refused() {
    let dir = dump();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("images/x.img")).unwrap();
    assert!(matches!(write(dir.path(), &origin(), &mut |_| true), Err(WriteError::Unexpected { .. })));
}
