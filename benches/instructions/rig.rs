//! Whole transactions through the real relay, in one thread: a client and a server of scripted
//! bytes at the far ends of two TCP connections, tokio's event loop between them.
//!
//! The far ends run in the same thread and are counted too, but they only write what is ready and
//! read what has come: four calls a transaction, hardly an instruction outside the kernel.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use pooler::buffer::Scratch;
use pooler::metrics::PoolCounters;
use pooler::net::{Address, Liveness, Stream};
use pooler::observe::Attention;
use pooler::relay::{ClientSide, Fill, Meter, Outcome, Relay, Rules};
use pooler::server::login::{Credentials, Target, login};
use pooler::server::{Interners, Server};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

const NO_LIVENESS: Liveness = Liveness {
    keepalive: None,
    user_timeout: None,
};

/// What one side sends and what the other answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    request: &'static [u8],
    reply: &'static [u8],
}

/// `SELECT 12345` with one row.
pub(crate) const SIMPLE: Exchange = Exchange {
    request: b"Q\0\0\0\x11SELECT 12345\0",
    reply: b"T\0\0\0\x21\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
        D\0\0\0\x0f\0\x01\0\0\0\x0512345C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I",
};

/// The same as a prepared statement, as libpq runs it: Bind, Describe, Execute, Sync.
pub(crate) const PREPARED: Exchange = Exchange {
    request: b"B\0\0\0\x1a\0P_0\0\0\0\0\x01\0\0\0\x0512345\0\x01\0\0D\0\0\0\x06P\0\
        E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04",
    reply:
        b"2\0\0\0\x04T\0\0\0\x21\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
        D\0\0\0\x0f\0\x01\0\0\0\x0512345C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I",
};

/// What prepares that statement.
const PREPARE: Exchange = Exchange {
    request: b"P\0\0\0\x14P_0\0SELECT $1\0\0\0S\0\0\0\x04",
    reply: b"1\0\0\0\x04Z\0\0\0\x05I",
};

/// See the module.
pub(crate) struct Rig {
    runtime: LocalRuntime,
    session: Session,
    application: TcpStream,
    database: TcpStream,
}

impl Rig {
    /// Logged in on both sides and warm: the statement is prepared, every buffer has its room.
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build_local(LocalOptions::default())
            .expect("an event loop");
        let interners = Interners::new(1 << 20);
        let (server, database) = runtime.block_on(logged_in(&interners));
        let (client, application) = runtime.block_on(async { connected() });
        let client = ClientSide::new(client, interners.no_settings(), &[]);
        let session = Session::new(client, server, interners);
        let mut rig = Self {
            runtime,
            session,
            application,
            database,
        };
        for exchange in [PREPARE, PREPARED, SIMPLE] {
            rig.run(exchange, 3);
        }
        rig
    }

    /// The same with the log of slow statements on and traces sent, and none that is slow or traced.
    pub(crate) fn watching(mut self) -> Self {
        self.session.attention = Attention {
            is_on: true,
            slow: Duration::from_secs(3600),
            traces: true,
            traces_below: u64::MAX,
            ..Attention::NONE
        };
        self
    }

    /// So many transactions, one after the other.
    pub(crate) fn run(&mut self, exchange: Exchange, transactions: usize) {
        let mut script = Script {
            exchange,
            left: transactions,
            turn: Turn::Ask,
            application: &mut self.application,
            database: &mut self.database,
        };
        let session = &mut self.session;
        self.runtime.block_on(std::future::poll_fn(|cx| {
            session.poll(cx);
            script.play(session.active)
        }));
    }
}

/// What a session of the pooler does with its relay, without the pool.
struct Session {
    client: ClientSide,
    server: Server,
    scratch: Scratch,
    interners: Interners,
    counters: PoolCounters,
    meter: Meter,
    active: bool,
    attention: Attention,
}

impl Session {
    fn new(client: ClientSide, server: Server, interners: Interners) -> Self {
        Self {
            client,
            server,
            scratch: Scratch::default(),
            interners,
            counters: PoolCounters::default(),
            meter: Meter::default(),
            active: false,
            attention: Attention::NONE,
        }
    }

    /// Moves what can be moved; then both sockets wait.
    fn poll(&mut self, cx: &mut Context<'_>) {
        loop {
            let mut fresh = None;
            if !self.active {
                let Poll::Ready(fill) = self.client.poll_fill(cx, &mut self.scratch) else {
                    return;
                };
                let Fill::Bytes(n) = fill.expect("the application's socket works") else {
                    panic!("the application has left");
                };
                self.active = true;
                self.meter = Meter::default();
                fresh = Some(0..n);
            }
            let mut relay = Relay {
                client: &mut self.client,
                server: &mut self.server,
                scratch: &mut self.scratch,
                interners: &self.interners,
                counters: &self.counters,
                meter: &mut self.meter,
                rules: Rules {
                    pool: 1,
                    max_prepared_statements: 100,
                    release_between_transactions: true,
                    refuse_transactions: false,
                    leftovers: pooler::relay::Leftovers::Keep,
                    keep_sequences: false,
                    shows_position: false,
                    attention: self.attention,
                },
            };
            match relay.poll(cx, fresh) {
                Poll::Pending => return,
                Poll::Ready(Outcome::Done(_)) => self.active = false,
                Poll::Ready(other) => panic!("a transaction ends with {other:?}"),
            }
        }
    }
}

/// Whose move it is at the far ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ask,
    Answer,
    Collect,
}

/// The far ends. A read never waits: the session's state says that the bytes were sent.
struct Script<'a> {
    exchange: Exchange,
    left: usize,
    turn: Turn,
    application: &'a mut TcpStream,
    database: &'a mut TcpStream,
}

impl Script<'_> {
    fn play(&mut self, active: bool) -> Poll<()> {
        let mut bytes = [0; 512];
        if self.turn == Turn::Collect && !active {
            let reply = &mut bytes[..self.exchange.reply.len()];
            self.application.read_exact(reply).expect("a reply");
            assert_eq!(reply, self.exchange.reply);
            self.left -= 1;
            self.turn = Turn::Ask;
        }
        if self.left == 0 {
            return Poll::Ready(());
        }
        if self.turn == Turn::Ask {
            let request = self.exchange.request;
            self.application.write_all(request).expect("room");
            self.turn = Turn::Answer;
        } else if self.turn == Turn::Answer && active {
            let n = self.database.read(&mut bytes).expect("a request");
            assert!(n > 0, "the server is still connected");
            self.database.write_all(self.exchange.reply).expect("room");
            self.turn = Turn::Collect;
        }
        Poll::Pending
    }
}

/// A client's connection: our end, and the application's.
fn connected() -> (Stream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let application = TcpStream::connect(address).expect("the listener listens");
    let (ours, _) = listener.accept().expect("a connection");
    for end in [&application, &ours] {
        end.set_nodelay(true).expect("a TCP socket");
    }
    ours.set_nonblocking(true).expect("a TCP socket");
    let ours = tokio::net::TcpStream::from_std(ours).expect("an event loop");
    (Stream::from(ours), application)
}

/// A server that has let us in, and its own end of the connection.
async fn logged_in(interners: &Interners) -> (Server, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let letting_in = thread::spawn(move || let_in(&listener));
    let target = Target {
        address: Address::Tcp {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port,
        },
        database: "postgres",
        user: "postgres",
        credentials: &std::sync::Arc::new(Credentials::new(None)),
        parameters: &[],
        liveness: NO_LIVENESS,
        tls: pooler::tls::Connector::never(),
        no_settings: Arc::clone(&interners.no_settings()),
    };
    let (server, _) = login(&target).await.expect("a login");
    (server, letting_in.join().expect("the server did not panic"))
}

fn let_in(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut startup = [0; 512];
    let n = stream.read(&mut startup).expect("a startup packet");
    assert!(n > 0, "the pooler is still connected");
    let welcome = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0018.0\0\
        K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";
    stream.write_all(welcome).expect("room");
    stream
}
