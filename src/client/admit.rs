//! From a client that has proved who it is to its session: what its server says of itself, the
//! settings that it asked for, its place among the sessions.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pooler_protocol::backend::{write_backend_key_data, write_ready_idle};
use pooler_protocol::settings::Settings;
use pooler_protocol::startup::{Replication, Startup};

use super::authenticate::Authenticated;
use super::queue::{self, Newcomer};
use super::seat::CancelKey;
use super::session::Session;
use super::talk::Talk;
use super::{Counted, Hub, attach, startup_settings};
use crate::config::PoolMode;
use crate::error::{ClientLoginError, Refusal};
use crate::net::{DetachedStream, Peer, Stream};
use crate::pool::limit::Permit;
use crate::pool::{Checkout, Pool, Seated};
use crate::relay::ClientSide;
use crate::server::Welcome;
use crate::timer;

/// How long a client may take to take in its last message.
const REFUSE_MAX: Duration = Duration::from_secs(5);

/// A client that is let in and has no session yet.
#[derive(Debug)]
pub struct Admission<S = Stream> {
    stream: S,
    peer: Peer,
    /// Received behind the login.
    received: Vec<u8>,
    /// To be sent in front of what comes next.
    out: Vec<u8>,
    startup: Startup,
    proof: Authenticated,
    pool: Arc<Pool>,
    permits: Vec<Permit>,
    /// When it was accepted.
    arrived: Instant,
}

impl Admission<Stream> {
    /// Of a client that has shown `proof` for a session in `pool`.
    #[must_use]
    pub fn new(
        talk: Talk,
        startup: Startup,
        proof: Authenticated,
        pool: Arc<Pool>,
        permits: Vec<Permit>,
    ) -> Self {
        let (stream, peer, received, out) = talk.into_parts();
        Self {
            peer,
            stream,
            received,
            out,
            startup,
            proof,
            pool,
            permits,
            arrived: Instant::now(),
        }
    }

    /// Its client was accepted then.
    pub fn note_arrival(&mut self, when: Instant) {
        self.arrived = when;
    }

    /// The worker on which it is to live; it is on worker `here` now.
    #[must_use]
    pub fn home(&self, here: usize) -> usize {
        self.pool.home(here)
    }

    /// Leaves this worker.
    ///
    /// # Errors
    /// What the system says; the client is gone then.
    pub fn detach(self) -> std::io::Result<Admission<DetachedStream>> {
        self.map_stream(Stream::detach)
    }
}

impl Admission<DetachedStream> {
    /// Arrives on this worker.
    ///
    /// # Errors
    /// What the system says; the client is gone then.
    pub fn attach(self) -> std::io::Result<Admission> {
        self.map_stream(DetachedStream::attach)
    }
}

impl<S> Admission<S> {
    fn map_stream<T>(
        self,
        map: impl FnOnce(S) -> std::io::Result<T>,
    ) -> std::io::Result<Admission<T>> {
        Ok(Admission {
            stream: map(self.stream)?,
            peer: self.peer,
            received: self.received,
            out: self.out,
            startup: self.startup,
            proof: self.proof,
            pool: self.pool,
            permits: self.permits,
            arrived: self.arrived,
        })
    }

    /// Who it is.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether it wants a replication connection.
    #[must_use]
    pub fn is_replication(&self) -> bool {
        self.startup.replication() != Replication::No
    }
}

/// The parts that a replication connection needs.
pub(super) struct Parts {
    pub(super) stream: Stream,
    pub(super) out: Vec<u8>,
    pub(super) received: Vec<u8>,
    pub(super) startup: Startup,
    pub(super) pool: Arc<Pool>,
    pub(super) permits: Vec<Permit>,
}

impl Admission<Stream> {
    pub(super) fn into_parts(self) -> Parts {
        Parts {
            stream: self.stream,
            out: self.out,
            received: self.received,
            startup: self.startup,
            pool: self.pool,
            permits: self.permits,
        }
    }

    /// How long ago it was accepted.
    pub(super) fn age(&self) -> Duration {
        self.arrived.elapsed()
    }

    /// Done when the client has gone; what it says before that is kept.
    pub(super) async fn until_gone(&mut self) -> ClientLoginError {
        queue::until_gone(&mut self.stream, &mut self.received).await
    }

    /// Tells the client why not. On the worker that it has just moved to its socket may not be known
    /// to be writable yet, so this waits a moment; a client that takes nothing in does not get it.
    pub(super) async fn refuse(&mut self, refusal: &Refusal) {
        refusal.write(&mut self.out);
        let sent = self.stream.write_all(&self.out);
        let _sent = timer::timeout(REFUSE_MAX, sent).await;
    }
}

/// What a session holds of counts and limits, given back together when it ends; and who it is.
#[derive(Debug)]
pub(super) struct Holdings {
    /// When its client logged in.
    pub(super) born: Instant,
    /// Who the client is, if its servers are logged in as somebody else.
    pub(super) user: Option<Box<str>>,
    _seated: Seated,
    _permits: Vec<Permit>,
    _counted: Counted,
}

/// Makes the session. Waits for a first server of the pool if there was none; in a pool by session,
/// for one of its own.
///
/// # Errors
/// [`ClientLoginError`]; a refusal has been sent already. Dropped midway, the connection is closed.
pub(super) async fn admit(
    hub: &Rc<Hub>,
    mut admission: Box<Admission>,
    counted: Counted,
) -> Result<Box<Session>, ClientLoginError> {
    let by_session = admission.pool.plan().settings.pool_mode == PoolMode::Session;
    let local = hub.pools.local(&admission.pool);
    let mut newcomer = Newcomer {
        hub,
        local: &local,
        user: admission.proof.user(),
        startup: &admission.startup,
        peer: admission.peer,
        stream: &mut admission.stream,
        received: &mut admission.received,
        id: None,
    };
    let prepared = if by_session {
        match attach::attach(&mut newcomer).await {
            Ok(mut prepared) => attach::give_name(&mut prepared, &newcomer)
                .await
                .map(|()| prepared)
                .map_err(Into::into),
            Err(e) => Err(e),
        }
    } else {
        prepare(&mut newcomer).await
    };
    let id = newcomer.id;
    let Prepared {
        welcome,
        settings,
        server,
    } = match prepared {
        Ok(prepared) => prepared,
        Err(ClientLoginError::Refused(refusal)) => {
            admission.refuse(&refusal).await;
            return Err(ClientLoginError::Refused(refusal));
        }
        Err(gone) => return Err(gone),
    };
    let now = Instant::now();
    let key = CancelKey::random(admission.startup.accepted_minor());
    let pool = Arc::clone(&admission.pool);
    let mut seat = hub.seats.take(id, pool, key, now);
    let process_id = match server.as_ref().map(|s| s.identity.process_id) {
        Some(process_id) if process_id != 0 => {
            seat.show_process(process_id);
            process_id
        }
        _ => hub.process_id(seat.number()),
    };
    let mut out = std::mem::take(&mut admission.out);
    welcome.write(&settings, &mut out);
    write_backend_key_data(&mut out, process_id, seat.cancel_key());
    write_ready_idle(&mut out);
    let user = admission.proof.user();
    let holdings = Holdings {
        born: now,
        user: (user != admission.pool.key.user).then(|| user.into()),
        _seated: admission.pool.seat(hub.worker),
        _permits: admission.permits,
        _counted: counted,
    };
    let mut side = ClientSide::new(admission.stream, settings, &admission.received);
    // The session sends it, with whatever else its worker has to send then.
    side.outbox.append(|unsent| *unsent = out);
    let login = now.saturating_duration_since(admission.arrived);
    // Boxed: tokio moves a task's future several times.
    let hub = Rc::clone(hub);
    let mut session = Box::new(Session::new(hub, side, local, seat, holdings, login));
    if let Some(server) = server {
        session.begin_with(server, now);
    }
    Ok(session)
}

/// What a session begins with.
pub(super) struct Prepared {
    pub(super) welcome: Arc<Welcome>,
    /// Beyond what its servers are born with.
    pub(super) settings: Arc<Settings>,
    /// In a pool by session.
    pub(super) server: Option<Checkout>,
}

async fn prepare(newcomer: &mut Newcomer<'_>) -> Result<Prepared, ClientLoginError> {
    let (local, startup) = (newcomer.local, newcomer.startup);
    let pool = local.shared();
    let welcome = pool.welcome().await?;
    let settings = match local.settings_of_last_login(startup, &welcome) {
        Some(settings) => settings,
        None => {
            // Before the plan: if that changes now, this is too old.
            let version = pool.version();
            let plan = &pool.plan().settings;
            let asked = startup_settings::asked(startup, &newcomer.peer, plan)?;
            let settings = startup_settings::resolve(newcomer, &welcome, asked).await?;
            if !startup_settings::adds_host(plan) {
                local.note_last_login(startup, version, &welcome, &settings);
            }
            settings
        }
    };
    Ok(Prepared {
        welcome,
        settings,
        server: None,
    })
}
