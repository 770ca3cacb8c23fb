//! TLS over a socket: records decrypted into the caller's buffer and encrypted from it.
//!
//! ```text
//! socket --(ciphertext, the thread's own buffer)--> Records --(plaintext)--> the caller's buffer
//! ```
//! rustls is used by its unbuffered interface: an idle connection holds its keys and no buffer. What
//! stays behind is a part of a record that is not whole yet (`carry`), plaintext for which the caller
//! had no room (`plain`), and ciphertext that the socket did not take (`out`).
//!
//! Invariant: bytes that a caller wants written count as written when their ciphertext is in the
//! socket's hands, not before. Until then the caller keeps them and offers them again, first thing, as
//! it does when a socket takes nothing: so whoever has nothing unsent has nothing unsent here either.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use super::{DetachedStream, Stream};

/// Plaintext that one write encrypts at most, in bytes: what a worker's scratch buffer holds.
const WRITE_LEN_MAX: usize = 64 * 1024;

/// Ciphertext that one read takes at most, in bytes, and at least, however small the caller's buffer.
const READ_LEN_MAX: usize = 64 * 1024;
const READ_LEN_MIN: usize = 2 * 1024;

/// The longest record (RFC 8446, section 5.2; RFC 5246, section 6.2.3): no more than this is carried.
const RECORD_LEN_MAX: usize = 5 + 16 * 1024 + 2048;

thread_local! {
    /// Ciphertext of the connection that is being read, or written, in this very call.
    static INPUT: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; READ_LEN_MAX + RECORD_LEN_MAX].into_boxed_slice());
    static OUTPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; WRITE_LEN_MAX + 4 * 1024]);
}

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
    carry: Vec<u8>,
    /// Decrypted, not taken yet: `plain[plain_at..]`.
    plain: Vec<u8>,
    plain_at: usize,
    /// Encrypted, not sent yet: `out[out_at..]`.
    out: Vec<u8>,
    out_at: usize,
    /// Bytes of the caller's that `out` ends with: they count as written when it is sent.
    claimed: usize,
    is_closed: bool,
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
        let result = self.process(&mut bytes, &mut []).map(|(next, _)| next);
        if result.is_err() {
            // It has left an alert behind.
            let _again = self.process(&mut [], &mut []);
        }
        result
    }

    /// What is to be sent.
    #[must_use]
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn has_plain(&self) -> bool {
        self.plain_at < self.plain.len()
    }

    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
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
    fn process(&mut self, input: &mut [u8], buffer: &mut [u8]) -> Result<(Next, usize), Error> {
        let mut sink = Sink {
            buffer,
            filled: 0,
            more: &mut self.plain,
            out: &mut self.out,
        };
        let mut at = 0;
        let result = loop {
            let (used, step) = match &mut self.session {
                Session::Client(c) => sink.take(c.process_tls_records(&mut input[at..])),
                Session::Server(s) => sink.take(s.process_tls_records(&mut input[at..])),
            };
            at += used;
            match step {
                Ok(None) => {}
                Ok(Some(next)) => break Ok((next, sink.filled)),
                Err(e) => break Err(e),
            }
        };
        self.is_closed |= matches!(result, Ok((Next::Closed, _)));
        self.carry.clear();
        if at < input.len() && result.is_ok() && !self.is_closed {
            self.carry.extend_from_slice(&input[at..]);
        } else {
            self.carry = Vec::new();
        }
        result
    }

    /// Encrypts the front of `bytes` to `out`. Returns how many bytes of each.
    fn encrypt(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<(usize, usize)> {
        let bytes = &bytes[..bytes.len().min(WRITE_LEN_MAX)];
        let written = match &mut self.session {
            Session::Client(c) => encrypt(c.process_tls_records(&mut []), bytes, out),
            Session::Server(s) => encrypt(s.process_tls_records(&mut []), bytes, out),
        };
        written.map(|n| (bytes.len(), n))
    }

    fn put_close_notify(&mut self) {
        let mut notify = vec![0; 128];
        let n = match &mut self.session {
            Session::Client(c) => close_notify(c.process_tls_records(&mut []), &mut notify),
            Session::Server(s) => close_notify(s.process_tls_records(&mut []), &mut notify),
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

/// A socket that is spoken to by TLS. Dropped, it says so to the peer if that takes no waiting.
#[derive(Debug)]
pub struct TlsStream {
    /// None only within `detach`.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    socket: Stream,
    records: Records,
}

impl TlsStream {
    /// After the handshake.
    #[must_use]
    pub fn new(socket: Stream, records: Records) -> Self {
        Self {
            open: Some(Open { socket, records }),
        }
    }

    fn open(&self) -> &Open {
        let open = self.open.as_ref();
        open.expect("BUG: it is used while it moves")
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &Stream {
        &self.open().socket
    }

    pub(super) fn records(&self) -> &Records {
        &self.open().records
    }

    fn parts(&mut self) -> (&mut Stream, &mut Records) {
        let open = self.open.as_mut();
        let Open { socket, records } = open.expect("BUG: it is used while it moves");
        (socket, records)
    }

    /// Whether there is plaintext that nobody has taken.
    pub(super) fn has_plain(&self) -> bool {
        self.open().records.has_plain()
    }

    /// As [`Stream::is_readable`].
    pub(super) fn is_readable(&self) -> bool {
        let Open { socket, records } = self.open();
        records.has_plain() || records.is_closed || socket.is_readable()
    }

    /// As [`Stream::poll_read`].
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.read_by(buffer, |socket, room| socket.poll_read(cx, room))
    }

    /// As [`Stream::try_read`].
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        now(self.read_by(buffer, |socket, room| later(socket.try_read(room))))
    }

    fn read_by(
        &mut self,
        buffer: &mut [u8],
        mut read: impl FnMut(&mut Stream, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let (socket, records) = self.parts();
        if records.has_plain() {
            return Poll::Ready(Ok(records.take_plain(buffer)));
        }
        let limit = buffer.len().clamp(READ_LEN_MIN, READ_LEN_MAX);
        INPUT.with_borrow_mut(|input| {
            loop {
                if records.is_closed {
                    return Poll::Ready(Ok(0));
                }
                let carried = records.carry.len();
                let n = ready!(read(socket, &mut input[carried..carried + limit]))?;
                if n == 0 {
                    return Poll::Ready(Ok(0));
                }
                input[..carried].copy_from_slice(&records.carry);
                let processed = records.process(&mut input[..carried + n], buffer);
                if processed.is_err() {
                    let _alert = records.process(&mut [], &mut []);
                }
                // An alert, or what a change of keys calls for; what is not taken goes with the next
                // write.
                if records.claimed == 0 {
                    let _later = send_out(records, |bytes| later(socket.try_write(bytes)));
                }
                match processed {
                    Ok((_, 0)) => {}
                    Ok((_, filled)) => return Poll::Ready(Ok(filled)),
                    Err(e) => {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, e)));
                    }
                }
            }
        })
    }

    /// As [`Stream::poll_write`]; after `Pending` the same bytes must come first.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_by(bytes, |socket, out| socket.poll_write(cx, out))
    }

    /// As [`Stream::try_write`]; after `WouldBlock` the same bytes must come first.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(self.write_by(bytes, |socket, out| later(socket.try_write(out))))
    }

    fn write_by(
        &mut self,
        bytes: &[u8],
        mut write: impl FnMut(&mut Stream, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let (socket, records) = self.parts();
        ready!(send_out(records, |out| write(socket, out)))?;
        let claimed = std::mem::take(&mut records.claimed);
        if claimed > 0 {
            assert!(
                claimed <= bytes.len(),
                "BUG: other bytes are written than were begun"
            );
            return Poll::Ready(Ok(claimed));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        OUTPUT.with_borrow_mut(|out| {
            let (taken, len) = records.encrypt(bytes, out)?;
            let sent = match write(socket, &out[..len]) {
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => 0,
            };
            if sent == len {
                return Poll::Ready(Ok(taken));
            }
            records.out.extend_from_slice(&out[sent..len]);
            records.claimed = taken;
            // Whoever waits is woken when the socket takes more.
            ready!(send_out(records, |rest| write(socket, rest)))?;
            Poll::Ready(Ok(std::mem::take(&mut records.claimed)))
        })
    }

    /// Says that nothing more will come, and closes the socket's side.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, records) = self.parts();
        if records.out.is_empty() {
            // Nothing comes out a second time.
            records.put_close_notify();
        }
        ready!(send_out(records, |out| socket.poll_write(cx, out)))?;
        tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(socket), cx)
    }

    /// Leaves the event loop of this thread.
    pub(super) fn detach(mut self: Box<Self>) -> io::Result<DetachedStream> {
        let open = self.open.take();
        let Open { socket, records } = open.expect("BUG: it is used while it moves");
        let socket = socket.detach()?;
        Ok(DetachedStream::Tls(DetachedTls(Box::new((
            socket, records,
        )))))
    }
}

/// A [`TlsStream`] between two event loops.
#[derive(Debug)]
pub struct DetachedTls(Box<(DetachedStream, Records)>);

impl DetachedTls {
    /// Enters the event loop of this thread.
    pub(super) fn attach(self) -> io::Result<Stream> {
        let (socket, records) = *self.0;
        let stream = TlsStream::new(socket.attach()?, records);
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        let Some(Open { socket, records }) = &mut self.open else {
            return;
        };
        if records.out.is_empty() && !records.is_closed {
            records.put_close_notify();
            let _sent = socket.try_write(&records.out);
        }
    }
}

/// Sends what is encrypted.
fn send_out(
    records: &mut Records,
    mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<()>> {
    while records.out_at < records.out.len() {
        match ready!(write(&records.out[records.out_at..]))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => records.out_at += n,
        }
    }
    if records.out_at > 0 {
        records.out = Vec::new();
        records.out_at = 0;
    }
    Poll::Ready(Ok(()))
}

/// What waits for nothing as what may wait, and back.
fn later(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

fn now(polled: Poll<io::Result<usize>>) -> io::Result<usize> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
