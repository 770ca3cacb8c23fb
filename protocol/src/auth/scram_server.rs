//! The server's side of SCRAM-SHA-256: a client logs in to the pooler.
//!
//! ```text
//! ScramServer --client_first--> ScramServerFinal --client_final--> ScramAccepted
//! ```
//!
//! Each step consumes its state, and an error ends the exchange. A user who does not exist goes
//! through the same steps at the same cost and always fails at the last (trap: a wrong user must
//! look like a wrong password).

use super::keys::{Key, parse_key, xor};
use super::scram::{
    Attributes, ChannelBinding, END_POINT, Mechanism, NONCE_BYTES, NONCE_BYTES_MAX, ScramError,
    check_nonce, encode_binding, encode_nonce,
};
use super::{ScramKeys, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::Choice;

/// Waits for the client's first message.
#[derive(Debug)]
pub struct ScramServer {
    verifier: Verifier,
    /// Of another password that is right as well; it has the salt and the count of the first.
    second: Option<Verifier>,
    binding: ChannelBinding,
    /// The user does not exist: whatever comes is refused at the end.
    is_mock: bool,
}

impl ScramServer {
    /// An exchange with a user who has this verifier.
    pub fn new(verifier: Verifier, binding: ChannelBinding) -> ScramServer {
        ScramServer {
            verifier,
            second: None,
            binding,
            is_mock: false,
        }
    }

    /// The same, with a second password that is right. Only one that has the salt and the iterations of the
    /// first can be: a client is told one of each.
    #[must_use]
    pub fn or(mut self, second: Option<Verifier>) -> ScramServer {
        let fits = |v: &Verifier| {
            v.salt() == self.verifier.salt() && v.iterations() == self.verifier.iterations()
        };
        self.second = second.filter(fits);
        self
    }

    /// An exchange with a user who does not exist, or has nothing that SCRAM can check. It ends
    /// with `WrongProof` at the same point and cost as one with a wrong password.
    pub fn mock(process_secret: &[u8; 32], user: &str, binding: ChannelBinding) -> ScramServer {
        ScramServer {
            verifier: Verifier::mock(process_secret, user),
            second: None,
            binding,
            is_mock: true,
        }
    }

    #[cfg(test)]
    pub(super) fn set_mock(&mut self, is_mock: bool) {
        self.is_mock = is_mock;
    }

    /// The mechanisms to offer, the best first.
    pub fn mechanisms(&self) -> &'static [Mechanism] {
        match self.binding {
            ChannelBinding::Unavailable => &[Mechanism::ScramSha256],
            ChannelBinding::TlsServerEndPoint(_) => {
                &[Mechanism::ScramSha256Plus, Mechanism::ScramSha256]
            }
        }
    }

    /// Takes the client's first message, in the mechanism that it chose. `nonce` is our part of
    /// the nonce: fresh random bytes.
    ///
    /// # Errors
    ///
    /// See [`ScramError`]; none depends on who the user is.
    pub fn client_first(
        self,
        mechanism: Mechanism,
        message: &[u8],
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<ScramServerFinal, ScramError> {
        self.challenge(mechanism, message, &encode_nonce(nonce))
    }

    pub(super) fn challenge(
        self,
        mechanism: Mechanism,
        message: &[u8],
        our_nonce: &str,
    ) -> Result<ScramServerFinal, ScramError> {
        if !self.mechanisms().contains(&mechanism) {
            return Err(ScramError::Mechanism);
        }
        let (flag, bare) = split_header(message)?;
        let (expected_binding, mismatch) = self.expected_binding(mechanism, flag)?;
        let nonce = [client_nonce(bare)?, our_nonce.as_bytes()].concat();
        let mut challenge = [b"r=", nonce.as_slice()].concat();
        challenge.extend_from_slice(
            format!(
                ",s={},i={}",
                STANDARD.encode(self.verifier.salt()),
                self.verifier.iterations()
            )
            .as_bytes(),
        );
        Ok(ScramServerFinal {
            verifier: self.verifier,
            second: self.second,
            is_mock: self.is_mock,
            expected_binding,
            mismatch,
            nonce,
            client_first_bare: bare.to_vec(),
            challenge,
        })
    }

    /// What the last message must say of channel binding, given the flag of the first, and the
    /// error if it says something else.
    fn expected_binding(
        &self,
        mechanism: Mechanism,
        flag: Flag<'_>,
    ) -> Result<(String, ScramError), ScramError> {
        use ChannelBinding::{TlsServerEndPoint, Unavailable};
        use Mechanism::{ScramSha256, ScramSha256Plus};

        match (mechanism, flag, &self.binding) {
            (ScramSha256, Flag::NotSupported, _) => {
                Ok((encode_binding("n,,", b""), ScramError::BindingAttribute))
            }
            (ScramSha256, Flag::NotOffered, Unavailable) => {
                Ok((encode_binding("y,,", b""), ScramError::BindingAttribute))
            }
            (ScramSha256, Flag::NotOffered, TlsServerEndPoint(_)) => {
                Err(ScramError::BindingDowngrade)
            }
            (ScramSha256, Flag::Used(_), _) => Err(ScramError::Malformed(
                "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM \
                 message includes channel binding data.",
            )),
            (ScramSha256Plus, Flag::Used(kind), TlsServerEndPoint(hash)) => {
                if kind != END_POINT.as_bytes() {
                    return Err(ScramError::BindingType);
                }
                let header = format!("p={END_POINT},,");
                Ok((encode_binding(&header, hash), ScramError::Binding))
            }
            (ScramSha256Plus, Flag::NotSupported | Flag::NotOffered, _) => {
                Err(ScramError::Malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not \
                     include channel binding data.",
                ))
            }
            (ScramSha256Plus, Flag::Used(_), Unavailable) => Err(ScramError::Mechanism),
        }
    }
}

/// The client's word on channel binding, in front of its first message.
#[derive(Debug, Clone, Copy)]
enum Flag<'a> {
    /// `n`: it cannot.
    NotSupported,
    /// `y`: it could, and thinks that we cannot.
    NotOffered,
    /// `p=type`: it does.
    Used(&'a [u8]),
}

/// Splits the first message into the flag of its header and the part that is signed.
fn split_header(message: &[u8]) -> Result<(Flag<'_>, &[u8]), ScramError> {
    if message.is_empty() {
        return Err(ScramError::Malformed("The message is empty."));
    }
    let malformed = || ScramError::Malformed("Unexpected channel-binding flag.");
    let comma = message
        .iter()
        .position(|&byte| byte == b',')
        .ok_or_else(malformed)?;
    let (flag, rest) = (&message[..comma], &message[comma + 1..]);
    let flag = match flag {
        b"n" => Flag::NotSupported,
        b"y" => Flag::NotOffered,
        [b'p', b'=', kind @ ..] => Flag::Used(kind),
        _ => return Err(malformed()),
    };
    match rest {
        [b',', bare @ ..] => Ok((flag, bare)),
        [b'a', ..] => Err(ScramError::AuthorizationIdentity),
        _ => Err(ScramError::Malformed(
            "Unexpected attribute in client-first-message.",
        )),
    }
}

/// The nonce in the signed part of the first message. The user's name in front of it is ignored,
/// as in PostgreSQL: the one of the startup packet counts.
fn client_nonce(bare: &[u8]) -> Result<&[u8], ScramError> {
    if bare.contains(&0) {
        return Err(ScramError::Malformed(
            "Message length does not match input length.",
        ));
    }
    let mut attributes = Attributes::new(bare);
    attributes.take(b'n')?;
    let nonce = attributes.take(b'r')?;
    attributes.skip()?;
    check_nonce(nonce)?;
    // Room for our own part, so that what we send is within the limit too.
    if nonce.len() > NONCE_BYTES_MAX - 2 * NONCE_BYTES {
        return Err(ScramError::Limit("nonce"));
    }
    Ok(nonce)
}

/// Has challenged the client and waits for its proof.
#[derive(Debug)]
pub struct ScramServerFinal {
    verifier: Verifier,
    second: Option<Verifier>,
    is_mock: bool,
    expected_binding: String,
    mismatch: ScramError,
    nonce: Vec<u8>,
    client_first_bare: Vec<u8>,
    challenge: Vec<u8>,
}

/// A client that knows the password.
#[derive(Debug)]
pub struct ScramAccepted {
    /// The last message to the client, for AuthenticationSASLFinal: it proves us.
    pub message: String,
    /// What the login has left: with these the pooler can log in to a server as this user.
    pub keys: ScramKeys,
}

impl ScramServerFinal {
    /// The challenge, for AuthenticationSASLContinue.
    pub fn message(&self) -> &[u8] {
        &self.challenge
    }

    /// Takes the client's last message.
    ///
    /// # Errors
    ///
    /// `WrongProof` for a wrong password and for a user who does not exist. The others are broken
    /// messages and depend on no secret.
    pub fn client_final(self, message: &[u8]) -> Result<ScramAccepted, ScramError> {
        let (unsigned, proof) = self.parse_final(message)?;
        let signed: [&[u8]; 5] = [
            &self.client_first_bare,
            b",",
            &self.challenge,
            b",",
            unsigned,
        ];
        let exists = !Choice::from(u8::from(self.is_mock));
        for verifier in std::iter::once(&self.verifier).chain(&self.second) {
            let client_key = xor(&proof, &verifier.client_signature(&signed));
            let server_signature = verifier.server_signature(&signed);
            if bool::from(verifier.is_of(&client_key) & exists) {
                return Ok(ScramAccepted {
                    message: format!("v={}", STANDARD.encode(server_signature.as_slice())),
                    keys: verifier.clone().keys(client_key),
                });
            }
        }
        Err(ScramError::WrongProof)
    }

    /// Splits the last message into what its proof covers, and the proof.
    fn parse_final<'a>(&self, message: &'a [u8]) -> Result<(&'a [u8], Key), ScramError> {
        let mut attributes = Attributes::new(message);
        let binding = attributes.take(b'c')?;
        if binding != self.expected_binding.as_bytes() {
            return Err(self.mismatch.clone());
        }
        let nonce = attributes.take(b'r')?;
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        loop {
            let unsigned = attributes.passed();
            match attributes.any()? {
                (b'p', proof) if attributes.is_done() => {
                    let proof = parse_key(proof).ok_or(ScramError::Malformed(
                        "Malformed proof in client-final-message.",
                    ))?;
                    return Ok((unsigned, proof));
                }
                (b'p', _) => {
                    return Err(ScramError::Malformed(
                        "Garbage found at the end of client-final-message.",
                    ));
                }
                _ => {} // An optional extension; the proof covers it.
            }
        }
    }
}
