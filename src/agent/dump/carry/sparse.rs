//! Files with holes in a tar: only their data, after a map of where it belongs (PAX sparse format 1.0 of GNU tar). Blocking
//! reads.
//!
//! Guarantees: what is read back is the same file to whoever reads it; the map is bounded: beyond [`EXTENTS_CAP`] pieces the
//! smallest holes are written out as zeros.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Chain, Cursor, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::runtime::{EXTENTS_CAP, SPARSE_MAJOR, SPARSE_MINOR, SPARSE_SIZE};

/// Unit of a file's blocks, whatever its file system's.
pub const BLOCK: u64 = 512;
/// Holes that are smaller are not worth a piece.
const SMALLEST_HOLE: u64 = 4096;

/// Where a file has data.
#[derive(Debug, PartialEq, Eq)]
pub struct Map {
    size: u64,
    /// Offset and length, ascending.
    extents: Vec<(u64, u64)>,
}

/// The map of a file with holes; nothing for one without.
pub fn map(file: &File, metadata: &Metadata) -> io::Result<Option<Map>> {
    let size = metadata.len();
    if metadata.blocks().saturating_mul(BLOCK) >= size {
        return Ok(None);
    }
    let (mut extents, mut at, mut smallest) = (Vec::new(), 0, SMALLEST_HOLE);
    while at < size {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin.min(size),
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) if at == 0 => return rewound(file).map(|()| None),
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(begin))?.clamp(begin, size);
        if end == begin {
            break;
        }
        add(&mut extents, (begin, end - begin), smallest);
        while extents.len() >= EXTENTS_CAP {
            smallest = smallest.saturating_mul(2);
            for extent in std::mem::take(&mut extents) {
                add(&mut extents, extent, smallest);
            }
        }
        at = end;
    }
    if extents == [(0, size)] {
        return rewound(file).map(|()| None);
    }
    Ok(Some(Map { size, extents }))
}

/// Whoever reads the file without a map begins at its begin.
fn rewound(file: &File) -> io::Result<()> {
    seek(file, SeekFrom::Start(0))?;
    Ok(())
}

/// Appends an extent, or makes the last one longer where the hole between is too small.
fn add(extents: &mut Vec<(u64, u64)>, (offset, length): (u64, u64), smallest: u64) {
    match extents.last_mut() {
        Some((last, size)) if offset - (*last + *size) < smallest => *size = offset + length - *last,
        _ => extents.push((offset, length)),
    }
}

impl Map {
    /// The entry's extended header.
    pub fn attributes(&self) -> Vec<(String, Vec<u8>)> {
        [(SPARSE_MAJOR, "1".to_owned()), (SPARSE_MINOR, "0".to_owned()), (SPARSE_SIZE, self.size.to_string())]
            .map(|(key, value)| (key.to_owned(), value.into_bytes()))
            .to_vec()
    }

    /// Length of the entry.
    pub fn stored_bytes(&self) -> u64 {
        self.extents.iter().fold(self.text().len() as u64, |sum, (_, length)| sum.saturating_add(*length))
    }

    /// Content of the entry.
    pub fn reader(self, file: File) -> Chain<Cursor<Vec<u8>>, Data> {
        Cursor::new(self.text()).chain(Data { file, left: self.extents.into() })
    }

    /// Number of pieces, then offset and length of each, one a line, filled up to a block.
    fn text(&self) -> Vec<u8> {
        // The last one tells readers who do not look at the header how long the file is.
        let last = (self.size, 0);
        let mut text = format!("{}\n", self.extents.len() + 1);
        for (offset, length) in self.extents.iter().chain([&last]) {
            text.push_str(&format!("{offset}\n{length}\n"));
        }
        let mut text = text.into_bytes();
        text.resize(text.len().next_multiple_of(512), 0);
        text
    }
}

/// The data of a file, piece after piece.
pub struct Data {
    file: File,
    left: VecDeque<(u64, u64)>,
}

impl Read for Data {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((offset, length)) = self.left.front_mut() else { return Ok(0) };
        let most = usize::try_from(*length).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], *offset)?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "became shorter while it was copied"));
        }
        *offset += read as u64;
        *length -= read as u64;
        if *length == 0 {
            self.left.pop_front();
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_holes_are_filled_and_pieces_stay_in_order() {
        let mut extents = Vec::new();
        for extent in [(0, 10), (20, 10), (5000, 1), (9097, 3)] {
            add(&mut extents, extent, 4096);
        }
        assert_eq!(extents, [(0, 30), (5000, 1), (9097, 3)]);
    }

    #[test]
    fn the_map_is_what_gnu_tar_reads() {
        let map = Map { size: 100_000, extents: vec![(8192, 5)] };
        let text = map.text();
        assert_eq!(text.len(), 512);
        assert!(text.starts_with(b"2\n8192\n5\n100000\n0\n\0"), "{:?}", String::from_utf8_lossy(&text));
        assert_eq!(map.stored_bytes(), 517);
    }
}
