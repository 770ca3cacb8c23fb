//! The messages of authentication between a client and the pooler: what a client sends ('p' with
//! three kinds of body) and the Authentication messages that it gets.
//!
//! Which of the three a 'p' is, only the state of the exchange tells (PostgreSQL's documentation,
//! "Message Formats": PasswordMessage, SASLInitialResponse, SASLResponse).

use super::Mechanism;
use bytes::{BufMut as _, BytesMut};

/// The longest password that a client may send, in bytes of the body (PostgreSQL's
/// `PG_MAX_AUTH_TOKEN_LENGTH`).
pub const PASSWORD_BYTES_MAX: usize = 65_535;

/// The longest SASL message that a client may send, in bytes of the body (PostgreSQL's
/// `PG_MAX_SASL_MESSAGE_LENGTH`).
pub const SASL_BYTES_MAX: usize = 1024;

const HEADER_BYTES: usize = 5;
const LENGTH_BYTES: usize = 4;

/// What can be wrong with a message of authentication, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A message of another type (its byte) where only 'p' may come: a query before the login.
    #[error("expected password response, got message type {0}")]
    Type(u8),
    /// A length below four, or a body over the bound of this phase.
    #[error("invalid message length")]
    Length,
    /// A password without a NUL behind it, or with one inside.
    #[error("invalid password packet size")]
    PasswordSize,
    /// A password of no bytes.
    #[error("empty password returned by client")]
    EmptyPassword,
    /// A mechanism that we do not know.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// A SASLInitialResponse without a first message; in SCRAM the client speaks first.
    #[error("client sent no initial SASL response")]
    NoInitialResponse,
    /// A field that is longer than what is left of the message.
    #[error("insufficient data left in message")]
    CutShort,
    /// A string without its NUL, or not UTF-8.
    #[error("invalid string in message")]
    InvalidString,
    /// Bytes behind the last field.
    #[error("invalid message format")]
    TrailingBytes,
    /// A password with a NUL inside cannot be sent.
    #[error("password has a NUL inside")]
    NulInside,
}

impl MessageError {
    /// The SQLSTATE that PostgreSQL reports.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            MessageError::EmptyPassword => "28P01",
            _ => "08P01",
        }
    }
}

/// Cuts one 'p' message off the front of `buf`: its body, and the bytes that it took with its
/// header. `None` while bytes are missing.
///
/// # Errors
///
/// `Type` from the first byte on, `Length` from the fifth on: a body over `body_bytes_max`
/// ([`PASSWORD_BYTES_MAX`] or [`SASL_BYTES_MAX`]) is never waited for.
pub fn next_message(
    buf: &[u8],
    body_bytes_max: usize,
) -> Result<Option<(&[u8], usize)>, MessageError> {
    match buf.first() {
        None => return Ok(None),
        Some(b'p') => {}
        Some(other) => return Err(MessageError::Type(*other)),
    }
    let Some((&[_, a, b, c, d], rest)) = buf.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let body_bytes = (u32::from_be_bytes([a, b, c, d]) as usize)
        .checked_sub(LENGTH_BYTES)
        .filter(|&bytes| bytes <= body_bytes_max)
        .ok_or(MessageError::Length)?;
    Ok(rest
        .get(..body_bytes)
        .map(|body| (body, HEADER_BYTES + body_bytes)))
}

/// Parses the body of a PasswordMessage: a password in the clear or the answer to an md5 salt.
///
/// # Errors
///
/// `PasswordSize`, `EmptyPassword`.
pub fn parse_password(body: &[u8]) -> Result<&[u8], MessageError> {
    match body {
        [password @ .., 0] if !password.contains(&0) => {
            if password.is_empty() {
                return Err(MessageError::EmptyPassword);
            }
            Ok(password)
        }
        _ => Err(MessageError::PasswordSize),
    }
}

/// A client's choice of a mechanism, and its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism; whether it was offered is for the exchange to say.
    pub mechanism: Mechanism,
    /// The first message of the mechanism.
    pub data: &'a [u8],
}

/// Parses the body of a SASLInitialResponse.
///
/// # Errors
///
/// `InvalidString` for a name without a NUL, `Mechanism`, `NoInitialResponse`; `CutShort` and
/// `TrailingBytes` for an inner length that lies (CVE-2026-6664).
pub fn parse_sasl_initial_response(body: &[u8]) -> Result<SaslInitialResponse<'_>, MessageError> {
    let (name, rest) = take_string(body)?;
    let mechanism = Mechanism::of(name).ok_or(MessageError::Mechanism)?;
    let (length, data) = rest
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or(MessageError::CutShort)?;
    match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => Err(MessageError::NoInitialResponse),
        length => match usize::try_from(length).map(|length| length.cmp(&data.len())) {
            Ok(std::cmp::Ordering::Equal) => Ok(SaslInitialResponse { mechanism, data }),
            Ok(std::cmp::Ordering::Less) => Err(MessageError::TrailingBytes),
            Ok(std::cmp::Ordering::Greater) | Err(_) => Err(MessageError::CutShort),
        },
    }
}

/// Parses the body of a SASLResponse: all of it is the mechanism's message.
///
/// # Errors
///
/// `Length` if it is over [`SASL_BYTES_MAX`].
pub fn parse_sasl_response(body: &[u8]) -> Result<&[u8], MessageError> {
    if body.len() > SASL_BYTES_MAX {
        return Err(MessageError::Length);
    }
    Ok(body)
}

/// Cuts a string with its NUL off the front.
pub(super) fn take_string(body: &[u8]) -> Result<(&[u8], &[u8]), MessageError> {
    let end = body
        .iter()
        .position(|&byte| byte == 0)
        .ok_or(MessageError::InvalidString)?;
    Ok((&body[..end], &body[end + 1..]))
}

/// The codes of Authentication messages that both directions need.
pub(super) mod code {
    pub(in super::super) const OK: i32 = 0;
    pub(in super::super) const CLEARTEXT: i32 = 3;
    pub(in super::super) const MD5: i32 = 5;
    pub(in super::super) const SASL: i32 = 10;
    pub(in super::super) const SASL_CONTINUE: i32 = 11;
    pub(in super::super) const SASL_FINAL: i32 = 12;
}

/// Writes AuthenticationOk: the client has logged in.
pub fn encode_authentication_ok(out: &mut BytesMut) {
    encode_authentication(code::OK, &[], out);
}

/// Writes AuthenticationCleartextPassword.
pub fn encode_cleartext_password(out: &mut BytesMut) {
    encode_authentication(code::CLEARTEXT, &[], out);
}

/// Writes AuthenticationMD5Password. The salt must be random, and fresh for each login.
pub fn encode_md5_password(salt: [u8; 4], out: &mut BytesMut) {
    encode_authentication(code::MD5, &salt, out);
}

/// Writes AuthenticationSASL: the mechanisms to choose from, the best first.
pub fn encode_sasl(mechanisms: &[Mechanism], out: &mut BytesMut) {
    let mut names = Vec::with_capacity(64);
    for mechanism in mechanisms {
        names.extend_from_slice(mechanism.name().as_bytes());
        names.push(0);
    }
    names.push(0);
    encode_authentication(code::SASL, &names, out);
}

/// Writes AuthenticationSASLContinue: a challenge.
pub fn encode_sasl_continue(data: &[u8], out: &mut BytesMut) {
    encode_authentication(code::SASL_CONTINUE, data, out);
}

/// Writes AuthenticationSASLFinal: the outcome. AuthenticationOk follows.
pub fn encode_sasl_final(data: &[u8], out: &mut BytesMut) {
    encode_authentication(code::SASL_FINAL, data, out);
}

fn encode_authentication(code: i32, data: &[u8], out: &mut BytesMut) {
    let length = u32::try_from(2 * LENGTH_BYTES + data.len())
        .expect("BUG: an Authentication message over 4 GB");
    out.put_u8(b'R');
    out.put_u32(length);
    out.put_i32(code);
    out.put_slice(data);
}
