//! Message boundaries: the five bytes in front of every message after the startup packet.
//!
//! A message is a type byte, a four-byte length that counts itself but not the type byte, and a
//! body. Nothing here looks into a body or allocates for one: a length is data from a peer, and it
//! is checked before anybody believes it.
//!
//! Invariant: a [`Header`] that exists has a length between [`HEADER_LEN`] and [`MESSAGE_LEN_MAX`].

/// Bytes of a header: the type byte and the length word.
pub const HEADER_LEN: usize = 5;

/// The longest message that PostgreSQL accepts or sends, in bytes with its header
/// (`PQ_LARGE_MESSAGE_LIMIT`, one byte less than `MaxAllocSize`).
pub const MESSAGE_LEN_MAX: usize = 0x3fff_ffff;

/// The longest that PostgreSQL accepts for messages that carry no data, in bytes with its header
/// (`PQ_SMALL_MESSAGE_LIMIT` leaves out the type byte): Sync, Flush, Describe, Close, Execute,
/// CopyDone, Terminate.
pub const SMALL_MESSAGE_LEN_MAX: usize = 10_001;

/// A message whose type and length are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub tag: u8,
    /// Bytes of the whole message, the type byte and the length word included.
    pub len: usize,
}

/// A length word that no PostgreSQL peer would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {:?} announces a length of {announced} bytes", char::from(*.tag))]
pub struct BadLength {
    /// The type byte of the message.
    pub tag: u8,
    /// What its length word says, as the signed number that PostgreSQL reads.
    pub announced: i32,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` if fewer than five bytes are there.
    ///
    /// # Errors
    /// [`BadLength`] for a length word below four or above PostgreSQL's own limit.
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, BadLength> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let tag = head[0];
        let word = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if word < 4 || word as usize >= MESSAGE_LEN_MAX {
            return Err(BadLength {
                tag,
                announced: word.cast_signed(),
            });
        }
        Ok(Some(Self {
            tag,
            len: word as usize + 1,
        }))
    }

    /// Bytes of the body alone.
    #[inline]
    #[must_use]
    pub fn body_len(self) -> usize {
        self.len - HEADER_LEN
    }
}

/// Appends a message of type `tag` to `out`; `body` writes its body.
///
/// # Panics
/// If the body is longer than a message can be, which is a bug of the caller.
pub fn write_message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = u32::try_from(out.len() - at).expect("BUG: a message longer than 4 GB");
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Splits a NUL-terminated string off the front of `bytes`: the string without its NUL, and the
/// rest. `None` if there is no NUL.
#[inline]
#[must_use]
pub fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// What of `bytes` is in front of the first NUL; all of it if there is none, as where the end of a
/// string was not kept.
#[inline]
#[must_use]
pub fn up_to_nul(bytes: &[u8]) -> &[u8] {
    split_cstr(bytes).map_or(bytes, |(front, _)| front)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes() {
        for cut in 0..5 {
            assert_eq!(Header::read(&b"Q\0\0\0\x05"[..cut]), Ok(None));
        }
        assert_eq!(
            Header::read(b"Q\0\0\0\x05x"),
            Ok(Some(Header { tag: b'Q', len: 6 }))
        );
    }

    #[test]
    fn t54_lengths_that_lie_are_refused_before_anyone_believes_them() {
        let word = |n: u32| {
            let b = n.to_be_bytes();
            Header::read(&[b'D', b[0], b[1], b[2], b[3]])
        };
        for n in [0, 1, 3, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            assert!(word(n).is_err(), "{n}");
        }
        assert_eq!(word(4).expect("valid").expect("whole").len, 5);
        assert!(word(0x3fff_fffe).is_ok());
    }

    #[test]
    fn messages_are_written_with_their_length() {
        let mut out = b"before".to_vec();
        write_message(&mut out, b'Z', |b| b.push(b'I'));
        assert_eq!(out, b"beforeZ\0\0\0\x05I");
    }

    #[test]
    fn strings_end_at_their_nul() {
        assert_eq!(split_cstr(b"ab\0c"), Some((&b"ab"[..], &b"c"[..])));
        assert_eq!(split_cstr(b"ab"), None);
        assert_eq!(
            (up_to_nul(b"ab\0c"), up_to_nul(b"ab")),
            (&b"ab"[..], &b"ab"[..])
        );
    }
}
