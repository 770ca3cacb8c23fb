//! Listening sockets, and taking connections from them.
//!
//! All workers share the sockets, and the one on duty takes connections (see `client::Door`): with
//! a socket of its own for each (SO_REUSEPORT) the kernel would send most clients to a worker on
//! which they do not stay.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Hub;
use crate::config::{Config, ListenAddress};
use crate::net::{Liveness, Peer, Stream};
use crate::pool::liveness;
use crate::timer;

/// Connections that the kernel may hold ready for us.
const BACKLOG: i32 = 4096;

/// Seconds that a client may say nothing before its connection is taken nevertheless, to run into the
/// timeout of logins like any other.
const DEFER: u8 = 1;

/// How long accepting pauses when the process has no descriptor left: long enough not to spin,
/// short enough that nobody notices when one is free again (trap 50).
const PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that belongs to no worker yet.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix-domain socket.
    Unix(std::os::unix::net::UnixListener),
}

impl Bound {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(l) => l.try_clone().map(Self::Tcp),
            Self::Unix(l) => l.try_clone().map(Self::Unix),
        }
    }

    /// The next connection that waits.
    fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(l) => {
                let (socket, address) = l.accept()?;
                socket.set_nonblocking(true)?;
                Ok((TcpStream::from_std(socket)?.into(), Peer::Tcp(address)))
            }
            Self::Unix(l) => {
                let (socket, _) = l.accept()?;
                socket.set_nonblocking(true)?;
                Ok((UnixStream::from_std(socket)?.into(), Peer::Unix))
            }
        }
    }

    /// Whether a connection waits.
    fn has_more(&self) -> bool {
        let mut looks = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        // What cannot be looked at is tried.
        poll(&mut looks, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(l) => l.as_fd(),
            Self::Unix(l) => l.as_fd(),
        }
    }
}

impl AsRawFd for Bound {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Binds every address, for every worker: the outer list has one entry a worker.
///
/// # Errors
/// Which address cannot be bound, and why.
pub fn bind_all(config: &Config, workers: usize) -> io::Result<(Vec<Vec<Bound>>, Vec<SocketFile>)> {
    let mut bound = Vec::new();
    let mut files = Vec::new();
    let liveness = liveness(&config.pooler.defaults);
    for address in &config.pooler.listen {
        let explain = |e: io::Error| io::Error::new(e.kind(), explanation(address, &e));
        match address {
            ListenAddress::Tcp(addr) => {
                let socket = bind_tcp(*addr, liveness).map_err(explain)?;
                tracing::info!("listening on {}", socket.local_addr()?);
                bound.push(Bound::Tcp(socket));
            }
            ListenAddress::Unix { .. } => {
                let path = address.socket_path().unwrap_or_default();
                let mode = config.pooler.unix_socket_mode;
                let (socket, file) = bind_unix(&path, mode).map_err(explain)?;
                bound.push(Bound::Unix(socket));
                files.push(file);
                tracing::info!("listening on {}", path.display());
            }
        }
    }
    let shared = (0..workers).map(|_| bound.iter().map(Bound::try_clone).collect());
    Ok((shared.collect::<io::Result<_>>()?, files))
}

fn explanation(address: &ListenAddress, e: &io::Error) -> String {
    let hint = match e.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there: stop it, or change listen",
        io::ErrorKind::PermissionDenied => {
            "; use a port above 1023 or a directory that is writable"
        }
        io::ErrorKind::NotFound => "; create the directory, or change listen",
        _ => "",
    };
    format!("cannot listen on {address}: {e}{hint}")
}

fn bind_tcp(addr: SocketAddr, liveness: Liveness) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    liveness.apply(SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    if let Err(e) = pooler_ring::defer_accept(socket.as_fd(), DEFER) {
        tracing::debug!("connections are taken before they say anything: {e}");
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A Unix socket's file, removed when the pooler ends.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// What tells it from one that a successor has put in its place.
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let inode = std::fs::symlink_metadata(path)?.ino();
        let path = path.to_owned();
        Ok(Self { path, inode })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = std::fs::symlink_metadata(&self.path);
        if !there.is_ok_and(|file| file.ino() == self.inode) {
            return;
        }
        if let Err(e) = std::fs::remove_file(&self.path) {
            tracing::debug!("cannot remove {}: {e}", self.path.display());
        }
    }
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    use std::os::unix::net::{UnixListener, UnixStream};
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        // Nobody answers: it was left behind by a process that was killed.
        std::fs::remove_file(path)?;
    }
    let socket = UnixListener::bind(path)?;
    let file = SocketFile::new(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    SockRef::from(&socket).listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

/// Takes connections when the worker is on duty, until it stops. A connection whose descriptor is
/// `descriptors` or above is served, and none is taken behind it before there is room again.
pub async fn accept_all(
    hub: Rc<Hub>,
    bound: Bound,
    mut duty: watch::Receiver<usize>,
    descriptors: RawFd,
) {
    let worker = hub.worker;
    let mut crowded = Crowded::default();
    while duty.wait_for(|&w| w == worker).await.is_ok() {
        // In the event loop only while on duty: others' connections would wake this thread.
        let listener = match bound.try_clone().and_then(enter) {
            Ok(listener) => listener,
            Err(e) => {
                crowded.say(e);
                timer::sleep(PAUSE).await;
                continue;
            }
        };
        // A task of its own, which a connection wakes without what waits here. Aborted, it has nothing in
        // its hands: a connection is served in the poll in which it is accepted.
        let mut accepting = JoinSet::new();
        accepting.spawn_local(accept(Rc::clone(&hub), listener, descriptors));
        let _changed_or_over = duty.wait_for(|&w| w != worker).await;
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for types that may close or change their descriptor; this one owns it"
)]
fn enter(bound: Bound) -> io::Result<AsyncFd<Bound>> {
    AsyncFd::with_interest(bound, Interest::READABLE)
}

/// For ever.
async fn accept(hub: Rc<Hub>, listener: AsyncFd<Bound>, descriptors: RawFd) {
    let mut crowded = Crowded::default();
    loop {
        match next(&listener).await {
            Ok((stream, peer)) => {
                let last = stream.as_raw_fd() >= descriptors;
                hub.begin(stream, peer);
                if last {
                    crowded.say("too few descriptors are left for servers");
                    wait_for_room(&listener, descriptors).await;
                } else {
                    crowded = Crowded::default();
                }
                // Queries go before the next of a crowd that has come at once.
                hub.turns.take().await;
            }
            Err(e) if is_of_one_connection(&e) => tracing::debug!("accept: {e}"),
            Err(e) => {
                crowded.say(e);
                timer::sleep(PAUSE).await;
            }
        }
    }
}

/// The next connection.
async fn next(listener: &AsyncFd<Bound>) -> io::Result<(Stream, Peer)> {
    loop {
        let mut ready = listener.readable().await?;
        if let Ok(accepted) = ready.try_io(|l| l.get_ref().accept()) {
            // A look takes a tenth of the time of an accept in vain: that makes a socket and a file before it sees
            // that nobody waits.
            if accepted.is_ok() && !listener.get_ref().has_more() {
                ready.clear_ready();
            }
            return accepted;
        }
    }
}

/// Says why no connections are taken, once until they are again.
#[derive(Default)]
struct Crowded {
    said: bool,
}

impl Crowded {
    fn say(&mut self, why: impl std::fmt::Display) {
        if !std::mem::replace(&mut self.said, true) {
            tracing::error!(
                "cannot accept connections: {why}; trying again every {PAUSE:?} (raise the limit \
                 on open files if that is it)"
            );
        }
    }
}

/// Descriptors are given out from the lowest free one on: a copy of any tells how many are taken.
async fn wait_for_room(listener: &AsyncFd<Bound>, descriptors: RawFd) {
    loop {
        timer::sleep(PAUSE).await;
        let lowest = listener.get_ref().as_fd().try_clone_to_owned();
        if lowest.is_ok_and(|fd| fd.as_raw_fd() < descriptors) {
            return;
        }
    }
}

/// Whether an error of accept is about a connection that is gone again, not about the listener.
fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
