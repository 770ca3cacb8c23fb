//! Both sides of every method against each other, against a published vector, against another
//! implementation, and against peers that lie.

use super::scram_server::ScramServerFinal;
use super::*;
use postgres_protocol::authentication::sasl as other;

mod scram;
mod wire;

const PROCESS_SECRET: [u8; 32] = [7; 32];

/// A small generator of reproducible numbers (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    /// A copy that is cut, has a byte changed, or has one put in; never the same.
    fn damage(&mut self, message: &[u8]) -> Vec<u8> {
        let mut damaged = message.to_vec();
        let at = self.below(message.len());
        match self.below(3) {
            0 => damaged.truncate(at),
            1 => damaged[at] ^= 1 + self.below(255) as u8,
            _ => damaged.insert(at, b"=,\0a\xff"[self.below(5)]),
        }
        // Inserting a byte equal to its neighbour changes the message all the same: it is longer.
        assert_ne!(damaged, message);
        damaged
    }
}

fn plain(password: &str) -> Secret {
    Secret::Plain(Password::new(password))
}

fn verifier(password: &str) -> Verifier {
    derive(password.as_bytes(), b"0123456789abcdef", 16).verifier()
}

#[test]
fn a_userlist_value_is_one_of_three() {
    let md5 = "md5c3d9d7b1a3a1d0b1c2d3e4f5a6b7c8d9";
    assert!(matches!(Secret::parse(md5), Ok(Secret::Md5(_))));
    for password in [
        "x",
        "md5",
        "md5 is my password",
        &md5.to_uppercase(),
        &md5[..34],
    ] {
        match Secret::parse(password) {
            Ok(Secret::Plain(plain)) => assert_eq!(plain.as_bytes(), password.as_bytes()),
            other => panic!("{password}: {other:?}"),
        }
    }
    assert_eq!(Secret::parse("").unwrap_err(), SecretError::Empty);
    let verifier = verifier("secret").encode();
    match Secret::parse(&verifier) {
        Ok(Secret::Scram(parsed)) => assert_eq!(parsed.encode(), verifier),
        other => panic!("{other:?}"),
    }
}

/// A verifier with a slip in it must not become a password that anybody can read in the file.
#[test]
fn a_broken_verifier_is_not_a_password() {
    let good = verifier("secret").encode();
    let key = good.rsplit(':').next().unwrap();
    for broken in [
        "SCRAM-SHA-256$".to_owned(),
        good.replace("$16:", "$0:"),
        good.replace("$16:", "$+16:"),
        good.replace("$16:", "$1000001:"),
        good.replace("$16:", "$:"),
        good.replace("MDEy", "!!!!"),
        good.replace(key, ""),
        good.replace(key, &key[4..]),
        format!("{}x", *good),
        good[..good.len() - 1].to_owned(),
    ] {
        assert_eq!(
            Secret::parse(&broken).unwrap_err(),
            SecretError::Verifier,
            "{broken}"
        );
    }
}

#[test]
fn t63_debug_shows_no_secret() {
    let password = "hunter2hunter2";
    let keys = derive(password.as_bytes(), b"salt", 2);
    let md5 = Secret::Md5(match Secret::parse(&format!("md5{}", "ab".repeat(16))) {
        Ok(Secret::Md5(hash)) => hash,
        other => panic!("{other:?}"),
    });
    let shown = format!(
        "{:?} {md5:?} {keys:?} {:?} {:?}",
        plain(password),
        Secret::Scram(keys.verifier()),
        ScramServer::new(keys.verifier(), ChannelBinding::Unavailable),
    );
    assert!(!shown.contains("hunter") && !shown.contains("abab"));
    assert!(!shown.contains('['), "no array of bytes: {shown}");
}

/// Another implementation's verifier, hash and client are ours too.
#[test]
fn verifier_and_hash_of_another_implementation() {
    for password in ["secret", "pässwörd", "\u{1680}a\u{ad}b", "a\u{7}b"] {
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let secret = Secret::parse(&verifier).unwrap();
        assert!(
            secret.check_password("u", password.as_bytes()),
            "{password:?}"
        );
        assert!(!secret.check_password("u", b"other"));
        let hash = postgres_protocol::password::md5(password.as_bytes(), "u");
        let secret = Secret::parse(&hash).unwrap();
        assert!(secret.check_password("u", password.as_bytes()));
        assert!(!secret.check_password("v", password.as_bytes()));
    }
}

#[test]
fn saslprep_makes_spellings_of_one_password_equal() {
    let known = Secret::Scram(verifier("I\u{e9}X a"));
    assert!(known.check_password("u", "I\u{ad}e\u{301}X\u{a0}a".as_bytes()));
    assert!(!known.check_password("u", "i\u{e9}X a".as_bytes()));
    let raw = Secret::Scram(derive(b"\xff\xfe", b"salt", 2).verifier());
    assert!(raw.check_password("u", b"\xff\xfe"), "not UTF-8: as it is");
    assert!(!raw.check_password("u", b"\xff"));
    // Nothing would be left of a soft hyphen, and an empty password must not fit it.
    let soft = Secret::Scram(verifier("\u{ad}"));
    assert!(soft.check_password("u", "\u{ad}".as_bytes()));
    assert!(!soft.check_password("u", "\u{ad}\u{ad}".as_bytes()));
}

#[test]
fn md5_on_both_sides() {
    let salt = [0x2a, 0x3d, 0x8f, 0xe0];
    let secret = plain("password");
    let response = secret.md5_response("md5_user", salt).unwrap();
    assert_eq!(*response, "md562af4dd09bbb41884907a838a3233294");
    let hash = Secret::parse(&postgres_protocol::password::md5(b"password", "md5_user")).unwrap();
    assert_eq!(hash.md5_response("md5_user", salt).unwrap(), response);
    for secret in [&secret, &hash] {
        assert!(secret.check_md5("md5_user", salt, response.as_bytes()));
        assert!(!secret.check_md5("md5_user", [0; 4], response.as_bytes()));
        assert!(!secret.check_md5("md5_user", salt, &response.as_bytes()[..34]));
        assert!(!secret.check_md5("md5_user", salt, b""));
        for at in 0..response.len() {
            let mut flipped = response.as_bytes().to_vec();
            flipped[at] ^= 1;
            assert!(!secret.check_md5("md5_user", salt, &flipped));
        }
    }
    let verifier = Secret::Scram(verifier("password"));
    assert!(verifier.md5_response("md5_user", salt).is_none());
    assert!(!verifier.check_md5("md5_user", salt, response.as_bytes()));
    // What a verifier is compared with must not be an answer that somebody can compute.
    let zeros = postgres_protocol::password::md5(&[&[0; 32][..], &salt].concat(), "");
    assert!(!verifier.check_md5("md5_user", salt, zeros.as_bytes()));
}

#[test]
fn an_empty_password_opens_nothing() {
    let empty_hash = postgres_protocol::password::md5(b"", "u");
    for secret in [
        plain(""),
        plain("x"),
        Secret::parse(&empty_hash).unwrap(),
        Secret::Scram(derive(b"", b"salt", 2).verifier()),
    ] {
        assert!(!secret.check_password("u", b""), "{secret:?}");
    }
}

#[test]
fn t57_a_user_who_does_not_exist_has_a_password_that_nobody_has() {
    let mock = Secret::mock(&PROCESS_SECRET, "ann");
    for password in [&b""[..], b"ann", &PROCESS_SECRET, &[0; 32]] {
        assert!(!mock.check_password("ann", password));
    }
    assert_ne!(
        Secret::mock(&PROCESS_SECRET, "ann").md5_response("x", [0; 4]),
        Secret::mock(&PROCESS_SECRET, "bob").md5_response("x", [0; 4])
    );
    assert_eq!(
        mock_salt(&PROCESS_SECRET, "ann"),
        mock_salt(&PROCESS_SECRET, "ann")
    );
    assert_ne!(
        mock_salt(&PROCESS_SECRET, "ann"),
        mock_salt(&PROCESS_SECRET, "bob")
    );
    assert_ne!(
        mock_salt(&PROCESS_SECRET, "ann"),
        mock_salt(&[8; 32], "ann")
    );
    let verifier = Verifier::mock(&PROCESS_SECRET, "ann");
    assert_eq!(verifier.iterations(), MOCK_ITERATIONS);
    assert_eq!(verifier.salt(), mock_salt(&PROCESS_SECRET, "ann"));
}
