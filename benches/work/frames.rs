//! Message boundaries in one read of a worker: 64 kB of rows, 64 kB of short messages.

use pooler_protocol::backend::tag;
use pooler_protocol::frame::{Header, write_message};

/// Bytes of one read.
const READ_LEN: usize = 64 * 1024;

/// DataRows of one column of 100 bytes.
pub(crate) fn rows() -> Vec<u8> {
    repeated(|out| {
        write_message(out, tag::DATA_ROW, |body| {
            body.extend_from_slice(&1_u16.to_be_bytes());
            body.extend_from_slice(&100_u32.to_be_bytes());
            body.extend_from_slice(&[b'x'; 100]);
        });
    })
}

/// What a deep pipeline of statements without rows is answered with.
pub(crate) fn short() -> Vec<u8> {
    repeated(|out| {
        out.extend_from_slice(b"2\0\0\0\x04");
        out.extend_from_slice(b"C\0\0\0\x0dUPDATE 1\0");
        out.extend_from_slice(b"Z\0\0\0\x05I");
    })
}

/// Whole messages at the front of `bytes`.
pub(crate) fn split(bytes: &[u8]) -> usize {
    let mut at = 0;
    let mut messages = 0;
    while let Ok(Some(header)) = Header::read(&bytes[at..]) {
        if header.len > bytes.len() - at {
            break;
        }
        at += header.len;
        messages += 1;
    }
    messages
}

fn repeated(write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < READ_LEN {
        write(&mut out);
    }
    out.truncate(READ_LEN);
    out
}
