//! Backend messages: views of the ones that a pooler must look into, and writers of the ones that
//! it sends in the server's place.

use crate::frame::{split_cstr, write_message};

/// Type bytes of the messages that a server may send after authentication
/// (PostgreSQL documentation, "Message Formats").
pub mod tag {
    #![allow(missing_docs, reason = "each is the message of that name")]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// What ReadyForQuery says of the session's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    Idle,
    /// `T`: in a transaction block.
    Open,
    /// `E`: in a transaction block that failed; only ROLLBACK helps.
    Failed,
}

impl TransactionStatus {
    /// Reads the status byte; `None` for one that PostgreSQL does not send.
    #[inline]
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Open),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The status byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// The body of an ErrorResponse or NoticeResponse. Fields may be missing, out of order, or cut:
/// a reader gets what is there and never an error (trap 56).
#[derive(Debug, Clone, Copy)]
pub struct ErrorView<'a>(&'a [u8]);

impl<'a> ErrorView<'a> {
    /// A view of `body`, which may be only the front of one.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// The body itself.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.0
    }

    /// The field of type `kind` (PostgreSQL documentation, "Error and Notice Message Fields").
    #[must_use]
    pub fn field(&self, kind: u8) -> Option<&'a [u8]> {
        self.fields().find(|(k, _)| *k == kind).map(|(_, v)| v)
    }

    /// The SQLSTATE, if the server sent one of five bytes.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&'a str> {
        let code = self.field(b'C').filter(|code| code.len() == 5)?;
        std::str::from_utf8(code).ok()
    }

    /// The primary message as text, whatever its encoding.
    #[must_use]
    pub fn message(&self) -> String {
        String::from_utf8_lossy(self.field(b'M').unwrap_or(b"(no message)")).into_owned()
    }

    /// Whether the server closes the connection after this: severity FATAL or PANIC.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        let severity = self.field(b'V').or_else(|| self.field(b'S'));
        matches!(severity, Some(b"FATAL" | b"PANIC"))
    }

    /// Every field with its type, in the order sent.
    pub fn fields(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (&kind, tail) = rest.split_first()?;
            if kind == 0 {
                return None;
            }
            let (value, tail) = split_cstr(tail)?;
            rest = tail;
            Some((kind, value))
        })
    }
}

/// An error or a notice of the pooler's own.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// `ERROR`, `FATAL`, `NOTICE`, ...
    pub severity: &'a str,
    /// Five characters.
    pub sqlstate: &'a str,
    /// What happened, one line, lower case, no full stop.
    pub message: &'a str,
    /// More of it, full sentences; empty if there is none.
    pub detail: &'a str,
    /// What to do, full sentences; empty if there is none.
    pub hint: &'a str,
}

/// Writes an ErrorResponse.
pub fn write_error(out: &mut Vec<u8>, report: &Report<'_>) {
    write_report(out, tag::ERROR_RESPONSE, report);
}

/// Writes a NoticeResponse.
pub fn write_notice(out: &mut Vec<u8>, report: &Report<'_>) {
    write_report(out, tag::NOTICE_RESPONSE, report);
}

fn write_report(out: &mut Vec<u8>, tag: u8, report: &Report<'_>) {
    write_message(out, tag, |b| {
        let fields = [
            (b'S', report.severity),
            (b'V', report.severity),
            (b'C', report.sqlstate),
            (b'M', report.message),
            (b'D', report.detail),
            (b'H', report.hint),
        ];
        for (kind, value) in fields {
            if !value.is_empty() {
                b.push(kind);
                // A NUL inside would end the field early and shift the next.
                b.extend(value.bytes().filter(|&c| c != 0));
                b.push(0);
            }
        }
        b.push(0);
    });
}

/// Writes an ErrorResponse with the fields of `body`, in which `from` is replaced by `to` in the
/// primary message: errors that name a statement by the pooler's name for it must name it as the
/// client does.
pub fn write_error_renamed(out: &mut Vec<u8>, body: &[u8], from: &[u8], to: &[u8]) {
    write_message(out, tag::ERROR_RESPONSE, |b| {
        for (kind, value) in ErrorView::new(body).fields() {
            b.push(kind);
            let at = (kind == b'M' && !from.is_empty())
                .then(|| value.windows(from.len()).position(|w| w == from))
                .flatten();
            if let Some(at) = at {
                b.extend_from_slice(&value[..at]);
                b.extend_from_slice(to);
                b.extend_from_slice(&value[at + from.len()..]);
            } else {
                b.extend_from_slice(value);
            }
            b.push(0);
        }
        b.push(0);
    });
}

/// Writes ReadyForQuery outside a transaction.
pub fn write_ready_idle(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Z\0\0\0\x05I");
}

/// Writes ReadyForQuery.
pub fn write_ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    write_message(out, tag::READY_FOR_QUERY, |b| b.push(status.byte()));
}

/// Writes CommandComplete of `command`.
pub fn write_command_complete(out: &mut Vec<u8>, command: &str) {
    write_message(out, tag::COMMAND_COMPLETE, |b| {
        b.extend_from_slice(command.as_bytes());
        b.push(0);
    });
}

/// A column of a result of the pooler's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a str,
    /// The object id of its type.
    pub oid: u32,
    /// The length of its type; -1 if that varies.
    pub len: i16,
    /// 0: text, 1: binary.
    pub format: u16,
}

/// Writes RowDescription.
pub fn write_row_description<'a>(
    out: &mut Vec<u8>,
    fields: impl ExactSizeIterator<Item = Field<'a>>,
) {
    write_message(out, tag::ROW_DESCRIPTION, |b| {
        b.extend_from_slice(&count(fields.len()));
        for field in fields {
            b.extend_from_slice(field.name.as_bytes());
            b.push(0);
            // Of no table.
            b.extend_from_slice(&[0; 6]);
            b.extend_from_slice(&field.oid.to_be_bytes());
            b.extend_from_slice(&field.len.to_be_bytes());
            // No modifier.
            b.extend_from_slice(&(-1_i32).to_be_bytes());
            b.extend_from_slice(&field.format.to_be_bytes());
        }
    });
}

/// Writes DataRow of these values; `None` is NULL.
pub fn write_data_row<V: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    values: impl ExactSizeIterator<Item = Option<V>>,
) {
    write_message(out, tag::DATA_ROW, |b| {
        b.extend_from_slice(&count(values.len()));
        for value in values {
            let Some(value) = value else {
                b.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            };
            let value = value.as_ref();
            let len = u32::try_from(value.len()).expect("BUG: a value longer than a message");
            b.extend_from_slice(&len.to_be_bytes());
            b.extend_from_slice(value);
        }
    });
}

fn count(n: usize) -> [u8; 2] {
    u16::try_from(n)
        .expect("BUG: more columns than a message can have")
        .to_be_bytes()
}

/// Writes ParameterStatus.
pub fn write_parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    write_message(out, tag::PARAMETER_STATUS, |b| {
        b.extend_from_slice(name.as_bytes());
        b.push(0);
        b.extend_from_slice(value.as_bytes());
        b.push(0);
    });
}

/// Writes BackendKeyData: what the client must show to cancel.
pub fn write_backend_key_data(out: &mut Vec<u8>, process_id: i32, key: &[u8]) {
    write_message(out, tag::BACKEND_KEY_DATA, |b| {
        b.extend_from_slice(&process_id.to_be_bytes());
        b.extend_from_slice(key);
    });
}

/// Reads the body of ParameterStatus; `None` if it is malformed.
#[must_use]
pub fn read_parameter_status(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = split_cstr(body)?;
    let (value, _) = split_cstr(rest)?;
    Some((
        std::str::from_utf8(name).ok()?,
        std::str::from_utf8(value).ok()?,
    ))
}

/// Reads the body of NotificationResponse: channel and payload; `None` if it is malformed.
#[must_use]
pub fn read_notification(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_process_id, rest) = body.split_first_chunk::<4>()?;
    let (channel, rest) = split_cstr(rest)?;
    let (payload, _) = split_cstr(rest)?;
    Some((channel, payload))
}

/// Reads the body of BackendKeyData: process id and key (4 bytes; up to 256 from protocol 3.2 on).
#[must_use]
pub fn read_backend_key_data(body: &[u8]) -> Option<(i32, &[u8])> {
    let (pid, key) = body.split_first_chunk::<4>()?;
    (4..=256)
        .contains(&key.len())
        .then(|| (i32::from_be_bytes(*pid), key))
}

/// Reads the columns of a DataRow body as text; `None` if it is malformed. A NULL is `None`.
#[must_use]
pub fn read_data_row(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let len = i32::from_be_bytes(*len);
        if len < 0 {
            columns.push(None);
            rest = tail;
            continue;
        }
        let (value, tail) = tail.split_at_checked(len.unsigned_abs() as usize)?;
        columns.push(Some(value));
        rest = tail;
    }
    Some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_LEN;

    const REPORT: Report<'_> = Report {
        severity: "ERROR",
        sqlstate: "26000",
        message: "prepared statement \"_p7\" does not exist",
        detail: "",
        hint: "",
    };

    #[test]
    fn an_error_is_read_back() {
        let mut out = Vec::new();
        write_error(&mut out, &REPORT);
        let view = ErrorView::new(&out[HEADER_LEN..]);
        assert_eq!(view.sqlstate(), Some("26000"));
        assert!(!view.is_fatal());
        assert_eq!(view.field(b'H'), None);
    }

    #[test]
    fn a_row_is_read_back() {
        let mut out = Vec::new();
        write_data_row(&mut out, [Some("a"), None, Some("")].into_iter());
        let row = read_data_row(&out[HEADER_LEN..]);
        assert_eq!(row, Some(vec![Some(&b"a"[..]), None, Some(b"")]));
    }

    #[test]
    fn t56_an_error_without_fields_is_still_an_error() {
        for body in [&b""[..], b"\0", b"S", b"SERROR", b"C12\0\0", b"CXX"] {
            let view = ErrorView::new(body);
            assert_eq!(view.sqlstate(), None);
            assert!(!view.is_fatal());
        }
    }

    #[test]
    fn an_error_names_the_statement_as_the_client_does() {
        let mut error = Vec::new();
        write_error(&mut error, &REPORT);
        let mut out = Vec::new();
        write_error_renamed(&mut out, &error[HEADER_LEN..], b"\"_p7\"", b"\"mine\"");
        let view = ErrorView::new(&out[HEADER_LEN..]);
        assert_eq!(view.message(), "prepared statement \"mine\" does not exist");
        assert_eq!(view.sqlstate(), Some("26000"));
    }

    #[test]
    fn rows_and_parameters_that_lie_are_refused() {
        assert_eq!(read_data_row(b"\0\x01\0\0\0\x09abc"), None);
        assert_eq!(
            read_data_row(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff"),
            Some(vec![Some(&b"a"[..]), None])
        );
        assert_eq!(read_parameter_status(b"a\0b"), None);
        assert_eq!(read_backend_key_data(b"\0\0\0\x01abc"), None);
    }
}
