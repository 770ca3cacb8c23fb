//! Sockets: TCP and Unix, toward clients and toward servers, as one type.
//!
//! Reads and writes are polled by hand (no boxed futures, no wrapper that would buffer), and a
//! socket can leave one worker's event loop and enter another's. What is sent may be collected first
//! (see [`batch`]); whoever writes otherwise writes behind that. TLS is a third kind of socket: the
//! other two do not know of it.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

mod here;
mod names;
#[cfg(test)]
mod tests;
mod tls;

pub use here::{host_name, name_of, networks, user_name};
pub use tls::{DetachedTls, Next, Records, Session, TlsStream};

use crate::batch::{self, Collect};

/// A connected socket that belongs to the event loop of one worker.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(batch::Socket<TcpStream>),
    /// A Unix-domain socket.
    Unix(batch::Socket<UnixStream>),
    /// TLS over one of the other two.
    Tls(Box<TlsStream>),
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket.into())
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(socket.into())
    }
}

/// A connected socket that belongs to no event loop.
#[derive(Debug)]
pub enum DetachedStream {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix-domain socket.
    Unix(std::os::unix::net::UnixStream),
    /// TLS over one of the other two.
    Tls(DetachedTls),
}

/// Asks the system itself, because the event loop says of a socket at which it has not looked yet that it takes
/// nothing. One that is full is asked in vain.
#[cold]
fn write_early(e: io::Error, mut socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    match e.kind() {
        io::ErrorKind::WouldBlock => socket.write(bytes),
        _ => Err(e),
    }
}

impl DetachedStream {
    /// Enters the event loop of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn attach(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(s) => TcpStream::from_std(s).map(Stream::from),
            Self::Unix(s) => UnixStream::from_std(s).map(Stream::from),
            Self::Tls(s) => s.attach(),
        }
    }
}

impl Stream {
    /// Reads into `buffer`: the number of bytes, 0 at the end of the stream.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let polled = match self {
            Self::Tcp(s) => Pin::new(s.for_reading()).poll_read(cx, &mut buffer),
            Self::Unix(s) => Pin::new(s.for_reading()).poll_read(cx, &mut buffer),
            Self::Tls(s) => return s.poll_read(cx, buffer.initialize_unfilled()),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    /// Writes from `bytes`: the number that the system took. After `Pending` the same bytes must come
    /// first in the next write: they may be encrypted already.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(s) => Pin::new(s.for_writing()?).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s.for_writing()?).poll_write(cx, bytes),
            Self::Tls(s) => s.poll_write(cx, bytes),
        }
    }

    /// Whether it holds bytes that were read from the system and not by anybody here.
    #[inline]
    #[must_use]
    pub fn holds_unread(&self) -> bool {
        matches!(self, Self::Tls(s) if s.has_plain())
    }

    /// Whether the event loop has seen something arrive that was not read yet. A look at a flag:
    /// no system call, no lock, and nobody is woken because of it.
    #[inline]
    #[must_use]
    pub fn is_readable(&self) -> bool {
        match self {
            Self::Tcp(s) => s.peek().try_io(Interest::READABLE, || Ok(())).is_ok(),
            Self::Unix(s) => s.peek().try_io(Interest::READABLE, || Ok(())).is_ok(),
            Self::Tls(s) => s.is_readable(),
        }
    }

    /// The user of the operating system at the other end of a Unix socket.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::Unsupported`] for any other socket.
    pub fn peer_uid(&self) -> io::Result<u32> {
        match self {
            Self::Unix(s) => Ok(s.peek().peer_cred()?.uid()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Reads what is there already and waits for nothing. No system call is made unless the event
    /// loop has seen something arrive.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is there; else what the system says.
    #[inline]
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.peek().try_read(buffer),
            Self::Unix(s) => s.peek().try_read(buffer),
            Self::Tls(s) => s.try_read(buffer),
        }
    }

    /// Reads what has come with a new connection, before the event loop has looked at it: until then it says that
    /// nothing can be read.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing has; what else the system says is said again by the next read, or that
    /// finds the end of the stream.
    pub fn read_early(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => (&*SockRef::from(s.peek())).read(buffer),
            Self::Unix(s) => (&*SockRef::from(s.peek())).read(buffer),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes what the system takes at once and waits for nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it takes nothing, with the same duty as `Pending` has in
    /// [`Stream::poll_write`]; else what the system says.
    #[inline]
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.make_way().and_then(|()| {
                let written = s.peek().try_write(bytes);
                written.or_else(|e| write_early(e, &SockRef::from(s.peek()), bytes))
            }),
            Self::Unix(s) => s.make_way().and_then(|()| {
                let written = s.peek().try_write(bytes);
                written.or_else(|e| write_early(e, &SockRef::from(s.peek()), bytes))
            }),
            Self::Tls(s) => s.try_write(bytes),
        }
    }

    /// Collects `bytes` for the worker's next round of sends, if that can be done.
    ///
    /// # Errors
    /// That of an earlier send.
    #[inline]
    pub fn collect(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<Collect> {
        match self {
            Self::Tcp(s) => s.collect(cx.waker(), bytes),
            Self::Unix(s) => s.collect(cx.waker(), bytes),
            Self::Tls(s) => s.collect(cx, bytes),
        }
    }

    /// Whether something may be collected, or left of that. A look at a number.
    #[inline]
    #[must_use]
    pub fn may_have_collected(&self) -> bool {
        match self {
            Self::Tcp(s) => s.may_have_collected(),
            Self::Unix(s) => s.may_have_collected(),
            Self::Tls(s) => s.may_have_collected(),
        }
    }

    /// Sends what is collected; whether nothing is left of that.
    #[inline]
    #[must_use]
    pub fn has_sent_all(&self) -> bool {
        match self {
            Self::Tcp(s) => s.has_sent_all(),
            Self::Unix(s) => s.has_sent_all(),
            Self::Tls(s) => s.has_sent_all(),
        }
    }

    /// Bytes that wait here to be sent and in nobody's `Outbox`, for whoever asks what is unsent.
    #[must_use]
    pub fn rest_len(&self) -> usize {
        match self {
            Self::Tcp(_) | Self::Unix(_) => 0,
            Self::Tls(s) => s.records().rest_len(),
        }
    }

    /// Bytes that were collected and could not be sent. Of TLS they stay with the records, where
    /// [`Stream::poll_send_rest`] finds them.
    ///
    /// # Errors
    /// That of the send.
    pub fn take_unsent(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Tcp(s) => s.take_unsent(),
            Self::Unix(s) => s.take_unsent(),
            Self::Tls(s) => s.take_unsent().map(|()| Vec::new()),
        }
    }

    /// Sends what is encrypted and does not wait in anybody's `Outbox`. Ready once there is none.
    ///
    /// # Errors
    /// What the system says.
    #[inline]
    pub fn poll_send_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(s) => s.poll_send_rest(cx),
        }
    }

    /// Writes all of `bytes`. Dropped midway, an unknown part of them is sent.
    ///
    /// # Errors
    /// What the system says.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Reads some bytes; 0 at the end of the stream. Dropped midway, nothing is lost.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// Leaves the event loop of this thread.
    ///
    /// # Errors
    /// What the system says; the connection is closed then.
    pub fn detach(self) -> io::Result<DetachedStream> {
        match self {
            Self::Tcp(s) => s.into_inner()?.into_std().map(DetachedStream::Tcp),
            Self::Unix(s) => s.into_inner()?.into_std().map(DetachedStream::Unix),
            Self::Tls(s) => s.detach(),
        }
    }

    /// The descriptor's number.
    #[must_use]
    pub fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(s) => s.peek().as_raw_fd(),
            Self::Unix(s) => s.peek().as_raw_fd(),
            Self::Tls(s) => s.socket().as_raw_fd(),
        }
    }

    /// The address at this end.
    #[must_use]
    pub fn local(&self) -> Peer {
        match self {
            Self::Tcp(s) => s.peek().local_addr().map_or(Peer::Unix, Peer::Tcp),
            Self::Unix(_) => Peer::Unix,
            Self::Tls(s) => s.socket().local(),
        }
    }

    /// How it is encrypted ([`Records::negotiated`](tls::Records::negotiated)); empty: it is not.
    #[must_use]
    pub fn encryption(&self) -> String {
        match self {
            Self::Tcp(_) | Self::Unix(_) => String::new(),
            Self::Tls(s) => s.records().negotiated(),
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match self {
            Self::Tcp(s) => s.peek().peer_addr().map_or(Peer::Unix, Peer::Tcp),
            Self::Unix(_) => Peer::Unix,
            Self::Tls(s) => s.socket().peer(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s.for_reading()).poll_read(cx, buffer),
            Self::Unix(s) => Pin::new(s.for_reading()).poll_read(cx, buffer),
            Self::Tls(s) => s
                .poll_read(cx, buffer.initialize_unfilled())
                .map_ok(|n| buffer.advance(n)),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s.for_writing()?).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s.for_writing()?).poll_shutdown(cx),
            Self::Tls(s) => s.poll_shutdown(cx),
        }
    }
}

/// The address of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix-domain socket, which has none.
    Unix,
}

impl Peer {
    /// Its address, without the port.
    #[must_use]
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// How long a dead peer may go unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Silence before the first keepalive probe; three probes follow.
    pub keepalive: Option<Duration>,
    /// Time that sent bytes may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

impl Liveness {
    /// Sets the options on a socket. On a listening one they are inherited by each connection that
    /// it accepts, which saves four calls a login.
    ///
    /// # Errors
    /// What the system says.
    pub fn apply(self, socket: SockRef<'_>) -> io::Result<()> {
        if let Some(idle) = self.keepalive {
            let probe = (idle / 3).max(Duration::from_secs(1));
            let idle = idle.max(Duration::from_secs(1));
            socket.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(idle)
                    .with_interval(probe)
                    .with_retries(3),
            )?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(self.user_timeout)?;
        socket.set_tcp_nodelay(true)
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or an IP address, and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A socket file.
    Unix(PathBuf),
}

impl Address {
    /// As libpq reads `host` and `port`: a host that begins with a slash is the directory of a
    /// socket.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        if host.starts_with('/') {
            Self::Unix(Path::new(host).join(format!(".s.PGSQL.{port}")))
        } else {
            Self::Tcp {
                host: host.to_owned(),
                port,
            }
        }
    }

    /// Connects; tries each address of a name in turn. Dropped midway, nothing stays open.
    ///
    /// # Errors
    /// That of the last address tried.
    pub async fn connect(&self, liveness: Liveness) -> io::Result<Stream> {
        let (host, port) = match self {
            Self::Unix(path) => return UnixStream::connect(path).await.map(Stream::from),
            Self::Tcp { host, port } => (host.as_str(), *port),
        };
        let known = names::addresses(host, port).await?;
        let error = match connect_to(&known, liveness).await {
            Ok(stream) => return Ok(stream),
            Err(e) => e,
        };
        // The host may have moved: where to, is worth waiting for.
        let mut fresh = names::look_up(host, port).await.unwrap_or_default();
        fresh.retain(|address| !known.contains(address));
        match fresh.is_empty() {
            true => Err(error),
            false => connect_to(&fresh, liveness).await,
        }
    }
}

async fn connect_to(addresses: &[SocketAddr], liveness: Liveness) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                liveness.apply(SockRef::from(&stream))?;
                return Ok(stream.into());
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
