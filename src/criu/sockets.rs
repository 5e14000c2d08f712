//! Rewrites the addresses that internet sockets are bound to. Pure.
//!
//! Listeners, bound and connected UDP sockets, over IPv4, IPv6 and IPv4 mapped into IPv6. A peer's address stays, unless it
//! is the pod's own: a socket that talks to itself goes on doing so. Connections of TCP are closed by the restore
//! (`tcp-close`) and bound to nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::addresses::Moves;
use super::image::{ImageError, put_message, split};
use super::wire::{Fields, Value, put_bytes, put_number, put_varint, varint};

/// Image of all open files.
pub const FILES_IMAGE: &str = "files.img";

/// Fields of `file_entry`.
const FILE_TYPE: u64 = 1;
const FILE_SOCKET: u64 = 4;
/// `fd_types`: a socket of the internet families.
const INET_SOCKET: u64 = 4;
/// Fields of `inet_sk_entry`.
const SOURCE: u64 = 11;
const PEER: u64 = 12;
/// No address has more words.
const LONGEST: usize = 4;

/// `files.img` with the addresses replaced; nothing if it holds none of them.
pub fn rewrite_addresses(image: &[u8], moves: &Moves) -> Result<Option<Vec<u8>>, ImageError> {
    let (magic, messages) = split(image)?;
    let mut out = magic.to_vec();
    let mut is_changed = false;
    for message in messages {
        let message = message?;
        match rewrite_file(message, moves)? {
            Some(changed) => {
                put_message(&mut out, &changed)?;
                is_changed = true;
            }
            None => put_message(&mut out, message)?,
        }
    }
    Ok(is_changed.then_some(out))
}

fn rewrite_file(message: &[u8], moves: &Moves) -> Result<Option<Vec<u8>>, ImageError> {
    let fields: Vec<_> = Fields::of(message).collect::<Result<_, _>>()?;
    let is_socket = fields.iter().any(|f| (f.number, f.value) == (FILE_TYPE, Value::Varint(INET_SOCKET)));
    if !is_socket {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(message.len());
    let mut is_changed = false;
    for field in fields {
        let socket = field.value.bytes().filter(|_| field.number == FILE_SOCKET);
        match socket.map(|socket| rewrite_socket(socket, moves)).transpose()?.flatten() {
            Some(socket) => {
                put_bytes(&mut out, FILE_SOCKET, &socket);
                is_changed = true;
            }
            None => out.extend_from_slice(field.raw),
        }
    }
    Ok(is_changed.then_some(out))
}

fn rewrite_socket(socket: &[u8], moves: &Moves) -> Result<Option<Vec<u8>>, ImageError> {
    let (source, peer) = (words(socket, SOURCE)?, words(socket, PEER)?);
    let moved = |words: &[u32]| moved(words, moves);
    let (new_source, new_peer) = (moved(&source), moved(&peer));
    if new_source.is_none() && new_peer.is_none() {
        return Ok(None);
    }
    let mut source = new_source.unwrap_or(source).into_iter();
    let mut peer = new_peer.unwrap_or(peer).into_iter();
    let mut out = Vec::with_capacity(socket.len() + 2 * LONGEST);
    for field in Fields::of(socket) {
        let field = field?;
        let words = match field.number {
            SOURCE => &mut source,
            PEER => &mut peer,
            _ => {
                out.extend_from_slice(field.raw);
                continue;
            }
        };
        match field.value {
            Value::Varint(_) => {
                for word in words.by_ref().take(1) {
                    put_number(&mut out, field.number, word.into());
                }
            }
            Value::Bytes(mut packed) => {
                let mut new = Vec::with_capacity(packed.len());
                while !packed.is_empty() {
                    varint(&mut packed)?;
                    for word in words.by_ref().take(1) {
                        put_varint(&mut new, word.into());
                    }
                }
                put_bytes(&mut out, field.number, &new);
            }
            Value::Fixed(_) => out.extend_from_slice(field.raw),
        }
    }
    Ok(Some(out))
}

/// The words of a repeated field, one by one or packed.
fn words(socket: &[u8], number: u64) -> Result<Vec<u32>, ImageError> {
    let mut words = Vec::new();
    let mut add = |word: u64| {
        // As a reader of protocol buffers does with a number that is too long for its field.
        let [a, b, c, d, ..] = word.to_le_bytes();
        words.push(u32::from_le_bytes([a, b, c, d]));
    };
    for field in Fields::of(socket) {
        let field = field?;
        match field.value {
            _ if field.number != number => {}
            Value::Varint(word) => add(word),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    add(varint(&mut packed)?);
                }
            }
            Value::Fixed(_) => {}
        }
    }
    Ok(words)
}

/// The words of the new address, if these are of one that moves.
fn moved(words: &[u32], moves: &Moves) -> Option<Vec<u32>> {
    let bytes: Vec<u8> = words.iter().take(LONGEST + 1).flat_map(|word| word.to_le_bytes()).collect();
    let new: Vec<u8> = if let Ok(octets) = <[u8; 4]>::try_from(bytes.as_slice()) {
        match moves.of(Ipv4Addr::from(octets).into())? {
            IpAddr::V4(new) => new.octets().to_vec(),
            IpAddr::V6(_) => return None,
        }
    } else {
        let old = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?);
        match old.to_ipv4_mapped() {
            Some(mapped) => match moves.of(mapped.into())? {
                IpAddr::V4(new) => new.to_ipv6_mapped().octets().to_vec(),
                IpAddr::V6(_) => return None,
            },
            None => match moves.of(old.into())? {
                IpAddr::V6(new) => new.octets().to_vec(),
                IpAddr::V4(_) => return None,
            },
        }
    };
    Some(new.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
