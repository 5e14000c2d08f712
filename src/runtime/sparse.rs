//! Files with holes in a tar: a map of where the data belongs, then the data (PAX sparse format 1.0 of GNU tar). Writes one
//! file.
//!
//! Guarantees: whatever the map says, nothing is written beyond the file's size, and memory is bounded.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use super::layer::invalid;

/// Keys of the extended header.
pub const SPARSE_MAJOR: &str = "GNU.sparse.major";
pub const SPARSE_MINOR: &str = "GNU.sparse.minor";
/// Length of the file with its holes.
pub const SPARSE_SIZE: &str = "GNU.sparse.realsize";
/// Pieces of data in one file.
pub const EXTENTS_CAP: usize = 1 << 16;
/// The map is filled up to a multiple of it.
const BLOCK: usize = 512;
/// Digits of a number in the map.
const LONGEST_NUMBER: usize = 20;

/// Writes the content of an entry whose extended header says `size` into the empty `file`.
pub fn fill(entry: &mut impl Read, size: u64, file: &mut File) -> io::Result<()> {
    let mut end = 0;
    for (offset, length) in map(entry)? {
        let next = offset.checked_add(length).filter(|next| *next <= size && offset >= end);
        end = next.ok_or_else(|| invalid("map of a file with holes: piece out of place"))?;
        file.seek(SeekFrom::Start(offset))?;
        if io::copy(&mut entry.take(length), file)? != length {
            return Err(invalid("file with holes: less data than its map says"));
        }
    }
    file.set_len(size)
}

fn map(entry: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
    let mut numbers = Numbers { entry, block: [0; BLOCK], at: BLOCK };
    let count = numbers.number()?;
    let count = usize::try_from(count).ok().filter(|count| *count <= EXTENTS_CAP + 1);
    let count = count.ok_or_else(|| invalid("map of a file with holes: too many pieces"))?;
    (0..count).map(|_| Ok((numbers.number()?, numbers.number()?))).collect()
}

/// Numbers in lines, read block by block.
struct Numbers<'a, R> {
    entry: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Numbers<'_, R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut digits = String::new();
        while digits.len() <= LONGEST_NUMBER {
            if self.at == BLOCK {
                self.entry.read_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return digits.parse().map_err(|_| invalid("map of a file with holes: no number")),
                b'0'..=b'9' => digits.push(byte.into()),
                _ => break,
            }
        }
        Err(invalid("map of a file with holes: no number"))
    }
}
