//! Both sides of a login against a peer that knows nothing: it is never let in, and never believed.

use std::sync::OnceLock;

use bytes::BytesMut;
use pooler_protocol::auth::{
    self, AuthRequest, ChannelBinding, Mechanism, NONCE_BYTES, SASL_BYTES_MAX, ScramChallenge,
    ScramClient, ScramKeys, ScramServer, Secret, Verifier,
};

use super::{take, take_part};

const SALT: [u8; 16] = *b"salt of the test";
/// Few, because each costs the same time as a thousand other inputs.
const ITERATIONS: u32 = 2;
const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

fn keys() -> &'static ScramKeys {
    static KEYS: OnceLock<ScramKeys> = OnceLock::new();
    KEYS.get_or_init(|| auth::derive(b"a password that is not in any input", &SALT, ITERATIONS))
}

fn binding(byte: u8) -> ChannelBinding {
    match byte % 2 {
        0 => ChannelBinding::Unavailable,
        _ => ChannelBinding::TlsServerEndPoint(vec![1, 2, 3]),
    }
}

/// See the module.
pub fn run(mut data: &[u8]) {
    match take(&mut data) % 5 {
        0 => client_messages(data),
        1 => server(data),
        2 => server_messages(data),
        3 => client(data),
        _ => secrets(data),
    }
}

fn client_messages(data: &[u8]) {
    for limit in [SASL_BYTES_MAX, auth::PASSWORD_BYTES_MAX] {
        if let Ok(Some((body, used))) = auth::next_message(data, limit) {
            assert!(used <= data.len() && body.len() <= limit);
            assert_eq!(body.len() + 5, used);
        }
    }
    if let Ok(password) = auth::parse_password(data) {
        assert!(!password.is_empty() && !password.contains(&0));
        let mut out = BytesMut::new();
        auth::encode_password_message(password, &mut out).expect("no NUL inside");
        assert_eq!(&out[5..], data);
    }
    if let Ok(first) = auth::parse_sasl_initial_response(data) {
        let mut out = BytesMut::new();
        auth::encode_sasl_initial_response(first.mechanism, first.data, &mut out);
        assert_eq!(&out[5..], data);
    }
    if let Ok(body) = auth::parse_sasl_response(data) {
        assert!(body.len() <= SASL_BYTES_MAX);
    }
}

/// The pooler is the server.
fn server(mut data: &[u8]) {
    let shape = take(&mut data);
    let server = if shape & 1 == 0 {
        ScramServer::new(keys().verifier(), binding(shape >> 1))
    } else {
        ScramServer::mock(&[9; 32], "nobody", binding(shape >> 1))
    };
    let plus = shape & 4 != 0;
    let mechanism = if plus {
        Mechanism::ScramSha256Plus
    } else {
        Mechanism::ScramSha256
    };
    let part = take_part(&mut data);
    // Half of them are well formed as far as they can be, to get further in.
    let header: &[u8] = if plus {
        b"p=tls-server-end-point,,"
    } else {
        b"n,,"
    };
    let first = match shape & 8 {
        0 => part.to_vec(),
        _ => [header, b"n=,r=", part].concat(),
    };
    let Ok(challenged) = server.client_first(mechanism, &first, &NONCE) else {
        return;
    };
    let challenge = challenged.message().to_vec();
    let rest = match shape & 16 {
        0 => data.to_vec(),
        _ => {
            let nonce = challenge.split(|b| *b == b',').next().unwrap_or_default();
            // base64 of "n,,"
            [b"c=biws,", nonce, b",p=", data].concat()
        }
    };
    assert!(
        challenged.client_final(&rest).is_err(),
        "nobody knows the password"
    );
}

fn server_messages(data: &[u8]) {
    if let Ok(AuthRequest::Sasl { mechanisms }) = auth::parse_request(data) {
        assert!(mechanisms.len() <= 32);
    }
}

/// The pooler is the client.
fn client(mut data: &[u8]) {
    let shape = take(&mut data);
    let offered: &[&str] = match shape & 3 {
        0 => &["SCRAM-SHA-256"],
        1 => &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"],
        2 => &["SCRAM-SHA-256-PLUS"],
        _ => &[],
    };
    let Ok(client) = ScramClient::new(offered, binding(shape >> 2), &NONCE) else {
        return;
    };
    let ours = client.message().to_vec();
    let part = take_part(&mut data);
    let first = match shape & 8 {
        0 => part.to_vec(),
        _ => {
            let at = ours.windows(2).position(|w| w == b"r=").unwrap_or_default();
            // The salt of the keys that we have, in base64.
            [&ours[at..], part, b",s=c2FsdCBvZiB0aGUgdGVzdA==,i=2"].concat()
        }
    };
    let Ok(challenge) = client.server_first(&first) else {
        return;
    };
    check_challenge(&challenge);
    let Ok(answered) = challenge.client_final(keys()) else {
        return;
    };
    let last = match shape & 16 {
        0 => data.to_vec(),
        _ => [b"v=", data].concat(),
    };
    assert!(
        answered.server_final(&last).is_err(),
        "no input has the verifier"
    );
}

fn check_challenge(challenge: &ScramChallenge) {
    assert!((1..=auth::ITERATIONS_MAX).contains(&challenge.iterations()));
    assert!(!challenge.salt().is_empty());
}

fn secrets(mut data: &[u8]) {
    let part = take_part(&mut data);
    if let Ok(text) = std::str::from_utf8(part) {
        if let Ok(verifier) = Verifier::parse(text) {
            let again = Verifier::parse(&verifier.encode()).expect("what we wrote");
            assert_eq!(again.encode(), verifier.encode());
        }
        if let Ok(secret @ Secret::Plain(_)) = Secret::parse(text) {
            let other = Secret::parse("another").expect("not empty");
            assert_eq!(format!("{secret:?}"), format!("{other:?}"), "it shows");
        }
    }
    let known = Secret::parse("a password that is not in any input").expect("not empty");
    assert!(!known.check_md5("user", [1, 2, 3, 4], data));
    assert!(!known.check_password("user", data));
}
