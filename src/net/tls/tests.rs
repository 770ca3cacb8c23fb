//! Connections by TLS whose messages are collected, on a real event loop: whatever the socket takes at a time, the
//! peer decrypts what was sent, all of it, in order.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::task::Poll;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    RootCertStore, ServerConfig, SupportedCipherSuite,
};
use tokio::net::UnixStream;
use tokio::task::yield_now;

use super::*;
use crate::batch::tests::{make_small, on_worker, send};
use crate::buffer::Outbox;

/// Configurations of both sides that trust each other.
fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let certificate = made.cert.der().clone();
    let provider = Arc::new(default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a pair");
    server.max_fragment_size = Some(8 * 1024);
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (Arc::new(server), Arc::new(client))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// The peer of a connection, with its socket.
struct Peer {
    session: ClientConnection,
    socket: StdUnixStream,
}

impl Peer {
    /// Decrypts all that has arrived.
    fn take(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut bytes = vec![0; 16 * 1024];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return plain,
                Ok(n) => {
                    let mut rest = &bytes[..n];
                    while !rest.is_empty() {
                        self.session.read_tls(&mut rest).expect("room");
                        let state = self.session.process_new_packets().expect("records");
                        let mut got = vec![0; state.plaintext_bytes_to_read()];
                        self.session.reader().read_exact(&mut got).expect("all");
                        plain.extend(got);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return plain,
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.writer().write_all(bytes).expect("room");
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket).expect("room");
        }
    }
}

/// A connection after its handshake, as a session has it, and its peer.
fn pair() -> (Stream, Peer) {
    let (server, client) = configs();
    let server = UnbufferedServerConnection::new(server).expect("a session");
    let mut records = Records::new(Session::Server(server));
    let mut session = ClientConnection::new(client, name()).expect("a session");
    while session.is_handshaking() {
        let mut bytes = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut bytes).expect("a vector");
        }
        let _next = records.advance(&bytes).expect("a handshake");
        let out = records.take_out();
        let mut rest = &out[..];
        while !rest.is_empty() {
            session.read_tls(&mut rest).expect("room");
            session.process_new_packets().expect("a handshake");
        }
    }
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes).expect("a vector");
    }
    assert_eq!(records.advance(&bytes).expect("its end"), Next::Traffic);
    let tickets = records.take_out();
    session.read_tls(&mut &tickets[..]).expect("room");
    session.process_new_packets().expect("tickets");
    let (ours, theirs) = StdUnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("set");
    theirs.set_nonblocking(true).expect("set");
    let socket = UnixStream::from_std(ours).expect("a socket");
    let stream = Stream::Tls(Box::new(TlsStream::new(socket.into(), records)));
    let peer = Peer {
        session,
        socket: theirs,
    };
    (stream, peer)
}

async fn read(stream: &mut Stream) -> io::Result<usize> {
    let mut buffer = [0; 100];
    poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await
}

async fn flush(outbox: &mut Outbox, stream: &mut Stream) {
    poll_fn(|cx| outbox.poll_flush_all(stream, cx))
        .await
        .expect("sent");
}

#[test]
fn short_messages_are_collected_and_leave_at_the_end_of_the_round() {
    on_worker(async {
        let (mut stream, mut peer) = pair();
        let mut outbox = Outbox::default();
        send(&mut outbox, &mut stream, b"one").await;
        send(&mut outbox, &mut stream, b"two").await;
        assert!(stream.may_have_collected());
        assert_eq!(peer.take(), b"");
        for _ in 0..3 {
            yield_now().await;
        }
        assert_eq!(peer.take(), b"onetwo");
        assert!(outbox.has_sent_all(&stream) && !stream.may_have_collected());
        // A large one goes past the batch, behind what is in it.
        send(&mut outbox, &mut stream, b"three").await;
        send(&mut outbox, &mut stream, &[b'4'; 5000]).await;
        let got = peer.take();
        assert!(got.starts_with(b"three4") && got.len() == 5005);
        // Who must know that nothing is unsent sends it first.
        send(&mut outbox, &mut stream, b"five").await;
        assert!(outbox.has_sent_all(&stream));
        assert_eq!(peer.take(), b"five");
        send(&mut outbox, &mut stream, b"six").await;
        drop(stream);
        assert_eq!(peer.take(), b"six");
    });
}

/// Whatever is not sent is counted somewhere: it is what keeps a flush from ending.
#[test]
fn what_the_socket_does_not_take_is_counted() {
    on_worker(async {
        let (mut stream, _peer) = pair();
        let mut outbox = Outbox::default();
        let mut is_full = false;
        for _ in 0..10_000 {
            send(&mut outbox, &mut stream, &[b'x'; 500]).await;
            for _ in 0..3 {
                yield_now().await;
            }
            let is_pending =
                poll_fn(|cx| Poll::Ready(outbox.poll_flush_all(&mut stream, cx).is_pending()));
            is_full = is_pending.await;
            let unsent = outbox.waiting_len() + stream.rest_len();
            assert_eq!(is_full, unsent > 0, "{unsent}");
            if is_full {
                break;
            }
        }
        assert!(is_full);
    });
}

/// A socket that takes a little at a time, a peer that reads now and then and changes its keys, and asks us to.
#[test]
fn the_peer_gets_everything_in_order_whatever_the_socket_takes() {
    for seed in 0..20 {
        on_worker(async move {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut stream, mut peer) = pair();
            let Stream::Tls(tls) = &stream else {
                unreachable!("what pair() makes")
            };
            make_small(tls.socket());
            let mut outbox = Outbox::default();
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            let (mut said, mut heard) = (0, 0);
            for step in 0..1500_u32 {
                match rng.random_range(0..100) {
                    0..60 => {
                        let len = match rng.random_range(0..12) {
                            0 => rng.random_range(1..20_000),
                            _ => rng.random_range(1..2100),
                        };
                        let bytes: Vec<u8> = (0..len)
                            .map(|n| step.wrapping_mul(31).wrapping_add(n).to_be_bytes()[3])
                            .collect();
                        send(&mut outbox, &mut stream, &bytes).await;
                        sent.extend(bytes);
                    }
                    60..85 => yield_now().await,
                    85..88 => peer.session.refresh_traffic_keys().expect("TLS 1.3"),
                    88..92 => {
                        peer.send(b"hello");
                        said += 5;
                    }
                    _ => got.extend(peer.take()),
                }
                while let Ok(n) = stream.try_read(&mut [0; 3]) {
                    heard += n;
                }
                let flushed = poll_fn(|cx| Poll::Ready(outbox.poll_flush(&mut stream, cx))).await;
                assert!(!matches!(flushed, Poll::Ready(Err(_))), "{flushed:?}");
                if outbox.has_sent_all(&stream) {
                    got.extend(peer.take());
                    assert_eq!(got.len(), sent.len(), "seed {seed}, step {step}");
                }
            }
            loop {
                let flushed =
                    poll_fn(|cx| Poll::Ready(outbox.poll_flush_all(&mut stream, cx))).await;
                got.extend(peer.take());
                if flushed.is_ready() && outbox.has_sent_all(&stream) {
                    break;
                }
                yield_now().await;
            }
            got.extend(peer.take());
            assert!(got == sent, "seed {seed}: other bytes arrived");
            while heard < said {
                heard += stream.try_read(&mut [0; 7]).unwrap_or(0);
                yield_now().await;
            }
        });
    }
}

/// What an attacker puts beside a handshake: cut anywhere, with bytes in front, in the middle and behind, it yields an error or
/// waits, and never a byte of plaintext.
#[test]
fn t53_injected_bytes_never_become_plaintext() {
    let (server, client) = configs();
    let mut rng = SmallRng::seed_from_u64(7);
    let startup = b"\0\0\0\x21\0\x03\0\0user\0eve\0database\0postgres\0\0";
    for round in 0..400 {
        let session = UnbufferedClientConnection::new(Arc::clone(&client), name());
        let mut honest = Records::new(Session::Client(session.expect("a session")));
        let _waits = honest.advance(&[]).expect("a hello");
        let mut bytes = honest.take_out();
        // In a round without an injection it goes on as it should.
        let at = rng.random_range(0..=bytes.len());
        let injected = round % 4 != 0;
        if injected {
            let what = match round % 4 {
                1 => startup.to_vec(),
                2 => (0..rng.random_range(1..80)).map(|_| rng.random()).collect(),
                // A record of application data, in the clear.
                _ => [b"\x17\x03\x03\0\x21", &startup[..]].concat(),
            };
            bytes.splice(at..at, what);
        }
        let session = UnbufferedServerConnection::new(Arc::clone(&server));
        let mut records = Records::new(Session::Server(session.expect("a session")));
        let mut rest = &bytes[..];
        let mut failed = false;
        while !rest.is_empty() && !failed {
            let piece = rng.random_range(1..=rest.len().min(100));
            let next = records.advance(&rest[..piece]);
            assert!(!matches!(next, Ok(Next::Traffic)), "round {round}");
            assert!(!records.has_plain(), "round {round}: plaintext");
            failed = next.is_err();
            rest = &rest[piece..];
        }
        assert!(injected || !failed, "round {round}: an honest hello failed");
    }
}

/// A peer that writes its records by hand.
struct Forger {
    encrypter: Box<dyn MessageEncrypter>,
    number: u64,
    socket: StdUnixStream,
}

impl Forger {
    fn of(peer: Peer) -> Self {
        let Some(SupportedCipherSuite::Tls13(suite)) = peer.session.negotiated_cipher_suite()
        else {
            panic!("TLS 1.3 is the best that both know");
        };
        let secrets = peer.session.dangerous_extract_secrets().expect("allowed");
        let (number, secret) = secrets.tx;
        let encrypter = match secret {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                suite.aead_alg.encrypter(key, iv)
            }
            _ => panic!("an unknown cipher"),
        };
        Self {
            encrypter,
            number,
            socket: peer.socket,
        }
    }

    fn send(&mut self, typ: ContentType, payload: &[u8]) {
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(payload),
        };
        let record = self.encrypter.encrypt(message, self.number);
        self.number += 1;
        let bytes = record.expect("encrypted").encode();
        // Nobody may read any more.
        let _sent = self.socket.write_all(&bytes);
    }
}

/// The beginning of a KeyUpdate, whose rest does not come (RFC 8446, section 5.1, lets messages of handshakes be split): what
/// is sent meanwhile must not forget it, nor must the end of the connection.
#[test]
fn t05_a_message_of_the_handshake_that_is_cut_in_two_holds_nothing_up() {
    on_worker(async {
        for finish in [true, false] {
            let (mut stream, peer) = pair();
            let mut outbox = Outbox::default();
            let mut forger = Forger::of(peer);
            forger.send(ContentType::ApplicationData, b"x");
            forger.send(ContentType::Handshake, &[24, 0, 0]);
            assert_eq!(read(&mut stream).await.expect("x"), 1);
            send(&mut outbox, &mut stream, b"meanwhile").await;
            send(&mut outbox, &mut stream, &[b'x'; 3000]).await;
            if finish {
                // update_not_requested
                forger.send(ContentType::Handshake, &[1, 0]);
                let mut buffer = [0; 100];
                for _ in 0..10 {
                    let nothing = stream.try_read(&mut buffer).expect_err("nothing");
                    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
                    yield_now().await;
                }
                send(&mut outbox, &mut stream, b"behind").await;
            }
            flush(&mut outbox, &mut stream).await;
        }
    });
}

/// One message in so many pieces that they would not fit, and one that is wrong with another behind it.
#[test]
fn t54_messages_of_the_handshake_have_a_bound_and_an_error_ends_the_session() {
    on_worker(async {
        let (mut stream, peer) = pair();
        let mut forger = Forger::of(peer);
        // A ticket of 16 MB, a byte at a time.
        forger.send(ContentType::Handshake, &[4, 255, 255, 255]);
        let mut error = None;
        for _ in 0..5000 {
            forger.send(ContentType::Handshake, &[0]);
            match stream.try_read(&mut [0; 100]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => yield_now().await,
                other => {
                    error = Some(other.expect_err("no plaintext"));
                    break;
                }
            }
        }
        let error = error.expect("there is a bound");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(stream);

        let (mut stream, peer) = pair();
        let mut outbox = Outbox::default();
        let mut forger = Forger::of(peer);
        // Two messages that no client sends then, in one record.
        forger.send(ContentType::Handshake, &[1, 0, 0, 1, 0, 1, 0, 0, 1, 0]);
        let error = read(&mut stream).await.expect_err("an error");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let sent = poll_fn(|cx| Poll::Ready(outbox.send(&mut stream, cx, b"x"))).await;
        assert_eq!(
            sent.expect_err("it is over").kind(),
            io::ErrorKind::BrokenPipe
        );
    });
}
