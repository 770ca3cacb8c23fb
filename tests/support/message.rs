//! A message as received, and how a transcript writes it.

use std::fmt;

use pooler_protocol::backend::{ErrorView, read_data_row, read_parameter_status};

/// A type byte and a body.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The type byte.
    pub tag: u8,
    /// All behind the length word.
    pub body: Vec<u8>,
}

impl Message {
    /// The message on the wire.
    pub fn encode(&self) -> Vec<u8> {
        super::message(self.tag, &self.body)
    }

    /// A field of an ErrorResponse or NoticeResponse: `b'M'` is the message, `b'H'` the hint. Empty if it is missing.
    pub fn field(&self, kind: u8) -> String {
        let value = ErrorView::new(&self.body).field(kind).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }

    /// The SQLSTATE of an ErrorResponse or NoticeResponse.
    pub fn sqlstate(&self) -> String {
        self.field(b'C')
    }

    /// The primary message of an ErrorResponse or NoticeResponse.
    pub fn text(&self) -> String {
        self.field(b'M')
    }

    /// The columns of a DataRow; NULL is `NULL`.
    pub fn columns(&self) -> Vec<String> {
        let row = read_data_row(&self.body).expect("a DataRow");
        let text = |v: Option<&[u8]>| {
            v.map_or("NULL".to_owned(), |v| {
                String::from_utf8_lossy(v).into_owned()
            })
        };
        row.into_iter().map(text).collect()
    }

    /// The strings of the body, one after the other.
    pub fn strings(&self) -> Vec<String> {
        let mut parts: Vec<&[u8]> = self.body.split(|&b| b == 0).collect();
        parts.pop();
        parts
            .iter()
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .collect()
    }

    /// What stands in parentheses behind the type in a transcript.
    pub fn argument(&self) -> String {
        match self.tag {
            b'D' if read_data_row(&self.body).is_some() => self.columns().join("|"),
            b'E' | b'N' if !self.body.is_empty() => self.sqlstate(),
            b'S' => {
                read_parameter_status(&self.body).map_or(String::new(), |(n, v)| format!("{n}={v}"))
            }
            b'A' => {
                let strings = String::from_utf8_lossy(self.body.get(4..).unwrap_or_default());
                strings.trim_end_matches('\0').replace('\0', "|")
            }
            b'Z' | b'C' | b'Q' | b'd' => String::from_utf8_lossy(&self.body)
                .trim_end_matches('\0')
                .to_owned(),
            b'R' => self
                .body
                .first_chunk::<4>()
                .map_or(String::new(), |code| i32::from_be_bytes(*code).to_string()),
            _ => String::new(),
        }
    }

    /// Whether a transcript's `tag` or `tag(argument)` means this message.
    pub fn is(&self, expected: &str) -> bool {
        match expected.split_once('(') {
            Some((tag, argument)) => {
                tag.as_bytes() == [self.tag] && argument.strip_suffix(')') == Some(&self.argument())
            }
            None => expected.as_bytes() == [self.tag],
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut argument = self.argument();
        if matches!(self.tag, b'E' | b'N') && !self.body.is_empty() {
            argument = format!("{argument}: {}", self.text());
        }
        if let Some((end, _)) = argument.char_indices().nth(100) {
            argument.truncate(end);
            argument.push_str("...");
        }
        write!(f, "{}", char::from(self.tag))?;
        if argument.is_empty() {
            Ok(())
        } else {
            write!(f, "({argument})")
        }
    }
}
