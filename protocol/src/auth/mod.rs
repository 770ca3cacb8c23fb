//! Who a peer is: passwords, md5 and SCRAM-SHA-256, on both sides, and the messages around them.
//!
//! The pooler is the server of its clients and the client of its servers, so each method is here
//! twice. Nothing here draws a random number, keeps the time or looks a user up: nonces and salts
//! come in as arguments, and what is known of a user comes in as a [`Secret`].
//!
//! Invariants: whoever does not know the password, or keys that a login with it left behind, gets
//! no success out of this module; what depends on a secret is compared in constant time; a secret
//! is zeroed when it is dropped and `Debug` does not show it.
//!
//! PostgreSQL's documentation: "Message Flow / Start-up" and "SASL Authentication". SCRAM is
//! RFC 5802 with the hash of RFC 7677.

mod keys;
mod messages;
mod request;
mod scram;
mod scram_client;
mod scram_server;
mod secret;

pub use keys::{ITERATIONS_MAX, MOCK_ITERATIONS, ScramKeys, Verifier, derive, mock_salt};
pub use messages::{
    MessageError, PASSWORD_BYTES_MAX, SASL_BYTES_MAX, SaslInitialResponse,
    encode_authentication_ok, encode_cleartext_password, encode_md5_password, encode_sasl,
    encode_sasl_continue, encode_sasl_final, next_message, parse_password,
    parse_sasl_initial_response, parse_sasl_response,
};
pub use request::{
    AuthRequest, encode_password_message, encode_sasl_initial_response, encode_sasl_response,
    parse_request,
};
pub use scram::{ChannelBinding, Mechanism, NONCE_BYTES, ScramError};
pub use scram_client::{ScramChallenge, ScramClient, ScramClientFinal, ServerProven};
pub use scram_server::{ScramAccepted, ScramServer, ScramServerFinal};
pub use secret::{Md5Hash, Password, Secret, SecretError};

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
