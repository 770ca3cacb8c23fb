//! The client's side of SCRAM-SHA-256: the pooler logs in to a server.
//!
//! ```text
//! ScramClient --server_first--> ScramChallenge --client_final--> ScramClientFinal
//!                                                      --server_final--> ServerProven
//! ```
//!
//! Between the second and the third, whoever has only the password derives the keys; that is the
//! one expensive step, and it is apart so that it can run elsewhere. What a server sends is
//! bounded before it costs anything. The server must prove itself too: there is no success without
//! [`ServerProven`].

use super::ScramKeys;
use super::keys::{ITERATIONS_MAX, Key, SALT_BYTES_MAX, parse_iterations, parse_key, parse_salt};
use super::scram::{
    Attributes, ChannelBinding, END_POINT, Mechanism, NONCE_BYTES, SERVER_MESSAGE_BYTES_MAX,
    ScramError, check_nonce, encode_binding, encode_nonce,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

/// The most bytes of a server's `e=` that are kept.
const SERVER_ERROR_BYTES_MAX: usize = 100;

/// Has a first message for the server and waits for its challenge.
#[derive(Debug)]
pub struct ScramClient {
    mechanism: Mechanism,
    /// The first message: header and signed part.
    message: String,
    header_bytes: usize,
    /// `c=` of the last message.
    binding: String,
    nonce: String,
}

impl ScramClient {
    /// An exchange with a server that offers these mechanisms. `nonce` is fresh random bytes.
    ///
    /// Binds to the channel if both can. The user's name is left out of the message, for
    /// PostgreSQL takes the one of the startup packet.
    ///
    /// # Errors
    ///
    /// `NoCommonMechanism`.
    pub fn new(
        offered: &[&str],
        binding: ChannelBinding,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<ScramClient, ScramError> {
        let offers = |mechanism: Mechanism| offered.contains(&mechanism.name());
        let plus = offers(Mechanism::ScramSha256Plus);
        let nonce = encode_nonce(nonce);
        match binding {
            ChannelBinding::TlsServerEndPoint(hash) if plus => {
                let header = format!("p={END_POINT},,");
                let mechanism = Mechanism::ScramSha256Plus;
                Ok(ScramClient::build(mechanism, &header, &hash, "", nonce))
            }
            _ if !offers(Mechanism::ScramSha256) => Err(ScramError::NoCommonMechanism),
            ChannelBinding::TlsServerEndPoint(_) => {
                let mechanism = Mechanism::ScramSha256;
                Ok(ScramClient::build(mechanism, "y,,", b"", "", nonce))
            }
            ChannelBinding::Unavailable => {
                let mechanism = Mechanism::ScramSha256;
                Ok(ScramClient::build(mechanism, "n,,", b"", "", nonce))
            }
        }
    }

    pub(super) fn build(
        mechanism: Mechanism,
        header: &str,
        bound_to: &[u8],
        user: &str,
        nonce: String,
    ) -> ScramClient {
        ScramClient {
            mechanism,
            message: format!("{header}n={user},r={nonce}"),
            header_bytes: header.len(),
            binding: encode_binding(header, bound_to),
            nonce,
        }
    }

    /// The mechanism to name in the SASLInitialResponse.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The first message, for the SASLInitialResponse.
    pub fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Takes the server's challenge (AuthenticationSASLContinue).
    ///
    /// # Errors
    ///
    /// `Nonce` if ours is not in front of the server's, `Limit` for a nonce or a salt over 1 kB or
    /// for more than a million iterations, `ServerError`, `Malformed`.
    pub fn server_first(self, message: &[u8]) -> Result<ScramChallenge, ScramError> {
        if message.len() > SERVER_MESSAGE_BYTES_MAX {
            return Err(ScramError::Limit("message"));
        }
        if let Some(words) = message.strip_prefix(b"e=") {
            return Err(server_error(words));
        }
        let mut attributes = Attributes::new(message);
        let nonce = attributes.take(b'r')?;
        let salt = attributes.take(b's')?;
        let iterations = attributes.take(b'i')?;
        attributes.skip()?;
        check_nonce(nonce)?;
        match nonce.strip_prefix(self.nonce.as_bytes()) {
            Some(theirs) if !theirs.is_empty() => {}
            _ => return Err(ScramError::Nonce),
        }
        let salt = parse_salt(salt).ok_or_else(|| salt_error(salt))?;
        let iterations =
            parse_iterations(iterations).ok_or_else(|| iterations_error(iterations))?;
        let unsigned = [b"c=", self.binding.as_bytes(), b",r=", nonce].concat();
        let bare = &self.message.as_bytes()[self.header_bytes..];
        Ok(ScramChallenge {
            signed: [bare, b",", message, b",", &unsigned].concat(),
            unsigned,
            salt,
            iterations,
        })
    }
}

fn salt_error(salt: &[u8]) -> ScramError {
    if salt.len() / 4 * 3 > SALT_BYTES_MAX {
        ScramError::Limit("salt")
    } else {
        ScramError::Malformed("Invalid salt in server-first-message.")
    }
}

fn iterations_error(iterations: &[u8]) -> ScramError {
    let is_number = !iterations.is_empty() && iterations.iter().all(u8::is_ascii_digit);
    let is_zero = iterations.iter().all(|&digit| digit == b'0');
    if is_number && !is_zero {
        // All other numbers are over ITERATIONS_MAX, those with leading zeros among them.
        debug_assert!(parse_iterations(iterations).is_none_or(|count| count > ITERATIONS_MAX));
        ScramError::Limit("iteration count")
    } else {
        ScramError::Malformed("Invalid iteration count in server-first-message.")
    }
}

fn server_error(words: &[u8]) -> ScramError {
    let words = &words[..words.len().min(SERVER_ERROR_BYTES_MAX)];
    ScramError::ServerError(words.escape_ascii().to_string())
}

/// Has been challenged and needs the keys for this salt and iteration count.
#[derive(Debug)]
pub struct ScramChallenge {
    /// What proof and server's signature cover (`AuthMessage` of RFC 5802).
    signed: Vec<u8>,
    /// The last message without its proof.
    unsigned: Vec<u8>,
    salt: Box<[u8]>,
    iterations: u32,
}

impl ScramChallenge {
    /// The salt, 1 to 1024 bytes.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iterations, 1 to a million.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Proves the keys: those of [`derive`](super::derive) with this salt and iteration count, or
    /// those that a client's login has left.
    ///
    /// # Errors
    ///
    /// `ForeignKeys` if they belong to another salt or iteration count; nothing is sent then.
    pub fn client_final(self, keys: &ScramKeys) -> Result<ScramClientFinal, ScramError> {
        if !keys.matches(&self.salt, self.iterations) {
            return Err(ScramError::ForeignKeys);
        }
        let proof = STANDARD.encode(keys.proof(&[&self.signed]).as_slice());
        Ok(ScramClientFinal {
            message: [self.unsigned.as_slice(), b",p=", proof.as_bytes()].concat(),
            server_signature: keys.server_signature(&[&self.signed]),
        })
    }
}

/// Has proved the password and waits for the server's own proof.
pub struct ScramClientFinal {
    message: Vec<u8>,
    server_signature: Key,
}

impl ScramClientFinal {
    /// The last message, for the SASLResponse.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Takes the server's last message (AuthenticationSASLFinal).
    ///
    /// # Errors
    ///
    /// `ServerSignature` if the server does not know the user's verifier; `ServerError`,
    /// `Malformed`, `Limit`.
    pub fn server_final(self, message: &[u8]) -> Result<ServerProven, ScramError> {
        if message.len() > SERVER_MESSAGE_BYTES_MAX {
            return Err(ScramError::Limit("message"));
        }
        if let Some(words) = message.strip_prefix(b"e=") {
            return Err(server_error(words));
        }
        let mut attributes = Attributes::new(message);
        let signature = attributes.take(b'v')?;
        attributes.skip()?;
        let signature = parse_key(signature).ok_or(ScramError::Malformed(
            "Malformed server signature in server-final-message.",
        ))?;
        if bool::from(signature.ct_eq(&*self.server_signature)) {
            Ok(ServerProven(()))
        } else {
            Err(ScramError::ServerSignature)
        }
    }
}

impl std::fmt::Debug for ScramClientFinal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramClientFinal").finish_non_exhaustive()
    }
}

/// The server knows the user's verifier. After a SASL exchange, an AuthenticationOk counts only
/// with this in hand.
#[derive(Debug)]
#[must_use = "without it the server has proved nothing"]
pub struct ServerProven(());
