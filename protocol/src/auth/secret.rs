//! What is known of a user, and the two methods that check it without SCRAM: a password in the
//! clear and salted md5.
//!
//! Invariant: an empty password opens nothing, whatever is kept for the user.

use super::Verifier;
use super::keys::{derive, hmac, sha256};
use postgres_protocol::password::md5;
use std::fmt;
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

/// What is known of a user, in the forms that `pg_authid.rolpassword` and a userlist have.
#[derive(Debug, Clone)]
pub enum Secret {
    /// The password. It serves every method, on both sides.
    Plain(Password),
    /// The md5 of password and user name. It serves md5 on both sides, and checks a password.
    Md5(Md5Hash),
    /// A SCRAM verifier. It checks SCRAM and a password; nobody can log in with it alone.
    Scram(Verifier),
}

/// Why a value is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The value is empty: the user has no password, and none opens the account.
    #[error("the password is empty")]
    Empty,
    /// It begins like a SCRAM verifier and is none. Taken for a password it would lock the user
    /// out, or worse, let in who has read the file.
    #[error("malformed SCRAM-SHA-256 verifier")]
    Verifier,
}

impl Secret {
    /// Parses what a userlist or `pg_shadow.passwd` has for a user. Like PostgreSQL it takes
    /// `md5` and 32 lower-case hexadecimal digits for a hash, and anything of no other form for
    /// the password.
    ///
    /// # Errors
    ///
    /// `Empty` and `Verifier`; the value itself is in neither.
    pub fn parse(value: &str) -> Result<Secret, SecretError> {
        if value.is_empty() {
            Err(SecretError::Empty)
        } else if Verifier::is_meant(value) {
            Verifier::parse(value).map(Secret::Scram)
        } else if let Some(hash) = Md5Hash::parse(value) {
            Ok(Secret::Md5(hash))
        } else {
            Ok(Secret::Plain(Password::new(value)))
        }
    }

    /// A password that nobody has: for a user who does not exist, where users have plain or md5
    /// secrets, so that both take the same time. Where they have verifiers, take
    /// [`Verifier::mock`].
    pub fn mock(process_secret: &[u8; 32], user: &str) -> Secret {
        let mac = hmac(process_secret, &[b"password\0", user.as_bytes()]);
        Secret::Plain(Password(Zeroizing::new(mac.as_slice().into())))
    }

    /// Checks a password that came in the clear.
    ///
    /// For a verifier this derives keys: expensive, see [`derive()`].
    pub fn check_password(&self, user: &str, password: &[u8]) -> bool {
        let fits = match self {
            // Hashed, so that the time does not tell how long the password is.
            Secret::Plain(known) => sha256(known.as_bytes()).ct_eq(&*sha256(password)),
            Secret::Md5(known) => known.0.ct_eq(&*Md5Hash::of(user, password).0),
            Secret::Scram(verifier) => verifier.fits(password),
        };
        (fits & !Choice::from(u8::from(password.is_empty()))).into()
    }

    /// Checks the answer to AuthenticationMD5Password. With a verifier no answer is right.
    pub fn check_md5(&self, user: &str, salt: [u8; 4], response: &[u8]) -> bool {
        // A verifier costs the same, so that its users are not told apart by the time.
        let (hash, usable) = match self.md5_hash(user) {
            Some(hash) => (hash, true),
            None => (Md5Hash(Zeroizing::new([0; 32])), false),
        };
        let expected = hash.salted(salt);
        (expected.as_bytes().ct_eq(response) & Choice::from(u8::from(usable))).into()
    }

    /// The answer to a server's AuthenticationMD5Password; `None` with a verifier.
    pub fn md5_response(&self, user: &str, salt: [u8; 4]) -> Option<Zeroizing<String>> {
        Some(self.md5_hash(user)?.salted(salt))
    }

    /// The verifier to check SCRAM logins with: made from a plain password with this salt and
    /// iteration count (expensive, see [`derive()`]; keep the result), or the one that is known.
    /// `None` with an md5 hash.
    pub fn verifier(&self, salt: &[u8], iterations: u32) -> Option<Verifier> {
        match self {
            Secret::Plain(password) => {
                Some(derive(password.as_bytes(), salt, iterations).verifier())
            }
            Secret::Md5(_) => None,
            Secret::Scram(verifier) => Some(verifier.clone()),
        }
    }

    /// Whether both are of one kind and have one value, in a time that does not tell how much of it.
    pub fn is_same(&self, other: &Secret) -> bool {
        match (self, other) {
            (Secret::Plain(a), Secret::Plain(b)) => a.as_bytes().ct_eq(b.as_bytes()).into(),
            (Secret::Md5(a), Secret::Md5(b)) => a.0.ct_eq(&*b.0).into(),
            (Secret::Scram(a), Secret::Scram(b)) => a.is_same(b),
            _ => false,
        }
    }

    fn md5_hash(&self, user: &str) -> Option<Md5Hash> {
        match self {
            Secret::Plain(password) => Some(Md5Hash::of(user, password.as_bytes())),
            Secret::Md5(hash) => Some(hash.clone()),
            Secret::Scram(_) => None,
        }
    }
}

/// A password. Zeroed on drop.
#[derive(Clone)]
pub struct Password(Zeroizing<Box<[u8]>>);

impl Password {
    /// Keeps a copy of a password.
    pub fn new(password: &str) -> Password {
        Password(Zeroizing::new(password.as_bytes().into()))
    }

    /// The password, for [`derive()`] and for a server that wants it in the clear.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// The md5 of a password and the user's name, in hexadecimal. As good as the password for whoever
/// logs in by md5. Zeroed on drop.
#[derive(Clone)]
pub struct Md5Hash(Zeroizing<[u8; 32]>);

impl Md5Hash {
    fn parse(value: &str) -> Option<Md5Hash> {
        let digits: [u8; 32] = value.strip_prefix("md5")?.as_bytes().try_into().ok()?;
        digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            .then(|| Md5Hash(Zeroizing::new(digits)))
    }

    /// The hash that PostgreSQL keeps for a user with this password.
    fn of(user: &str, password: &[u8]) -> Md5Hash {
        let hash = Zeroizing::new(md5(password, user));
        Md5Hash::parse(&hash).expect("BUG: md5 gave no hash")
    }

    /// The hash of this hash and the salt, as it is sent ("md5" in front).
    fn salted(&self, salt: [u8; 4]) -> Zeroizing<String> {
        let mut input = Zeroizing::new([0u8; 36]);
        input[..32].copy_from_slice(&*self.0);
        input[32..].copy_from_slice(&salt);
        Zeroizing::new(md5(&*input, ""))
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(..)")
    }
}
