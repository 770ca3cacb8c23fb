//! What clients, scanners and attackers send first, and what must come of it.

use super::*;
use bytes::BytesMut;

fn packet(major: u16, minor: u16, body: &[u8]) -> Vec<u8> {
    let mut packet = u32::try_from(body.len() + 8)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    packet.extend(major.to_be_bytes());
    packet.extend(minor.to_be_bytes());
    packet.extend(body);
    packet
}

fn startup(body: &[u8]) -> Result<Startup, StartupError> {
    let packet = packet(3, 0, body);
    match parse(&packet)? {
        Some((FirstPacket::Startup(startup), consumed)) => {
            assert_eq!(consumed, packet.len());
            Ok(startup)
        }
        other => panic!("not a startup packet: {other:?}"),
    }
}

#[test]
fn every_kind_of_packet() {
    let mut out = BytesMut::new();
    encode_ssl_request(&mut out);
    assert_eq!(parse(&out), Ok(Some((FirstPacket::SslRequest, 8))));
    let gss = packet(1234, 5680, b"");
    assert_eq!(parse(&gss), Ok(Some((FirstPacket::GssEncRequest, 8))));

    out.clear();
    let parameters = [("user", "ann"), ("database", "shop"), ("DateStyle", "ISO")];
    encode_startup(2, parameters, &mut out).unwrap();
    let expected = Startup {
        minor: 2,
        text: "user\0ann\0database\0shop\0DateStyle\0ISO\0\0".to_owned(),
        ends: vec![[4, 8], [17, 22], [32, 36]],
        known: Known {
            user: 0,
            database: Some(1),
            replication: Replication::No,
            has_options: false,
        },
    };
    assert!(expected.parameters().eq(parameters));
    let length = out.len();
    out.extend_from_slice(b"p\0\0\0\x08abc\0");
    assert_eq!(
        parse(&out),
        Ok(Some((FirstPacket::Startup(expected), length))),
        "what follows is not touched"
    );
}

#[test]
fn the_libpq_layout_is_the_one_of_postgres_protocol() {
    let parameters = [("user", "ann"), ("application_name", "a b")];
    let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
    encode_startup(0, parameters, &mut ours).unwrap();
    postgres_protocol::message::frontend::startup_message(parameters, &mut theirs).unwrap();
    assert_eq!(ours, theirs);
    ours.clear();
    theirs.clear();
    encode_cancel_request(7, &[0, 0, 1, 2], &mut ours).unwrap();
    postgres_protocol::message::frontend::cancel_request(7, 0x102, &mut theirs);
    assert_eq!(ours, theirs);
}

/// A cancel key was taken for four bytes; protocol 3.2 has up to 256.
#[test]
fn t18_a_cancel_key_has_4_to_256_bytes() {
    for bytes in [4, 5, 32, 255, 256] {
        let key: Vec<u8> = (0..=255).take(bytes).collect();
        let mut out = BytesMut::new();
        encode_cancel_request(-3, &key, &mut out).unwrap();
        let cancel = FirstPacket::Cancel {
            process_id: -3,
            key: &key,
        };
        assert_eq!(parse(&out), Ok(Some((cancel, 12 + bytes))));
    }
    for bytes in [0, 3, 257] {
        let mut out = BytesMut::new();
        let key = vec![1; bytes];
        assert_eq!(
            encode_cancel_request(1, &key, &mut out),
            Err(EncodeError::CancelKey(bytes))
        );
        assert!(out.is_empty());
        let short = packet(1234, 5678, &[[0; 4].as_slice(), &key].concat());
        assert_eq!(parse(&short), Err(StartupError::CancelLength));
        assert_eq!(parse(&short[..8]), Err(StartupError::CancelLength));
    }
    let empty = packet(1234, 5678, b"");
    assert_eq!(parse(&empty), Err(StartupError::CancelLength));
}

/// Arithmetic on an announced length overflowed before anybody had logged in.
#[test]
fn t54_a_length_that_no_client_sends_is_refused_at_once() {
    for length in [0u32, 1, 4, 7] {
        assert_eq!(parse(&length.to_be_bytes()), Err(StartupError::TooShort));
    }
    for length in [10_001, 11_000, 200_000, i32::MAX as u32, 1 << 31, u32::MAX] {
        assert_eq!(parse(&length.to_be_bytes()), Err(StartupError::TooLong));
    }
    for error in [StartupError::TooShort, StartupError::TooLong] {
        assert_eq!(error.to_string(), "invalid length of startup packet");
        assert!(error.is_silent());
    }
    // One byte is enough to know that 2 GB will follow, and two to know that 64 kB will.
    assert_eq!(parse(&[0x7f]), Err(StartupError::TooLong));
    assert_eq!(parse(&[0, 1]), Err(StartupError::TooLong));
    assert_eq!(parse(&[0, 0, 0x28]), Err(StartupError::TooLong));
    assert_eq!(parse(&[0, 0, 0x27]), Ok(None));
}

#[test]
fn a_packet_may_have_ten_thousand_bytes() {
    for length in [9_000, STARTUP_BYTES_MAX] {
        let mut body = b"user\0ann\0database\0".to_vec();
        body.resize(length - 10, b'd');
        body.extend([0, 0]);
        let startup = startup(&body).unwrap();
        assert_eq!(startup.database().len(), length - 10 - 18);
        let parameters = [("user", "ann"), ("database", startup.database())];
        let mut out = BytesMut::new();
        encode_startup(0, parameters, &mut out).unwrap();
        assert_eq!(out.len(), length);
    }
    let mut out = BytesMut::from(&b"before"[..]);
    let long = "d".repeat(STARTUP_BYTES_MAX);
    let result = encode_startup(0, [("user", long.as_str())], &mut out);
    assert!(matches!(result, Err(EncodeError::TooLong(_))));
    assert_eq!(&out[..], b"before", "a packet that failed leaves nothing");
}

#[test]
fn what_does_not_speak_the_protocol_is_known_by_its_first_bytes() {
    for (bytes, expected) in [
        (&b""[..], FirstBytes::Empty),
        (b"G", FirstBytes::Http),
        (b"GET / HTTP/1.1\r\n", FirstBytes::Http),
        (b"PRI * HTTP/2.0\r\n", FirstBytes::Http),
        (b"OPTIONS * HTTP/1.0", FirstBytes::Http),
        (b"GOT", FirstBytes::Garbage),
        (b"\x16", FirstBytes::Tls),
        (b"\x16\x03\x01\x02\x00", FirstBytes::Tls),
        (b"\x16\x00", FirstBytes::Garbage),
        (b"SSH-2.0-", FirstBytes::Garbage),
        (b"\xff\xff\xff\xff", FirstBytes::Garbage),
        (b"\0", FirstBytes::Startup),
        (b"\0\0\0\x08", FirstBytes::Startup),
        (b"\0\0\0\0\0\0\0\0", FirstBytes::Startup),
    ] {
        assert_eq!(classify(bytes), expected, "{}", bytes.escape_ascii());
    }
    assert_eq!(parse(b"\x16\x03"), Err(StartupError::DirectTls));
    assert_eq!(parse(b"GET /"), Err(StartupError::Http));
    assert_eq!(parse(b"SSH-"), Err(StartupError::TooLong));
    assert_eq!(parse(&[0; 8]), Err(StartupError::TooShort));
}

#[test]
fn an_unknown_protocol_is_refused_before_its_body() {
    for (major, minor) in [(2, 0), (9, 0), (1234, 0), (1234, 5681), (0, 0), (4, 0)] {
        let error = parse(&packet(major, minor, b"user\0a\0\0")[..8]).unwrap_err();
        assert_eq!(error, StartupError::UnsupportedProtocol { major, minor });
        assert_eq!(error.sqlstate(), "0A000");
        assert!(!error.is_silent());
        assert_eq!(
            error.to_string(),
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")
        );
    }
    let padded = packet(1234, 5679, b"x");
    assert!(parse(&padded).is_err(), "an SSLRequest has no body");
}

#[test]
fn who_and_where() {
    let ann = startup(b"user\0ann\0\0").unwrap();
    assert_eq!((ann.user(), ann.database()), ("ann", "ann"));
    let ann = startup(b"database\0\0user\0ann\0\0").unwrap();
    assert_eq!(ann.database(), "ann", "an empty name is no name");
    let bob = startup(b"user\0ann\0database\0a\0user\0bob\0database\0b\0\0").unwrap();
    assert_eq!((bob.user(), bob.database()), ("bob", "b"), "the last wins");

    for body in [
        &b"\0"[..],
        b"user\0\0\0",
        b"database\0d\0\0",
        b"USER\0a\0\0",
        b"user\0a\0user\0\0\0",
        b"user\0\0replication\0maybe\0\0",
        b"replication\0maybe\0\0",
    ] {
        let error = startup(body).unwrap_err();
        assert_eq!(error, StartupError::NoUser, "{}", body.escape_ascii());
        assert_eq!(error.sqlstate(), "28000");
    }
}

#[test]
fn a_list_that_does_not_end_where_the_packet_ends() {
    for body in [
        &b""[..],
        b"user\0a\0",
        b"user\0a",
        b"user\0",
        b"user",
        b"user\0a\0\0\0",
        b"user\0a\0\0database\0b\0\0",
        b"user\0a\0\xff\0x",
    ] {
        let error = startup(body).unwrap_err();
        assert_eq!(error, StartupError::Unterminated, "{}", body.escape_ascii());
        assert_eq!(error.sqlstate(), "08P01");
    }
}

#[test]
fn bytes_that_are_not_utf8() {
    for (body, parameter) in [
        (&b"user\0\xff\0\0"[..], "user"),
        (b"user\0a\0database\0\xc3\x28\0\0", "database"),
        (b"user\0a\0search_path\0\xe4\0\0", "search_path"),
        (b"user\0a\0\xe4\0x\0\0", "\\xe4"),
    ] {
        let error = startup(body).unwrap_err();
        let parameter = parameter.to_owned();
        assert_eq!(error, StartupError::InvalidUtf8 { parameter });
    }
    let startup = startup(b"user\0a\0application_name\0caf\xe9 \xc3\xa9\0\0").unwrap();
    let name = ("application_name", "caf\\xe9 é");
    assert_eq!(startup.settings().collect::<Vec<_>>(), [name]);
}

#[test]
fn t33_settings_are_all_but_what_says_who_and_how() {
    let startup = startup(
        b"user\0a\0search_path\0s\0options\0-c geqo=off\0_pq_.x\0\x31\0database\0d\0\
          replication\0off\0extra_float_digits\x002\0User\0u\0_pq_\0y\0\0",
    )
    .unwrap();
    assert_eq!(
        startup.settings().collect::<Vec<_>>(),
        [
            ("search_path", "s"),
            ("options", "-c geqo=off"),
            ("extra_float_digits", "2"),
            ("User", "u"),
            ("_pq_", "y"),
        ]
    );
    assert_eq!(
        startup.unsupported_options().collect::<Vec<_>>(),
        ["_pq_.x"]
    );
    assert_eq!(startup.replication(), Replication::No);
}

#[test]
fn replication_in_every_spelling_of_a_boolean() {
    let replication = |value: &str| {
        let body = format!("user\0a\0replication\0{value}\0\0");
        startup(body.as_bytes()).map(|startup| startup.replication())
    };
    for value in ["1", "t", "tr", "TRUE", "y", "Yes", "on"] {
        assert_eq!(replication(value), Ok(Replication::Physical), "{value}");
    }
    for value in ["0", "f", "FALSE", "n", "no", "of", "off"] {
        assert_eq!(replication(value), Ok(Replication::No), "{value}");
    }
    assert_eq!(replication("database"), Ok(Replication::Database));
    for value in ["", "o", "2", "truer", "Database", "ö"] {
        let error = replication(value).unwrap_err();
        assert_eq!(error.sqlstate(), "22023", "{value}");
    }
}

#[test]
fn the_newest_version_that_is_not_above_the_requested_one() {
    for (requested, accepted) in [(0, 0), (1, 0), (2, 2), (3, 2), (99, 2), (9999, 2)] {
        assert_eq!(accepted_minor(requested), accepted);
        let bytes = packet(3, requested, b"user\0a\0\0");
        let Ok(Some((FirstPacket::Startup(startup), _))) = parse(&bytes) else {
            panic!("3.{requested} was refused");
        };
        assert_eq!(startup.needs_negotiation(), requested != accepted);
    }
    let startup = startup(b"user\0a\0_pq_.x\0\x31\0_pq_.yy\0\0\0").unwrap();
    assert!(startup.needs_negotiation(), "an unknown option is enough");
    let mut out = BytesMut::new();
    encode_negotiate_protocol_version(2, startup.unsupported_options(), &mut out);
    assert_eq!(
        out.escape_ascii().to_string(),
        r"v\x00\x00\x00\x1b\x00\x03\x00\x02\x00\x00\x00\x02_pq_.x\x00_pq_.yy\x00"
    );
    assert_eq!(parse_negotiate_protocol_version(2, &out[5..]), Ok(2));
    assert_eq!(
        parse_negotiate_protocol_version(0, &out[5..]),
        Err(NegotiationError::Version { major: 3, minor: 2 })
    );
    for cut in 5..out.len() {
        assert_eq!(
            parse_negotiate_protocol_version(2, &out[5..cut]),
            Err(NegotiationError::Malformed)
        );
    }
    assert!(parse_negotiate_protocol_version(2, &[0, 3, 0, 1, 0, 0, 0, 0]).is_err());
    assert!(parse_negotiate_protocol_version(2, &[0, 2, 0, 0, 0, 0, 0, 0]).is_err());
}

/// Bytes behind an SSLRequest were taken for bytes that had come through TLS.
#[test]
fn t53_no_plain_byte_is_taken_for_an_encrypted_one() {
    let mut negotiation = Negotiation::default();
    let error = negotiation.answer_ssl(true, 1).unwrap_err();
    assert_eq!(error, StartupError::UnencryptedData);
    assert_eq!(error.sqlstate(), "08P01");
    assert!(!negotiation.is_encrypted());

    assert_eq!(parse_ssl_answer(b""), Ok(None));
    assert_eq!(parse_ssl_answer(b"S"), Ok(Some(SslAnswer::Accepted)));
    assert_eq!(parse_ssl_answer(b"N"), Ok(Some(SslAnswer::Refused)));
    for answer in [&b"SR\0"[..], b"SS", b"NE"] {
        let error = parse_ssl_answer(answer).unwrap_err();
        assert_eq!(error, NegotiationError::UnencryptedData);
    }
    for answer in [&b"E\0\0"[..], b"s", b"\0"] {
        let error = parse_ssl_answer(answer).unwrap_err();
        assert_eq!(error, NegotiationError::UnknownAnswer(answer[0]));
    }
}

#[test]
fn one_answer_to_each_request() {
    let mut plain = Negotiation::default();
    assert_eq!(plain.answer_gss(), Ok(b'N'));
    assert_eq!(plain.answer_ssl(false, 9), Ok(b'N'), "plain stays plain");
    assert!(plain.answer_gss().is_err());
    assert!(plain.answer_ssl(false, 0).is_err());
    assert!(plain.answer_ssl(true, 0).is_err());
    assert!(!plain.is_encrypted());

    let mut tls = Negotiation::default();
    assert_eq!(tls.answer_gss(), Ok(b'N'));
    assert_eq!(tls.answer_ssl(true, 0), Ok(b'S'));
    assert!(tls.is_encrypted());
    assert!(tls.answer_ssl(true, 0).is_err());
    let mut tls = Negotiation::default();
    assert_eq!(tls.answer_ssl(true, 0), Ok(b'S'));
    let (major, minor) = (1234, 5680);
    assert_eq!(
        tls.answer_gss(),
        Err(StartupError::UnsupportedProtocol { major, minor })
    );
}

#[test]
fn what_cannot_be_written_is_refused() {
    for parameter in [("", "x"), ("a\0b", "x"), ("a", "x\0database\0y")] {
        let mut out = BytesMut::new();
        let result = encode_startup(0, [("user", "a"), parameter], &mut out);
        assert!(matches!(result, Err(EncodeError::Parameter(_))));
        assert!(out.is_empty());
    }
}

/// Every cut of a valid packet wants more; every flipped byte gives a packet, an error, or a wish
/// for more, and never reads past the packet.
#[test]
fn t05_cut_anywhere_and_flipped_anywhere() {
    let packets = [
        packet(3, 2, b"user\0ann\0replication\0on\0options\0-c a=b\0\0"),
        packet(1234, 5679, b""),
        packet(1234, 5678, b"\0\0\0\x01abcdefgh"),
    ];
    for packet in packets {
        for cut in 0..packet.len() {
            assert_eq!(parse(&packet[..cut]), Ok(None), "cut at {cut}");
        }
        for at in 0..packet.len() {
            for flip in 1..=255u8 {
                let mut flipped = packet.clone();
                flipped[at] ^= flip;
                flipped.extend(b"\xffbehind");
                if let Ok(Some((packet, consumed))) = parse(&flipped) {
                    assert!(consumed <= STARTUP_BYTES_MAX && consumed <= flipped.len());
                    if let FirstPacket::Startup(startup) = packet {
                        assert!(!startup.user().is_empty());
                    }
                }
            }
        }
    }
}

/// The steps of what comes in these pieces: what is used up goes; behind a handshake the rest comes through it.
fn steps(offers_tls: bool, pieces: &[&[u8]]) -> Vec<String> {
    let mut opening = Opening::new(offers_tls);
    let (mut received, mut steps) = (Vec::new(), Vec::new());
    for piece in pieces {
        received.extend_from_slice(piece);
        loop {
            let (used, shown) = match opening.next(&received) {
                Ok(Step::More) => break,
                Ok(Step::Refuse { used, answer }) => (used, char::from(answer).to_string()),
                Ok(Step::BeginTls { answer }) => (received.len(), char::from(answer).to_string()),
                Ok(Step::BeginTlsDirectly) => (received.len(), "TLS".to_owned()),
                Ok(Step::Cancel { process_id, .. }) => {
                    (received.len(), format!("cancel {process_id}"))
                }
                Ok(Step::Session { used, startup }) => (used, startup.user().to_owned()),
                Err(e) => (received.len(), e.sqlstate().to_owned()),
            };
            steps.push(shown);
            received.drain(..used);
            if received.is_empty() {
                break;
            }
        }
    }
    steps
}

#[test]
fn t53_an_opening_takes_no_byte_twice() {
    let ssl = packet(1234, 5679, b"");
    let gss = packet(1234, 5680, b"");
    let ann = packet(3, 0, b"user\0ann\0\0");
    let hello: &[u8] = &[0x16, 3, 1, 0, 5];
    let cancel = packet(1234, 5678, b"\0\0\0\x01abcd");
    for (offers, pieces, expected) in [
        (true, vec![&ssl[..], &ann], vec!["S", "ann"]),
        (
            false,
            vec![&[&ssl[..], &ann].concat()[..]],
            vec!["N", "ann"],
        ),
        (
            true,
            vec![&[&gss[..], &ssl].concat(), &ann],
            vec!["N", "S", "ann"],
        ),
        (true, vec![hello, &ann], vec!["TLS", "ann"]),
        (
            true,
            vec![&ssl[..3], &ssl[3..], &ann[..5], &ann[5..]],
            vec!["S", "ann"],
        ),
        (true, vec![&ssl[..], &cancel], vec!["S", "cancel 1"]),
        // What was injected behind the request.
        (true, vec![&[&ssl[..], &ann].concat()], vec!["08P01"]),
        (true, vec![&[&ssl[..], hello].concat()], vec!["08P01"]),
        (
            true,
            vec![&[&gss[..], &ssl, &ann[..1]].concat()],
            vec!["N", "08P01"],
        ),
        // TLS within TLS, a second request, a hello behind one.
        (true, vec![&ssl[..], &ssl], vec!["S", "0A000"]),
        (true, vec![hello, &ssl], vec!["TLS", "0A000"]),
        (true, vec![hello, hello], vec!["TLS", "08P01"]),
        (true, vec![&gss[..], hello], vec!["N", "08P01"]),
        (false, vec![hello], vec!["08P01"]),
    ] {
        assert_eq!(steps(offers, &pieces), expected, "{offers} {pieces:?}");
    }
}
