//! SCRAM: the vector of RFC 7677, both sides in a loop, channel binding, and damage.

use super::*;
use ChannelBinding::Unavailable;
use Mechanism::{ScramSha256, ScramSha256Plus};

const NONCE: [u8; NONCE_BYTES] = [1; NONCE_BYTES];

fn bound(hash: &[u8]) -> ChannelBinding {
    ChannelBinding::TlsServerEndPoint(hash.to_vec())
}

/// RFC 7677, section 3.
#[test]
fn the_vector_of_the_rfc() {
    let client_nonce = "rOprNGfwEbeRWgbNEkqO";
    let server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let challenge = format!("r={client_nonce}{server_nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
    let last = format!(
        "c=biws,r={client_nonce}{server_nonce},\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );

    let client = ScramClient::build(ScramSha256, "n,,", b"", "user", client_nonce.to_owned());
    assert_eq!(client.message(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let first = client.message().to_vec();
    let client = client.server_first(challenge.as_bytes()).unwrap();
    let keys = derive(b"pencil", client.salt(), client.iterations());
    let client = client.client_final(&keys).unwrap();
    assert_eq!(client.message().escape_ascii().to_string(), last);

    let server = ScramServer::new(keys.verifier(), Unavailable);
    let server = server.challenge(ScramSha256, &first, server_nonce).unwrap();
    assert_eq!(server.message().escape_ascii().to_string(), challenge);
    let accepted = server.client_final(last.as_bytes()).unwrap();
    assert_eq!(
        accepted.message,
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
    let _proven = client.server_final(accepted.message.as_bytes()).unwrap();
}

/// One exchange; the client has these keys or derives them from this password.
fn exchange(
    client: ScramClient,
    server: ScramServer,
    keys: impl FnOnce(&ScramChallenge) -> ScramKeys,
    nonce: &[u8; NONCE_BYTES],
) -> Result<ScramKeys, ScramError> {
    let server = server.client_first(client.mechanism(), client.message(), nonce)?;
    let challenge = client.server_first(server.message())?;
    let keys = keys(&challenge);
    let client = challenge.client_final(&keys)?;
    let accepted = server.client_final(client.message())?;
    let _proven = client.server_final(accepted.message.as_bytes())?;
    Ok(accepted.keys)
}

fn plain_client(nonce: &[u8; NONCE_BYTES]) -> ScramClient {
    ScramClient::new(&["X", "SCRAM-SHA-256"], Unavailable, nonce).unwrap()
}

/// Who logs in to the pooler by SCRAM leaves keys that log the pooler in to a server that has the
/// same verifier, and to no other.
#[test]
fn both_sides_and_on_to_the_server_with_the_keys_alone() {
    let mut seeded = Seeded(1);
    for round in 0..200 {
        let password = format!("päss {}", seeded.next());
        let salt = &seeded.bytes::<24>()[..1 + seeded.below(24)];
        let iterations = 1 + seeded.below(30) as u32;
        let verifier = derive(password.as_bytes(), salt, iterations).verifier();
        let login = |password: &str, seeded: &mut Seeded| {
            let client = plain_client(&seeded.bytes());
            let server = ScramServer::new(verifier.clone(), Unavailable);
            let derived = |challenge: &ScramChallenge| {
                derive(
                    password.as_bytes(),
                    challenge.salt(),
                    challenge.iterations(),
                )
            };
            exchange(client, server, derived, &seeded.bytes())
        };
        assert_eq!(
            login("päss", &mut seeded).unwrap_err(),
            ScramError::WrongProof
        );
        let keys = login(&password, &mut seeded).unwrap();
        assert!(keys.matches(salt, iterations), "round {round}");

        let onward = |verifier: Verifier, seeded: &mut Seeded| {
            let server = ScramServer::new(verifier, Unavailable);
            let client = plain_client(&seeded.bytes());
            exchange(client, server, |_| keys.clone(), &seeded.bytes())
        };
        onward(verifier.clone(), &mut seeded).unwrap();
        for other in [
            derive(password.as_bytes(), salt, iterations + 1),
            derive(password.as_bytes(), b"another salt", iterations),
        ] {
            let error = onward(other.verifier(), &mut seeded).unwrap_err();
            assert_eq!(error, ScramError::ForeignKeys);
        }
        let changed = derive(b"changed", salt, iterations).verifier();
        let error = onward(changed, &mut seeded).unwrap_err();
        assert_eq!(error, ScramError::WrongProof);
    }
}

#[test]
fn t57_a_user_who_does_not_exist_goes_through_the_same_steps() {
    let mock = || ScramServer::mock(&PROCESS_SECRET, "ann", Unavailable);
    let first = plain_client(&NONCE).message().to_vec();
    let challenge = |server: ScramServer| {
        let server = server.client_first(ScramSha256, &first, &NONCE).unwrap();
        server.message().to_vec()
    };
    assert_eq!(
        challenge(mock()),
        challenge(mock()),
        "asking twice tells nothing"
    );
    let real = derive(b"x", &mock_salt(&PROCESS_SECRET, "ann"), MOCK_ITERATIONS).verifier();
    assert_eq!(
        challenge(mock()),
        challenge(ScramServer::new(real, Unavailable)),
        "nor does the challenge"
    );
    let derived =
        |challenge: &ScramChallenge| derive(b"x", challenge.salt(), challenge.iterations());
    let error = exchange(plain_client(&NONCE), mock(), derived, &NONCE).unwrap_err();
    assert_eq!(error, ScramError::WrongProof);
    assert_eq!(error.sqlstate(), "28P01");
}

/// Even if the mock verifier had a password, it would not open.
#[test]
fn t57_a_mock_fails_with_the_right_proof_too() {
    let server = |is_mock| {
        let mut server = ScramServer::new(verifier("x"), Unavailable);
        server.set_mock(is_mock);
        server
    };
    let derived =
        |challenge: &ScramChallenge| derive(b"x", challenge.salt(), challenge.iterations());
    exchange(plain_client(&NONCE), server(false), derived, &NONCE).unwrap();
    let error = exchange(plain_client(&NONCE), server(true), derived, &NONCE).unwrap_err();
    assert_eq!(error, ScramError::WrongProof);
}

#[test]
fn another_implementation_logs_in() {
    for (password, works) in [("secret", true), ("Secret", false)] {
        for (binding, server_binding, mechanism) in [
            (
                other::ChannelBinding::unsupported(),
                Unavailable,
                ScramSha256,
            ),
            (
                other::ChannelBinding::unrequested(),
                Unavailable,
                ScramSha256,
            ),
            (
                other::ChannelBinding::unsupported(),
                bound(b"h"),
                ScramSha256,
            ),
            (
                other::ChannelBinding::tls_server_end_point(b"h".to_vec()),
                bound(b"h"),
                ScramSha256Plus,
            ),
        ] {
            let mut client = other::ScramSha256::new(password.as_bytes(), binding);
            let server = ScramServer::new(verifier("secret"), server_binding);
            let server = server
                .client_first(mechanism, client.message(), &NONCE)
                .unwrap();
            client.update(server.message()).unwrap();
            match server.client_final(client.message()) {
                Ok(accepted) if works => client.finish(accepted.message.as_bytes()).unwrap(),
                Err(ScramError::WrongProof) if !works => {}
                other => panic!("{password}: {other:?}"),
            }
        }
    }
}

#[test]
fn channel_binding_is_agreed_on_or_the_login_fails() {
    let both = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
    let derived =
        |challenge: &ScramChallenge| derive(b"x", challenge.salt(), challenge.iterations());
    let login = |offered: &[&str], ours: ChannelBinding, theirs: ChannelBinding| {
        let client = ScramClient::new(offered, ours, &NONCE)?;
        let server = ScramServer::new(verifier("x"), theirs);
        exchange(client, server, derived, &NONCE).map(|_| ())
    };
    assert_eq!(login(&both, bound(b"h"), bound(b"h")), Ok(()));
    assert_eq!(login(&both, Unavailable, bound(b"h")), Ok(()));
    assert_eq!(login(&both[1..], Unavailable, Unavailable), Ok(()));
    assert_eq!(login(&both[1..], bound(b"h"), Unavailable), Ok(()));
    assert_eq!(
        login(&both, bound(b"h"), bound(b"g")),
        Err(ScramError::Binding),
        "another certificate"
    );
    assert_eq!(
        login(&both[1..], bound(b"h"), bound(b"h")),
        Err(ScramError::BindingDowngrade),
        "the offer was cut on its way"
    );
    assert_eq!(
        login(&both, bound(b"h"), Unavailable),
        Err(ScramError::Mechanism),
        "the offer was invented on its way"
    );
    for offered in [&[][..], &["X"], &both[..1]] {
        let error = login(offered, Unavailable, Unavailable).unwrap_err();
        assert_eq!(error, ScramError::NoCommonMechanism);
    }
}

/// Faults A16: what a client can send as its first message.
#[test]
fn first_messages_of_all_kinds() {
    use ScramError::{AuthorizationIdentity, BindingDowngrade, BindingType, Extension, Limit};

    let answer = |mechanism, binding, message: &[u8]| {
        ScramServer::new(verifier("x"), binding)
            .client_first(mechanism, message, &NONCE)
            .map(|server| server.message().to_vec())
    };
    for message in [
        &b"n,,n=,r=abc"[..],
        b"y,,n=,r=abc",
        b"n,,n=*,r=abc",
        b"n,,n=somebody else,r=abc",
        b"n,,n=\xff\xfe,r=abc",
        b"n,,n=,r=abc,x=1,Y=",
    ] {
        let challenge = answer(ScramSha256, Unavailable, message).unwrap();
        assert!(challenge.starts_with(b"r=abcAQEBAQEBAQEBAQEBAQEBAQEB,s="));
    }
    for (message, error) in [
        (&b"n,a=root,n=,r=abc"[..], AuthorizationIdentity),
        (b"n,,m=1,n=,r=abc", Extension),
        (b"n,,n=,m=1,r=abc", Extension),
    ] {
        assert_eq!(answer(ScramSha256, Unavailable, message), Err(error));
    }
    for message in [
        &b""[..],
        b"n",
        b"n,",
        b"n,,",
        b"n,,n=",
        b"n,,n=,",
        b"n,,n=,r=",
        b"n,,n=,r=a b",
        b"n,,n=,r=a\0b",
        b"n,,n=,r=\xc3\xa4",
        b"n,,n=,r=abc,",
        b"n,,n=,r=abc,1=2",
        b"n,,n=,r=abc,x",
        b"n,,r=abc,n=",
        b"n,x,n=,r=abc",
        b"x,,n=,r=abc",
        b"nn,,n=,r=abc",
        b"p,,n=,r=abc",
        b"p=tls-server-end-point,,n=,r=abc",
    ] {
        let error = answer(ScramSha256, Unavailable, message).unwrap_err();
        assert!(matches!(error, ScramError::Malformed(_)), "{error:?}");
        assert_eq!(error.sqlstate(), "08P01");
        assert!(error.detail().is_some());
    }
    let long = [b"n,,n=,r=", [b'x'; 1024].as_slice()].concat();
    assert_eq!(answer(ScramSha256, Unavailable, &long), Err(Limit("nonce")));

    let plus = |message| answer(ScramSha256Plus, bound(b"h"), message);
    assert!(plus(b"p=tls-server-end-point,,n=,r=abc").is_ok());
    assert_eq!(plus(b"p=tls-unique,,n=,r=abc"), Err(BindingType));
    assert!(matches!(
        plus(b"n,,n=,r=abc"),
        Err(ScramError::Malformed(_))
    ));
    assert!(matches!(
        plus(b"y,,n=,r=abc"),
        Err(ScramError::Malformed(_))
    ));
    assert_eq!(
        answer(ScramSha256, bound(b"h"), b"y,,n=,r=abc"),
        Err(BindingDowngrade)
    );
}

/// Faults S16 to S20: a server's challenge costs nothing until all of it is within bounds.
#[test]
fn t55_a_challenge_is_bounded() {
    use ScramError::{Extension, Limit, Nonce};

    let answer = |challenge: String| {
        plain_client(&NONCE)
            .server_first(challenge.as_bytes())
            .map(|challenge| challenge.iterations())
    };
    let ours = "AQEB".repeat(6);
    let long = "x".repeat(1024 - ours.len());
    let salt = |bytes: usize| "AAAA".repeat(bytes / 3) + ["", "AA==", "AAA="][bytes % 3];
    assert_eq!(answer(format!("r={ours}x,s=AAAA,i=1")), Ok(1));
    assert_eq!(
        answer(format!("r={ours}{long},s={},i=1000000", salt(1024))),
        Ok(1_000_000)
    );
    assert_eq!(answer(format!("r={ours}x,s=AAAA,i=1,x=ignored")), Ok(1));
    for (challenge, error) in [
        (format!("r={ours}{long}x,s=AAAA,i=1"), Limit("nonce")),
        (
            format!("r={ours}{},s=AAAA,i=1", "x".repeat(200_000)),
            Limit("message"),
        ),
        (format!("r={ours}x,s={},i=1", salt(1025)), Limit("salt")),
        (format!("r={ours}x,s={},i=1", salt(2000)), Limit("salt")),
        (
            format!("r={ours}x,s=AAAA,i=1000001"),
            Limit("iteration count"),
        ),
        (
            format!("r={ours}x,s=AAAA,i=99999999999999999999"),
            Limit("iteration count"),
        ),
        (format!("r={ours},s=AAAA,i=1"), Nonce),
        (format!("r=x{ours},s=AAAA,i=1"), Nonce),
        (format!("r={}x,s=AAAA,i=1", ours.to_lowercase()), Nonce),
        (format!("m=1,r={ours}x,s=AAAA,i=1"), Extension),
        (
            "e=go away".into(),
            ScramError::ServerError("go away".into()),
        ),
    ] {
        assert_eq!(answer(challenge.clone()), Err(error), "{challenge:.200}");
    }
    for challenge in [
        "",
        "r=",
        "r=NONCE",
        "r=NONCEx",
        "r=NONCEx,s=AAAA",
        "r=NONCEx,s=AAAA,i=",
        "r=NONCEx,s=AAAA,i=0",
        "r=NONCEx,s=AAAA,i=000",
        "r=NONCEx,s=AAAA,i=-1",
        "r=NONCEx,s=AAAA,i=+1",
        "r=NONCEx,s=AAAA,i=1x",
        "r=NONCEx,s=,i=1",
        "r=NONCEx,s=A,i=1",
        "r=NONCEx,s=!!!!,i=1",
        "r=NONCEx,s=AAAA,i=1,",
        "r=NONCEx y,s=AAAA,i=1",
        "s=AAAA,r=NONCEx,i=1",
    ] {
        let error = answer(challenge.replace("NONCE", &ours)).unwrap_err();
        assert!(
            matches!(error, ScramError::Malformed(_)),
            "{challenge}: {error:?}"
        );
    }
}

/// Fault S21: a server that does not know the verifier is refused, whatever it says.
#[test]
fn the_server_must_prove_itself() {
    let ready = || {
        let client = plain_client(&NONCE);
        let server = ScramServer::new(verifier("x"), Unavailable);
        let server = server
            .client_first(ScramSha256, client.message(), &NONCE)
            .unwrap();
        let challenge = client.server_first(server.message()).unwrap();
        let keys = derive(b"x", challenge.salt(), challenge.iterations());
        let client = challenge.client_final(&keys).unwrap();
        let accepted = server.client_final(client.message()).unwrap();
        (client, accepted.message)
    };
    let (client, right) = ready();
    let _proven = client.server_final(right.as_bytes()).unwrap();
    let wrong = format!("v={}=", "A".repeat(43));
    let error = ready().0.server_final(wrong.as_bytes()).unwrap_err();
    assert_eq!(error, ScramError::ServerSignature);
    let huge = format!("v={}", "A".repeat(1_000_000));
    let error = ready().0.server_final(huge.as_bytes()).unwrap_err();
    assert_eq!(error, ScramError::Limit("message"));
    let rude = format!("e={}", "\n".repeat(4000));
    let Err(ScramError::ServerError(words)) = ready().0.server_final(rude.as_bytes()) else {
        panic!("e= was taken for success");
    };
    assert_eq!(words, "\\n".repeat(100));
    for message in ["", "v=", "v=AAAA", "x=1", "v"] {
        let error = ready().0.server_final(message.as_bytes()).unwrap_err();
        assert!(matches!(error, ScramError::Malformed(_)), "{message}");
    }
}

fn challenged(first: &[u8]) -> ScramServerFinal {
    ScramServer::new(verifier("x"), Unavailable)
        .client_first(ScramSha256, first, &NONCE)
        .unwrap()
}

#[test]
fn last_messages_of_all_kinds() {
    let first = b"n,,n=,r=abc";
    let nonce = "abcAQEBAQEBAQEBAQEBAQEBAQEB";
    let proof = format!("{}=", "A".repeat(43));
    let answer = |message: String| {
        challenged(first)
            .client_final(message.as_bytes())
            .unwrap_err()
    };
    use ScramError::{BindingAttribute, Nonce, WrongProof};
    for (message, error) in [
        (format!("c=biws,r={nonce},p={proof}"), WrongProof),
        (format!("c=biws,r={nonce},x=1,p={proof}"), WrongProof),
        (format!("c=eSws,r={nonce},p={proof}"), BindingAttribute),
        (format!("c=,r={nonce},p={proof}"), BindingAttribute),
        (format!("c=biws,r={nonce}x,p={proof}"), Nonce),
        (format!("c=biws,r=abc,p={proof}"), Nonce),
        (format!("c=biws,r=,p={proof}"), Nonce),
        (
            format!("m=x,c=biws,r={nonce},p={proof}"),
            ScramError::Extension,
        ),
    ] {
        assert_eq!(answer(message.clone()), error, "{message}");
    }
    for message in [
        String::new(),
        "c=biws".into(),
        format!("c=biws,r={nonce}"),
        format!("c=biws,r={nonce},"),
        format!("c=biws,r={nonce},p="),
        format!("c=biws,r={nonce},p={proof},"),
        format!("c=biws,r={nonce},p={proof},x=1"),
        format!("c=biws,r={nonce},p={proof}A"),
        format!("c=biws,r={nonce},p={}", &proof[1..]),
        format!("c=biws,r={nonce},p={}", proof.replace('=', "A")),
        format!("r={nonce},c=biws,p={proof}"),
    ] {
        let error = answer(message.clone());
        assert!(
            matches!(error, ScramError::Malformed(_)),
            "{message}: {error:?}"
        );
    }
}

/// Any message of either side, cut or changed anywhere, ends in an error: nothing panics, and
/// nothing but the right proof of the right exchange is accepted.
#[test]
fn damage_anywhere_ends_in_an_error() {
    let mut seeded = Seeded(2);
    let keys = derive(b"x", b"0123456789abcdef", 2);
    for round in 0..20_000 {
        let nonce = seeded.bytes();
        let client = plain_client(&seeded.bytes());
        let server = ScramServer::new(keys.verifier(), Unavailable);
        let damaged_message = seeded.below(4);
        let mut damage = |index: usize, message: &[u8]| {
            if index == damaged_message {
                seeded.damage(message)
            } else {
                message.to_vec()
            }
        };
        // The right keys all along: only the messages are wrong.
        let outcome = (|| {
            let first = damage(0, client.message());
            let server = server.client_first(ScramSha256, &first, &nonce)?;
            let challenge = client.server_first(&damage(1, server.message()))?;
            let client = challenge.client_final(&keys)?;
            let accepted = server.client_final(&damage(2, client.message()))?;
            let last = damage(3, accepted.message.as_bytes());
            client.server_final(&last).map(|_| (first, last))
        })();
        assert!(outcome.is_err(), "round {round}: {outcome:?}");
    }
}
