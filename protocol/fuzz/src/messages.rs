//! Views of messages in both directions, and what is written from them.

use pooler_protocol::backend::{
    ErrorView, Report, TransactionStatus, read_backend_key_data, read_data_row,
    read_parameter_status, tag, write_backend_key_data, write_error, write_error_renamed,
    write_parameter_status,
};
use pooler_protocol::frame::{HEADER_LEN, Header};
use pooler_protocol::frontend::{
    self, BindView, ParseView, Target, write_bind_front, write_parse, write_statement_target,
};
use pooler_protocol::settings::{Settings, quote};

use super::{take, take_part};

/// See the module.
pub fn run(mut data: &[u8]) {
    match take(&mut data) % 8 {
        0 => parse(data),
        1 => bind(data),
        2 => target(data),
        3 => error(data),
        4 => report(data),
        5 => values(data),
        6 => row(data),
        _ => settings(data),
    }
}

/// The body of the one message in `out`.
fn body_of(out: &[u8], tag: u8) -> &[u8] {
    let header = Header::read(out).expect("a valid length");
    let header = header.expect("a whole header");
    assert_eq!((header.tag, header.len), (tag, out.len()));
    &out[HEADER_LEN..]
}

fn parse(data: &[u8]) {
    let Some(view) = ParseView::read(data) else {
        return;
    };
    assert!(view.query().len() < view.text.len());
    let mut out = Vec::new();
    write_parse(&mut out, view.name, view.text);
    assert_eq!(body_of(&out, frontend::tag::PARSE), data);
}

fn bind(mut data: &[u8]) {
    let new: Vec<u8> = take_part(&mut data)
        .iter()
        .copied()
        .filter(|b| *b != 0)
        .collect();
    let Some(view) = BindView::read(data) else {
        return;
    };
    let mut out = Vec::new();
    write_bind_front(&mut out, &view, data.len(), &new);
    let rest = &data[view.names_len()..];
    out.extend_from_slice(rest);
    let body = body_of(&out, frontend::tag::BIND);
    let again = BindView::read(body).expect("both names");
    assert_eq!((again.portal, again.statement), (view.portal, &new[..]));
    assert_eq!(&body[again.names_len()..], rest);
}

fn target(data: &[u8]) {
    if let Some(Target::Statement(name)) = Target::read(data) {
        for tag in [frontend::tag::CLOSE, frontend::tag::DESCRIBE] {
            let mut out = Vec::new();
            write_statement_target(&mut out, tag, name);
            assert_eq!(body_of(&out, tag), data);
        }
    }
}

fn error(mut data: &[u8]) {
    let (from, to) = (take_part(&mut data), take_part(&mut data));
    let to: Vec<u8> = to.iter().copied().filter(|b| *b != 0).collect();
    let view = ErrorView::new(data);
    let bytes: usize = view.fields().map(|(_, value)| value.len() + 2).sum();
    assert!(bytes <= data.len());
    assert!(view.sqlstate().is_none_or(|code| code.len() == 5));
    let mut out = Vec::new();
    write_error_renamed(&mut out, data, from, &to);
    let again = ErrorView::new(body_of(&out, tag::ERROR_RESPONSE));
    assert_eq!(again.is_fatal(), view.is_fatal());
    assert_eq!(again.sqlstate(), view.sqlstate());
    assert_eq!(again.fields().count(), view.fields().count());
    for ((kind, now), (was_kind, was)) in again.fields().zip(view.fields()) {
        assert_eq!(kind, was_kind);
        assert!(kind == b'M' || now == was);
    }
}

fn text(data: &mut &[u8]) -> String {
    String::from_utf8_lossy(take_part(data)).into_owned()
}

/// Whatever is put into a report comes out of it, less the NULs.
fn report(mut data: &[u8]) {
    let [message, detail, hint] = [(); 3].map(|()| text(&mut data));
    let report = Report {
        severity: "ERROR",
        sqlstate: "08P01",
        message: &message,
        detail: &detail,
        hint: &hint,
    };
    let mut out = Vec::new();
    write_error(&mut out, &report);
    let view = ErrorView::new(body_of(&out, tag::ERROR_RESPONSE));
    assert_eq!(view.sqlstate(), Some("08P01"));
    for (kind, value) in [(b'M', message), (b'D', detail), (b'H', hint)] {
        let without = value.replace('\0', "");
        assert_eq!(view.field(kind).unwrap_or_default(), without.as_bytes());
    }
}

fn values(mut data: &[u8]) {
    let statuses = [
        (b'I', TransactionStatus::Idle),
        (b'T', TransactionStatus::Open),
        (b'E', TransactionStatus::Failed),
    ];
    let byte = take(&mut data);
    let known = statuses.iter().find(|(b, _)| *b == byte).map(|(_, s)| *s);
    assert_eq!(TransactionStatus::from_byte(byte), known);
    let mut out = Vec::new();
    if let Some((name, value)) = read_parameter_status(data) {
        write_parameter_status(&mut out, name, value);
        let body = body_of(&out, tag::PARAMETER_STATUS);
        assert_eq!(read_parameter_status(body), Some((name, value)));
        assert!(data.starts_with(body));
    }
    out.clear();
    if let Some((process_id, key)) = read_backend_key_data(data) {
        write_backend_key_data(&mut out, process_id, key);
        assert_eq!(body_of(&out, tag::BACKEND_KEY_DATA), data);
    }
}

fn row(data: &[u8]) {
    let Some(columns) = read_data_row(data) else {
        return;
    };
    let bytes: usize = columns.iter().map(|c| 4 + c.map_or(0, <[u8]>::len)).sum();
    assert!(bytes + 2 <= data.len());
}

fn settings(mut data: &[u8]) {
    let mut sets = [(); 2].map(|()| {
        let count = take(&mut data) % 5;
        let pairs: Vec<_> = (0..count)
            .map(|_| (text(&mut data), text(&mut data)))
            .collect();
        Settings::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    });
    if take(&mut data) & 1 == 0 {
        sets[1] = sets[0].with("role", Some(&text(&mut data)));
    }
    let [from, to] = sets;
    assert_eq!(from.query_to(&from), None);
    let differs = |(name, value): (&str, &str)| {
        from.find(name) != Some(value) || to.find(name) != Some(value)
    };
    let differ = from.iter().chain(to.iter()).any(differs);
    assert_eq!(from.query_to(&to).is_some(), differ);
    for (name, value) in to.iter() {
        assert_eq!(to.find(&name.to_ascii_uppercase()), Some(value));
        assert_eq!(unquote(&quote(value)).as_deref(), Some(value));
        assert_eq!(to.with(name, None).find(name), None);
    }
}

/// The text whose UTF-8 bytes are written as hexadecimal digits.
fn unhex(digits: &str) -> Option<String> {
    let pairs = digits.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

/// Reads a string constant as PostgreSQL does; `None` if it ends early or late.
fn unquote(sql: &str) -> Option<String> {
    if let Some(bytes) = sql.strip_prefix("pg_catalog.convert_from(pg_catalog.decode('") {
        return unhex(bytes.strip_suffix("', 'hex'), 'UTF8')")?);
    }
    let sql = sql.trim_start();
    let (escapes, rest) = match sql.strip_prefix('E') {
        Some(rest) => (true, rest),
        None => (false, sql),
    };
    let mut chars = rest.strip_prefix('\'')?.chars();
    let mut value = String::new();
    loop {
        match chars.next()? {
            '\'' => match chars.next() {
                None => return Some(value),
                Some('\'') => value.push('\''),
                Some(_) => return None,
            },
            '\\' if escapes => match chars.next()? {
                '\\' => value.push('\\'),
                _ => return None,
            },
            // It means different things to differently set servers.
            '\\' => return None,
            c => value.push(c),
        }
    }
}
