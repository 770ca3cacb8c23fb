//! A PostgreSQL that says exactly what a test wants, when it wants.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pooler::demo::free_port;
use socket2::SockRef;

use super::{Message, PATIENCE, message, wait_until};

/// Plays a script for each connection, on a thread of its own, until it is dropped.
pub struct ScriptedServer {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Vec<String>>,
    stopped: AtomicBool,
    connections: AtomicUsize,
}

/// What a connection began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// A login, with its parameters.
    Startup(Vec<(String, String)>),
    /// A cancel request.
    Cancel(i32, Vec<u8>),
    /// Nothing: the pooler closed.
    Closed,
}

impl ScriptedServer {
    /// Listens, and plays `script` with each connection. When it returns, the connection is closed.
    pub fn start(script: impl Fn(ServerWire) + Send + Sync + 'static) -> Self {
        let listener = (0..5)
            .find_map(|_| {
                let port = free_port().expect("a free port");
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
            })
            .expect("a port that stays free");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let (ours, script) = (Arc::clone(&shared), Arc::new(script));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ours.stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = ours.connections.fetch_add(1, Ordering::AcqRel);
                let wire = ServerWire::new(stream, number, Arc::clone(&ours));
                let script = Arc::clone(&script);
                // A script that panics says so on the standard error and closes its connection.
                std::thread::spawn(move || script(wire));
            }
        });
        Self {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// One whose every connection logs in and then answers each Query with one row, `answer`.
    pub fn answering(answer: &'static str) -> Self {
        Self::start(move |mut wire| {
            if wire.accept_login() {
                wire.answer_queries(answer);
            }
        })
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has received, a line a message: `0 startup user=a database=b`, `0 Q(SELECT 1)`, `1 cancel 7 [1, 2, 3, 4]`,
    /// `0 closed`. The number is the connection's.
    pub fn received(&self) -> Vec<String> {
        self.shared.log.lock().expect("no panic with it").clone()
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Waits until a line that contains `part` was received.
    pub fn wait_received(&self, part: &str) {
        wait_until(&format!("the server receives {part:?}"), || {
            self.received().iter().any(|line| line.contains(part))
        });
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the acceptor, which then sees that it is to stop.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

/// The server's side of one connection.
pub struct ServerWire {
    stream: TcpStream,
    received: Vec<u8>,
    number: usize,
    shared: Arc<Shared>,
}

impl ServerWire {
    fn new(stream: TcpStream, number: usize, shared: Arc<Shared>) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            stream,
            received: Vec::new(),
            number,
            shared,
        }
    }

    /// The connection's number, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Reads what a connection begins with; declines encryption before it.
    pub fn read_opening(&mut self) -> Opening {
        loop {
            let Some(head) = self.take(4) else {
                return self.closed();
            };
            let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
            let Some(body) = self.take(length.saturating_sub(4)) else {
                return self.closed();
            };
            let (code, rest) = body.split_first_chunk::<4>().expect("a code");
            match i32::from_be_bytes(*code) {
                80_877_102 => {
                    let (pid, key) = rest.split_first_chunk::<4>().expect("a process id");
                    let pid = i32::from_be_bytes(*pid);
                    self.note(&format!("cancel {pid} {key:?}"));
                    return Opening::Cancel(pid, key.to_vec());
                }
                80_877_103 | 80_877_104 => self.send(b"N"),
                _ => {
                    let mut strings = rest
                        .split(|&b| b == 0)
                        .map(|s| String::from_utf8_lossy(s).into_owned());
                    let mut parameters = Vec::new();
                    while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
                        if !name.is_empty() {
                            parameters.push((name, value));
                        }
                    }
                    let text: Vec<String> =
                        parameters.iter().map(|(n, v)| format!("{n}={v}")).collect();
                    self.note(&format!("startup {}", text.join(" ")));
                    return Opening::Startup(parameters);
                }
            }
        }
    }

    /// Reads the startup packet and logs in; false for a cancel request and for a connection that was closed.
    pub fn accept_login(&mut self) -> bool {
        if !matches!(self.read_opening(), Opening::Startup(_)) {
            return false;
        }
        self.send(&Self::login_reply(
            i32::try_from(self.number).expect("few") + 1,
        ));
        true
    }

    /// All that PostgreSQL says to a login without a password. The cancel key is `[1, 2, 3, 4]`.
    pub fn login_reply(process_id: i32) -> Vec<u8> {
        let mut out = message(b'R', &[0; 4]);
        for (name, value) in [
            ("server_version", "17.0"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("application_name", ""),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
        ] {
            let body = format!("{name}\0{value}\0");
            out.extend(message(b'S', body.as_bytes()));
        }
        let key = [&process_id.to_be_bytes()[..], &[1, 2, 3, 4]].concat();
        out.extend(message(b'K', &key));
        out.extend(message(b'Z', b"I"));
        out
    }

    /// What a query with one row of one text column is answered with.
    pub fn row_reply(value: &str) -> Vec<u8> {
        let mut column = b"\0\x01a\0".to_vec();
        column.extend_from_slice(&[
            0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0,
        ]);
        [
            message(b'T', &column),
            Self::row(value),
            message(b'C', b"SELECT 1\0"),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    /// A row of one column.
    pub fn row(value: &str) -> Vec<u8> {
        let length = u32::try_from(value.len()).expect("a short value");
        let row = [&[0, 1][..], &length.to_be_bytes(), value.as_bytes()].concat();
        message(b'D', &row)
    }

    /// An ErrorResponse.
    pub fn error(severity: &str, sqlstate: &str, text: &str) -> Vec<u8> {
        let body = format!("S{severity}\0V{severity}\0C{sqlstate}\0M{text}\0\0");
        message(b'E', body.as_bytes())
    }

    /// Answers each Query with a row, and each other message with nothing, until the pooler closes.
    pub fn answer_queries(&mut self, answer: &str) {
        while let Some(message) = self.recv() {
            if message.tag == b'Q' {
                self.send(&Self::row_reply(answer));
            }
        }
    }

    /// The next message; `None` when the pooler has closed.
    pub fn recv(&mut self) -> Option<Message> {
        let Some(head) = self.take(5) else {
            self.closed();
            return None;
        };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(body) = self.take(length - 4) else {
            self.closed();
            return None;
        };
        let message = Message { tag: head[0], body };
        self.note(&format!("{message:?}"));
        Some(message)
    }

    /// Reads on until a message of this type has come; false when the pooler has closed.
    pub fn recv_until(&mut self, tag: u8) -> bool {
        while let Some(message) = self.recv() {
            if message.tag == tag {
                return true;
            }
        }
        false
    }

    /// Sends bytes; that the pooler has closed is no error here.
    pub fn send(&mut self, bytes: &[u8]) {
        drop(self.try_send(bytes));
    }

    /// Sends bytes.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends each byte in a segment of its own.
    pub fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(std::slice::from_ref(byte));
        }
    }

    /// Says nothing more until the pooler closes, and reads nothing else than that; returns at the latest after `limit`.
    pub fn stall(&mut self, limit: Duration) {
        let deadline = std::time::Instant::now() + limit;
        let mut peeked = [0; 1];
        while std::time::Instant::now() < deadline {
            let tenth = Some(Duration::from_millis(100));
            self.stream.set_read_timeout(tenth).expect("a timeout");
            match self.stream.peek(&mut peeked) {
                Ok(0) => return,
                Ok(_) => std::thread::sleep(Duration::from_millis(100)),
                Err(e) if is_timeout(&e) => {}
                Err(_) => return,
            }
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let zero = Some(Duration::ZERO);
        SockRef::from(&self.stream)
            .set_linger(zero)
            .expect("SO_LINGER");
    }

    /// Closes in order.
    pub fn close(self) {}

    fn note(&self, line: &str) {
        let mut log = self.shared.log.lock().expect("no panic with it");
        log.push(format!("{} {line}", self.number));
    }

    fn closed(&mut self) -> Opening {
        self.note("closed");
        Opening::Closed
    }

    /// The next `n` bytes; `None` at the end of the stream, and when the test is over.
    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        let mut buffer = [0; 16 * 1024];
        while self.received.len() < n {
            let tenth = Some(Duration::from_millis(100));
            self.stream.set_read_timeout(tenth).expect("a timeout");
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(got) => self.received.extend_from_slice(&buffer[..got]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_timeout(&e) => {
                    if self.shared.stopped.load(Ordering::Acquire) {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
        let rest = self.received.split_off(n);
        Some(std::mem::replace(&mut self.received, rest))
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
