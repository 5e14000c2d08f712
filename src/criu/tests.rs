use std::net::IpAddr;
use std::path::Path;

use proptest::prelude::*;

use super::image::put_message;
use super::wire::{Fields, put_bytes, put_number};
use super::*;

const MAGIC: [u8; 8] = [0x19, 0x43, 0x56, 0x54, 0x38, 0x31, 0x30, 0x56];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn moves() -> Moves {
    Moves::between(&[ip("10.1.0.7"), ip("fd00::7")], &[ip("10.1.9.8"), ip("fd00::9:8")])
}

fn words(address: IpAddr) -> Vec<u32> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// A socket as CRIU writes it, with a field that nobody knows yet.
fn socket(source: IpAddr, peer: IpAddr) -> Vec<u8> {
    let mut socket = Vec::new();
    for (field, number) in
        [(1, 21), (2, 4711), (3, 2), (4, 1), (5, 6), (6, 10), (7, 8080), (8, 0), (9, 2), (10, 128)]
    {
        put_number(&mut socket, field, number);
    }
    for (field, address) in [(11, source), (12, peer)] {
        for word in words(address) {
            put_number(&mut socket, field, word.into());
        }
    }
    put_bytes(&mut socket, 13, b"");
    put_number(&mut socket, 99, u64::MAX);
    let mut file = Vec::new();
    put_number(&mut file, 1, 4);
    put_number(&mut file, 2, 21);
    put_bytes(&mut file, 4, &socket);
    file
}

fn regular(id: u64, name: &str) -> Vec<u8> {
    let mut regular = Vec::new();
    put_number(&mut regular, 1, id);
    put_number(&mut regular, 2, 0);
    put_bytes(&mut regular, 6, name.as_bytes());
    put_number(&mut regular, 8, 5);
    let mut file = Vec::new();
    put_number(&mut file, 1, 1);
    put_number(&mut file, 2, id);
    put_bytes(&mut file, 3, &regular);
    file
}

fn image(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut image = MAGIC.to_vec();
    for message in messages {
        put_message(&mut image, message).unwrap();
    }
    image
}

#[test]
fn a_socket_on_the_pods_address_is_rewritten_in_each_family_and_nothing_else_is() {
    let any = ip("0.0.0.0");
    let other = ip("10.9.9.9");
    for (old, new) in [
        (ip("10.1.0.7"), ip("10.1.9.8")),
        (ip("fd00::7"), ip("fd00::9:8")),
        (ip("::ffff:10.1.0.7"), ip("::ffff:10.1.9.8")),
    ] {
        let before = image(&[regular(20, "/etc/x"), socket(old, other), socket(other, other)]);
        let after = image(&[regular(20, "/etc/x"), socket(new, other), socket(other, other)]);
        assert_eq!(rewrite_addresses(&before, &moves()), Ok(Some(after)), "{old}");
    }
    for kept in [any, ip("::"), ip("127.0.0.1"), ip("10.1.0.8"), ip("::10.1.0.7")] {
        assert_eq!(rewrite_addresses(&image(&[socket(kept, other)]), &moves()), Ok(None), "{kept}");
    }
    let old = ip("10.1.0.7");
    let to_itself = rewrite_addresses(&image(&[socket(old, old)]), &moves()).unwrap().unwrap();
    assert_eq!(to_itself, image(&[socket(ip("10.1.9.8"), ip("10.1.9.8"))]));
}

#[test]
fn packed_addresses_are_understood_too() {
    let file = |address: IpAddr| {
        let mut packed = Vec::new();
        for word in words(address) {
            super::wire::put_varint(&mut packed, word.into());
        }
        let (mut socket, mut file) = (Vec::new(), Vec::new());
        put_bytes(&mut socket, 11, &packed);
        put_number(&mut file, 1, 4);
        put_bytes(&mut file, 4, &socket);
        image(&[file])
    };
    let after = rewrite_addresses(&file(ip("fd00::7")), &moves()).unwrap();
    assert_eq!(after, Some(file(ip("fd00::9:8"))));
}

#[test]
fn what_is_no_socket_is_left_alone_whatever_it_holds() {
    let mut file = Vec::new();
    put_number(&mut file, 1, 1);
    put_bytes(&mut file, 4, &socket(ip("10.1.0.7"), ip("10.1.0.7")));
    assert_eq!(rewrite_addresses(&image(&[file]), &moves()), Ok(None));
}

#[test]
fn broken_images_are_errors() {
    let whole = image(&[socket(ip("10.1.0.7"), ip("10.9.9.9"))]);
    for length in [0, 3, 7, 9, 20, whole.len() - 1] {
        assert!(rewrite_addresses(&whole[..length], &moves()).is_err(), "{length}");
    }
    let mut longer = whole.clone();
    longer[8] += 1;
    assert!(rewrite_addresses(&longer, &moves()).is_err());
}

#[test]
fn links_are_told_by_both_their_names() {
    let files = image(&[
        regular(3, "/tmp/a (deleted)"),
        regular(9, "tmp/link_remap.9"),
        regular(4, "/dev/shm/sem.mp-1"),
        regular(10, "dev/shm/link_remap.10"),
        regular(5, "/tmp/ghost"),
    ]);
    let remap = |original, remapped, kind: Option<u64>| {
        let mut remap = Vec::new();
        put_number(&mut remap, 1, original);
        put_number(&mut remap, 2, remapped);
        if let Some(kind) = kind {
            put_number(&mut remap, 3, kind);
        }
        remap
    };
    let of = |opened: &str, link: &str| Remap { opened: opened.into(), link: link.into() };
    let all = image(&[remap(3, 9, Some(0)), remap(5, 1, Some(1)), remap(4, 10, None)]);
    assert_eq!(
        remaps(&all, &files).unwrap(),
        [of("tmp/a", "tmp/link_remap.9"), of("dev/shm/sem.mp-1", "dev/shm/link_remap.10")]
    );
    assert!(remaps(&image(&[remap(3, 77, Some(0))]), &files).is_err());
    assert!(remaps(&image(&[]), &files).unwrap().is_empty());
    assert!(Path::new("tmp/a").is_relative());
}

#[test]
fn a_namespaces_addresses_are_read_from_its_files() {
    let fib_trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
        \x20    +-- 10.244.1.0/24 2 0 1\n        |-- 10.244.1.0\n           /24 link UNICAST\n\
        \x20       |-- 10.244.1.7\n           /32 host LOCAL\n        |-- 10.244.1.255\n           /32 link BROADCAST\n\
        \x20    |-- 127.0.0.1\n           /32 host LOCAL\n\
        Local:\n        |-- 10.244.1.7\n           /32 host LOCAL\n";
    let if_inet6 = "00000000000000000000000000000001 01 80 10 80       lo\n\
        fd000000000000000000000000000007 02 40 00 80     eth0\n\
        fe80000000000000a8bbccfffedd0011 02 40 20 80     eth0\n+d000000000000000000000000000007 02 40 00 80 x\n";
    let found = of_namespace(fib_trie, if_inet6);
    assert_eq!(found, [ip("10.244.1.7"), ip("fd00::7"), ip("fe80::a8bb:ccff:fedd:11")]);
    assert!(of_namespace("", "").is_empty());
}

#[test]
fn an_address_moves_only_where_it_is_certain_which_one_it_becomes() {
    let between = |old: &[&str], new: &[&str], address: &str| {
        let all = |texts: &[&str]| texts.iter().map(|text| ip(text)).collect::<Vec<_>>();
        Moves::between(&all(old), &all(new)).of(ip(address))
    };
    assert_eq!(between(&["10.0.0.1"], &["10.0.0.2"], "10.0.0.1"), Some(ip("10.0.0.2")));
    assert_eq!(between(&["10.0.0.1", "fd00::1"], &["10.0.0.2"], "fd00::1"), None);
    assert_eq!(between(&["10.0.0.1"], &["10.0.0.1"], "10.0.0.1"), None, "it stays");
    // One that both have is nobody's place; of two it cannot be told.
    assert_eq!(
        between(&["10.0.0.1", "10.9.0.1"], &["10.0.0.2", "10.9.0.1"], "10.0.0.1"),
        Some(ip("10.0.0.2"))
    );
    assert_eq!(between(&["10.0.0.1", "10.9.0.1"], &["10.0.0.2", "10.9.0.2"], "10.0.0.1"), None);
    assert_eq!(between(&["fd00::1", "fe80::1"], &["fd00::2", "fe80::2"], "fe80::1"), Some(ip("fe80::2")));
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        Just(ip("10.1.0.7")),
        Just(ip("fd00::7")),
        Just(ip("::ffff:10.1.0.7")),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), with_magic in any::<bool>()) {
        let bytes = if with_magic { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
        let _ = rewrite_addresses(&bytes, &moves());
        let _ = remaps(&bytes, &bytes);
        let raw: usize = Fields::of(&bytes).map_while(Result::ok).map(|field| field.raw.len()).sum();
        prop_assert!(raw <= bytes.len());
    }

    /// Bytes flipped in an image that is right reach further than noise does.
    #[test]
    fn no_damage_makes_it_panic(
        at in prop::collection::vec((0_usize..400, any::<u8>()), 1..6), source in address(), peer in address()
    ) {
        let mut bytes = image(&[regular(7, "/x"), socket(source, peer)]);
        for (at, byte) in at {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(Some(new)) = rewrite_addresses(&bytes, &moves()) {
            // What is written can be read again, and holds none of the old.
            prop_assert_eq!(rewrite_addresses(&new, &moves()), Ok(None));
        }
    }

    #[test]
    fn there_and_back_is_the_same_file(sockets in prop::collection::vec((address(), address()), 0..8)) {
        let before: Vec<_> = sockets.iter().map(|(source, peer)| socket(*source, *peer)).collect();
        let before = image(&before);
        let back = Moves::between(&[ip("10.1.9.8"), ip("fd00::9:8")], &[ip("10.1.0.7"), ip("fd00::7")]);
        match rewrite_addresses(&before, &moves()).unwrap() {
            Some(there) => {
                prop_assert_ne!(&there, &before);
                prop_assert_eq!(rewrite_addresses(&there, &back).unwrap(), Some(before));
            }
            None => {
                let old = [ip("10.1.0.7"), ip("fd00::7"), ip("::ffff:10.1.0.7")];
                let holds = sockets.iter().any(|(source, peer)| old.contains(source) || old.contains(peer));
                prop_assert!(!holds);
            }
        }
    }
}
