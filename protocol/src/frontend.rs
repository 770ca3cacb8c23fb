//! Frontend messages: views of the ones that a pooler must look into, and writers of the ones that
//! it sends itself.
//!
//! A view borrows the body of a message and names its parts; it copies nothing. What a body holds
//! beyond the parts that matter here is PostgreSQL's to judge: a malformed message is forwarded as
//! it came, so that the client gets the server's own error.

use crate::frame::{split_cstr, write_message};

/// Type bytes of the messages that a client may send once it is logged in
/// (PostgreSQL documentation, "Message Formats").
pub mod tag {
    #![allow(missing_docs, reason = "each is the message of that name")]
    pub const QUERY: u8 = b'Q';
    pub const PARSE: u8 = b'P';
    pub const BIND: u8 = b'B';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const CLOSE: u8 = b'C';
    pub const SYNC: u8 = b'S';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const TERMINATE: u8 = b'X';
    pub const PASSWORD: u8 = b'p';
}

/// The parts of a Parse body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseView<'a> {
    /// The statement's name; empty for the unnamed statement.
    pub name: &'a [u8],
    /// Everything behind the name: the query with its NUL, and the parameter types. Two statements
    /// are the same exactly if these bytes are.
    pub text: &'a [u8],
}

impl<'a> ParseView<'a> {
    /// Reads a whole body; `None` if it is malformed.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (name, text) = split_cstr(body)?;
        let (_, types) = split_cstr(text)?;
        let (count, oids) = types.split_first_chunk::<2>()?;
        let count = usize::from(u16::from_be_bytes(*count));
        (oids.len() == count * 4).then_some(Self { name, text })
    }

    /// The query, without its NUL.
    #[must_use]
    pub fn query(&self) -> &'a [u8] {
        split_cstr(self.text).map_or(self.text, |(query, _)| query)
    }
}

/// The two names at the front of a Bind body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindView<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// The statement's name; empty for the unnamed statement.
    pub statement: &'a [u8],
}

impl<'a> BindView<'a> {
    /// Reads the names from a body that may be cut behind them; `None` if a name has no end yet.
    #[inline]
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = split_cstr(body)?;
        let (statement, _) = split_cstr(rest)?;
        Some(Self { portal, statement })
    }

    /// Bytes that both names take in the body, their NULs included.
    #[inline]
    #[must_use]
    pub fn names_len(&self) -> usize {
        self.portal.len() + self.statement.len() + 2
    }
}

/// Calls `see` with every value of a whole Bind body, of whatever format; nothing if it is malformed.
pub fn each_value(body: &[u8], mut see: impl FnMut(&[u8])) {
    let mut read = || -> Option<()> {
        let (_, rest) = split_cstr(body)?;
        let (_, rest) = split_cstr(rest)?;
        let (formats, rest) = rest.split_first_chunk::<2>()?;
        let rest = rest.get(usize::from(u16::from_be_bytes(*formats)) * 2..)?;
        let (count, mut rest) = rest.split_first_chunk::<2>()?;
        for _ in 0..u16::from_be_bytes(*count) {
            let (len, tail) = rest.split_first_chunk::<4>()?;
            // A NULL has the length -1.
            let len = usize::try_from(i32::from_be_bytes(*len)).unwrap_or(0);
            let (value, tail) = tail.split_at_checked(len)?;
            see(value);
            rest = tail;
        }
        Some(())
    };
    let _malformed = read().is_none();
}

/// What a Describe or a Close is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement of this name.
    Statement(&'a [u8]),
    /// A portal of this name.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads a whole body; `None` if it is malformed.
    #[inline]
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = body.split_first()?;
        let (name, rest) = split_cstr(rest)?;
        match (kind, rest) {
            (b'S', []) => Some(Self::Statement(name)),
            (b'P', []) => Some(Self::Portal(name)),
            _ => None,
        }
    }
}

/// Writes a Parse of `text` (see [`ParseView::text`]) under `name`.
pub fn write_parse(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    write_message(out, tag::PARSE, |b| {
        put_cstr(b, name);
        b.extend_from_slice(text);
    });
}

/// Writes the front of a Bind whose original has `names` and whose whole body is `body_len` bytes
/// long: header, portal and the new statement name. The caller sends the body behind the original
/// names after it.
pub fn write_bind_front(
    out: &mut Vec<u8>,
    names: &BindView<'_>,
    body_len: usize,
    statement: &[u8],
) {
    let new_len = body_len - names.statement.len() + statement.len() + 4;
    out.push(tag::BIND);
    let word = u32::try_from(new_len).expect("BUG: a Bind longer than a message can be");
    out.extend_from_slice(&word.to_be_bytes());
    put_cstr(out, names.portal);
    put_cstr(out, statement);
}

/// Writes a Describe or Close (`tag`) of the statement `name`.
pub fn write_statement_target(out: &mut Vec<u8>, tag: u8, name: &[u8]) {
    write_message(out, tag, |b| {
        b.push(b'S');
        put_cstr(b, name);
    });
}

/// Writes a simple Query.
pub fn write_query(out: &mut Vec<u8>, sql: &str) {
    write_message(out, tag::QUERY, |b| put_cstr(b, sql.as_bytes()));
}

/// Writes a Sync.
pub fn write_sync(out: &mut Vec<u8>) {
    write_message(out, tag::SYNC, |_| ());
}

/// Writes a Terminate.
pub fn write_terminate(out: &mut Vec<u8>) {
    write_message(out, tag::TERMINATE, |_| ());
}

fn put_cstr(out: &mut Vec<u8>, s: &[u8]) {
    out.extend_from_slice(s);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{HEADER_LEN, Header};

    #[test]
    fn a_parse_is_read_and_written_back() {
        let mut out = Vec::new();
        write_parse(&mut out, b"s1", b"SELECT $1\0\0\x01\0\0\0\x17");
        let header = Header::read(&out).expect("valid").expect("whole");
        assert_eq!(header.len, out.len());
        let view = ParseView::read(&out[HEADER_LEN..]).expect("well formed");
        assert_eq!(view.name, b"s1");
        assert_eq!(view.query(), b"SELECT $1");
        for cut in HEADER_LEN..out.len() {
            assert_eq!(ParseView::read(&out[HEADER_LEN..cut]), None);
        }
    }

    #[test]
    fn a_bind_gets_a_new_statement_name_and_keeps_the_rest() {
        let body = b"portal\0st\0the rest";
        let names = BindView::read(body).expect("both names");
        let mut out = Vec::new();
        write_bind_front(&mut out, &names, body.len(), b"longer");
        out.extend_from_slice(&body[names.names_len()..]);
        let header = Header::read(&out).expect("valid").expect("whole");
        assert_eq!(header.len, out.len());
        assert_eq!(&out[HEADER_LEN..], b"portal\0longer\0the rest");
        assert_eq!(BindView::read(b"portal\0st"), None);
    }

    #[test]
    fn the_values_of_a_bind() {
        let body = b"p\0s\0\0\x01\0\0\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\x01c\0\0";
        let mut seen = Vec::new();
        each_value(body, |v| seen.push(v.to_vec()));
        assert_eq!(seen, [&b"ab"[..], b"", b"c"]);
        for cut in 0..body.len() {
            each_value(&body[..cut], |_| ());
        }
    }

    #[test]
    fn t27_portals_and_statements_of_one_name_are_told_apart() {
        assert_eq!(Target::read(b"Sa\0"), Some(Target::Statement(b"a")));
        assert_eq!(Target::read(b"Pa\0"), Some(Target::Portal(b"a")));
        for bad in [&b""[..], b"S", b"Sa", b"Xa\0", b"Sa\0b"] {
            assert_eq!(Target::read(bad), None);
        }
    }
}
