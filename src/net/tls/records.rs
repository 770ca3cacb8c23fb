//! One TLS connection's keys, without a socket: records in, plaintext out, and the reverse.
//!
//! Invariant: `out_at <= out.len()` and `plain_at <= plain.len()`; what is behind these marks has gone. A
//! part of a record is carried only until the rest has come, and no plaintext is in two places.

use std::io;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error, InvalidMessage};

/// The longest message of a handshake, with its records' headers (a client's chain of certificates), in
/// bytes: what comes before anybody is known.
const HANDSHAKE_LEN_MAX: usize = 72 * 1024;

/// Either side of a TLS connection.
pub enum Session {
    /// Toward a server.
    Client(UnbufferedClientConnection),
    /// Toward a client.
    Server(UnbufferedServerConnection),
}

impl Session {
    fn common(&self) -> &CommonState {
        match self {
            Self::Client(c) => c,
            Self::Server(s) => s,
        }
    }

    fn process(
        &mut self,
        input: &mut [u8],
        sink: &mut Sink<'_>,
    ) -> (usize, Result<Option<Next>, Error>) {
        match self {
            Self::Client(c) => sink.take(c.process_tls_records(input)),
            Self::Server(s) => sink.take(s.process_tls_records(input)),
        }
    }
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Bytes of the peer's, to go on with the handshake.
    Handshake,
    /// Nothing: data may go both ways.
    Traffic,
    /// The peer has said that nothing more will come.
    Closed,
}

/// One connection's keys, and the little that stays behind. Belongs to no event loop.
pub struct Records {
    session: Session,
    /// The beginning of a record.
    pub(super) carry: Vec<u8>,
    /// Decrypted, not taken yet: `plain[plain_at..]`.
    plain: Vec<u8>,
    plain_at: usize,
    /// Encrypted, not sent yet: `out[out_at..]`.
    pub(super) out: Vec<u8>,
    pub(super) out_at: usize,
    /// Bytes of the caller's that `out` ends with: they count as written when it is sent.
    pub(super) claimed: usize,
    pub(super) is_closed: bool,
    /// After an error: what rustls remembers of its input is not to be touched any more.
    has_failed: bool,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    /// Of a connection that begins.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self {
            session,
            carry: Vec::new(),
            plain: Vec::new(),
            plain_at: 0,
            out: Vec::new(),
            out_at: 0,
            claimed: 0,
            is_closed: false,
            has_failed: false,
        }
    }

    /// The certificates that the peer has shown, its own first.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.session.common().peer_certificates().unwrap_or(&[])
    }

    /// The application protocol that both sides have agreed upon.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.common().alpn_protocol()
    }

    /// Version and cipher, by OpenSSL's names as PgBouncer and `pg_stat_ssl` have them:
    /// `TLSv1.3/TLS_AES_256_GCM_SHA384`. Empty before the end of the handshake.
    #[must_use]
    pub fn negotiated(&self) -> String {
        let common = self.session.common();
        let version = match common.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => return String::new(),
        };
        let suite = common.negotiated_cipher_suite().map(|c| c.suite());
        format!("{version}/{}", suite.map_or("", openssl_name))
    }

    /// Goes on with the handshake, with `input` from the peer. What is to be sent is in
    /// [`Records::take_out`] then, also after an error: the peer is told why.
    ///
    /// # Errors
    /// What is wrong with the peer's part.
    pub fn advance(&mut self, input: &[u8]) -> Result<Next, Error> {
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(input);
        let (next, _) = self.process(&mut bytes, &mut [])?;
        self.check_carry(HANDSHAKE_LEN_MAX)?;
        Ok(next)
    }

    /// What is left of a message that is not whole has a bound, however small its pieces are.
    pub(super) fn check_carry(&mut self, max: usize) -> Result<(), Error> {
        if self.carry.len() <= max {
            return Ok(());
        }
        self.fail();
        Err(InvalidMessage::HandshakePayloadTooLarge.into())
    }

    /// Nothing more is asked of rustls.
    fn fail(&mut self) {
        self.has_failed = true;
        self.carry = Vec::new();
    }

    /// What is to be sent.
    #[must_use]
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Puts what was to be sent before all that waits in front of it.
    pub(super) fn put_back(&mut self, mut unsent: Vec<u8>) {
        if unsent.is_empty() {
            return;
        }
        assert_eq!(self.out_at, 0, "BUG: collected behind what waits");
        unsent.append(&mut self.out);
        self.out = unsent;
    }

    /// Whether ciphertext waits whose plaintext nobody has any more.
    pub(super) fn has_rest(&self) -> bool {
        !self.out.is_empty() && self.claimed == 0
    }

    /// How much of it. What somebody still has, and offers again, is not counted twice.
    pub(in crate::net) fn rest_len(&self) -> usize {
        match self.claimed {
            0 => self.out.len(),
            _ => 0,
        }
    }

    pub(super) fn has_plain(&self) -> bool {
        self.plain_at < self.plain.len()
    }

    pub(super) fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.plain[self.plain_at..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.plain_at += n;
        if !self.has_plain() {
            self.plain = Vec::new();
            self.plain_at = 0;
        }
        n
    }

    /// Decrypts every whole record of `input` to `buffer`, and beyond it to `plain`; the rest is
    /// carried. Returns how much of `buffer` is filled.
    ///
    /// rustls remembers where in `input` the parts of a message lie that is not whole, or not taken: so
    /// whatever it is asked it gets them again, as they were left. After an error it is asked nothing.
    pub(super) fn process(
        &mut self,
        input: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<(Next, usize), Error> {
        if self.has_failed {
            return Err(Error::HandshakeNotComplete);
        }
        let mut sink = Sink {
            buffer,
            filled: 0,
            more: &mut self.plain,
            out: &mut self.out,
        };
        let mut at = 0;
        let result = loop {
            let (used, step) = self.session.process(&mut input[at..], &mut sink);
            at += used;
            match step {
                Ok(None) => {}
                Ok(Some(next)) => break Ok((next, sink.filled)),
                Err(e) => break Err(e),
            }
        };
        // An error leaves an alert behind, which comes out before anything else is looked at.
        while result.is_err() && self.session.common().wants_write() {
            let (used, step) = self.session.process(&mut input[at..], &mut sink);
            at += used;
            if step.is_err() {
                break;
            }
        }
        self.is_closed |= matches!(result, Ok((Next::Closed, _)));
        self.carry.clear();
        if result.is_err() {
            self.fail();
        } else if at < input.len() && !self.is_closed {
            self.carry.extend_from_slice(&input[at..]);
        } else {
            self.carry = Vec::new();
        }
        result
    }

    /// Encrypts the front of `bytes` to `out`. Returns how many bytes of each.
    pub(super) fn encrypt(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> io::Result<(usize, usize)> {
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let bytes = &bytes[..bytes.len().min(super::WRITE_LEN_MAX)];
        let carry = &mut self.carry;
        let written = match &mut self.session {
            Session::Client(c) => encrypt(c.process_tls_records(carry), bytes, out),
            Session::Server(s) => encrypt(s.process_tls_records(carry), bytes, out),
        };
        written.map(|n| (bytes.len(), n))
    }

    pub(super) fn put_close_notify(&mut self) {
        if self.has_failed {
            return;
        }
        let mut notify = vec![0; 128];
        let carry = &mut self.carry;
        let n = match &mut self.session {
            Session::Client(c) => close_notify(c.process_tls_records(carry), &mut notify),
            Session::Server(s) => close_notify(s.process_tls_records(carry), &mut notify),
        };
        self.out.extend_from_slice(&notify[..n]);
    }
}

/// Where one call of `process` puts what comes out.
struct Sink<'a> {
    buffer: &'a mut [u8],
    filled: usize,
    more: &'a mut Vec<u8>,
    out: &'a mut Vec<u8>,
}

impl Sink<'_> {
    fn put(&mut self, payload: &[u8]) {
        let n = payload.len().min(self.buffer.len() - self.filled);
        self.buffer[self.filled..self.filled + n].copy_from_slice(&payload[..n]);
        self.filled += n;
        self.more.extend_from_slice(&payload[n..]);
    }

    /// Takes what rustls gives. Returns the bytes that are used up, and what comes next unless it is
    /// to be asked again.
    fn take<D>(
        &mut self,
        status: UnbufferedStatus<'_, '_, D>,
    ) -> (usize, Result<Option<Next>, Error>) {
        let UnbufferedStatus { mut discard, state } = status;
        let state = match state {
            Ok(state) => state,
            Err(e) => return (discard, Err(e)),
        };
        let next = match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            self.put(record.payload);
                        }
                        Err(e) => return (discard, Err(e)),
                    }
                }
                None
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let at = self.out.len();
                let needed = match data.encode(&mut []) {
                    Err(EncodeError::InsufficientSize(e)) => e.required_size,
                    _ => 0,
                };
                self.out.resize(at + needed, 0);
                let _encoded = data.encode(&mut self.out[at..]);
                None
            }
            ConnectionState::TransmitTlsData(data) => {
                // It is in `out`, whose owner sends it.
                data.done();
                None
            }
            ConnectionState::BlockedHandshake => Some(Next::Handshake),
            ConnectionState::WriteTraffic(_) => Some(Next::Traffic),
            ConnectionState::PeerClosed | ConnectionState::Closed => Some(Next::Closed),
            _ => return (discard, Err(Error::General("early data".to_owned()))),
        };
        (discard, Ok(next))
    }
}

/// Encrypts all of `bytes` to the front of `out`, which grows if it has to.
fn encrypt<D>(
    status: UnbufferedStatus<'_, '_, D>,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut traffic = writable(status)?;
    match traffic.encrypt(bytes, out) {
        Ok(n) => Ok(n),
        Err(EncryptError::InsufficientSize(e)) => {
            out.resize(e.required_size, 0);
            traffic.encrypt(bytes, out).map_err(io::Error::other)
        }
        Err(e) => Err(io::Error::other(e)),
    }
}

fn close_notify<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut [u8]) -> usize {
    match writable(status) {
        Ok(mut traffic) => traffic.queue_close_notify(out).unwrap_or(0),
        Err(_) => 0,
    }
}

fn writable<'c, D>(status: UnbufferedStatus<'c, '_, D>) -> io::Result<WriteTraffic<'c, D>> {
    match status.state {
        Ok(ConnectionState::WriteTraffic(traffic)) => Ok(traffic),
        Ok(_) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(e) => Err(io::Error::new(io::ErrorKind::InvalidData, e)),
    }
}

/// As OpenSSL calls those that there are here.
fn openssl_name(suite: rustls::CipherSuite) -> &'static str {
    use rustls::CipherSuite as Suite;
    match suite {
        Suite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        Suite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other.as_str().unwrap_or("unknown"),
    }
}
