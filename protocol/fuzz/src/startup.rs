//! The first packets of a connection, as a client and as a server would send them.

use bytes::BytesMut;
use pooler_protocol::startup::{
    FirstBytes, FirstPacket, Negotiation, STARTUP_BYTES_MAX, SslAnswer, Startup, accepted_minor,
    classify, encode_cancel_request, encode_negotiate_protocol_version, encode_startup, parse,
    parse_negotiate_protocol_version, parse_options, parse_ssl_answer,
};

use super::take;

/// See the module.
pub fn run(mut data: &[u8]) {
    match take(&mut data) % 4 {
        0 => packet(data),
        1 => options(data),
        2 => negotiation(data),
        _ => server(data),
    }
}

/// A packet is the same however it is cut, and never judged before it has come.
fn packet(data: &[u8]) {
    let whole = parse(data);
    for len in (0..data.len().min(80)).chain([data.len().saturating_sub(1)]) {
        match parse(&data[..len]) {
            Ok(None) => {}
            Ok(Some((packet, used))) => {
                assert!(used <= len);
                assert_eq!(whole, Ok(Some((packet, used))), "cut at {len}");
            }
            // What is wrong with it may look different when more is there.
            Err(_) => assert!(whole.is_err(), "cut at {len}"),
        }
        if classify(&data[..len]) == FirstBytes::Garbage {
            assert!(whole.is_err());
        }
    }
    let Ok(Some((packet, used))) = whole else {
        return;
    };
    assert!(used <= STARTUP_BYTES_MAX);
    match packet {
        FirstPacket::Startup(startup) => parameters(&startup),
        FirstPacket::Cancel { process_id, key } => {
            let mut again = BytesMut::new();
            encode_cancel_request(process_id, key, &mut again).expect("the key has a valid length");
            assert_eq!(&again[..], &data[..used]);
        }
        FirstPacket::SslRequest | FirstPacket::GssEncRequest => assert_eq!(used, 8),
    }
}

fn parameters(startup: &Startup) {
    assert!(!startup.user().is_empty() && !startup.database().is_empty());
    assert!(startup.accepted_minor() <= startup.minor);
    let mut again = BytesMut::new();
    if encode_startup(startup.minor, startup.parameters(), &mut again).is_ok() {
        let back = parse(&again);
        let expected = FirstPacket::Startup(startup.clone());
        assert_eq!(back, Ok(Some((expected, again.len()))));
    }
    let (replication, settings) = (startup.replication(), startup.settings().count());
    assert!(settings <= startup.parameters().len(), "{replication:?}");
    if startup.needs_negotiation() {
        let mut out = BytesMut::new();
        encode_negotiate_protocol_version(
            startup.accepted_minor(),
            startup.unsupported_options(),
            &mut out,
        );
        let minor = parse_negotiate_protocol_version(startup.minor, &out[5..]);
        assert_eq!(minor, Ok(startup.accepted_minor()));
    }
    for (name, value) in startup.settings() {
        if name == "options" {
            options(value.as_bytes());
        }
    }
}

fn options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match parse_options(text) {
        Ok(settings) => {
            let bytes: usize = settings.iter().map(|(n, v)| n.len() + v.len()).sum();
            assert!(bytes <= text.len(), "nothing is added");
            assert!(settings.iter().all(|(name, _)| !name.is_empty()));
        }
        Err(e) => assert_eq!(e.sqlstate().len(), 5),
    }
}

/// A connection gets one answer of each kind, and nothing in the clear behind an `S`.
fn negotiation(data: &[u8]) {
    let mut negotiation = Negotiation::default();
    let (mut ssl, mut gss) = (0, 0);
    for byte in data {
        let was_encrypted = negotiation.is_encrypted();
        let answer = if byte & 1 == 0 {
            let buffered = usize::from(byte >> 2);
            let answer = negotiation.answer_ssl(byte & 2 == 0, buffered);
            if answer == Ok(b'S') {
                assert_eq!(buffered, 0);
            }
            ssl += u32::from(answer.is_ok());
            answer
        } else {
            let answer = negotiation.answer_gss();
            gss += u32::from(answer.is_ok());
            answer
        };
        assert!(!was_encrypted || answer.is_err());
        assert!(ssl <= 1 && gss <= 1);
    }
}

fn server(mut data: &[u8]) {
    let requested = u16::from(take(&mut data) % 4);
    if let Ok(minor) = parse_negotiate_protocol_version(requested, data) {
        assert!(minor <= requested);
        assert_eq!(accepted_minor(minor), minor);
    }
    if let Ok(Some(SslAnswer::Accepted | SslAnswer::Refused)) = parse_ssl_answer(data) {
        assert_eq!(data.len(), 1, "nothing may come behind it");
    }
}
