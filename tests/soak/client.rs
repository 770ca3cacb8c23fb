//! One client: sends batches, checks every message of the replies, and leaves in every way there is.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pooler_protocol::backend::{ErrorView, read_data_row, read_parameter_status};

use crate::plan::{Batch, Expect, Planner, Statement, ZONES};
use crate::support::{Wire, terminate};
use crate::{Arena, IDLE_TRANSACTION_TIMEOUT, QUERY_TIMEOUT, QUERY_WAIT_TIMEOUT, Seat};

/// What does not come within this has been lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a cancel of the pooler's own may be under way after the query that it is for.
const LATE_CANCEL: Duration = Duration::from_secs(2);

/// What became of what this client wrote.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Confirmed: must be there.
    pub(crate) committed: HashSet<String>,
    /// The connection went while that was being decided.
    pub(crate) unknown: HashSet<String>,
}

/// What happened, for the report.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) statements: usize,
    pub(crate) sessions: usize,
    pub(crate) dropped: usize,
    pub(crate) cancelled: usize,
    pub(crate) waited_in_vain: usize,
    pub(crate) timed_out: usize,
    pub(crate) idle_too_long: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.statements += other.statements;
        self.sessions += other.sessions;
        self.dropped += other.dropped;
        self.cancelled += other.cancelled;
        self.waited_in_vain += other.waited_in_vain;
        self.timed_out += other.timed_out;
        self.idle_too_long += other.idle_too_long;
    }
}

/// See the module.
pub(crate) struct Client<'a> {
    arena: &'a Arena,
    seat: &'a Seat,
    number: usize,
    planner: Planner,
    pub(crate) written: Written,
    pub(crate) tally: Tally,
    /// Written in a transaction that is still open.
    pending: Vec<String>,
    /// The last ReadyForQuery said that a transaction is open.
    open: bool,
    /// When the last batch was sent.
    sent_at: Instant,
    /// When a batch ended that took so long that the pooler may have cancelled it.
    overlong: Option<Instant>,
}

/// A session.
struct Link {
    wire: Wire,
    stream: TcpStream,
    received: Vec<u8>,
    at: usize,
}

/// How a batch ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// As it should.
    Done,
    /// Something came in between.
    Interrupted,
    /// The session is over.
    Closed,
}

/// What a client does about one batch beyond sending it and reading the replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Plain,
    /// Reads nothing for a while in the middle of the replies.
    SlowReader,
    /// Sends it in two parts.
    Torn,
    /// Goes when it has sent so many bytes and read so many messages.
    Leaves {
        bytes: usize,
        messages: usize,
    },
}

impl<'a> Client<'a> {
    pub(crate) fn new(arena: &'a Arena, number: usize) -> Self {
        Self {
            arena,
            seat: &arena.seats[number],
            number,
            planner: Planner::new(number, arena.seed, arena.rare),
            written: Written::default(),
            tally: Tally::default(),
            pending: Vec::new(),
            open: false,
            sent_at: Instant::now(),
            overlong: None,
        }
    }

    /// Runs sessions until the arena has seen enough.
    pub(crate) fn run(&mut self) {
        while !self.arena.is_over() {
            self.session();
        }
    }

    fn session(&mut self) {
        self.planner.begin_session();
        self.pending.clear();
        self.open = false;
        let Some(mut link) = self.login() else { return };
        while !self.arena.is_over() {
            let batch = self.planner.batch();
            let manner = self.manner(&batch);
            let mut end = self.exchange(&mut link, &batch, manner);
            if end == End::Interrupted {
                end = self.recover(&mut link);
            }
            if end == End::Closed {
                return;
            }
            if matches!(manner, Manner::Leaves { .. }) {
                self.tally.dropped += 1;
                return link.end(self.planner.dice.below(3));
            }
            self.pause();
        }
    }

    /// Between two batches.
    fn pause(&mut self) {
        let dice = &mut self.planner.dice;
        if dice.once_in(60) {
            // Just when a query has ended.
            self.arena.cancel_now(self.number);
        }
        let dice = &mut self.planner.dice;
        if self.planner.status == b'T' && dice.once_in(self.arena.rare / 8) {
            std::thread::sleep(IDLE_TRANSACTION_TIMEOUT * 2);
        } else if dice.once_in(500) {
            std::thread::sleep(Duration::from_millis(dice.below(20) as u64));
        }
    }

    fn login(&mut self) -> Option<Link> {
        let zone = ZONES[self.number % ZONES.len()];
        let parameters = [
            ("user", "postgres"),
            ("database", &*self.arena.database),
            ("application_name", &*self.planner.application),
            ("TimeZone", zone),
        ];
        let began = Instant::now();
        let wire = match Wire::try_login(self.arena.port, &parameters, "") {
            Ok(wire) => wire,
            Err(e) => {
                let waited = e.sqlstate() == "53400" && began.elapsed() >= QUERY_WAIT_TIMEOUT;
                assert!(waited, "client {}: login: {e:?}", self.number);
                self.tally.waited_in_vain += 1;
                return None;
            }
        };
        *self.seat.key.lock().expect("no panic with it") = Some(wire.key.clone());
        self.tally.sessions += 1;
        let stream = wire.writer();
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        self.sent_at = Instant::now();
        Some(Link {
            wire,
            stream,
            received: Vec::new(),
            at: 0,
        })
    }

    fn manner(&mut self, batch: &Batch) -> Manner {
        let dice = &mut self.planner.dice;
        match dice.below(400) {
            0..=3 => Manner::SlowReader,
            4..=11 => Manner::Torn,
            12..=15 => {
                let whole = dice.once_in(2);
                let bytes = if whole {
                    batch.bytes.len()
                } else {
                    dice.below(batch.bytes.len() + 1)
                };
                let messages = if dice.once_in(2) { 0 } else { dice.below(20) };
                Manner::Leaves { bytes, messages }
            }
            _ => Manner::Plain,
        }
    }

    fn recover(&mut self, link: &mut Link) -> End {
        // It may be cancelled as well.
        for _ in 0..100 {
            let batch = self.planner.recovery();
            match self.exchange(link, &batch, Manner::Plain) {
                End::Interrupted => {}
                end => return end,
            }
        }
        panic!(
            "client {}: interrupted a hundred times in a row",
            self.number
        );
    }

    fn exchange(&mut self, link: &mut Link, batch: &Batch, manner: Manner) -> End {
        let idle_from = std::mem::replace(&mut self.sent_at, Instant::now());
        let mut judge = Judge {
            sent_at: self.sent_at,
            idle_from,
            cancels_over: self.seat.over.load(Ordering::SeqCst),
            group: 0,
            statement: 0,
            seen: 0,
            failed: false,
            strict: true,
        };
        let bytes = match manner {
            Manner::Leaves { bytes, .. } => bytes,
            _ => batch.bytes.len(),
        };
        if !link.send(&batch.bytes[..bytes], manner == Manner::Torn) {
            self.abandon(batch, judge.group, bytes);
            return self.expect_why(link, &judge);
        }
        let mut left = match manner {
            Manner::Leaves { messages, .. } => messages,
            _ => usize::MAX,
        };
        if left < usize::MAX {
            // Only what surely comes is waited for.
            let whole = batch.groups.iter().filter(|g| g.end <= bytes).count();
            left = if whole == batch.groups.len() { left } else { 0 };
        }
        let slow_at = self.planner.dice.below(10);
        let mut count = 0;
        while judge.group < batch.groups.len() && count < left {
            if manner == Manner::SlowReader && count == slow_at {
                std::thread::sleep(Duration::from_millis(60));
            }
            count += 1;
            let Some((tag, body)) = link.recv() else {
                self.abandon(batch, judge.group, bytes);
                return self.expect_why(link, &judge);
            };
            if !self.judge(&mut judge, batch, tag, &body) {
                self.abandon(batch, judge.group, bytes);
                return End::Closed;
            }
        }
        if judge.sent_at.elapsed() >= QUERY_TIMEOUT {
            self.overlong = Some(Instant::now());
        }
        if let Manner::Leaves { .. } = manner {
            self.abandon(batch, judge.group, bytes);
            return End::Done;
        }
        if judge.strict {
            End::Done
        } else {
            End::Interrupted
        }
    }

    /// The pooler has closed the connection: it must have said why.
    fn expect_why(&mut self, link: &mut Link, judge: &Judge) -> End {
        while let Some((tag, body)) = link.recv() {
            if tag == b'E' {
                let error = ErrorView::new(&body);
                self.check_end(judge, &error);
                return End::Closed;
            }
        }
        // A reset takes away what was not read yet.
        assert!(
            idled(judge),
            "client {}: closed without a word: {judge:?}",
            self.number
        );
        self.tally.idle_too_long += 1;
        End::Closed
    }

    /// Takes one message. False if the session ends with it.
    fn judge(&mut self, judge: &mut Judge, batch: &Batch, tag: u8, body: &[u8]) -> bool {
        match tag {
            b'N' => return true,
            b'S' => {
                let (name, value) = read_parameter_status(body).expect("a ParameterStatus");
                let foreign = name == "application_name" && value != self.planner.application
                    || name == "TimeZone" && value != ZONES[self.number % ZONES.len()];
                assert!(!foreign, "client {}: {name} = {value}", self.number);
                return true;
            }
            _ => {}
        }
        let group = &batch.groups[judge.group];
        let statement = group
            .statements
            .get(judge.statement)
            .filter(|_| !judge.failed);
        match (tag, statement) {
            (b'Z', None) => {
                let status = body[0];
                let right = !judge.strict || status == group.status;
                assert!(
                    right,
                    "client {}: status {:?} {judge:?} {group:?}",
                    self.number,
                    char::from(status)
                );
                if status == b'I' {
                    self.written.committed.extend(self.pending.drain(..));
                }
                if !judge.strict {
                    self.planner.status = status;
                }
                self.open = status == b'T';
                self.arena
                    .statements
                    .fetch_add(group.statements.len(), Ordering::Relaxed);
                self.tally.statements += group.statements.len();
                judge.next_group();
                true
            }
            (b'E', _) => self.judge_error(judge, batch, statement, body),
            (_, Some(statement)) => {
                let expected = statement.expect.get(judge.seen);
                let right = expected.is_some_and(|e| is(e, tag, body))
                    || !judge.strict
                        && is_end(expected)
                        && tag == b'C'
                        && matches!(body, b"ROLLBACK\0" | b"COMMIT\0");
                // A name may still have the text that it had before something came in between.
                let right = right
                    || !judge.strict
                        && matches!(expected, Some(Expect::Row(value))
                    if tag == b'D' && column(body).is_some_and(|c| c.starts_with(value.split('/').next().unwrap_or_default().as_bytes())));
                let early = judge.strict
                    && statement
                        .failure
                        .as_ref()
                        .is_some_and(|f| f.after == Some(judge.seen));
                assert!(
                    right && !early,
                    "client {}: {} instead of {expected:?}: {judge:?} {statement:?}",
                    self.number,
                    show(tag, body)
                );
                judge.seen += 1;
                if judge.seen == statement.expect.len() && judge.is_done(statement) {
                    self.pending.extend(statement.writes.iter().cloned());
                    judge.statement += 1;
                    judge.seen = 0;
                }
                if tag == b'C' && body == b"ROLLBACK\0" {
                    self.pending.clear();
                } else if tag == b'C' && body == b"COMMIT\0" {
                    self.written.committed.extend(self.pending.drain(..));
                }
                true
            }
            (_, None) => panic!(
                "client {}: {} behind all: {judge:?} {group:?}",
                self.number,
                show(tag, body)
            ),
        }
    }

    fn judge_error(
        &mut self,
        judge: &mut Judge,
        batch: &Batch,
        statement: Option<&Statement>,
        body: &[u8],
    ) -> bool {
        let error = ErrorView::new(body);
        let sqlstate = error.sqlstate().unwrap_or_default().to_owned();
        if error.is_fatal() {
            self.check_end(judge, &error);
            return false;
        }
        self.pending.clear();
        let failure = statement.and_then(|s| s.failure.as_ref());
        let asked_for = failure.is_some_and(|f| {
            f.sqlstate == sqlstate
                && error.message().contains(&f.text)
                && (f.after.is_none_or(|n| n == judge.seen) || !judge.strict)
        });
        // What went before was not done, or done after all.
        let follows = !judge.strict
            && (matches!(&*sqlstate, "25P02" | "26000" | "42P05" | "22P02" | "22012")
                || error.message().starts_with("COPY from stdin failed"));
        if !asked_for && !follows {
            self.check_interruption(judge, batch, &error);
            judge.strict = false;
        }
        judge.failed = true;
        true
    }

    /// Only who was cancelled, or has waited or worked for too long, is interrupted.
    fn check_interruption(&mut self, judge: &Judge, batch: &Batch, error: &ErrorView<'_>) {
        let took = judge.sent_at.elapsed();
        let sqlstate = error.sqlstate().unwrap_or_default();
        let cancelled = self.seat.begun.load(Ordering::SeqCst) > judge.cancels_over;
        let timed_out =
            took >= QUERY_TIMEOUT || self.overlong.is_some_and(|at| at.elapsed() < LATE_CANCEL);
        match sqlstate {
            "57014" if cancelled => self.tally.cancelled += 1,
            "57014" if timed_out => self.tally.timed_out += 1,
            "53400" if took >= QUERY_WAIT_TIMEOUT => self.tally.waited_in_vain += 1,
            _ => panic!(
                "client {}: {sqlstate} {} after {took:?}: {judge:?} {:?}",
                self.number,
                error.message(),
                String::from_utf8_lossy(&batch.bytes[..batch.bytes.len().min(8_000)])
            ),
        }
    }

    /// Only who was idle in a transaction, or whose query does not end, loses the session.
    fn check_end(&mut self, judge: &Judge, error: &ErrorView<'_>) {
        match error.sqlstate().unwrap_or_default() {
            "25P03" if idled(judge) => self.tally.idle_too_long += 1,
            "57014" if judge.sent_at.elapsed() >= QUERY_TIMEOUT => self.tally.timed_out += 1,
            other => panic!(
                "client {}: {other} {} {judge:?}",
                self.number,
                error.message()
            ),
        }
    }

    /// The session ends when `bytes` of the batch were sent and the groups from `group` on are not answered: what of
    /// it may have been committed?
    fn abandon(&mut self, batch: &Batch, group: usize, bytes: usize) {
        let start = |g: usize| if g == 0 { 0 } else { batch.groups[g - 1].end };
        // The offset from which on the group may be committed.
        let own = |g: usize| {
            if batch.groups[g].ends() {
                start(g) + 1
            } else {
                batch.groups[g].end
            }
        };
        let rest = group..batch.groups.len();
        let control = rest.clone().find(|&g| batch.groups[g].ends());
        let mut pending = std::mem::take(&mut self.pending);
        let from = match control {
            _ if rest.is_empty() => usize::MAX,
            _ if !self.open => own(group),
            Some(g) => start(g) + 1,
            None => usize::MAX,
        };
        if bytes >= from {
            self.written.unknown.extend(pending.drain(..));
        }
        for g in rest {
            let from = match control {
                _ if !self.open => own(g),
                Some(c) if g <= c => start(c) + 1,
                Some(_) => own(g),
                None => usize::MAX,
            };
            if bytes >= from {
                let writes = batch.groups[g].statements.iter().flat_map(|s| &s.writes);
                self.written.unknown.extend(writes.cloned());
            }
        }
    }
}

/// Whether the session may have been idle for too long.
fn idled(judge: &Judge) -> bool {
    judge.idle_from.elapsed() >= IDLE_TRANSACTION_TIMEOUT
}

fn is_end(expected: Option<&Expect>) -> bool {
    matches!(expected, Some(Expect::Done(tag)) if matches!(&**tag, "COMMIT" | "ROLLBACK"))
}

fn is(expected: &Expect, tag: u8, body: &[u8]) -> bool {
    match expected {
        Expect::Tag(t) => tag == *t,
        Expect::Row(value) => tag == b'D' && column(body) == Some(value.as_bytes()),
        Expect::Long(front, n) => {
            let rest = column(body).and_then(|c| c.strip_prefix(front.as_bytes()));
            tag == b'D' && rest.is_some_and(|x| x.len() == *n && x.iter().all(|&b| b == b'x'))
        }
        Expect::Line(line) => tag == b'd' && body == line.as_bytes(),
        Expect::Done(t) => tag == b'C' && body.strip_suffix(b"\0") == Some(t.as_bytes()),
    }
}

/// The only column of a DataRow.
fn column(body: &[u8]) -> Option<&[u8]> {
    match read_data_row(body)?[..] {
        [value] => value,
        _ => None,
    }
}

fn show(tag: u8, body: &[u8]) -> String {
    let front = &body[..body.len().min(200)];
    format!("{}({})", char::from(tag), String::from_utf8_lossy(front))
}

impl Link {
    /// False if the other side has closed.
    fn send(&mut self, bytes: &[u8], torn: bool) -> bool {
        let middle = if torn { bytes.len() * 2 / 3 } else { 0 };
        let (first, second) = bytes.split_at(middle);
        if torn {
            if self.stream.write_all(first).is_err() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        self.stream.write_all(second).is_ok()
    }

    /// The next message; `None` at the end of the connection.
    fn recv(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let rest = &self.received[self.at..];
            if let Some(&[tag, a, b, c, d]) = rest.first_chunk() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                assert!(
                    (4..1 << 27).contains(&length),
                    "a message of {length} bytes"
                );
                if let Some(body) = rest.get(5..length + 1) {
                    let body = body.to_vec();
                    self.at += length + 1;
                    return Some((tag, body));
                }
            }
            self.received.drain(..self.at);
            self.at = 0;
            let from = self.received.len();
            self.received.resize(from + 64 * 1024, 0);
            let read = self.stream.read(&mut self.received[from..]);
            let n = match &read {
                Ok(n) => *n,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(e) => panic!("no reply in {PATIENCE:?}: {e}"),
            };
            self.received.truncate(from + n);
            if n == 0 {
                return None;
            }
        }
    }

    /// With Terminate, with a reset, or without a word.
    fn end(mut self, how: usize) {
        match how {
            0 => drop(self.stream.write_all(&terminate())),
            1 => {
                drop(self.stream);
                self.wire.reset();
            }
            _ => {}
        }
    }
}

/// Where in a batch its replies are.
#[derive(Debug)]
struct Judge {
    sent_at: Instant,
    /// When the batch before was sent: the session cannot have been idle for longer.
    idle_from: Instant,
    /// Cancels for this client that were over when the batch was sent.
    cancels_over: usize,
    group: usize,
    statement: usize,
    /// Messages of the statement's reply so far.
    seen: usize,
    /// The group has had its error.
    failed: bool,
    /// Nothing has come in between.
    strict: bool,
}

impl Judge {
    fn next_group(&mut self) {
        self.group += 1;
        self.statement = 0;
        self.seen = 0;
        self.failed = false;
    }

    /// Whether a reply that is complete ends the statement, and no error must follow.
    fn is_done(&self, statement: &Statement) -> bool {
        statement
            .failure
            .as_ref()
            .is_none_or(|f| !self.strict && f.after != Some(statement.expect.len()))
    }
}
