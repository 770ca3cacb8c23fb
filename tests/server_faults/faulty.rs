//! A scripted server that misbehaves until it is healed, and a pooler with one server connection before it: a place in
//! the pool that a fault leaks is a login that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Builder, Message, PATIENCE, Pooler, Received, ScriptedServer, ServerWire, Wire,
};

/// The user and the database of every case.
pub(crate) const WHO: [(&str, &str); 2] = [("user", "app"), ("database", "shop")];

/// What the healed server answers each query with.
pub(crate) const GOOD: &str = "1";

/// See the module.
pub(crate) struct Faulty {
    pub(crate) server: ScriptedServer,
    pub(crate) pooler: Pooler,
    healed: Arc<AtomicBool>,
}

impl Faulty {
    /// Each connection plays `fault`.
    pub(crate) fn new(fault: impl Fn(ServerWire) + Send + Sync + 'static) -> Self {
        Self::with(fault, |builder| builder)
    }

    /// As [`Faulty::new`], with another configuration.
    pub(crate) fn with(
        fault: impl Fn(ServerWire) + Send + Sync + 'static,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let healed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&healed);
        let server = ScriptedServer::start(move |mut wire| {
            if !seen.load(Ordering::Acquire) {
                fault(wire);
            } else if wire.accept_login() {
                wire.answer_queries(GOOD);
            }
        });
        let builder = Pooler::builder()
            .host(server.port())
            .set("pool_size = 1")
            .set("server_connect_timeout = \"2s\"");
        let pooler = change(builder).start();
        Self {
            server,
            pooler,
            healed,
        }
    }

    /// One whose connections log in, and play `fault` when the first query has come.
    pub(crate) fn at_query(fault: impl Fn(ServerWire) + Send + Sync + 'static) -> Self {
        Self::new(move |mut wire| {
            if wire.accept_login() && wire.recv_until(b'Q') {
                fault(wire);
            }
        })
    }

    /// A session.
    pub(crate) fn login(&self) -> Wire {
        Wire::login_with(self.pooler.port(), &WHO, "")
    }

    /// A session, or what it is refused with.
    pub(crate) fn try_login(&self) -> Result<Wire, Message> {
        Wire::try_login(self.pooler.port(), &WHO, "")
    }

    /// From now on each new connection is a good one.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::Release);
    }

    /// What must hold after every fault: the pooler lives; with a good server a login and a query are done within 10 s,
    /// and their answer is their own; the only place in the pool was given back.
    pub(crate) fn assert_sound(&self) {
        self.heal();
        let began = Instant::now();
        // The answer of a login that began before may still be the fault's.
        let mut login = self.try_login();
        while login.is_err() && began.elapsed() < Duration::from_secs(10) {
            login = self.try_login();
        }
        let mut wire = login.unwrap_or_else(|e| panic!("not healed: {e:?}"));
        let rows = wire.rows("SELECT 'mine'");
        assert_eq!(rows, [[GOOD]], "somebody else's rows");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "a login took {took:?}");
        wire.leave();
        assert!(self.pooler.ended().is_none(), "{}", self.pooler.log());
        let log = self.pooler.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Runs the cases of a table, a few at a time: most of their time they wait.
pub(crate) fn each<T: Sync>(cases: &[T], run: impl Fn(&T) + Sync) {
    for some in cases.chunks(4) {
        std::thread::scope(|scope| {
            for case in some {
                scope.spawn(|| run(case));
            }
        });
    }
}

/// What the client is told within a moment, if anything.
pub(crate) fn said(client: &mut Wire) -> Option<Message> {
    client.set_patience(Duration::from_millis(300));
    let polled = client.poll();
    client.set_patience(PATIENCE);
    match polled {
        Received::Message(message) => Some(message),
        Received::Silence => None,
        Received::Closed => panic!("closed without a word"),
    }
}
