//! What both sides of SCRAM share: mechanisms, channel binding, nonces, attributes and errors.
//!
//! The grammar is RFC 5802, section 7: attributes `a=value` with commas between them, in a fixed
//! order. Values are bytes here, for a user name in them may be in any encoding and is ignored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The random bytes that a side puts into the nonce; 24 characters in base64.
pub const NONCE_BYTES: usize = 18;

/// The longest nonce that is accepted of a peer, in bytes.
pub(super) const NONCE_BYTES_MAX: usize = 1024;

/// The longest message that is accepted of a server, in bytes: nonce, salt in base64 and room.
pub(super) const SERVER_MESSAGE_BYTES_MAX: usize = 4096;

/// A SASL mechanism that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM-SHA-256, without channel binding.
    ScramSha256,
    /// SCRAM-SHA-256-PLUS: the proof covers the server's certificate too.
    ScramSha256Plus,
}

impl Mechanism {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    /// The mechanism of that name, if we know it.
    pub(super) fn of(name: &[u8]) -> Option<Mechanism> {
        [Mechanism::ScramSha256, Mechanism::ScramSha256Plus]
            .into_iter()
            .find(|mechanism| mechanism.name().as_bytes() == name)
    }
}

/// What the connection offers to bind a login to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Nothing: no TLS, or its certificate's hash is not at hand.
    Unavailable,
    /// The hash of the server's certificate (`tls-server-end-point`, RFC 5929, section 4).
    TlsServerEndPoint(Vec<u8>),
}

pub(super) const END_POINT: &str = "tls-server-end-point";

/// Why an exchange ends. Nobody has logged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message that does not follow the grammar; what is wrong with it is the detail.
    #[error("malformed SCRAM message")]
    Malformed(&'static str),
    /// Something in a message is longer or larger than we accept.
    #[error("SCRAM {0} is over its limit")]
    Limit(&'static str),
    /// The client chose a mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// The message needs an extension (`m=`); there are none.
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
    /// The client wants to act as somebody else (`a=`).
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// A type of channel binding other than `tls-server-end-point`.
    #[error("unsupported SCRAM channel-binding type")]
    BindingType,
    /// The client could bind and was made to believe that we cannot: somebody is in between.
    #[error("SCRAM channel binding negotiation error")]
    BindingDowngrade,
    /// The client sees another certificate than ours: somebody is in between.
    #[error("SCRAM channel binding check failed")]
    Binding,
    /// The last message names another kind of binding than the first.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    BindingAttribute,
    /// The nonce is not the one of this exchange.
    #[error("invalid SCRAM response")]
    Nonce,
    /// The proof is wrong, or the user does not exist: a wrong password.
    #[error("password authentication failed")]
    WrongProof,
    /// The server offers no mechanism that we can use.
    #[error("none of the server's SASL authentication mechanisms are supported")]
    NoCommonMechanism,
    /// The keys belong to another salt or iteration count than the server's: its verifier of this
    /// user is not ours.
    #[error("the SCRAM keys do not belong to the server's salt and iteration count")]
    ForeignKeys,
    /// The server ended the exchange with `e=`; its words, bounded, printable ASCII.
    #[error("error received from server in SCRAM exchange: {0}")]
    ServerError(String),
    /// The server does not know the user's verifier: it is not the one it claims to be.
    #[error("incorrect server signature")]
    ServerSignature,
}

impl ScramError {
    /// The SQLSTATE that PostgreSQL reports to a client (PostgreSQL's documentation, "Error
    /// Codes"). For an exchange with a server it is 08P01 or 28P01 at least in kind.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            ScramError::Extension | ScramError::AuthorizationIdentity => "0A000",
            ScramError::BindingDowngrade | ScramError::Binding => "28000",
            ScramError::WrongProof | ScramError::ForeignKeys | ScramError::ServerError(_) => {
                "28P01"
            }
            ScramError::Malformed(_)
            | ScramError::Limit(_)
            | ScramError::Mechanism
            | ScramError::BindingType
            | ScramError::BindingAttribute
            | ScramError::Nonce
            | ScramError::NoCommonMechanism
            | ScramError::ServerSignature => "08P01",
        }
    }

    /// The text for the detail field, where there is one.
    pub fn detail(&self) -> Option<&'static str> {
        match self {
            ScramError::Malformed(detail) => Some(detail),
            ScramError::Nonce => Some("Nonce does not match."),
            ScramError::BindingDowngrade => Some(
                "The client supports SCRAM channel binding but thinks the server does not.  \
                 However, this server does support channel binding.",
            ),
            _ => None,
        }
    }
}

/// The attributes of a message, one after the other.
pub(super) struct Attributes<'a> {
    message: &'a [u8],
    /// Where the next attribute begins; behind the end when there is none.
    at: usize,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Attributes { message, at: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.at > self.message.len()
    }

    /// The message up to the next attribute, without the comma between them.
    pub(super) fn passed(&self) -> &'a [u8] {
        let end = self.at.saturating_sub(1).min(self.message.len());
        &self.message[..end]
    }

    /// The next attribute, whatever its name.
    pub(super) fn any(&mut self) -> Result<(u8, &'a [u8]), ScramError> {
        match self.message.get(self.at..) {
            Some([name, b'=', rest @ ..]) if name.is_ascii_alphabetic() => {
                let end = rest.iter().position(|&byte| byte == b',');
                let value = &rest[..end.unwrap_or(rest.len())];
                // The name, the equals sign, the value, and the comma or the end.
                self.at += 2 + value.len() + 1;
                Ok((*name, value))
            }
            _ => Err(ScramError::Malformed("Attribute expected, but not found.")),
        }
    }

    /// The next attribute, which must have this name.
    pub(super) fn take(&mut self, name: u8) -> Result<&'a [u8], ScramError> {
        match self.any()? {
            (b'm', _) => Err(ScramError::Extension),
            (found, value) if found == name => Ok(value),
            _ => Err(ScramError::Malformed("Another attribute was expected.")),
        }
    }

    /// Passes over what is left: optional extensions, which must be ignored.
    pub(super) fn skip(mut self) -> Result<(), ScramError> {
        while !self.is_done() {
            self.any()?;
        }
        Ok(())
    }
}

/// A nonce of random bytes: base64 has no comma and nothing that is not printable.
pub(super) fn encode_nonce(nonce: &[u8; NONCE_BYTES]) -> String {
    STANDARD.encode(nonce)
}

/// Checks a peer's nonce: not empty, bounded, printable ASCII (a comma cannot be in an attribute).
pub(super) fn check_nonce(nonce: &[u8]) -> Result<(), ScramError> {
    if nonce.len() > NONCE_BYTES_MAX {
        Err(ScramError::Limit("nonce"))
    } else if nonce.is_empty() || !nonce.iter().all(u8::is_ascii_graphic) {
        Err(ScramError::Malformed(
            "Non-printable or no characters in SCRAM nonce.",
        ))
    } else {
        Ok(())
    }
}

/// `c=` of the last message of a client: the first message's header, and what is bound to.
pub(super) fn encode_binding(header: &str, data: &[u8]) -> String {
    STANDARD.encode([header.as_bytes(), data].concat())
}
