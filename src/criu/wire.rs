//! The wire format of protocol buffers: fields of a message, each with the bytes it is written in. Pure.

use super::ImageError;

/// A field and how it stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub number: u64,
    pub value: Value<'a>,
    /// Tag, length and value.
    pub raw: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Varint(u64),
    /// Strings, messages, packed numbers.
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed(&'a [u8]),
}

impl<'a> Value<'a> {
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Varint(number) => Some(number),
            _ => None,
        }
    }

    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The fields of a message, in the order in which they are written; after an error there is no more.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn read(&mut self) -> Result<Field<'a>, ImageError> {
        let begin = self.rest;
        let tag = varint(&mut self.rest)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed(take(&mut self.rest, 8)?),
            2 => {
                let length = varint(&mut self.rest)?;
                Value::Bytes(take(&mut self.rest, length)?)
            }
            5 => Value::Fixed(take(&mut self.rest, 4)?),
            kind => return Err(ImageError::Malformed(format!("field of unknown kind {kind}"))),
        };
        Ok(Field { number: tag >> 3, value, raw: &begin[..begin.len() - self.rest.len()] })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Takes a number off the front.
pub fn varint(rest: &mut &[u8]) -> Result<u64, ImageError> {
    let mut number = 0_u64;
    for (at, byte) in rest.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Ok(number);
        }
    }
    Err(ImageError::Malformed("number without an end".to_owned()))
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], ImageError> {
    let taken = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) =
        taken.ok_or_else(|| ImageError::Malformed("field longer than its message".to_owned()))?;
    *rest = left;
    Ok(taken)
}

pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while let more @ 1.. = number >> 7 {
        out.push(low(number) | 0x80);
        number = more;
    }
    out.push(low(number));
}

fn low(number: u64) -> u8 {
    number.to_le_bytes()[0] & 0x7f
}

/// A field that holds a number.
pub fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

/// A field that holds bytes.
pub fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, (field << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
