//! What steady clients notice of a storm of logins: so many log in at once by TLS and SCRAM, again and again.
//!
//! Three windows of one run of pgbench, whose steady clients come at a rate that leaves the machine idle for the most part:
//! nothing else; the storm at a second process of the same kind, which costs the machine as much and these clients nothing
//! that it could keep from them; the storm at the one that serves them. What the last has over the second is the
//! contestant's own doing.
//!
//! The storm is one thread here, however many log in: a crowd of threads would take the processors from whoever serves.
//! What a login costs is the handshake and a few hashes, because the keys are derived once.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use pooler_protocol::auth::{
    self, AuthRequest, ChannelBinding, NONCE_BYTES, ScramClient, ScramClientFinal, ScramKeys,
};
use pooler_protocol::startup::encode_startup;
use rustls::{ClientConfig, ClientConnection};

use crate::cases::Arena;
use crate::peers::{DATABASE, PASSWORD, Running, SCRAM_USER};
use crate::pgbench::{self, Edge, Link, Load};
use crate::tls;

/// Transactions a second of the steady clients.
const RATE: u32 = 1500;

/// How long a wave may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the three windows showed.
#[derive(Clone, Debug)]
pub(crate) struct Storm {
    /// 99 % of the steady clients' transactions took at most this, in microseconds: alone, with the storm elsewhere, here.
    pub(crate) p99: [f64; 3],
    pub(crate) logins_per_second: f64,
    /// CPU time of the contestant within the storm, microseconds a login; that of the steady clients is in it.
    pub(crate) cpu: Option<f64>,
}

/// Takes the windows; `peers` are the one that serves the steady clients, and the other one.
pub(crate) fn run(
    steady: usize,
    logins: usize,
    peers: [&Running; 2],
    arena: &Arena<'_>,
) -> io::Result<Storm> {
    let load = Load {
        protocol: "simple",
        clients: steady,
        reconnect: false,
        link: Link::TlsScram,
        rate: Some(RATE),
    };
    let [here, elsewhere] = peers;
    let mut crowd = Crowd::new(logins, tls::config(arena.directory)?);
    let mut done = 0;
    // Each window ends with a whole wave.
    let at_most = arena.seconds * 3 + PATIENCE * 2;
    let windows = pgbench::run_beside(load, here, at_most, arena.logs, || {
        let quiet = pgbench::edges(here, arena.seconds)?;
        let (_count, other) = crowd.storm(elsewhere, here, arena.seconds)?;
        let (count, own) = crowd.storm(here, here, arena.seconds)?;
        done = count;
        Ok(vec![quiet, other, own])
    })?;
    let [quiet, other, own] = &windows[..] else {
        return Err(io::Error::other("BUG: three windows were taken"));
    };
    let done = done as f64;
    Ok(Storm {
        p99: [quiet.p99, other.p99, own.p99],
        logins_per_second: done / own.seconds,
        cpu: own.cpu.map(|cpu| cpu * own.per_second * own.seconds / done),
    })
}

/// Those who log in together.
struct Crowd {
    size: usize,
    config: Arc<ClientConfig>,
    /// Of the salt that was seen last.
    keys: Option<ScramKeys>,
}

impl Crowd {
    fn new(size: usize, config: Arc<ClientConfig>) -> Self {
        Self {
            size,
            config,
            keys: None,
        }
    }

    /// Waves of logins at `at` for at least so long. Returns how many there were, and the window of `watched`.
    fn storm(
        &mut self,
        at: &Running,
        watched: &Running,
        seconds: Duration,
    ) -> io::Result<(usize, (Edge, Edge))> {
        let (from, end) = (Edge::now(watched)?, Instant::now() + seconds);
        let mut done = 0;
        while Instant::now() < end {
            self.wave(at.port)?;
            done += self.size;
        }
        Ok((done, (from, Edge::now(watched)?)))
    }

    /// All log in, and leave when the last has.
    fn wave(&mut self, port: u16) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut poll = Poll::new()?;
        let mut logins = Vec::with_capacity(self.size);
        for place in 0..self.size {
            let mut socket = connect(port)?;
            let interest = Interest::READABLE;
            poll.registry()
                .register(&mut socket, Token(place), interest)?;
            socket.write_all(&tls::SSL_REQUEST)?;
            logins.push(Login::new(socket, tls::session(&self.config)?));
        }
        let mut events = Events::with_capacity(self.size);
        let mut left = self.size;
        while left > 0 {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Err(io::Error::other(format!("{left} logins were not answered")));
            }
            poll.poll(&mut events, Some(wait))?;
            for event in &events {
                let login = &mut logins[event.token().0];
                if !matches!(login.stage, Stage::Ready) {
                    login.go_on(&mut self.keys)?;
                    left -= usize::from(matches!(login.stage, Stage::Ready));
                }
            }
        }
        Ok(())
    }
}

/// The loopback connects at once unless nobody accepts; then it is waited for.
fn connect(port: u16) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket))
}

/// A login under way. Its messages are short: a socket that does not take one ends the run.
struct Login {
    socket: TcpStream,
    tls: ClientConnection,
    stage: Stage,
    /// Decrypted, not read yet.
    received: Vec<u8>,
}

/// What is waited for.
enum Stage {
    /// The answer to the SSLRequest.
    Asked,
    /// The end of the handshake.
    Handshake,
    /// The server's methods.
    Started,
    /// Its challenge.
    Scram(ScramClient),
    /// Its proof.
    Answered(ScramClientFinal),
    /// ReadyForQuery.
    Proven,
    Ready,
}

impl Login {
    fn new(socket: TcpStream, tls: ClientConnection) -> Self {
        Self {
            socket,
            tls,
            stage: Stage::Asked,
            received: Vec::new(),
        }
    }

    /// Something has arrived.
    fn go_on(&mut self, keys: &mut Option<ScramKeys>) -> io::Result<()> {
        if matches!(self.stage, Stage::Asked) {
            let mut answer = [0];
            match self.socket.read(&mut answer) {
                Ok(1) if answer == *b"S" => self.stage = Stage::Handshake,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                other => return Err(io::Error::other(format!("no TLS: {other:?} {answer:?}"))),
            }
            self.flush()?;
        }
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.decrypt()?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if matches!(self.stage, Stage::Handshake) && !self.tls.is_handshaking() {
            let mut out = BytesMut::new();
            let who = [("user", SCRAM_USER), ("database", DATABASE)];
            encode_startup(0, who, &mut out).map_err(io::Error::other)?;
            self.tls.writer().write_all(&out)?;
            self.stage = Stage::Started;
        }
        while let Some((tag, body)) = self.next_message() {
            self.answer(tag, &body, keys)?;
        }
        self.flush()
    }

    fn decrypt(&mut self) -> io::Result<()> {
        let state = self.tls.process_new_packets().map_err(io::Error::other)?;
        let from = self.received.len();
        self.received
            .resize(from + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut self.received[from..])
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let (head, _) = self.received.split_first_chunk::<5>()?;
        let [tag, length @ ..] = *head;
        let end = 1 + u32::from_be_bytes(length) as usize;
        let body = self.received.get(5..end)?.to_vec();
        self.received.drain(..end);
        Some((tag, body))
    }

    fn answer(&mut self, tag: u8, body: &[u8], keys: &mut Option<ScramKeys>) -> io::Result<()> {
        match tag {
            b'E' => {
                let text = String::from_utf8_lossy(body).replace('\0', " ");
                return Err(io::Error::other(format!("ErrorResponse: {text}")));
            }
            b'Z' => self.stage = Stage::Ready,
            b'R' => {
                let request = auth::parse_request(body).map_err(io::Error::other)?;
                let mut out = BytesMut::new();
                let stage = std::mem::replace(&mut self.stage, Stage::Started);
                self.stage = prove(stage, request, keys, &mut out)?;
                self.tls.writer().write_all(&out)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The next step of the proof, to `out`.
fn prove(
    stage: Stage,
    request: AuthRequest<'_>,
    keys: &mut Option<ScramKeys>,
    out: &mut BytesMut,
) -> io::Result<Stage> {
    match (stage, request) {
        (Stage::Started, AuthRequest::Sasl { mechanisms }) => {
            let nonce: [u8; NONCE_BYTES] = rand::random();
            let client = ScramClient::new(&mechanisms, ChannelBinding::Unavailable, &nonce)
                .map_err(io::Error::other)?;
            auth::encode_sasl_initial_response(client.mechanism(), client.message(), out);
            Ok(Stage::Scram(client))
        }
        (Stage::Scram(client), AuthRequest::SaslContinue(first)) => {
            let challenge = client.server_first(first).map_err(io::Error::other)?;
            let (salt, iterations) = (challenge.salt(), challenge.iterations());
            if !keys.as_ref().is_some_and(|k| k.matches(salt, iterations)) {
                *keys = Some(auth::derive(PASSWORD.as_bytes(), salt, iterations));
            }
            let keys = keys.as_ref().expect("just derived");
            let answered = challenge.client_final(keys).map_err(io::Error::other)?;
            auth::encode_sasl_response(answered.message(), out);
            Ok(Stage::Answered(answered))
        }
        (Stage::Answered(answered), AuthRequest::SaslFinal(last)) => {
            let _proven = answered.server_final(last).map_err(io::Error::other)?;
            Ok(Stage::Proven)
        }
        (Stage::Proven, AuthRequest::Ok) => Ok(Stage::Proven),
        (_, request) => Err(io::Error::other(format!("{request:?} out of turn"))),
    }
}
