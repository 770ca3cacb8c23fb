//! The messages: lengths that lie, missing NULs, unknown codes, and every writer against its
//! parser.

use super::*;
use bytes::BytesMut;

fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    write(&mut out);
    assert_eq!(
        u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize,
        out.len() - 1
    );
    out
}

#[test]
fn what_clients_are_asked() {
    use Mechanism::{ScramSha256, ScramSha256Plus};

    for (message, request) in [
        (written(encode_authentication_ok), AuthRequest::Ok),
        (
            written(encode_cleartext_password),
            AuthRequest::CleartextPassword,
        ),
        (
            written(|out| encode_md5_password([1, 2, 3, 4], out)),
            AuthRequest::Md5Password { salt: [1, 2, 3, 4] },
        ),
        (
            written(|out| encode_sasl(&[ScramSha256Plus, ScramSha256], out)),
            AuthRequest::Sasl {
                mechanisms: vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"],
            },
        ),
        (
            written(|out| encode_sasl_continue(b"r=x", out)),
            AuthRequest::SaslContinue(b"r=x"),
        ),
        (
            written(|out| encode_sasl_final(b"v=x", out)),
            AuthRequest::SaslFinal(b"v=x"),
        ),
    ] {
        assert_eq!(message[0], b'R');
        assert_eq!(parse_request(&message[5..]), Ok(request));
    }
}

/// Faults S11 to S15: an Authentication message that is cut, too long, or unknown.
#[test]
fn requests_that_lie() {
    for (body, error) in [
        (&b""[..], MessageError::CutShort),
        (b"\0\0\0", MessageError::CutShort),
        (b"\0\0\0\0x", MessageError::TrailingBytes),
        (b"\0\0\0\x03x", MessageError::TrailingBytes),
        (b"\0\0\0\x05", MessageError::CutShort),
        (b"\0\0\0\x05abc", MessageError::CutShort),
        (b"\0\0\0\x05abcde", MessageError::TrailingBytes),
        (b"\0\0\0\x0a", MessageError::InvalidString),
        (b"\0\0\0\x0aSCRAM-SHA-256", MessageError::InvalidString),
        (b"\0\0\0\x0aSCRAM-SHA-256\0", MessageError::InvalidString),
        (b"\0\0\0\x0a\xff\0\0", MessageError::InvalidString),
        (b"\0\0\0\x0aX\0\0Y", MessageError::TrailingBytes),
    ] {
        assert_eq!(parse_request(body), Err(error), "{}", body.escape_ascii());
    }
    let many = [b"\0\0\0\x0a", b"X\0".repeat(33).as_slice(), b"\0"].concat();
    assert_eq!(parse_request(&many), Err(MessageError::Length));
    for (code, name) in [
        (2, "Kerberos V5"),
        (7, "GSSAPI"),
        (9, "SSPI"),
        (99, "unknown"),
    ] {
        let body = [0, 0, 0, code, 1, 2, 3];
        let code = code.into();
        assert_eq!(
            parse_request(&body),
            Ok(AuthRequest::Unsupported { code, name })
        );
    }
    let negative = AuthRequest::Unsupported {
        code: -1,
        name: "unknown",
    };
    assert_eq!(parse_request(&[0xff; 4]), Ok(negative));
}

#[test]
fn t05_a_message_in_pieces_or_with_more_behind_it() {
    let mut out = written(|out| encode_password_message(b"secret", out).unwrap());
    for cut in 0..out.len() {
        assert_eq!(next_message(&out[..cut], 100), Ok(None));
    }
    let length = out.len();
    out.extend_from_slice(b"Q\0\0");
    let (body, consumed) = next_message(&out, 100).unwrap().unwrap();
    assert_eq!((body, consumed), (&b"secret\0"[..], length));
    assert_eq!(parse_password(body), Ok(&b"secret"[..]));
    let rest = next_message(&out[consumed..], 100);
    assert_eq!(rest, Err(MessageError::Type(b'Q')));
}

/// Faults A15 and A16: another message, or a length that is not to be waited for.
#[test]
fn t54_a_length_before_the_login_is_bounded() {
    for length in [
        0u32,
        3,
        4 + 65_536,
        70_000,
        i32::MAX as u32,
        1 << 31,
        u32::MAX,
    ] {
        let header = [b"p", length.to_be_bytes().as_slice()].concat();
        let result = next_message(&header, PASSWORD_BYTES_MAX);
        assert_eq!(result, Err(MessageError::Length), "{length}");
    }
    for length in [4u32, 4 + 65_535] {
        let header = [b"p", length.to_be_bytes().as_slice()].concat();
        assert!(next_message(&header, PASSWORD_BYTES_MAX).is_ok());
    }
    let error = next_message(b"Q", SASL_BYTES_MAX).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected password response, got message type 81"
    );
    assert_eq!(error.sqlstate(), "08P01");
    assert_eq!(
        next_message(b"\0", SASL_BYTES_MAX),
        Err(MessageError::Type(0))
    );
}

#[test]
fn passwords() {
    for (body, expected) in [
        (&b"secret\0"[..], Ok(&b"secret"[..])),
        (b"\xff\0", Ok(b"\xff")),
        (b"\0", Err(MessageError::EmptyPassword)),
        (b"", Err(MessageError::PasswordSize)),
        (b"secret", Err(MessageError::PasswordSize)),
        (b"sec\0ret\0", Err(MessageError::PasswordSize)),
        (b"secret\0\0", Err(MessageError::PasswordSize)),
    ] {
        assert_eq!(parse_password(body), expected, "{}", body.escape_ascii());
    }
    assert_eq!(MessageError::EmptyPassword.sqlstate(), "28P01");
    let mut out = BytesMut::new();
    let result = encode_password_message(b"a\0b", &mut out);
    assert_eq!(result, Err(MessageError::NulInside));
    assert!(out.is_empty());
}

/// Fault A16: the inner length of a SASLInitialResponse says more or less than there is.
#[test]
fn t54_an_inner_length_that_lies() {
    let name = b"SCRAM-SHA-256\0";
    let body = |length: i32, data: &[u8]| [name, length.to_be_bytes().as_slice(), data].concat();
    let good = body(3, b"n,,");
    assert_eq!(
        parse_sasl_initial_response(&good),
        Ok(SaslInitialResponse {
            mechanism: Mechanism::ScramSha256,
            data: b"n,,",
        })
    );
    for (body, error) in [
        (body(4, b"n,,"), MessageError::CutShort),
        (body(i32::MAX, b"n,,"), MessageError::CutShort),
        (body(i32::MIN, b"n,,"), MessageError::CutShort),
        (body(-1, b"n,,"), MessageError::CutShort),
        (body(-2, b""), MessageError::CutShort),
        (body(2, b"n,,"), MessageError::TrailingBytes),
        (body(0, b"n,,"), MessageError::TrailingBytes),
        (body(-1, b""), MessageError::NoInitialResponse),
        (b"SCRAM-SHA-256\0\0\0\0".to_vec(), MessageError::CutShort),
        (name.to_vec(), MessageError::CutShort),
        (b"SCRAM-SHA-256".to_vec(), MessageError::InvalidString),
        (b"".to_vec(), MessageError::InvalidString),
        (b"\0\0\0\0\0".to_vec(), MessageError::Mechanism),
        (b"SCRAM-SHA-1\0\0\0\0\0".to_vec(), MessageError::Mechanism),
        (b"scram-sha-256\0\0\0\0\0".to_vec(), MessageError::Mechanism),
    ] {
        assert_eq!(
            parse_sasl_initial_response(&body),
            Err(error),
            "{}",
            body.escape_ascii()
        );
    }
    let long = vec![b'x'; SASL_BYTES_MAX + 1];
    assert_eq!(parse_sasl_response(&long), Err(MessageError::Length));
    assert!(parse_sasl_response(&long[1..]).is_ok());
}

#[test]
fn what_servers_are_told_comes_back_out_of_the_parsers() {
    for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha256Plus] {
        let data = b"n,,n=,r=abc";
        let out = written(|out| encode_sasl_initial_response(mechanism, data, out));
        let (body, _) = next_message(&out, SASL_BYTES_MAX).unwrap().unwrap();
        assert_eq!(
            parse_sasl_initial_response(body),
            Ok(SaslInitialResponse { mechanism, data })
        );
    }
    let out = written(|out| encode_sasl_response(b"c=biws", out));
    let (body, _) = next_message(&out, SASL_BYTES_MAX).unwrap().unwrap();
    assert_eq!(parse_sasl_response(body), Ok(&b"c=biws"[..]));
}

#[test]
fn damage_of_messages_panics_nowhere() {
    let mut seeded = Seeded(3);
    let initial = written(|out| {
        encode_sasl_initial_response(Mechanism::ScramSha256, b"n,,n=,r=abc", out);
    });
    let password = written(|out| encode_password_message(b"secret", out).unwrap());
    let offer = written(|out| encode_sasl(&[Mechanism::ScramSha256], out));
    let md5 = written(|out| encode_md5_password([9; 4], out));
    for _ in 0..50_000 {
        for message in [&initial, &password, &offer, &md5] {
            let mut damaged = seeded.damage(message);
            if seeded.below(2) == 0 {
                damaged.drain(..damaged.len().min(5));
            }
            if let Ok(Some((body, consumed))) = next_message(&damaged, SASL_BYTES_MAX) {
                assert_eq!(consumed, body.len() + 5);
            }
            if let Ok(password) = parse_password(&damaged) {
                assert!(!password.is_empty() && password.len() < damaged.len());
            }
            if let Ok(response) = parse_sasl_initial_response(&damaged) {
                assert!(response.data.len() <= damaged.len());
            }
            if let Ok(AuthRequest::Sasl { mechanisms }) = parse_request(&damaged) {
                assert!(mechanisms.len() <= 32);
            }
        }
    }
}
