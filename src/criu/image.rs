//! An image file: a magic, then messages, each after its length. Pure.

/// Before an image's own magic, since CRIU 2.0.
const COMMON_MAGIC: u32 = 0x5456_4319;
const WORD: usize = 4;

/// The file is no image that we understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("broken image: {0}")]
    Malformed(String),
}

/// Magic and messages of an image.
pub fn split(image: &[u8]) -> Result<(&[u8], Messages<'_>), ImageError> {
    let magics = match word(image) {
        Some((COMMON_MAGIC, _)) => 2 * WORD,
        _ => WORD,
    };
    let (magic, rest) = image
        .split_at_checked(magics)
        .ok_or_else(|| ImageError::Malformed("shorter than its magic".to_owned()))?;
    Ok((magic, Messages { rest }))
}

/// The messages of an image; after an error there is no more.
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<&'a [u8], ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message =
            word(self.rest).and_then(|(length, rest)| rest.split_at_checked(usize::try_from(length).ok()?));
        match message {
            Some((message, rest)) => {
                self.rest = rest;
                Some(Ok(message))
            }
            None => {
                self.rest = &[];
                Some(Err(ImageError::Malformed("it ends within a message".to_owned())))
            }
        }
    }
}

/// Appends a message after its length.
pub fn put_message(out: &mut Vec<u8>, message: &[u8]) -> Result<(), ImageError> {
    let length = u32::try_from(message.len());
    let length = length.map_err(|_| ImageError::Malformed("message of 4 GiB".to_owned()))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(message);
    Ok(())
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<WORD>()?;
    Some((u32::from_le_bytes(*word), rest))
}
