//! What is agreed in a handshake, and what a session does after it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::{CipherSuite, ClientConfig, ProtocolVersion};

use crate::bridge::{self, RustlsWire};
use crate::certs::Authority;
use crate::clients::{authority, psql, section};
use crate::support::{Pooler, Rig, message, postgres, query, startup};

/// Reads messages until one has this tag. Returns the bodies of all `D`.
fn read_to(wire: &mut RustlsWire, tag: u8) -> Vec<Vec<u8>> {
    let mut rows = Vec::new();
    loop {
        let mut header = [0; 5];
        wire.read_exact(&mut header).unwrap();
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; len as usize - 4];
        wire.read_exact(&mut body).unwrap();
        assert_ne!(header[0], b'E', "{}", String::from_utf8_lossy(&body));
        if header[0] == b'D' {
            rows.push(body.clone());
        }
        if header[0] == tag {
            return rows;
        }
    }
}

pub(crate) fn log_in(wire: &mut RustlsWire, database: &str) {
    let hello = startup(&[("user", "postgres"), ("database", database)]);
    wire.write_all(&hello).unwrap();
    let _none = read_to(wire, b'Z');
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    let (authority, _dir) = authority();
    let pooler = Pooler::before(postgres())
        .section(&section(&authority, ""))
        .start();
    for direct in [true, false] {
        let mut socket = TcpStream::connect(("127.0.0.1", pooler.port())).unwrap();
        socket.set_nodelay(true).unwrap();
        let slowly = |socket: &mut TcpStream, bytes: &[u8]| {
            for byte in bytes {
                socket.write_all(&[*byte]).unwrap();
                std::thread::yield_now();
            }
        };
        if !direct {
            slowly(&mut socket, &[0, 0, 0, 8, 4, 210, 22, 47]);
            let mut answer = [0];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(answer, *b"S");
        }
        let config = bridge::rustls_config(&[b"postgresql"]);
        let name = ServerName::try_from("localhost").unwrap();
        let mut session = ClientConnection::new(config, name).unwrap();
        while session.is_handshaking() {
            let mut bytes = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut bytes).unwrap();
            }
            slowly(&mut socket, &bytes);
            if session.is_handshaking() {
                assert!(session.read_tls(&mut socket).unwrap() > 0, "closed");
                session.process_new_packets().unwrap();
            }
        }
        log_in(&mut RustlsWire::new(session, socket), "postgres");
    }
}

/// What is agreed with a client that knows only these versions.
fn agreed(
    port: u16,
    config: &Arc<ClientConfig>,
) -> std::io::Result<(ProtocolVersion, CipherSuite)> {
    let mut wire = bridge::rustls_connect(port, config, false)?;
    log_in(&mut wire, "postgres");
    let version = wire.conn.protocol_version().unwrap();
    Ok((
        version,
        wire.conn.negotiated_cipher_suite().unwrap().suite(),
    ))
}

#[test]
fn versions_and_ciphers_toward_clients_are_those_that_are_configured() {
    let (authority, _dir) = authority();
    let new = bridge::rustls_config(&[]);
    let old = bridge::rustls_config_of(&[], &[&rustls::version::TLS12]);
    let start = |more: &str| {
        Pooler::before(postgres())
            .section(&section(&authority, more))
            .start()
    };
    let pooler = start("");
    let by_old = agreed(pooler.port(), &old).unwrap();
    assert_eq!(by_old.0, ProtocolVersion::TLSv1_2);
    let by_new = agreed(pooler.port(), &new).unwrap();
    assert_eq!(by_new.0, ProtocolVersion::TLSv1_3);
    let pooler = start("min_version = \"TLSv1.3\"");
    assert!(agreed(pooler.port(), &old).is_err());
    assert!(agreed(pooler.port(), &new).is_ok());
    // The last of those that rustls itself would choose.
    let pooler = start(
        "ciphers = [\"TLS_CHACHA20_POLY1305_SHA256\", \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]",
    );
    assert_eq!(
        agreed(pooler.port(), &new).unwrap().1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    );
    assert_eq!(
        agreed(pooler.port(), &old).unwrap().1,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    );
}

#[test]
fn a_client_changes_its_keys_in_the_middle_of_a_stream() {
    let (authority, _dir) = authority();
    let rig = Rig::with(|b| b.section(&section(&authority, "")));
    let config = bridge::rustls_config(&[b"postgresql"]);
    let mut wire = bridge::rustls_connect(rig.pooler.port(), &config, true).unwrap();
    log_in(&mut wire, &rig.database);
    wire.write_all(&query("CREATE TABLE keys (a text)"))
        .unwrap();
    let _none = read_to(&mut wire, b'Z');
    wire.write_all(&query("COPY keys FROM STDIN")).unwrap();
    let _none = read_to(&mut wire, b'G');
    let line = message(b'd', format!("{}\n", "y".repeat(9999)).as_bytes());
    for n in 0..200 {
        if n % 10 == 0 {
            // It asks the other side to change its own, too: the next answer comes by new ones.
            wire.conn.refresh_traffic_keys().unwrap();
        }
        wire.write_all(&line).unwrap();
    }
    wire.write_all(&message(b'c', b"")).unwrap();
    let _none = read_to(&mut wire, b'Z');
    for _ in 0..3 {
        wire.write_all(&query("SELECT a FROM keys")).unwrap();
        wire.conn.refresh_traffic_keys().unwrap();
        wire.flush().unwrap();
        let rows = read_to(&mut wire, b'Z');
        assert_eq!(rows.len(), 200);
        assert!(rows.iter().all(|row| row.ends_with(b"yyy")));
    }
    rig.assert_sound();
}

/// The kind of an authority's key is that of its signatures, and the hash of a signature is the one that a login is
/// bound by (RFC 5929, section 4.1): libpq computes it too.
#[test]
fn channel_binding_takes_the_hash_of_the_signature() {
    let (_authority, dir) = authority();
    let signer = |algorithm, name: &str| {
        Authority::of(algorithm, &dir).files(name, "localhost", &["localhost"])
    };
    for (name, binds, (cert, key)) in [
        ("p256", true, signer(&rcgen::PKCS_ECDSA_P256_SHA256, "p256")),
        ("p384", true, signer(&rcgen::PKCS_ECDSA_P384_SHA384, "p384")),
        ("rsa256", true, signer(&rcgen::PKCS_RSA_SHA256, "rsa256")),
        ("rsa512", true, signer(&rcgen::PKCS_RSA_SHA512, "rsa512")),
        ("ed25519", false, signer(&rcgen::PKCS_ED25519, "ed25519")),
    ] {
        let pooler = Pooler::before(postgres())
            .auth("type = \"scram-sha-256\"")
            .section("[users.postgres]\npassword = \"secret\"")
            .section(&format!("[tls.client]\ncert = {cert:?}\nkey = {key:?}\n"))
            .start();
        let by = |binding| {
            let environment = [("PGPASSWORD", "secret"), ("PGCHANNELBINDING", binding)];
            psql(pooler.port(), "sslmode=require", &environment)
        };
        assert_eq!(by("require").is_ok(), binds, "{name}: {:?}", by("require"));
        assert_eq!(by("disable").as_deref(), Ok("here"), "{name}");
        if !binds {
            let said = by("prefer");
            assert_eq!(said.as_deref(), Ok("here"), "{name}");
        }
    }
}
