//! The keys of SCRAM-SHA-256: how they come from a password, and what each side keeps of them.
//!
//! ```text
//! password --PBKDF2(salt, iterations)--> SaltedPassword --HMAC--> ClientKey --SHA-256--> StoredKey
//!                                                       --HMAC--> ServerKey
//! ```
//!
//! A [`Verifier`] holds StoredKey and ServerKey: enough to check a login, not to make one.
//! [`ScramKeys`] hold ClientKey and ServerKey: enough for both, wherever the verifier was made from
//! the same salt and iterations. All of it is zeroed on drop.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::SecretError;

/// The most iterations that are accepted, of a server and of a verifier. Deriving keys with so many
/// takes a core some 0.12 s with SHA instructions, and about ten times that without.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// The iterations that a user who does not exist seems to have: PostgreSQL's default.
pub const MOCK_ITERATIONS: u32 = 4096;

/// The longest salt, in bytes. PostgreSQL's own have 16.
pub(super) const SALT_BYTES_MAX: usize = 1024;

const MECHANISM: &str = "SCRAM-SHA-256";

/// The output of SHA-256, zeroed on drop.
pub(super) type Key = Zeroizing<[u8; 32]>;

/// HMAC-SHA-256 of the parts, one after the other.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("BUG: HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

pub(super) fn sha256(bytes: &[u8]) -> Key {
    Zeroizing::new(Sha256::digest(bytes).into())
}

pub(super) fn xor(a: &[u8; 32], b: &[u8; 32]) -> Key {
    let mut out = Zeroizing::new(*a);
    for (out, b) in out.iter_mut().zip(b) {
        *out ^= b;
    }
    out
}

/// Derives the keys of a password: the expensive step of SCRAM, half a millisecond to some
/// milliseconds of a core for PostgreSQL's 4096 iterations. Run it where it cannot hold up other
/// sessions, and keep the keys: they serve again as long as the server sends the same salt and
/// iterations.
pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    let salted = pbkdf2(&prepare(password), salt, iterations);
    ScramKeys {
        client_key: hmac(&*salted, &[b"Client Key"]),
        server_key: hmac(&*salted, &[b"Server Key"]),
        salt: salt.into(),
        iterations,
    }
}

/// PBKDF2 with HMAC-SHA-256 and an output of one block (`Hi` of RFC 5802, section 2.2).
fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    // The state behind the key is computed once, which halves the work of an iteration.
    let keyed =
        Hmac::<Sha256>::new_from_slice(password).expect("BUG: HMAC takes a key of any length");
    let round = |parts: [&[u8]; 2]| -> Key {
        let mut mac = keyed.clone();
        for part in parts {
            mac.update(part);
        }
        Zeroizing::new(mac.finalize().into_bytes().into())
    };
    let mut last = round([salt, &[0, 0, 0, 1]]);
    let mut out = last.clone();
    for _ in 1..iterations {
        last = round([&*last, &[]]);
        for (out, last) in out.iter_mut().zip(last.iter()) {
            *out ^= last;
        }
    }
    out
}

/// SASLprep (RFC 4013) as PostgreSQL applies it: a password that is not UTF-8, has a prohibited
/// character, or has nothing left is used as it is.
fn prepare(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let prepared = std::str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok())
        .filter(|prepared| !prepared.is_empty());
    Zeroizing::new(match prepared {
        Some(prepared) => prepared.into_owned().into_bytes(),
        None => password.to_vec(),
    })
}

/// A salt that belongs to a user's name and always comes out the same.
///
/// A user who does not exist is challenged with it, so that asking twice shows no difference; a
/// user whose password is kept in the plain should get it too, for the same reason.
/// `process_secret` is random and must not be known outside.
pub fn mock_salt(process_secret: &[u8; 32], user: &str) -> [u8; 16] {
    let mac = hmac(process_secret, &[b"salt\0", user.as_bytes()]);
    *mac.first_chunk().expect("BUG: 32 bytes have 16 in front")
}

/// What a server keeps of a password, as in `pg_authid.rolpassword`. Zeroed on drop.
#[derive(Clone)]
pub struct Verifier {
    iterations: u32,
    salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// Whether a userlist's value claims to be a verifier.
    pub(super) fn is_meant(value: &str) -> bool {
        value.starts_with("SCRAM-SHA-256$")
    }

    /// Parses `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, salt and keys in base64
    /// (PostgreSQL's documentation, `pg_authid`).
    ///
    /// # Errors
    ///
    /// `Verifier` if it is anything else, has no salt, or has iterations outside of 1 to
    /// [`ITERATIONS_MAX`].
    pub fn parse(value: &str) -> Result<Verifier, SecretError> {
        Verifier::split(value).ok_or(SecretError::Verifier)
    }

    fn split(value: &str) -> Option<Verifier> {
        let value = value.strip_prefix(MECHANISM)?.strip_prefix('$')?;
        let (cost, keys) = value.split_once('$')?;
        let (iterations, salt) = cost.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Verifier {
            iterations: parse_iterations(iterations.as_bytes())?,
            salt: parse_salt(salt.as_bytes())?,
            stored_key: parse_key(stored_key.as_bytes())?,
            server_key: parse_key(server_key.as_bytes())?,
        })
    }

    /// A verifier for a user who does not exist: it looks like another and fits no password.
    pub fn mock(process_secret: &[u8; 32], user: &str) -> Verifier {
        Verifier {
            iterations: MOCK_ITERATIONS,
            salt: mock_salt(process_secret, user).into(),
            stored_key: hmac(process_secret, &[b"StoredKey\0", user.as_bytes()]),
            server_key: hmac(process_secret, &[b"ServerKey\0", user.as_bytes()]),
        }
    }

    /// The salt, in bytes.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iterations of PBKDF2.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// The verifier as [`Verifier::parse`] reads it.
    pub fn encode(&self) -> Zeroizing<String> {
        let [stored, server] = [&self.stored_key, &self.server_key]
            .map(|key| Zeroizing::new(STANDARD.encode(key.as_slice())));
        Zeroizing::new(format!(
            "{MECHANISM}${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            *stored,
            *server,
        ))
    }

    /// Whether the other is the same verifier, in constant time.
    pub(super) fn is_same(&self, other: &Verifier) -> bool {
        let public = self.iterations == other.iterations && self.salt == other.salt;
        let keys =
            self.stored_key.ct_eq(&*other.stored_key) & self.server_key.ct_eq(&*other.server_key);
        public && bool::from(keys)
    }

    /// Whether this is the verifier of a password. Derives its keys, which is expensive.
    pub(super) fn fits(&self, password: &[u8]) -> Choice {
        let keys = derive(password, &self.salt, self.iterations);
        self.is_of(&keys.client_key)
    }

    /// Whether a ClientKey is the one behind our StoredKey, in constant time.
    pub(super) fn is_of(&self, client_key: &Key) -> Choice {
        sha256(client_key.as_slice()).ct_eq(&*self.stored_key)
    }

    /// HMAC of an authentication message by StoredKey: with it a proof gives the ClientKey.
    pub(super) fn client_signature(&self, parts: &[&[u8]]) -> Key {
        hmac(&*self.stored_key, parts)
    }

    /// HMAC of an authentication message by ServerKey: what proves us to the client.
    pub(super) fn server_signature(&self, parts: &[&[u8]]) -> Key {
        hmac(&*self.server_key, parts)
    }

    /// The keys that a login has left, given the ClientKey that it proved.
    pub(super) fn keys(self, client_key: Key) -> ScramKeys {
        ScramKeys {
            client_key,
            server_key: self.server_key,
            salt: self.salt,
            iterations: self.iterations,
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// What a login with the right password leaves: enough to log in to a server without knowing it.
///
/// The keys belong to a salt and an iteration count. They open a server only if its own verifier
/// of the user has the same ones, in short if the same verifier is on both sides. Zeroed on drop.
#[derive(Clone)]
pub struct ScramKeys {
    client_key: Key,
    server_key: Key,
    salt: Box<[u8]>,
    iterations: u32,
}

impl ScramKeys {
    /// Whether these are the keys for a server that sends this salt and this iteration count.
    pub fn matches(&self, salt: &[u8], iterations: u32) -> bool {
        *self.salt == *salt && self.iterations == iterations
    }

    /// The verifier that checks logins with the same password.
    pub fn verifier(&self) -> Verifier {
        Verifier {
            iterations: self.iterations,
            salt: self.salt.clone(),
            stored_key: sha256(self.client_key.as_slice()),
            server_key: self.server_key.clone(),
        }
    }

    /// The proof for an authentication message.
    pub(super) fn proof(&self, parts: &[&[u8]]) -> Key {
        let stored_key = sha256(self.client_key.as_slice());
        xor(&self.client_key, &hmac(&*stored_key, parts))
    }

    /// What a server that knows the verifier answers to an authentication message.
    pub(super) fn server_signature(&self, parts: &[&[u8]]) -> Key {
        hmac(&*self.server_key, parts)
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// Parses an iteration count: digits, 1 to [`ITERATIONS_MAX`].
pub(super) fn parse_iterations(text: &[u8]) -> Option<u32> {
    // `parse` alone would let a sign through.
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let iterations = std::str::from_utf8(text).ok()?.parse().ok()?;
    (1..=ITERATIONS_MAX)
        .contains(&iterations)
        .then_some(iterations)
}

/// Parses a salt in base64: 1 to [`SALT_BYTES_MAX`] bytes.
pub(super) fn parse_salt(text: &[u8]) -> Option<Box<[u8]>> {
    // Four characters for three bytes: nothing longer is decoded.
    if text.len() > SALT_BYTES_MAX.div_ceil(3) * 4 {
        return None;
    }
    let salt = STANDARD.decode(text).ok()?;
    (1..=SALT_BYTES_MAX)
        .contains(&salt.len())
        .then(|| salt.into_boxed_slice())
}

/// Parses 32 bytes in base64: a key, a proof or a signature.
pub(super) fn parse_key(text: &[u8]) -> Option<Key> {
    const CHARS: usize = 44;
    if text.len() != CHARS {
        return None;
    }
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}
