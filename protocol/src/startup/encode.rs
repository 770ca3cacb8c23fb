//! The packets without a type byte that the pooler sends to a server, and the answer to a client
//! that asked for a protocol we do not know.

use super::{
    CANCEL_HEADER_BYTES, CANCEL_KEY_BYTES_MAX, CANCEL_KEY_BYTES_MIN, CANCEL_MINOR, HEADER_BYTES,
    MAJOR, REQUEST_MAJOR, STARTUP_BYTES_MAX,
};
use bytes::{BufMut as _, BytesMut};

/// Why a packet cannot be written. Nothing has been written then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The name is empty, which would end the list, or name or value has a NUL inside.
    #[error("startup parameter \"{0}\" cannot be sent: empty name or NUL inside")]
    Parameter(String),
    /// A server would refuse a startup packet of so many bytes.
    #[error("startup packet of {0} bytes is over the limit of 10000")]
    TooLong(usize),
    /// A cancel key of so many bytes; 4 to 256 are allowed.
    #[error("cancel key of {0} bytes; 4 to 256 are allowed")]
    CancelKey(usize),
}

/// Writes a StartupMessage for protocol 3.`minor` with these parameters, in order.
///
/// # Errors
///
/// `Parameter` and `TooLong`.
pub fn encode_startup<'a>(
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let start = out.len();
    let result = write_startup(minor, parameters, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write_startup<'a>(
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let start = out.len();
    put_header(0, MAJOR, minor, out);
    for (name, value) in parameters {
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            return Err(EncodeError::Parameter(name.escape_default().to_string()));
        }
        put_string(name, out);
        put_string(value, out);
    }
    out.put_u8(0);
    let bytes = out.len() - start;
    if bytes > STARTUP_BYTES_MAX {
        return Err(EncodeError::TooLong(bytes));
    }
    let length = u32::try_from(bytes).expect("BUG: the limit fits in 32 bits");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Writes an SSLRequest.
pub fn encode_ssl_request(out: &mut BytesMut) {
    postgres_protocol::message::frontend::ssl_request(out);
}

/// Writes a CancelRequest for the session that got `process_id` and `key` in its BackendKeyData.
///
/// # Errors
///
/// `CancelKey` for a key that has not 4 to 256 bytes.
pub fn encode_cancel_request(
    process_id: i32,
    key: &[u8],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    if !(CANCEL_KEY_BYTES_MIN..=CANCEL_KEY_BYTES_MAX).contains(&key.len()) {
        return Err(EncodeError::CancelKey(key.len()));
    }
    let length = u32::try_from(CANCEL_HEADER_BYTES + key.len())
        .expect("BUG: a key of 256 bytes fits in 32 bits");
    put_header(length, REQUEST_MAJOR, CANCEL_MINOR, out);
    out.put_i32(process_id);
    out.put_slice(key);
    Ok(())
}

/// Writes a NegotiateProtocolVersion: we speak 3.`minor` and know none of `options`.
///
/// It goes to the client before the first Authentication message. Like PostgreSQL we send the
/// whole version there, not the minor one alone.
pub fn encode_negotiate_protocol_version<'a>(
    minor: u16,
    options: impl Iterator<Item = &'a str> + Clone,
    out: &mut BytesMut,
) {
    let (mut count, mut bytes) = (0u32, 0);
    for option in options.clone() {
        count += 1;
        bytes += option.len() + 1;
    }
    let length = u32::try_from(4 + HEADER_BYTES + bytes)
        .expect("BUG: the options came in a startup packet, which is bounded");
    out.put_u8(b'v');
    put_header(length, MAJOR, minor, out);
    out.put_u32(count);
    for option in options {
        put_string(option, out);
    }
}

fn put_header(length: u32, major: u16, minor: u16, out: &mut BytesMut) {
    out.put_u32(length);
    out.put_u16(major);
    out.put_u16(minor);
}

fn put_string(string: &str, out: &mut BytesMut) {
    out.put_slice(string.as_bytes());
    out.put_u8(0);
}
