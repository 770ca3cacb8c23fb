//! The limit of what a pooler of transactions can reach on a machine: one that knows ReadyForQuery and nothing else.
//!
//! Its servers log in once, and every client is told what the first of them was told. A client that asks while none is
//! free waits its turn, and a server goes to the next as soon as it says that it is ready. One thread, a read for a
//! message, no copy: the four calls that a transaction cannot do without, and a queue.
//!
//! It takes part where messages are short and a transaction is one request: what comes with ReadyForQuery at its end is
//! the end of a reply, and what a socket does not take at once ends the run.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::peers::{DATABASE, SERVERS, USER};

const LISTENER: Token = Token(usize::MAX);

/// ReadyForQuery outside of a transaction.
const READY: [u8; 6] = *b"Z\0\0\0\x05I";

/// SSLRequest and GSSENCRequest are the only first packets of this length.
const ENCRYPTION_REQUEST_LEN: usize = 8;

const TERMINATE: u8 = b'X';

/// What stands at the other end of a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// A server, and the client that it works for.
    Server(Option<usize>),
    /// A client that has not said who it is.
    Stranger,
    /// A client, and the server that works for it.
    Client(Option<usize>),
    /// A client in the queue, whose request is still unread.
    Waiter,
}

struct Socket {
    stream: TcpStream,
    end: End,
}

struct BarePooler {
    poll: Poll,
    sockets: Slab<Socket>,
    /// What a client is told when it logs in.
    welcome: Vec<u8>,
    idle: Vec<usize>,
    queue: VecDeque<usize>,
    buffer: Vec<u8>,
}

/// Pools the connections of clients to `port` on servers at `server` until the process is killed.
pub(crate) fn run(port: u16, server: u16) -> io::Result<()> {
    let mut pooler = BarePooler {
        poll: Poll::new()?,
        sockets: Slab::new(),
        welcome: Vec::new(),
        idle: Vec::new(),
        queue: VecDeque::new(),
        buffer: vec![0; 64 * 1024],
    };
    for _ in 0..SERVERS {
        let (stream, welcome) = log_in(server)?;
        let place = pooler.add(stream, End::Server(None))?;
        pooler.idle.push(place);
        pooler.welcome = welcome;
    }
    pooler.serve(TcpListener::bind(local(port))?)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A connection that is ready for queries, and what was said until it was.
fn log_in(server: u16) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut stream = std::net::TcpStream::connect(local(server))?;
    let body = format!("\0\x03\0\0user\0{USER}\0database\0{DATABASE}\0\0");
    let len = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), body.as_bytes()].concat())?;
    let (mut welcome, mut buffer) = (Vec::new(), [0; 4096]);
    while !welcome.ends_with(&READY) {
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => welcome.extend_from_slice(&buffer[..n]),
        }
    }
    stream.set_nonblocking(true)?;
    Ok((TcpStream::from_std(stream), welcome))
}

impl BarePooler {
    fn serve(mut self, mut listener: TcpListener) -> io::Result<()> {
        self.poll
            .registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut events = Events::with_capacity(1024);
        loop {
            self.poll.poll(&mut events, None)?;
            for event in &events {
                match event.token() {
                    LISTENER => self.accept_all(&listener)?,
                    Token(place) => self.tend(place)?,
                }
            }
        }
    }

    fn add(&mut self, mut stream: TcpStream, end: End) -> io::Result<usize> {
        stream.set_nodelay(true)?;
        let entry = self.sockets.vacant_entry();
        let place = entry.key();
        self.poll
            .registry()
            .register(&mut stream, Token(place), Interest::READABLE)?;
        entry.insert(Socket { stream, end });
        Ok(place)
    }

    fn accept_all(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((client, _)) => self.add(client, End::Stranger)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
        }
    }

    /// Something has arrived at this place.
    fn tend(&mut self, place: usize) -> io::Result<()> {
        match self.sockets.get(place).map(|socket| socket.end) {
            Some(End::Server(client)) => self.pass_reply(place, client),
            Some(End::Stranger) => self.greet(place),
            Some(End::Client(Some(server))) => match self.read_client(place) {
                Some(n) => self.send(server, n),
                None => Ok(()),
            },
            Some(End::Client(None)) => self.begin(place),
            Some(End::Waiter) | None => Ok(()),
        }
    }

    fn greet(&mut self, place: usize) -> io::Result<()> {
        match self.read_client(place) {
            Some(ENCRYPTION_REQUEST_LEN) => self.sockets[place].stream.write_all(b"N"),
            Some(_) => {
                self.sockets[place].end = End::Client(None);
                self.sockets[place].stream.write_all(&self.welcome)
            }
            None => Ok(()),
        }
    }

    /// A client without a server asks for something.
    fn begin(&mut self, client: usize) -> io::Result<()> {
        match self.idle.pop() {
            Some(server) if self.take_up(server, client)? => {}
            Some(server) => self.idle.push(server),
            None => {
                self.sockets[client].end = End::Waiter;
                self.queue.push_back(client);
            }
        }
        Ok(())
    }

    /// Sends the client's request to this server; `false` if there is none.
    fn take_up(&mut self, server: usize, client: usize) -> io::Result<bool> {
        self.sockets[client].end = End::Client(None);
        let Some(n) = self.read_client(client) else {
            return Ok(false);
        };
        self.sockets[client].end = End::Client(Some(server));
        self.sockets[server].end = End::Server(Some(client));
        self.send(server, n)?;
        Ok(true)
    }

    /// Passes on what a server said, and the server itself once it is ready.
    fn pass_reply(&mut self, server: usize, client: Option<usize>) -> io::Result<()> {
        let n = match self.sockets[server].stream.read(&mut self.buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        // One that has left meanwhile has nobody in its place before the server is free.
        let client = client.filter(|&client| {
            matches!(self.sockets.get(client), Some(socket) if socket.end == End::Client(Some(server)))
        });
        if let Some(client) = client {
            self.send(client, n)?;
        }
        if !self.buffer[..n].ends_with(&READY) {
            return Ok(());
        }
        if let Some(client) = client {
            self.sockets[client].end = End::Client(None);
        }
        self.sockets[server].end = End::Server(None);
        while let Some(next) = self.queue.pop_front() {
            if self.take_up(server, next)? {
                return Ok(());
            }
        }
        self.idle.push(server);
        Ok(())
    }

    /// What a client has sent, in the buffer; one that leaves is forgotten.
    fn read_client(&mut self, place: usize) -> Option<usize> {
        match self.sockets[place].stream.read(&mut self.buffer) {
            Ok(n) if n > 0 && self.buffer[0] != TERMINATE => Some(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            _ => {
                self.sockets.remove(place);
                None
            }
        }
    }

    fn send(&mut self, place: usize, n: usize) -> io::Result<()> {
        self.sockets[place].stream.write_all(&self.buffer[..n])
    }
}
