//! What the relay sees of a statement that turns out to be slow, and of a transaction whose caller records a trace.

use std::time::{Duration, Instant};

use pooler_protocol::frame::{HEADER_LEN, Header, split_cstr, up_to_nul};
use pooler_protocol::frontend::{BindView, ParseView, tag};
use pooler_protocol::prepared::ClientStatements;
use pooler_protocol::route::{Caller, TraceParent, find_caller, find_caller_if, may_have_comment};

use super::{ClientSide, Meter, Relay, first_batch_len};
use crate::metrics::SqlState;
use crate::observe::{Attention, Broken, STEPS_MAX, Statement, Step, TEXTS_LEN_MAX};
use crate::server::Server;

/// What is known of a batch that is answered.
struct Answered {
    began: Instant,
    ended: Instant,
    waited: Duration,
    rows: u64,
    bytes: u64,
    sqlstate: Option<SqlState>,
}

impl Relay<'_> {
    /// The client sends this text.
    #[inline]
    pub(super) fn look_for_caller(&mut self, text: &[u8]) {
        if self.rules.attention.traces && may_have_comment(text) {
            self.expect_caller_of(text);
        }
    }

    #[cold]
    fn expect_caller_of(&mut self, text: &[u8]) {
        let attention = &self.rules.attention;
        let caller = find_caller_if(text, |parent| attention.records(parent));
        if let Some(caller) = caller
            && !self.server.replay.running
        {
            let at = self.server.ledger.next_number();
            self.server.watch.expect(caller, at);
        }
    }

    /// What was sent is kept until it is answered.
    #[inline]
    pub(super) fn watch_sent(&mut self, sent: &[u8]) {
        if self.server.replay.running || self.server.ledger.outstanding() == 0 {
            return;
        }
        self.server.watch.keep(sent);
        if let Some(parent) = self.client.settings.caller()
            && self.rules.attention.records(parent)
        {
            let last = self.server.ledger.next_number().saturating_sub(1);
            self.server.watch.expect_all(*parent, last);
        }
    }

    /// A request is answered, by what ends at `at` of what is being read.
    #[inline]
    pub(super) fn watch_end(&mut self, began: Instant, ended: Instant, at: usize) {
        let waited = std::mem::take(&mut self.meter.waited);
        if !waited.is_zero() {
            self.server.watch.note_waited(waited);
        }
        let (rows, bytes, sqlstate) = self.server.watch.take_numbers(at);
        let is_slow = waited + (ended - began) >= self.rules.attention.slow;
        if is_slow || self.server.watch.is_close() {
            let answered = Answered {
                began,
                ended,
                waited,
                rows,
                bytes,
                sqlstate,
            };
            self.look_closely(&answered, is_slow);
        }
        if self.server.ledger.outstanding() == 0 {
            self.server.watch.forget_all();
        } else {
            let end = self.server.ledger.answered();
            self.server.watch.note_answered(end);
            let kept = self.server.watch.kept();
            let len = first_batch_len(kept).unwrap_or(kept.len());
            self.server.watch.forget(len);
        }
    }

    #[cold]
    fn look_closely(&mut self, answered: &Answered, is_slow: bool) {
        let batch = Batch::first_kept(self.server, self.client);
        let followed = self.server.watch.followed();
        let slow = is_slow.then(|| {
            let caller = batch.said.as_ref().map(|(_, caller)| caller.parent);
            let caller = caller.or_else(|| followed.map(|it| it.caller.parent));
            let first = batch.works.first();
            Statement {
                text: first.map_or(Vec::new(), |work| work.text.to_vec()),
                bind: first.map_or(Vec::new(), |work| work.bind.to_vec()),
                ran: answered.ended - answered.began,
                waited: answered.waited,
                rows: answered.rows,
                bytes: answered.bytes,
                sqlstate: answered.sqlstate,
                caller: caller.or_else(|| self.client.settings.caller().copied()),
            }
        });
        let end = self.server.ledger.answered();
        let traced = Traced::of(self.server, &batch, &self.rules.attention, end);
        if let Some(slow) = slow {
            self.server.watch.note_slow(slow);
        }
        if let Some(traced) = traced {
            let began = self.meter.transaction.unwrap_or(answered.began);
            follow(self.server, traced.caller, began);
            push_steps(self.server, traced.works, answered);
        } else {
            // They are of nobody whose caller is known: the next batch must not have them.
            let _commands = self.server.watch.take_commands();
        }
    }
}

/// The client leaves this server, or is left by it: if a transaction was under way whose caller records a trace, it is
/// news now, with what was not answered as its last statement.
#[cold]
pub fn break_transaction(
    server: &mut Server,
    client: &ClientSide,
    meter: &Meter,
    attention: &Attention,
    broken: Broken,
) {
    let now = Instant::now();
    let began = meter.query.or(meter.transaction).unwrap_or(now);
    if !meter.waited.is_zero() {
        server.watch.note_waited(meter.waited);
    }
    if !server.watch.kept().is_empty() {
        let batch = Batch::first_kept(server, client);
        let end = server.ledger.answered_next();
        if let Some(traced) = Traced::of(server, &batch, attention, end) {
            follow(server, traced.caller, meter.transaction.unwrap_or(began));
            if !traced.works.is_empty() {
                let (rows, _, sqlstate) = server.watch.take_numbers(0);
                let answered = Answered {
                    began,
                    ended: now,
                    waited: meter.waited,
                    rows,
                    bytes: 0,
                    sqlstate: sqlstate.or(broken.sqlstate),
                };
                push_steps(server, traced.works, &answered);
            }
        }
    }
    server.watch.break_transaction(now, broken);
}

/// A batch of a transaction whose caller records a trace: what is noted of it.
struct Traced {
    /// Who asked for it, unless that is known already.
    caller: Option<Caller>,
    /// Its statements: the front of each text, and who asked for it.
    works: Vec<(Vec<u8>, Option<Caller>)>,
}

impl Traced {
    /// Nothing, if neither the batch nor the session says that there is such a caller, and none is followed. `end` is
    /// the number of the first request behind the batch.
    fn of(server: &Server, batch: &Batch<'_>, attention: &Attention, end: u64) -> Option<Self> {
        let said = batch.said.as_ref().map(|(_, caller)| caller);
        let named = said.is_some();
        let said = said.filter(|caller| attention.records(&caller.parent));
        // A batch that was not kept to its end may have said it there.
        let unkept = server.watch.said_below(end).filter(|_| batch.is_cut);
        // What a session is set to is not in its text.
        let set = server.watch.set();
        let set = set.filter(|parent| batch.set == Some(*parent));
        let set = set.map(|parent| Caller {
            parent,
            state: None,
        });
        let unsaid = unkept.cloned().or(set).filter(|_| !named);
        let caller = said.cloned().or(unsaid);
        if caller.is_none() && server.watch.followed().is_none() {
            return None;
        }
        let works = batch.works.iter().map(|work| {
            // A statement of many megabytes may be executed many times.
            let front = &work.text[..work.text.len().min(TEXTS_LEN_MAX)];
            let caller = match &batch.said {
                Some((text, caller)) if std::ptr::eq(*text, work.text) => Some(caller.clone()),
                _ => find_caller(work.text),
            };
            (front.to_vec(), caller)
        });
        Some(Self {
            caller,
            works: works.collect(),
        })
    }
}

/// Follows the transaction that began then.
fn follow(server: &mut Server, caller: Option<Caller>, began: Instant) {
    if let Some(caller) = caller {
        let born = (!server.used).then_some(server.born);
        server.watch.follow(caller, began, born);
    }
}

/// One for each statement of the batch; what an error has kept from running has none.
fn push_steps(server: &mut Server, mut works: Vec<(Vec<u8>, Option<Caller>)>, answered: &Answered) {
    let commands = server.watch.take_commands();
    if answered.sqlstate.is_some() {
        works.truncate(commands.len().max(1));
    }
    let last = works.len().saturating_sub(1);
    let mut began = answered.began;
    for (n, (text, caller)) in works.into_iter().enumerate() {
        let command = commands.get(n).filter(|_| n < last);
        let (ended, rows) = command.copied().unwrap_or_else(|| {
            // A Query can hold several statements.
            let before: u64 = commands.iter().take(n).map(|(_, rows)| rows).sum();
            (answered.ended, answered.rows.saturating_sub(before))
        });
        server.watch.push(Step {
            text,
            began,
            ended,
            rows,
            sqlstate: answered.sqlstate.filter(|_| n == last),
            caller,
        });
        began = ended;
    }
}

/// A statement in a batch.
struct Work<'a> {
    text: &'a [u8],
    /// The body of its Bind, if all of it is here.
    bind: &'a [u8],
}

/// What a batch says that is answered.
#[derive(Default)]
struct Batch<'a> {
    /// In the order in which it runs; at most [`STEPS_MAX`].
    works: Vec<Work<'a>>,
    /// The first text of it that names a caller, and the caller.
    said: Option<(&'a [u8], Caller)>,
    /// Whom the session names.
    set: Option<TraceParent>,
    /// Its end was not kept.
    is_cut: bool,
}

impl<'a> Batch<'a> {
    /// The oldest batch that is kept. The last message that is kept may be the front of a longer one.
    fn first_kept(server: &'a Server, client: &'a ClientSide) -> Self {
        let kept = server.watch.kept();
        let len = first_batch_len(kept);
        let batch = &kept[..len.unwrap_or(kept.len())];
        let mut read = Reader {
            batch: Self {
                set: client.settings.caller().copied(),
                is_cut: len.is_none(),
                ..Self::default()
            },
            statements: &client.statements,
            parsed: Vec::new(),
            bound: Vec::new(),
        };
        let mut at = 0;
        while let Ok(Some(header)) = Header::read(&batch[at..]) {
            let end = (at + header.len).min(batch.len());
            let body = batch.get(at + HEADER_LEN..end).unwrap_or_default();
            read.message(header.tag, body, end == at + header.len);
            at = end;
        }
        read.end()
    }
}

/// Finds the texts of what is executed.
struct Reader<'a> {
    batch: Batch<'a>,
    statements: &'a ClientStatements,
    /// Statements of this batch, by name.
    parsed: Vec<(&'a [u8], &'a [u8])>,
    /// Portals of this batch, by name: statement and Bind.
    bound: Vec<(&'a [u8], &'a [u8], &'a [u8])>,
}

impl<'a> Reader<'a> {
    fn message(&mut self, tag: u8, body: &'a [u8], is_whole: bool) {
        match tag {
            tag::QUERY => {
                let text = up_to_nul(body);
                self.hear(text);
                self.push(text, b"");
            }
            tag::PARSE => {
                let (name, query) = match ParseView::read(body) {
                    Some(view) => (view.name, view.query()),
                    None => split_cstr(body)
                        .map_or((body, &b""[..]), |(name, rest)| (name, up_to_nul(rest))),
                };
                self.hear(query);
                self.parsed.retain(|(known, _)| *known != name);
                self.parsed.push((name, query));
            }
            tag::BIND => {
                if let Some(view) = BindView::read(body) {
                    let bind = if is_whole { body } else { b"" };
                    self.bound.retain(|(known, ..)| *known != view.portal);
                    self.bound.push((view.portal, view.statement, bind));
                }
            }
            tag::EXECUTE => {
                let (portal, _) = split_cstr(body).unwrap_or_default();
                let bound = self.bound.iter().find(|(known, ..)| *known == portal);
                let (statement, bind) = bound.map_or((&b""[..], &b""[..]), |b| (b.1, b.2));
                let text = bound.and_then(|_| self.text_of(statement));
                self.push(text.unwrap_or_default(), bind);
            }
            tag::FUNCTION_CALL => self.push(b"", b""),
            _ => {}
        }
    }

    fn text_of(&self, name: &[u8]) -> Option<&'a [u8]> {
        let parsed = self.parsed.iter().find(|(known, _)| *known == name);
        parsed.map(|(_, text)| *text).or_else(|| {
            let statement = match name {
                b"" => self.statements.unnamed(),
                name => self.statements.find(name),
            };
            statement.map(|statement| statement.query())
        })
    }

    fn hear(&mut self, text: &'a [u8]) {
        if self.batch.said.is_none() {
            self.batch.said = find_caller(text).map(|caller| (text, caller));
        }
    }

    fn push(&mut self, text: &'a [u8], bind: &'a [u8]) {
        if self.batch.works.len() < STEPS_MAX {
            self.batch.works.push(Work { text, bind });
        }
    }

    /// What executes nothing, or was not kept so far, is known by what it parses or binds.
    fn end(mut self) -> Batch<'a> {
        if self.batch.works.is_empty() {
            let bound = self.bound.first().copied();
            let parsed = self.parsed.first().map(|(_, text)| *text);
            let text = parsed.or_else(|| self.text_of(bound?.1));
            if parsed.is_some() || bound.is_some() {
                let bind = bound.map_or(&b""[..], |bound| bound.2);
                self.push(text.unwrap_or_default(), bind);
            }
        }
        self.batch
    }
}
