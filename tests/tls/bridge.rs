//! A port whose every connection goes on to another by TLS, so that whatever speaks the protocol in the clear is a TLS
//! client; and a client of rustls itself, for what must be seen of TLS.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pooler::config::{self, TlsBinding, TlsMode, TlsNegotiation, TlsSide, TlsVersion};
use pooler::net::{Address, Liveness};
use pooler::tls::{Tls, Way};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// The settings of one side, without files.
pub(crate) fn side(mode: TlsMode) -> TlsSide {
    TlsSide {
        mode,
        cert: None,
        key: None,
        ca: None,
        min_version: TlsVersion::V12,
        ciphers: Vec::new(),
        negotiation: TlsNegotiation::Postgres,
        channel_binding: TlsBinding::Prefer,
    }
}

/// Listens on a port of this machine, which is returned, and connects each connection to `port` by TLS.
pub(crate) fn start(
    port: u16,
    certificate: Option<(PathBuf, PathBuf)>,
    negotiation: TlsNegotiation,
) -> u16 {
    let mut server = side(TlsMode::Require);
    server.negotiation = negotiation;
    (server.cert, server.key) = certificate.unzip();
    let config = config::Tls {
        client: side(TlsMode::Disable),
        server,
        ldap: None,
        otlp: None,
    };
    let tls = Tls::load(&config, None).unwrap().server;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ours = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let run = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (mut plain, _) = listener.accept().await.unwrap();
            plain.set_nodelay(true).unwrap();
            let tls = Arc::clone(&tls);
            tokio::task::spawn_local(async move {
                let to = Address::new("127.0.0.1", port);
                let liveness = Liveness {
                    keepalive: None,
                    user_timeout: None,
                };
                let Ok(mut opened) = tls.open(Way::Tls, &to, liveness).await else {
                    return;
                };
                let _ended = tokio::io::copy_bidirectional(&mut plain, &mut opened.stream).await;
            });
        }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default());
        runtime.unwrap().block_on(run);
    });
    ours
}

/// Believes everybody.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A configuration of rustls that believes everybody and offers these protocols.
pub(crate) fn rustls_config(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    rustls_config_of(alpn, rustls::DEFAULT_VERSIONS)
}

/// The same, with these versions only.
pub(crate) fn rustls_config_of(
    alpn: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    Arc::new(config)
}

/// A connection of rustls itself.
pub(crate) type RustlsWire = rustls::StreamOwned<ClientConnection, TcpStream>;

/// Connects and does the handshake; by an SSLRequest unless `direct`.
pub(crate) fn rustls_connect(
    port: u16,
    config: &Arc<ClientConfig>,
    direct: bool,
) -> std::io::Result<RustlsWire> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    if !direct {
        socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47])?;
        let mut answer = [0];
        socket.read_exact(&mut answer)?;
        assert_eq!(answer, *b"S");
    }
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut wire = RustlsWire::new(session, socket);
    while wire.conn.is_handshaking() {
        wire.conn.complete_io(&mut wire.sock)?;
    }
    Ok(wire)
}

/// Sends `sql` by direct TLS and returns the length of the longest record of the answer, as its header has it.
pub(crate) fn longest_record(port: u16, database: &str, sql: &str) -> usize {
    let mut wire = rustls_connect(port, &rustls_config(&[b"postgresql"]), true).unwrap();
    let hello = crate::support::startup(&[("user", "postgres"), ("database", database)]);
    wire.write_all(
        &[
            hello,
            crate::support::query(sql),
            crate::support::terminate(),
        ]
        .concat(),
    )
    .unwrap();
    let mut bytes = Vec::new();
    let _end = wire.sock.read_to_end(&mut bytes);
    let (mut at, mut longest) = (0, 0);
    while let Some(header) = bytes.get(at..at + 5) {
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        longest = longest.max(len);
        at += 5 + len;
    }
    longest
}
