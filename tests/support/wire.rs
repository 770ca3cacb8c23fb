//! A client that speaks the protocol byte by byte, right or wrong.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use socket2::SockRef;

use super::{Message, PATIENCE};
use super::{cancel_request, message, password, query, sasl_initial, startup, terminate};

/// One connection. What it waits for longer than its patience is a panic that says what came so far.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    /// Read from `received` already.
    at: usize,
    patience: Duration,
    /// The last value of each ParameterStatus that was read.
    pub parameters: BTreeMap<String, String>,
    /// What BackendKeyData said: what a cancel must show.
    pub key: (i32, Vec<u8>),
}

/// What there was to read.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(Message),
    /// The end of the stream, after whole messages; or a reset.
    Closed,
    /// Nothing in time.
    Silence,
}

impl Wire {
    /// Connects to a port of this machine and says nothing.
    pub fn connect(port: u16) -> Self {
        Self::try_connect(port).expect("a connection")
    }

    /// As [`Wire::connect`], for where nobody need listen.
    pub fn try_connect(port: u16) -> io::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            received: Vec::new(),
            at: 0,
            patience: PATIENCE,
            parameters: BTreeMap::new(),
            key: (0, Vec::new()),
        })
    }

    /// Connects and logs in without a password.
    pub fn login(port: u16, user: &str, database: &str) -> Self {
        Self::login_with(port, &[("user", user), ("database", database)], "")
    }

    /// Connects and logs in with these startup parameters, and this password if one is asked for.
    pub fn login_with(port: u16, parameters: &[(&str, &str)], password: &str) -> Self {
        Self::try_login(port, parameters, password).unwrap_or_else(|e| panic!("login: {e:?}"))
    }

    /// As [`Wire::login_with`]; the ErrorResponse if there is one.
    pub fn try_login(
        port: u16,
        parameters: &[(&str, &str)],
        password: &str,
    ) -> Result<Self, Message> {
        let mut wire = Self::connect(port);
        wire.send(&[startup(parameters)]);
        let find = |name| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        wire.finish_login(find("user").unwrap_or_default(), password)?;
        Ok(wire)
    }

    /// Everything behind the startup packet, up to ReadyForQuery.
    pub fn finish_login(&mut self, user: &str, secret: &str) -> Result<(), Message> {
        let mut scram = ScramSha256::new(secret.as_bytes(), ChannelBinding::unsupported());
        loop {
            let got = self.recv();
            match (got.tag, got.body.as_slice()) {
                (b'E', _) => return Err(got),
                (b'Z', _) => return Ok(()),
                (b'R', [0, 0, 0, 3]) => self.send(&[password(secret)]),
                (b'R', [0, 0, 0, 5, salt @ ..]) => {
                    let salt = salt.try_into().expect("a salt of four bytes");
                    let answer = md5_hash(user.as_bytes(), secret.as_bytes(), salt);
                    self.send(&[password(&answer)]);
                }
                (b'R', [0, 0, 0, 10, ..]) => {
                    self.send(&[sasl_initial("SCRAM-SHA-256", scram.message())]);
                }
                (b'R', [0, 0, 0, 11, challenge @ ..]) => {
                    scram.update(challenge).expect("a SCRAM challenge");
                    self.send(&[message(b'p', scram.message())]);
                }
                (b'R', [0, 0, 0, 12, proof @ ..]) => {
                    scram.finish(proof).expect("the server's proof");
                }
                _ => {}
            }
        }
    }

    /// How long it waits from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends messages in one write.
    pub fn send(&mut self, messages: &[Vec<u8>]) {
        self.send_bytes(&messages.concat());
    }

    /// Sends bytes in one write.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("a peer that reads");
    }

    /// As [`Wire::send_bytes`], to a peer that may have closed.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends each byte in a segment of its own.
    pub fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send_bytes(std::slice::from_ref(byte));
        }
    }

    /// Sends as much as the peer takes: stops when it has taken nothing for a second, or at the end. The bytes taken.
    pub fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        let pause = Some(Duration::from_secs(1));
        self.stream.set_write_timeout(pause).expect("a timeout");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        let limit = Some(PATIENCE);
        self.stream.set_write_timeout(limit).expect("a timeout");
        sent
    }

    /// A second handle, to write from another thread while this one reads.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a handle")
    }

    /// The next message.
    pub fn recv(&mut self) -> Message {
        match self.poll() {
            Received::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    /// The next message, or what there is instead.
    pub fn poll(&mut self) -> Received {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(message) = self.split_message() {
                self.note(&message);
                return Received::Message(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Received::Silence;
            }
            match self.read_some(left) {
                Ok(0) if self.at == self.received.len() => return Received::Closed,
                Ok(0) => panic!("closed within a message: {:?}", &self.received[self.at..]),
                Ok(_) => {}
                Err(e) if is_timeout(&e) => return Received::Silence,
                Err(_) => return Received::Closed,
            }
        }
    }

    /// Reads `n` bytes that are no message.
    pub fn recv_bytes(&mut self, n: usize) -> Vec<u8> {
        while self.received.len() - self.at < n {
            let got = self.read_some(self.patience).expect("bytes in time");
            assert!(got > 0, "closed: {:?}", &self.received[self.at..]);
        }
        self.at += n;
        self.received[self.at - n..self.at].to_vec()
    }

    /// Expects exactly these messages, as `T D(1) C(SELECT 1) Z(I)`: the type, and in parentheses what matters of the body
    /// (the columns of a row with `|` between them, the SQLSTATE of an error, the command tag, `name=value`). `D*3` is three
    /// of them, `S*` any number, `.` the end of the connection.
    pub fn expect(&mut self, transcript: &str) -> Vec<Message> {
        let mut got = Vec::new();
        let mut pending: Option<Message> = None;
        for token in tokens(transcript) {
            let (what, times) = match token.rsplit_once('*') {
                Some((what, "")) => (what, None),
                Some((what, n)) if !n.contains(')') => {
                    (what, Some(n.parse().expect("a number behind *")))
                }
                _ => (token, Some(1)),
            };
            let mut seen = 0;
            while times.is_none_or(|times| seen < times) {
                let next = match pending.take() {
                    Some(message) => message,
                    None => match self.poll() {
                        Received::Message(message) => message,
                        Received::Closed if what == "." => return got,
                        other => {
                            panic!("{other:?} where {token} is expected of {transcript:?}: {got:?}")
                        }
                    },
                };
                if !next.is(what) {
                    assert!(
                        times.is_none(),
                        "{next:?} instead of {token} of {transcript:?}: {got:?}"
                    );
                    pending = Some(next);
                    break;
                }
                got.push(next);
                seen += 1;
            }
        }
        assert!(
            pending.is_none(),
            "{pending:?} behind {transcript:?}: {got:?}"
        );
        got
    }

    /// Nothing comes for a while: what would be wrong is likely to come at once.
    pub fn expect_silence(&mut self, for_so_long: Duration) {
        let patience = std::mem::replace(&mut self.patience, for_so_long);
        match self.poll() {
            Received::Silence => self.patience = patience,
            other => panic!("{other:?} instead of silence"),
        }
    }

    /// Everything up to and with the next ReadyForQuery.
    pub fn recv_to_ready(&mut self) -> Vec<Message> {
        let mut got = Vec::new();
        loop {
            match self.poll() {
                Received::Message(message) => got.push(message),
                other => panic!("{other:?} before ReadyForQuery: {got:?}"),
            }
            if got.last().is_some_and(|m| m.tag == b'Z') {
                return got;
            }
        }
    }

    /// Everything up to and with the next ReadyForQuery, or to the end of the connection.
    pub fn recv_to_ready_or_end(&mut self) -> Vec<Message> {
        let mut got = Vec::new();
        loop {
            match self.poll() {
                Received::Message(message) => got.push(message),
                Received::Closed => return got,
                Received::Silence => panic!("neither ready nor closed: {got:?}"),
            }
            if got.last().is_some_and(|m| m.tag == b'Z') {
                return got;
            }
        }
    }

    /// Everything up to the end of the connection.
    pub fn recv_to_end(&mut self) -> Vec<Message> {
        let mut got = Vec::new();
        loop {
            match self.poll() {
                Received::Message(message) => got.push(message),
                Received::Closed => return got,
                Received::Silence => panic!("not closed: {got:?}"),
            }
        }
    }

    /// Runs a simple query: its rows, or the first error.
    pub fn try_rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Message> {
        self.send(&[query(sql)]);
        let got = self.recv_to_ready();
        match got.iter().find(|m| m.tag == b'E') {
            Some(error) => Err(error.clone()),
            None => Ok(got
                .iter()
                .filter(|m| m.tag == b'D')
                .map(Message::columns)
                .collect()),
        }
    }

    /// Runs a simple query: its rows.
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
    }

    /// Runs a simple query: the first column of its only row.
    pub fn one(&mut self, sql: &str) -> String {
        let mut rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows.remove(0).remove(0)
    }

    /// Sends a cancel request for this session on a connection of its own, and waits until that is closed.
    pub fn cancel(&self) {
        let port = self.stream.peer_addr().expect("a peer").port();
        let mut cancel = Self::connect(port);
        cancel.send(&[cancel_request(self.key.0, &self.key.1)]);
        cancel.expect(".");
    }

    /// Says Terminate and waits until the other side has closed.
    pub fn leave(mut self) {
        self.send(&[terminate()]);
        self.recv_to_end();
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let zero = Some(Duration::ZERO);
        SockRef::from(&self.stream)
            .set_linger(zero)
            .expect("SO_LINGER");
    }

    /// Says that nothing more will come, and can still read.
    pub fn shut_down_writing(&self) {
        // The other side may have closed already.
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Keeps the window small, so that a peer soon notices that this side does not read. (Below the 64 kB segments of the
    /// loopback it would crawl.)
    pub fn shrink_receive_buffer(&self) {
        let socket = SockRef::from(&self.stream);
        socket.set_recv_buffer_size(256 * 1024).expect("SO_RCVBUF");
    }

    fn note(&mut self, message: &Message) {
        match message.tag {
            b'S' => {
                if let [name, value] = &message.strings()[..] {
                    self.parameters.insert(name.clone(), value.clone());
                }
            }
            b'K' => {
                if let Some((pid, key)) = message.body.split_first_chunk::<4>() {
                    self.key = (i32::from_be_bytes(*pid), key.to_vec());
                }
            }
            _ => {}
        }
    }

    fn split_message(&mut self) -> Option<Message> {
        let rest = &self.received[self.at..];
        let (head, _) = rest.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        assert!(
            (4..1 << 30).contains(&length),
            "a message with length {length}"
        );
        let end = length as usize + 1;
        let message = Message {
            tag: head[0],
            body: rest.get(5..end)?.to_vec(),
        };
        self.at += end;
        Some(message)
    }

    fn read_some(&mut self, limit: Duration) -> io::Result<usize> {
        if self.at > 0 && (self.at == self.received.len() || self.at > 1 << 20) {
            self.received.drain(..self.at);
            self.at = 0;
        }
        self.stream.set_read_timeout(Some(limit))?;
        let from = self.received.len();
        let room = if from - self.at > 64 * 1024 {
            1 << 20
        } else {
            64 * 1024
        };
        self.received.resize(from + room, 0);
        // A signal to this process is no end of the connection.
        let read = loop {
            match self.stream.read(&mut self.received[from..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.received
            .truncate(from + read.as_ref().copied().unwrap_or(0));
        read
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Splits at spaces that are not in parentheses.
fn tokens(transcript: &str) -> Vec<&str> {
    let mut depth = 0;
    let outside = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ' ' && depth == 0
    };
    transcript
        .split(outside)
        .filter(|t| !t.is_empty())
        .collect()
}
