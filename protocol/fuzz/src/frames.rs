//! A stream of messages comes in pieces; where it is cut must not matter.

use pooler_protocol::frame::{
    BadLength, HEADER_LEN, Header, MESSAGE_LEN_MAX, split_cstr, write_message,
};

use super::take;

/// Messages seen, and how it ended: bytes of a header or of a body that have not come, or an error.
#[derive(Debug, PartialEq, Eq)]
struct Split {
    headers: Vec<Header>,
    left: Result<usize, BadLength>,
}

/// Reads as a relay does: a header is waited for, a body passes as it comes.
fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Split {
    let mut headers = Vec::new();
    let (mut carry, mut pass) = (Vec::new(), 0);
    for piece in pieces {
        carry.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let step = usize::min(pass, carry.len() - at);
            pass -= step;
            at += step;
            match Header::read(&carry[at..]) {
                Ok(Some(header)) => {
                    headers.push(header);
                    pass = header.len;
                }
                Ok(None) => break,
                Err(e) => {
                    let left = Err(e);
                    return Split { headers, left };
                }
            }
        }
        carry.drain(..at);
        assert!(
            carry.len() < HEADER_LEN,
            "no more than a cut header is kept"
        );
    }
    let left = Ok(pass + carry.len());
    Split { headers, left }
}

/// See the module.
pub fn run(mut data: &[u8]) {
    let largest = 1 + usize::from(take(&mut data));
    let whole = split(std::iter::once(data));
    assert_eq!(whole, split(data.chunks(largest)), "pieces of {largest}");
    assert_eq!(whole, split(data.chunks(1)), "every byte alone");

    let mut at = 0;
    for header in &whole.headers {
        assert!((HEADER_LEN..=MESSAGE_LEN_MAX).contains(&header.len));
        assert_eq!(header.body_len() + HEADER_LEN, header.len);
        let Some(message) = data.get(at..).and_then(|rest| rest.get(..header.len)) else {
            break;
        };
        let mut again = Vec::new();
        write_message(&mut again, header.tag, |body| {
            body.extend_from_slice(&message[HEADER_LEN..]);
        });
        assert_eq!(again, message);
        at += header.len;
    }
    match split_cstr(data) {
        Some((string, rest)) => assert_eq!([string, b"\0", rest].concat(), data),
        None => assert!(!data.contains(&0)),
    }
}
