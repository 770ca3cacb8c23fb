//! Listening sockets, and taking connections from them.
//!
//! Each worker has a socket of its own on each TCP address (SO_REUSEPORT), so that the kernel
//! spreads connections and a login costs no hop between threads. Unix sockets know no such thing:
//! the first worker accepts for all.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::client::Hub;
use crate::config::{Config, ListenAddress};
use crate::net::{Liveness, Peer, Stream};
use crate::pool::liveness;

/// Connections that the kernel may hold ready for us.
const BACKLOG: i32 = 4096;

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

/// Binds every address for every worker: the outer list has one entry a worker.
///
/// # Errors
/// Which address cannot be bound, and why.
pub fn bind_all(config: &Config, workers: usize) -> io::Result<(Vec<Vec<Bound>>, Vec<SocketFile>)> {
    let mut bound: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
    let mut files = Vec::new();
    let liveness = liveness(&config.pooler.defaults);
    for address in &config.pooler.listen {
        let explain = |e: io::Error| io::Error::new(e.kind(), explanation(address, &e));
        match address {
            ListenAddress::Tcp(addr) => {
                let mut addr = *addr;
                for (worker, sockets) in bound.iter_mut().enumerate() {
                    let socket = bind_tcp(addr, worker == 0, liveness).map_err(explain)?;
                    // With port 0 the first socket decides for all.
                    addr.set_port(socket.local_addr()?.port());
                    sockets.push(Bound::Tcp(socket));
                }
                tracing::info!("listening on {addr}");
            }
            ListenAddress::Unix { .. } => {
                let path = address.socket_path().unwrap_or_default();
                let mode = config.pooler.unix_socket_mode;
                let (socket, file) = bind_unix(&path, mode).map_err(explain)?;
                bound[0].push(Bound::Unix(socket));
                files.push(file);
                tracing::info!("listening on {}", path.display());
            }
        }
    }
    Ok((bound, files))
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

fn bind_tcp(
    addr: SocketAddr,
    first: bool,
    liveness: Liveness,
) -> io::Result<std::net::TcpListener> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        Ok(socket)
    };
    if first && addr.port() != 0 {
        // SO_REUSEPORT would let a second pooler share the port unnoticed: see first whether it is
        // free without it.
        let probe = open()?;
        // It does not listen: a client that came just then would be reset with it.
        probe.bind(&addr.into())?;
    }
    let socket = open()?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    liveness.apply(SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A Unix socket's file, removed when the pooler ends.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.0) {
            tracing::debug!("cannot remove {}: {e}", self.0.display());
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
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    SockRef::from(&socket).listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(l) => {
                let (stream, addr) = l.accept().await?;
                Ok((Stream::Tcp(stream), Peer::Tcp(addr)))
            }
            Self::Unix(l) => {
                let (stream, _) = l.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(l) => l.as_fd(),
            Self::Unix(l) => l.as_fd(),
        }
    }
}

/// Takes connections until the worker stops. A connection whose descriptor is `descriptors` or
/// above is served, and none is taken behind it before there is room again.
///
/// # Errors
/// If the socket cannot enter the worker's event loop.
pub async fn accept_all(hub: Rc<Hub>, bound: Bound, descriptors: RawFd) -> io::Result<()> {
    let listener = match bound {
        Bound::Tcp(l) => Listener::Tcp(TcpListener::from_std(l)?),
        Bound::Unix(l) => Listener::Unix(UnixListener::from_std(l)?),
    };
    let mut crowded = Crowded::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let last = stream.as_raw_fd() >= descriptors;
                tokio::task::spawn_local(Rc::clone(&hub).serve(stream, peer));
                if last {
                    crowded.say("too few descriptors are left for servers");
                    wait_for_room(&listener, descriptors).await;
                } else {
                    crowded = Crowded::default();
                }
            }
            Err(e) if is_of_one_connection(&e) => tracing::debug!("accept: {e}"),
            Err(e) => {
                crowded.say(e);
                tokio::time::sleep(PAUSE).await;
            }
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
async fn wait_for_room(listener: &Listener, descriptors: RawFd) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let lowest = listener.as_fd().try_clone_to_owned();
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
