//! The messages of authentication between the pooler and a server: what a server asks for ('R'),
//! and the three kinds of 'p' that answer it.

use super::messages::{code, take_string};
use super::{Mechanism, MessageError};
use bytes::BytesMut;
use postgres_protocol::message::frontend;

/// The most mechanisms that a server may offer; PostgreSQL 18 has three.
const MECHANISMS_MAX: usize = 32;

/// What a server says in an Authentication message (PostgreSQL's documentation, "Message
/// Formats").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthRequest<'a> {
    /// We have logged in. After a SASL exchange this counts only if the server has proved itself:
    /// see [`ServerProven`](super::ServerProven).
    Ok,
    /// The password, please.
    CleartextPassword,
    /// The salted md5 of the password, please.
    Md5Password {
        /// The salt.
        salt: [u8; 4],
    },
    /// A SASL exchange in one of these mechanisms, please.
    Sasl {
        /// The mechanisms' names, at most 32, the server's favourite first.
        mechanisms: Vec<&'a str>,
    },
    /// The server's challenge, in the mechanism's own form.
    SaslContinue(&'a [u8]),
    /// The server's last message, in the mechanism's own form.
    SaslFinal(&'a [u8]),
    /// A method that we do not have.
    Unsupported {
        /// The code in the message.
        code: i32,
        /// What it stands for, or "unknown".
        name: &'static str,
    },
}

/// Parses the body of an Authentication message.
///
/// # Errors
///
/// `CutShort`, `InvalidString`, `TrailingBytes`; `Length` for more than 32 mechanisms.
pub fn parse_request(body: &[u8]) -> Result<AuthRequest<'_>, MessageError> {
    let (code, rest) = body.split_first_chunk().ok_or(MessageError::CutShort)?;
    let nothing_more = |request| match rest {
        [] => Ok(request),
        _ => Err(MessageError::TrailingBytes),
    };
    match i32::from_be_bytes(*code) {
        code::OK => nothing_more(AuthRequest::Ok),
        code::CLEARTEXT => nothing_more(AuthRequest::CleartextPassword),
        code::MD5 => match (rest.try_into(), rest.len()) {
            (Ok(salt), _) => Ok(AuthRequest::Md5Password { salt }),
            (Err(_), 0..4) => Err(MessageError::CutShort),
            (Err(_), _) => Err(MessageError::TrailingBytes),
        },
        code::SASL => parse_mechanisms(rest).map(|mechanisms| AuthRequest::Sasl { mechanisms }),
        code::SASL_CONTINUE => Ok(AuthRequest::SaslContinue(rest)),
        code::SASL_FINAL => Ok(AuthRequest::SaslFinal(rest)),
        code => Ok(AuthRequest::Unsupported {
            code,
            name: unsupported_name(code),
        }),
    }
}

fn parse_mechanisms(mut rest: &[u8]) -> Result<Vec<&str>, MessageError> {
    let mut mechanisms = Vec::new();
    loop {
        let (name, behind) = take_string(rest)?;
        rest = behind;
        if name.is_empty() {
            break;
        }
        if mechanisms.len() == MECHANISMS_MAX {
            return Err(MessageError::Length);
        }
        mechanisms.push(std::str::from_utf8(name).map_err(|_| MessageError::InvalidString)?);
    }
    if !rest.is_empty() {
        return Err(MessageError::TrailingBytes);
    }
    Ok(mechanisms)
}

fn unsupported_name(code: i32) -> &'static str {
    match code {
        1 => "Kerberos V4",
        2 => "Kerberos V5",
        4 => "crypt",
        6 => "SCM credential",
        7 | 8 => "GSSAPI",
        9 => "SSPI",
        _ => "unknown",
    }
}

/// Writes a PasswordMessage: the password in the clear, or the answer to an md5 salt.
///
/// # Errors
///
/// `NulInside`: what follows the NUL would not be part of the password. Nothing is written then.
pub fn encode_password_message(password: &[u8], out: &mut BytesMut) -> Result<(), MessageError> {
    if password.contains(&0) {
        return Err(MessageError::NulInside);
    }
    frontend::password_message(password, out).expect("BUG: a password over 2 GB");
    Ok(())
}

/// Writes a SASLInitialResponse: the mechanism and its first message.
pub fn encode_sasl_initial_response(mechanism: Mechanism, data: &[u8], out: &mut BytesMut) {
    frontend::sasl_initial_response(mechanism.name(), data, out)
        .expect("BUG: a SASL message over 2 GB");
}

/// Writes a SASLResponse: the mechanism's next message.
pub fn encode_sasl_response(data: &[u8], out: &mut BytesMut) {
    frontend::sasl_response(data, out).expect("BUG: a SASL message over 2 GB");
}
