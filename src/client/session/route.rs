//! Where the next batch of a session goes: to the primary or to a replica.
//!
//! What decides, in this order: that the session's server is another's (rerun), a hint in the statement,
//! a SET of the session's, its startup option, the user's and the database's `route`; then what the
//! statements are proven to be; then which hosts may serve it. A session that has written reads from
//! replicas again when they have replayed a position that was sampled after the write.
//!
//! A batch goes to one server whole. Reads behind reads travel with them; whatever else follows is looked
//! at when they are answered.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pooler_protocol::route::{Consistency, Route, Summary};
use pooler_protocol::settings::Settings;

use super::{Session, State, Step};
use crate::client::batch::{Batch, each_text};
use crate::client::farewell;
use crate::client::routes::Routes;
use crate::client::seat::{HostNews, Phase, waiting_in_vain};
use crate::cluster::position::{Look, Position};
use crate::cluster::select::{Avoid, Place, Read};
use crate::config::{self, ReadConsistency, Routing};
use crate::error::{LoginError, Refusal, ServerFault};
use crate::metrics::Why;
use crate::relay::{Again, ClientSide, Rerun, Stint, first_batch_len};
use crate::server::Interners;

/// The setting that is a causal token.
const POSITION: &str = "pooler.position";

/// What a session's routing depends on.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) routes: Rc<Routes>,
    routing: Routing,
    default_route: Route,
    default_consistency: ReadConsistency,
    /// The settings that `said` was read from.
    settings: Arc<Settings>,
    said: Said,
    /// Looks at the primary that had been begun when its last write ended.
    wrote: Option<Look>,
    /// What a replica must have replayed.
    seen: Position,
    /// Bytes in front that were refused elsewhere, and go to the primary.
    forced: usize,
    /// Hosts that have failed what waits.
    avoid: Avoid,
    /// What waits was sent to a server before.
    tried: bool,
    /// What waits is to be done by a replica, or not at all.
    only_replicas: bool,
}

/// What the session's settings say.
#[derive(Debug, Default, Clone, Copy)]
struct Said {
    route: Option<Route>,
    consistency: Option<Consistency>,
    /// Transactions only read unless they say otherwise.
    reads_only: bool,
    /// Replicas do not serve this isolation level.
    serializable: bool,
}

/// Where a batch goes.
#[derive(Debug)]
struct Decision {
    place: Place,
    stint: Stint,
    why: Why,
}

impl Routed {
    pub(super) fn new(
        routes: Rc<Routes>,
        settings: &config::PoolSettings,
        none: &Arc<Settings>,
    ) -> Self {
        Self {
            routes,
            routing: settings.routing,
            default_route: match settings.route {
                config::Route::Auto => Route::Auto,
                config::Route::Primary => Route::Primary,
                config::Route::Replica => Route::Replica,
                config::Route::PreferReplica => Route::PreferReplica,
            },
            default_consistency: settings.read_consistency,
            settings: Arc::clone(none),
            said: Said::default(),
            wrote: None,
            seen: Position::default(),
            forced: 0,
            avoid: Avoid::default(),
            tried: false,
            only_replicas: false,
        }
    }

    /// Takes over what must outlive a reload.
    pub(super) fn inherit(&mut self, old: &Self) {
        self.wrote = old.wrote.map(|_| self.routes.cluster.looks());
        self.seen = old.seen;
        self.forced = old.forced;
    }

    /// What ran has ended, or is lost; it may have written.
    #[inline]
    fn note_end(&mut self, wrote: bool) {
        self.forget_attempts();
        if wrote {
            self.wrote = Some(self.routes.cluster.looks());
        }
    }

    /// What was tried for what waited says nothing about what comes next.
    #[inline]
    pub(super) fn forget_attempts(&mut self) {
        self.tried = false;
        self.avoid = Avoid::default();
    }

    fn look_up_settings(&mut self, client: &mut ClientSide, interners: &Interners) {
        if Arc::ptr_eq(&self.settings, &client.settings) {
            return;
        }
        // Servers need not know the token.
        if client.settings.find(POSITION).is_some() {
            let token = client.settings.find(POSITION).and_then(Position::parse);
            self.seen = self
                .seen
                .max(token.unwrap_or_default().end_of_last_record());
            client.settings = interners.settings(client.settings.with(POSITION, None));
        }
        self.settings = Arc::clone(&client.settings);
        let find = |name: &str| self.settings.find(name);
        let on = |name| matches!(find(name), Some("on" | "true" | "yes" | "1"));
        self.said = Said {
            route: find(Route::SETTING).and_then(|v| Route::parse(v.as_bytes())),
            consistency: find(Consistency::SETTING).and_then(|v| Consistency::parse(v.as_bytes())),
            reads_only: on("default_transaction_read_only"),
            serializable: find("default_transaction_isolation") == Some("serializable"),
        };
    }

    /// What a replica must have replayed; nothing if that is not known yet.
    #[inline]
    fn must_have_seen(&mut self, consistency: Option<Consistency>) -> Option<Position> {
        let consistent = match consistency {
            Some(Consistency::Eventual) => false,
            Some(Consistency::Session) => true,
            None => self.default_consistency == ReadConsistency::Session,
        };
        if !consistent {
            return Some(Position::default());
        }
        let Some(look) = self.wrote else {
            return Some(self.seen);
        };
        let due = self.routes.cluster.due_after(look)?;
        let seen = self.seen.max(due.position);
        if due.is_settled {
            self.seen = seen;
            self.wrote = None;
        }
        Some(seen)
    }

    /// Where what is at the front of `input` goes.
    fn decide(
        &mut self,
        client: &mut ClientSide,
        interners: &Interners,
        input: &[u8],
    ) -> Result<Decision, Refusal> {
        self.look_up_settings(client, interners);
        if std::mem::take(&mut self.forced) > 0 {
            return Ok(Decision::primary(Why::Again));
        }
        let avoid = self.avoid;
        let Some(first) = first_batch_len(input) else {
            return Ok(Decision::primary(Why::Incomplete));
        };
        let batch = Batch::judge(&input[..first], &client.statements, &self.routes);
        let route = batch.hints.route.or(self.said.route);
        let route = route.unwrap_or(self.default_route);
        let asked = route != Route::Auto;
        self.only_replicas = route == Route::Replica;
        let block = match batch.class {
            Summary::Read => false,
            Summary::Begin(begin) => {
                let reads_only = begin.read_only.unwrap_or(self.said.reads_only);
                let serializable = begin.serializable || self.said.serializable;
                let goes = match route {
                    Route::Auto => reads_only && self.routing == Routing::Auto,
                    _ => begin.read_only != Some(false),
                };
                if route == Route::Primary || !goes || serializable {
                    return Ok(Decision::primary(match asked {
                        true => Why::Asked,
                        false => Why::Block,
                    }));
                }
                true
            }
            _ if route == Route::Auto => {
                return Ok(Decision::on_primary(&batch, first, batch.why()));
            }
            // What it leaves in the session is to be found there by its writes, too.
            _ if route == Route::PreferReplica && batch.suspect => {
                return Ok(Decision::on_primary(&batch, first, Why::Asked));
            }
            _ if route == Route::PreferReplica && self.was_refused(client, &input[..first]) => {
                return Ok(Decision::on_primary(&batch, first, Why::Refused));
            }
            _ => false,
        };
        let explicit_only = route == Route::Auto && self.routing == Routing::Explicit;
        if route == Route::Primary || explicit_only || client.possessions.listening.is_some() {
            return Ok(Decision::on_primary(&batch, first, Why::Asked));
        }
        if self.said.serializable {
            return Ok(Decision::primary(Why::Block));
        }
        let proven = batch.class == Summary::Read;
        let len = match proven {
            true => self.reads_len(client, input, first, &batch),
            false => first,
        };
        let consistency = batch.hints.consistency.or(self.said.consistency);
        let seen = self.must_have_seen(consistency);
        let read = |seen| Read {
            seen,
            avoid,
            only_replicas: route == Route::Replica,
        };
        let placed = seen.and_then(|seen| self.routes.place(read(seen)));
        let (place, why) = match placed {
            Some((place, true)) if asked => (place, Why::Asked),
            Some((place, true)) if block => (place, Why::ReadOnlyBlock),
            Some((place, true)) => (place, Why::Read),
            Some((place, false)) if seen > Some(Position::default()) => (place, Why::Consistency),
            Some((place, false)) => (place, Why::Fallback),
            // No replica has caught up yet, or it is not known how far one must be.
            None if route != Route::Replica => (Place::Primary, Why::Consistency),
            None => match self.routes.place(read(Position::default())) {
                Some(_) if proven => (Place::Primary, Why::Consistency),
                Some((place, _)) => (place, Why::Asked),
                None => return Err(Refusal::no_replica(self.routes.cluster.name())),
            },
        };
        let on_replica = place != Place::Primary;
        let stint = match (block, on_replica) {
            (true, true) => Stint::Block,
            // There it may write, whatever it said at its beginning.
            (true, false) => Stint::Free,
            (false, true) => {
                let rerun = || Rerun::new(&input[..len], route == Route::Replica);
                Stint::reads(len, batch.is_repeatable().then(rerun).flatten())
            }
            (false, false) if proven => Stint::reads(len, None),
            (false, false) => Stint::Free,
        };
        Ok(Decision { place, stint, why })
    }

    /// Whether a replica has refused a statement like one of `batch`: it is not asked again.
    fn was_refused(&self, client: &ClientSide, batch: &[u8]) -> bool {
        let mut refused = false;
        each_text(batch, &client.statements, |text| {
            refused |= self.routes.database.was_refused(text);
        });
        refused
    }

    /// Bytes at the front of `input` that are reads like the first batch, `like`, of `first` bytes. All of
    /// them can be done again, or the first alone is sent.
    fn reads_len(&self, client: &ClientSide, input: &[u8], first: usize, like: &Batch) -> usize {
        let mut len = first;
        let mut leans = like.leans;
        if !like.is_repeatable() {
            return len;
        }
        while len < input.len() {
            let Some(next) = first_batch_len(&input[len..]) else {
                break;
            };
            let batch = Batch::judge(&input[len..len + next], &client.statements, &self.routes);
            leans |= batch.leans;
            let other = batch.class != Summary::Read || batch.hints != like.hints;
            if other || (leans && batch.replaces) {
                break;
            }
            len += next;
        }
        len
    }
}

impl Decision {
    /// To the primary; what writes nothing is not taken for a write.
    fn on_primary(batch: &Batch, len: usize, why: Why) -> Self {
        let reads = batch.class == Summary::Read || batch.writes_nothing;
        let stint = if reads {
            Stint::reads(len, None)
        } else {
            Stint::Free
        };
        Self {
            stint,
            ..Self::primary(why)
        }
    }

    fn primary(why: Why) -> Self {
        Self {
            place: Place::Primary,
            stint: Stint::Free,
            why,
        }
    }
}

impl Session {
    /// After a change of the configuration.
    pub(super) fn look_up_routes(&mut self, settings: &config::PoolSettings) {
        let old = self.routed.take();
        self.client.stint = Stint::Free;
        let Some(routes) = self.hub.routes.of(&self.hub, &self.home) else {
            return;
        };
        let none = self.hub.registry.commons.interners.no_settings();
        let mut routed = Box::new(Routed::new(routes, settings, &none));
        match old {
            Some(old) => routed.inherit(&old),
            // It may have written while nobody kept count.
            None if self.started => routed.note_end(true),
            None => {}
        }
        self.routed = Some(routed);
    }

    /// Joins the queue of the pool that was chosen.
    pub(super) fn wait(&mut self) {
        let now = Instant::now();
        match self.local.wait(now) {
            Ok(wait) => {
                self.state = State::Waiting(wait);
                self.seat.set_pool(self.local.shared());
                self.seat.enter(Phase::Waiting, now);
            }
            Err(error) => self.wait_elsewhere(&error),
        }
    }

    /// No server of the pool that was chosen will be opened: a replica's is not the only one.
    #[cold]
    pub(super) fn wait_elsewhere(&mut self, error: &LoginError) {
        if Rc::ptr_eq(&self.local, &self.home) {
            return self.refuse(&waiting_in_vain(error));
        }
        self.look_elsewhere();
    }

    /// Gives up its place in a queue and looks for a server anew.
    #[cold]
    pub(super) fn look_elsewhere(&mut self) {
        if let Some(routed) = &mut self.routed {
            // Not to and fro between hosts that let nobody in.
            routed.avoid.add(routed.routes.host_of(&self.local));
        }
        self.state = State::Idle;
        self.client.stint = Stint::Free;
        self.client.unread = !self.client.carry.is_empty();
        self.seat.enter(Phase::Idle, Instant::now());
    }

    /// What ran has ended, or its server is lost.
    #[inline]
    pub(super) fn note_end(&mut self) {
        if let Some(routed) = &mut self.routed {
            routed.note_end(matches!(self.client.stint, Stint::Free));
        }
    }

    /// A server said that it is not one for this. What it refused as a write goes to the primary, and so
    /// does what has been elsewhere before.
    #[cold]
    pub(super) fn elsewhere(&mut self, again: Again) -> Step {
        self.home.shared().plan().recipe.locate.alarm();
        if again.is_refused {
            let first = first_batch_len(&again.batches).unwrap_or(again.batches.len());
            if let Some(routed) = &self.routed {
                each_text(&again.batches[..first], &self.client.statements, |text| {
                    routed.routes.database.note_refused(text);
                });
            }
            self.local.counters().retried_on_primary.add(1);
        }
        if let Some(checkout) = self.take_wrong_server()
            && checkout.reusable().is_some()
        {
            farewell::clean_and_release(checkout);
        }
        self.send_elsewhere(again);
        Step::Again
    }

    /// A replica is gone: if the client has nothing of the answer yet, another host gives it.
    #[cold]
    pub(super) fn lost_replica(&mut self, fault: &ServerFault) -> Option<Step> {
        // What two servers have died of without a word is not shown to a third.
        let tried = self.routed.as_ref().is_some_and(|routed| routed.tried);
        let silent = !matches!(&self.state, State::Active(server) if server.said_goodbye);
        if tried && silent && !matches!(fault, ServerFault::HostLost) {
            return None;
        }
        let again = self.client.stint.take_unanswered()?;
        tracing::info!(pool = %self.local.shared().key, "server connection lost, its read goes elsewhere: {fault}");
        self.local.shared().plan().recipe.locate.alarm();
        self.send_elsewhere(again);
        Some(Step::Again)
    }

    /// What a server was sent in vain goes in front of what waits, to another server: to another replica
    /// once, then to the primary. Who has asked for replicas alone is told that there is none.
    #[cold]
    fn send_elsewhere(&mut self, again: Again) {
        let Some(routed) = &mut self.routed else {
            return;
        };
        crate::relay::forget_names(&again.batches, &mut self.client.statements);
        let twice = std::mem::replace(&mut routed.tried, true);
        let only_replicas = routed.only_replicas;
        routed.avoid.add(routed.routes.host_of(&self.local));
        if again.is_refused || (twice && !only_replicas) {
            routed.forced = again.batches.len();
        }
        let mut all = again.batches;
        let waiting = self.client.carry.take();
        all.extend_from_slice(waiting.get(again.unsent..).unwrap_or_default());
        self.client.carry.replace(&all);
        self.client.unread = true;
        drop(self.take_wrong_server());
        if twice && only_replicas {
            let refusal = Refusal::no_replica(self.cluster_name());
            return self.refuse(&refusal);
        }
        self.seat.enter(Phase::Idle, Instant::now());
    }

    fn cluster_name(&self) -> &str {
        self.routed.as_ref().map_or("", |r| r.routes.cluster.name())
    }

    /// Something has changed about the hosts of its cluster.
    #[cold]
    pub(super) fn hear_of_hosts(&mut self, news: &HostNews) -> Step {
        let replica = self.local.shared().key.replica.clone();
        let lost = replica.is_some() && replica.as_deref() == news.lost.as_deref();
        match &self.state {
            State::Waiting(_) => {
                let read = matches!(self.client.stint, Stint::Reads { .. });
                if read && replica.is_none() {
                    // Whoever failed it may be back.
                    if let Some(routed) = &mut self.routed {
                        routed.forget_attempts();
                    }
                    self.look_elsewhere();
                } else if lost {
                    self.look_elsewhere();
                }
            }
            State::Active(_) if lost => {
                if let Some(step) = self.lost_replica(&ServerFault::HostLost) {
                    return step;
                }
            }
            State::Active(checkout) if replica.is_none() => {
                let host = &checkout.identity.host;
                if news.primary.as_ref().is_some_and(|primary| primary != host) {
                    return self.server_lost(&ServerFault::Deposed);
                }
            }
            State::Active(_) | State::Idle | State::Closing => {}
        }
        Step::Again
    }

    /// Decides where what is at the front of `input` goes.
    ///
    /// # Errors
    /// What the client is told if it asks for what cannot be had.
    #[inline]
    pub(super) fn route(&mut self, input: &[u8]) -> Result<(), Refusal> {
        let Some(routed) = &mut self.routed else {
            return Ok(());
        };
        let interners = &self.hub.registry.commons.interners;
        let decision = routed.decide(&mut self.client, interners, input)?;
        let routes = Rc::clone(&routed.routes);
        self.client.stint = decision.stint;
        self.local = routes.pool(&self.hub, decision.place);
        if matches!(decision.place, Place::Replica(_)) && self.local.shared().key.replica.is_none()
        {
            // The replica is no longer in the configuration.
            self.client.stint = Stint::Free;
        }
        self.local.counters().routed[decision.why.index()].add(1);
        Ok(())
    }
}
