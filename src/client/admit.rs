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
use super::seat::{self, CancelKey};
use super::session::Session;
use super::startup_settings::Resolved;
use super::talk::Talk;
use super::{Counted, Hub, Phase, attach, farewell, startup_settings};
use crate::config::PoolMode;
use crate::error::{ClientLoginError, Refusal};
use crate::net::{DetachedStream, Peer, Stream};
use crate::pool::limit::Permit;
use crate::pool::{Checkout, LocalPool, Pool, Seated};
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

/// What a session begins with.
pub(super) struct Prepared {
    pub(super) welcome: Arc<Welcome>,
    /// Beyond what its servers are born with.
    pub(super) settings: Arc<Settings>,
    /// In a pool by session.
    pub(super) server: Option<Checkout>,
}

/// The same, and where.
pub(super) struct Entry {
    local: Rc<LocalPool>,
    prepared: Prepared,
    /// Of one that had to wait.
    place: Option<(seat::Seated, Seated)>,
}

/// What a session begins with, if nothing has to be waited for: the pool has had servers, and what the client asks for is
/// known. In a pool by session there is a server to be had first.
///
/// # Errors
/// What the client is to be told.
pub(super) fn at_once(hub: &Hub, admission: &Admission) -> Result<Option<Entry>, Refusal> {
    let pool = &admission.pool;
    if pool.plan().settings.pool_mode == PoolMode::Session {
        return Ok(None);
    }
    let Some(welcome) = pool.known_welcome() else {
        return Ok(None);
    };
    let local = hub.pools.local(pool);
    let resolved = resolve(&local, &admission.startup, admission.peer, &welcome)?;
    let Resolved::Known(settings) = resolved else {
        return Ok(None);
    };
    let prepared = Prepared {
        welcome,
        settings,
        server: None,
    };
    Ok(Some(Entry {
        local,
        prepared,
        place: None,
    }))
}

/// The same, with all the waiting that it takes. Others see the login meanwhile, and can end it.
///
/// # Errors
/// [`ClientLoginError`]. Dropped midway, the login has left.
pub(super) async fn in_time(
    hub: &Rc<Hub>,
    admission: &mut Admission,
) -> Result<Entry, ClientLoginError> {
    let Admission {
        stream,
        peer,
        received,
        startup,
        proof,
        pool,
        ..
    } = admission;
    let local = hub.pools.local(pool);
    let counted = pool.seat(hub.worker);
    let newcomer = Newcomer::new(hub, &local, proof.user(), startup, stream);
    let by_session = pool.plan().settings.pool_mode == PoolMode::Session;
    let work = async {
        loop {
            let prepared = match by_session {
                true => attach::attach(&newcomer).await?,
                false => prepare(&newcomer, startup, *peer).await?,
            };
            newcomer.step_in().await;
            match prepared.server {
                // Its host is another's by now, or its pool was renewed.
                Some(server) if server.is_outdated() => server.close(),
                _ => return Ok(prepared),
            }
        }
    };
    let prepared = newcomer.attend(stream, received, work).await?;
    if let Some(end) = newcomer.end() {
        if let Some(mut server) = prepared.server {
            // It may have a name of the client's.
            server.dirty = true;
            farewell::clean_and_release(server);
        }
        return Err(end);
    }
    let place = Some((newcomer.into_seat(), counted));
    Ok(Entry {
        local,
        prepared,
        place,
    })
}

async fn prepare(
    newcomer: &Newcomer<'_>,
    startup: &Startup,
    peer: Peer,
) -> Result<Prepared, ClientLoginError> {
    let welcome = newcomer.first_welcome().await?;
    let settings = match resolve(newcomer.local, startup, peer, &welcome)? {
        Resolved::Known(settings) => settings,
        Resolved::Unknown(question) => {
            startup_settings::judge(newcomer, &welcome, question).await?
        }
    };
    Ok(Prepared {
        welcome,
        settings,
        server: None,
    })
}

fn resolve(
    local: &Rc<LocalPool>,
    startup: &Startup,
    peer: Peer,
    welcome: &Arc<Welcome>,
) -> Result<Resolved, Refusal> {
    if let Some(settings) = local.settings_of_last_login(startup, welcome) {
        return Ok(Resolved::Known(settings));
    }
    let pool = local.shared();
    // Before the plan: if that changes now, this is too old.
    let version = pool.version();
    let plan = &pool.plan().settings;
    let asked = startup_settings::asked(startup, &peer, plan)?;
    let resolved = startup_settings::resolve(local, welcome, asked);
    if let Resolved::Known(settings) = &resolved
        && !startup_settings::adds_host(plan)
    {
        local.note_last_login(startup, version, welcome, settings);
    }
    Ok(resolved)
}

/// Makes the session.
pub(super) fn begin(
    hub: &Rc<Hub>,
    mut admission: Box<Admission>,
    counted: Counted,
    entry: Entry,
) -> Box<Session> {
    let Entry {
        local,
        prepared,
        place,
    } = entry;
    let Prepared {
        welcome,
        settings,
        server,
    } = prepared;
    let now = Instant::now();
    let pool = &admission.pool;
    let (mut seat, seated) = place.unwrap_or_else(|| {
        let key = CancelKey::random(admission.startup.accepted_minor());
        let seat = hub.seats.take(Arc::clone(pool), key, now);
        (seat, pool.seat(hub.worker))
    });
    seat.enter(Phase::Idle, now);
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
        _seated: seated,
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
    session
}
