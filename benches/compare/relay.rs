//! The limit of what any pooler can reach on a machine: a relay that looks at nothing. Every client has a server
//! connection of its own; what is read from one socket is written to the other, in one thread.
//!
//! It makes the four calls that a transaction cannot do without, and what they cost is the kernel's affair. It takes part
//! where messages are short: what a socket does not take at once ends the connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

/// Relays from `port` to `server` until the process is killed.
pub(crate) fn run(port: u16, server: u16) -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut listener = TcpListener::bind(local(port))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut sockets: Vec<Option<TcpStream>> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, server, &mut sockets)?;
            } else if pass(event.token().0, &mut sockets, &mut buffer).is_none() {
                let client = event.token().0 & !1;
                sockets[client] = None;
                sockets[client + 1] = None;
            }
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A client's socket has an even place, its server's is the one behind it.
fn accept_all(
    listener: &TcpListener,
    poll: &Poll,
    server: u16,
    sockets: &mut Vec<Option<TcpStream>>,
) -> io::Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        let server = std::net::TcpStream::connect(local(server))?;
        server.set_nonblocking(true)?;
        for mut socket in [client, TcpStream::from_std(server)] {
            socket.set_nodelay(true)?;
            poll.registry()
                .register(&mut socket, Token(sockets.len()), Interest::READABLE)?;
            sockets.push(Some(socket));
        }
    }
}

/// Passes on what has arrived at a place; `None` if the connection is to end.
fn pass(place: usize, sockets: &mut [Option<TcpStream>], buffer: &mut [u8]) -> Option<()> {
    loop {
        let n = match sockets[place].as_mut()?.read(buffer) {
            Ok(0) => return None,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Some(()),
            Err(_) => return None,
        };
        let peer = sockets[place ^ 1].as_mut()?;
        peer.write(&buffer[..n]).ok().filter(|&sent| sent == n)?;
        if n < buffer.len() {
            return Some(());
        }
    }
}
