//! One value of the file: from TOML to what its row of the table of keys says it is, and back to
//! text for SHOW CONFIG.
//!
//! Every message says what is wrong with the value and what would be right. A secret never shows.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use pooler_protocol::naming::Template;
use toml::de::{DeInteger, DeValue};

use super::keys::{Choice, Kind};
use super::section::Section;
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// A value whose form is right.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Flag(bool),
    Count(u64),
    Duration(Duration),
    /// None: off.
    SlowQuery(Option<Duration>),
    Ratio(f64),
    Size(u64),
    FileMode(u32),
    /// Texts and files.
    Text(String),
    Secret(SecretText),
    Template(Template),
    Names(Vec<String>),
    /// What they say is marked as sensitive.
    Headers(Vec<(HeaderName, HeaderValue)>),
    Addresses(Vec<Address>),
    /// None: off.
    Address(Option<SocketAddr>),
    Word(&'static str),
    Words(Vec<&'static str>),
    Tables(Vec<Section>),
}

/// Where to listen, before the port of a Unix socket is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Directory(PathBuf),
}

/// A secret as it stands in a file; `Debug` does not show it.
#[derive(Clone, PartialEq)]
pub(crate) struct SecretText(pub(crate) String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Value {
    /// Reads a value of this kind. `Kind::Tables` is not one value: the reader handles it.
    pub(crate) fn parse(kind: Kind, value: &DeValue<'_>) -> Result<Value, String> {
        match kind {
            Kind::Flag => match value {
                DeValue::Boolean(flag) => Ok(Value::Flag(*flag)),
                _ => Err(format!("expected true or false, not {}", described(value))),
            },
            Kind::Count { unit, zero, max } => {
                count(value, unit, zero.is_some(), max).map(Value::Count)
            }
            Kind::Duration { zero } => {
                duration(value, "a duration such as \"15s\"", zero.is_some()).map(Value::Duration)
            }
            Kind::SlowQuery if value.as_str() == Some("off") => Ok(Value::SlowQuery(None)),
            Kind::SlowQuery => duration(value, "a duration such as \"500ms\", or \"off\"", true)
                .map(|duration| Value::SlowQuery(Some(duration))),
            Kind::Ratio => ratio(value).map(Value::Ratio),
            Kind::Size { zero } => size(value, zero.is_some()).map(Value::Size),
            Kind::FileMode => file_mode(value).map(Value::FileMode),
            Kind::Text { empty } => text(value, empty).map(Value::Text),
            Kind::File => plain_text(value).map(|file| Value::Text(file.to_owned())),
            Kind::Secret => secret(value).map(Value::Secret),
            Kind::Names => list(value, "names", name).map(Value::Names),
            Kind::Template => Template::parse(plain_text(value)?).map(Value::Template),
            Kind::Headers => headers(value).map(Value::Headers),
            Kind::Addresses => list(value, "addresses", listen_address).map(Value::Addresses),
            Kind::Address => metrics_address(value).map(Value::Address),
            Kind::Word(choice) => word(choice, plain_text(value)?).map(Value::Word),
            Kind::Words(choice) => {
                list(value, "words", |item| word(choice, item)).map(Value::Words)
            }
            Kind::Tables(_) => Err(format!(
                "expected a list of tables, not {}",
                described(value)
            )),
        }
    }

    /// Reads a value of this kind from a text such as [`Value::show`] gives.
    pub(crate) fn parse_text(kind: Kind, text: &str) -> Result<Value, String> {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let literal = match kind {
            Kind::Count { .. } | Kind::Ratio => text.trim().to_owned(),
            Kind::Flag => match text {
                "on" | "1" | "yes" => "true".to_owned(),
                "off" | "0" | "no" => "false".to_owned(),
                other => other.to_owned(),
            },
            Kind::Names | Kind::Words(_) | Kind::Addresses => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                format!("[{}]", items.map(quoted).collect::<Vec<_>>().join(", "))
            }
            _ => quoted(text),
        };
        match DeValue::parse(&literal) {
            Ok(value) => Self::parse(kind, value.get_ref()),
            Err(_) => Err(format!(
                "{text:?} is no value for it; expected: {}",
                kind.unit()
            )),
        }
    }

    /// As SHOW CONFIG shows it.
    pub(crate) fn show(&self) -> String {
        match self {
            Value::Flag(flag) => flag.to_string(),
            Value::Count(count) => count.to_string(),
            Value::Duration(duration) => show_duration(*duration),
            Value::SlowQuery(slow) => slow.map_or_else(|| "off".to_owned(), show_duration),
            Value::Ratio(ratio) => ratio.to_string(),
            Value::Size(bytes) => show_size(*bytes),
            Value::FileMode(mode) => format!("{mode:04o}"),
            Value::Text(text) => text.clone(),
            Value::Secret(_) => "(not shown)".to_owned(),
            Value::Names(names) => names.join(", "),
            Value::Template(template) => template.to_string(),
            Value::Headers(headers) => headers
                .iter()
                .map(|(name, _)| format!("{name} (not shown)"))
                .collect::<Vec<_>>()
                .join(", "),
            Value::Addresses(addresses) => addresses
                .iter()
                .map(Address::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            Value::Address(address) => address.map(|a| a.to_string()).unwrap_or_default(),
            Value::Word(word) => (*word).to_owned(),
            Value::Words(words) => words.join(", "),
            Value::Tables(sections) => format!("{} tables", sections.len()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Directory(directory) => directory.display().fmt(f),
        }
    }
}

fn count(value: &DeValue<'_>, unit: &str, zero: bool, max: u64) -> Result<u64, String> {
    let number = value
        .as_integer()
        .and_then(integer)
        .ok_or_else(|| format!("expected a number ({unit}), not {}", described(value)))?;
    let min = if zero { 0 } else { 1 };
    match u64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!(
            "{number} is out of range; write a number from {min} to {max} ({unit})"
        )),
    }
}

fn duration(value: &DeValue<'_>, expected: &str, zero: bool) -> Result<Duration, String> {
    let duration = match value {
        DeValue::String(text) => parse_duration(text)?,
        DeValue::Integer(number) => match integer(number) {
            Some(0) => Duration::ZERO,
            _ => return Err(format!("{} has no unit; write {expected}", number.as_str())),
        },
        _ => return Err(format!("expected {expected}, not {}", described(value))),
    };
    if duration.is_zero() && !zero {
        return Err(format!("must be more than 0; write {expected}"));
    }
    Ok(duration)
}

fn ratio(value: &DeValue<'_>) -> Result<f64, String> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) => number.as_str().parse().ok(),
        _ => None,
    };
    let number: Option<f64> = number.filter(|n| (0.0..=1.0).contains(n));
    number.ok_or_else(|| {
        format!(
            "expected a number from 0 to 1 such as 0.01, not {}",
            described(value)
        )
    })
}

fn size(value: &DeValue<'_>, zero: bool) -> Result<u64, String> {
    let expected = "a size such as \"64kB\"";
    let bytes = match value {
        DeValue::String(text) => parse_size(text)?,
        DeValue::Integer(number) => match integer(number) {
            Some(0) => 0,
            _ => return Err(format!("{} has no unit; write {expected}", number.as_str())),
        },
        _ => return Err(format!("expected {expected}, not {}", described(value))),
    };
    if bytes == 0 && !zero {
        return Err(format!("must be more than 0; write {expected}"));
    }
    Ok(bytes)
}

fn file_mode(value: &DeValue<'_>) -> Result<u32, String> {
    let text = value.as_str().unwrap_or_default();
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(mode),
        _ => Err(format!(
            "expected permissions such as \"0770\", not {}",
            described(value)
        )),
    }
}

fn plain_text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    let text = value
        .as_str()
        .ok_or_else(|| format!("expected a text, not {}", described(value)))?;
    if text.contains('\0') {
        return Err("contains a zero byte; remove it".to_owned());
    }
    Ok(text)
}

/// A secret, whose content no message may repeat.
fn secret(value: &DeValue<'_>) -> Result<SecretText, String> {
    match value.as_str() {
        Some(text) if text.contains('\0') => {
            Err("contains a zero byte, which no password can".to_owned())
        }
        Some(text) => Ok(SecretText(text.to_owned())),
        None => Err(format!(
            "expected a text in quotes, not {}",
            value.type_str()
        )),
    }
}

fn text(value: &DeValue<'_>, empty: &str) -> Result<String, String> {
    let text = plain_text(value)?;
    if text.is_empty() && empty == EMPTY_NOT_ALLOWED {
        return Err("must not be empty".to_owned());
    }
    Ok(text.to_owned())
}

/// What `Kind::Text` says in `empty` when an empty text is refused.
pub(crate) const EMPTY_NOT_ALLOWED: &str = "not allowed";

fn list<T: PartialEq>(
    value: &DeValue<'_>,
    of_what: &str,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let array = value.as_array().ok_or_else(|| {
        format!(
            "expected a list of {of_what} in [ ], not {}",
            described(value)
        )
    })?;
    let mut items = Vec::new();
    for element in array.iter() {
        let text = plain_text(element.get_ref())?;
        let parsed = item(text)?;
        if items.contains(&parsed) {
            return Err(format!("{text:?} stands there twice; remove one"));
        }
        items.push(parsed);
    }
    Ok(items)
}

fn name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("contains an empty name; remove it".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// Headers of HTTP, whose values no message may repeat.
fn headers(value: &DeValue<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let expected = "expected a table such as { authorization = \"...\" }";
    let table = value
        .as_table()
        .ok_or_else(|| format!("{expected}, not {}", value.type_str()))?;
    let mut headers = Vec::new();
    for (name, value) in table {
        let name = name.get_ref().as_ref();
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("{name:?} is not the name of a header"))?;
        let text = value.get_ref().as_str();
        let value = text.and_then(|text| HeaderValue::from_str(text).ok());
        let mut value =
            value.ok_or_else(|| format!("{name}: its value is none that a header can have"))?;
        value.set_sensitive(true);
        headers.push((parsed, value));
    }
    Ok(headers)
}

fn word(choice: Choice, text: &str) -> Result<&'static str, String> {
    (choice.parse)(text)
        .ok_or_else(|| format!("{text:?} is not one of {}", choice.words.join(", ")))
}

fn listen_address(text: &str) -> Result<Address, String> {
    if text.starts_with('/') {
        return Ok(Address::Directory(PathBuf::from(text)));
    }
    socket_address(text).map(Address::Tcp).ok_or_else(|| {
        format!(
            "{text:?} is not an address to listen on; write \"0.0.0.0:6432\", \"[::]:6432\" or the \
             absolute path of a directory"
        )
    })
}

fn metrics_address(value: &DeValue<'_>) -> Result<Option<SocketAddr>, String> {
    let text = plain_text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    socket_address(text).map(Some).ok_or_else(|| {
        format!("{text:?} is not an address; write \"127.0.0.1:9930\", or \"\" for none")
    })
}

/// An address with a port; never a name, which could mean another address tomorrow.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let text = text.replacen("localhost:", "127.0.0.1:", 1);
    text.parse().ok()
}

fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The value as a message shows it.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
    }
}
