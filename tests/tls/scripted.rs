//! A server by TLS that says exactly what a test wants: rustls itself, with everything that can be seen of its handshakes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    HandshakeKind, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
};

use crate::support::{ServerWire, message};

/// One connection, after its handshake.
pub(crate) type TlsWire = StreamOwned<ServerConnection, TcpStream>;

/// Plays a script for each connection, on threads that end with the process.
pub(crate) struct TlsServer {
    pub(crate) port: u16,
    kinds: Arc<Mutex<Vec<HandshakeKind>>>,
}

/// What a server shows, for these versions, with tickets.
pub(crate) fn config(
    (certificate, key): &(String, String),
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.ticketer = Ticketer::new().unwrap();
    config
}

impl TlsServer {
    /// Listens. `script` gets each connection, and its number from 0.
    pub(crate) fn start(
        config: ServerConfig,
        script: impl Fn(TlsWire, usize) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let kinds = Arc::new(Mutex::new(Vec::new()));
        let (config, script, seen) = (Arc::new(config), Arc::new(script), Arc::clone(&kinds));
        std::thread::spawn(move || {
            for (number, socket) in listener.incoming().flatten().enumerate() {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
                let script = Arc::clone(&script);
                std::thread::spawn(move || {
                    if let Some(wire) = accept(socket, config, &seen) {
                        script(wire, number);
                    }
                });
            }
        });
        Self { port, kinds }
    }

    /// What the handshakes were, in their order.
    pub(crate) fn kinds(&self) -> Vec<HandshakeKind> {
        self.kinds.lock().unwrap().clone()
    }
}

fn accept(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    seen: &Mutex<Vec<HandshakeKind>>,
) -> Option<TlsWire> {
    socket.set_nodelay(true).ok()?;
    let limit = Some(Duration::from_secs(20));
    socket.set_read_timeout(limit).ok()?;
    let mut request = [0; 8];
    socket.read_exact(&mut request).ok()?;
    socket.write_all(b"S").ok()?;
    let mut wire = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    while wire.conn.is_handshaking() {
        wire.conn.complete_io(&mut wire.sock).ok()?;
    }
    let kind = wire.conn.handshake_kind().unwrap();
    seen.lock().unwrap().push(kind);
    Some(wire)
}

/// The next message: of the startup packet, which has no type, 0. `None` at the end.
pub(crate) fn read_message(wire: &mut TlsWire, is_first: bool) -> Option<(u8, Vec<u8>)> {
    let mut tag = [0];
    if !is_first {
        wire.read_exact(&mut tag).ok()?;
    }
    let mut length = [0; 4];
    wire.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    wire.read_exact(&mut body).ok()?;
    Some((tag[0], body))
}

/// Reads the startup packet and logs in.
pub(crate) fn log_in(wire: &mut TlsWire, number: usize) -> Option<()> {
    read_message(wire, true)?;
    let process = i32::try_from(number).unwrap() + 1;
    wire.write_all(&ServerWire::login_reply(process)).ok()
}

/// Answers each query by `answer`, which gets what the client has said.
pub(crate) fn answer_queries(wire: &mut TlsWire, mut answer: impl FnMut(&mut TlsWire, &str)) {
    while let Some((tag, body)) = read_message(wire, false) {
        if tag == b'Q' {
            let text = String::from_utf8_lossy(&body);
            answer(wire, text.trim_end_matches('\0'));
        }
    }
}

/// The end of a command, within a transaction or not.
pub(crate) fn done(tag: &str, status: u8) -> Vec<u8> {
    let command = message(b'C', format!("{tag}\0").as_bytes());
    [command, message(b'Z', &[status])].concat()
}
