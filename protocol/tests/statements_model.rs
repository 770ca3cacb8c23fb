//! Clients whose statement names the pooler keeps, on servers that hold the statements under other
//! names, beside a PostgreSQL that each client would have to itself.
//!
//! Both must look the same to the client: the same replies in the same order, and a name is known
//! exactly when PostgreSQL would know it. What the pooler does with a message is the relay's rule,
//! in short.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use pooler_protocol::ledger::{Answer, Deal, Ledger, Request, Sent};
use pooler_protocol::prepared::{
    ClientStatements, Interner, Journal, ServerStatements, Statement, Unnamed,
};

#[allow(dead_code, reason = "the backend in it is for another test")]
mod model;

use model::Chance;

const HELD_MAX: usize = 3;

/// A text that does not parse.
const NONSENSE: &[u8] = b"!";
/// A text that is too long for the pooler to keep.
const LONG: &[u8] = b"long";

#[derive(Debug, Clone)]
enum Message {
    Parse(Vec<u8>, Vec<u8>),
    Bind(Vec<u8>),
    Close(Vec<u8>),
    /// Anything that may fail and touches no statement.
    Execute {
        fails: bool,
    },
    Query {
        deallocates_all: bool,
        fails: bool,
    },
    Sync,
}

/// What a PostgreSQL session knows of statements.
#[derive(Debug, Default)]
struct Postgres {
    named: HashMap<Vec<u8>, Vec<u8>>,
    unnamed: Option<Vec<u8>>,
    ignore_till_sync: bool,
}

impl Postgres {
    /// The type bytes of its replies.
    fn consume(&mut self, message: &Message) -> &'static str {
        if self.ignore_till_sync && !matches!(message, Message::Sync) {
            return "";
        }
        let (ok, reply) = match message {
            Message::Parse(name, text) => (self.parse(name, text), "1"),
            Message::Bind(name) if name.is_empty() => (self.unnamed.is_some(), "2"),
            Message::Bind(name) => (self.named.contains_key(name), "2"),
            Message::Close(name) => {
                if name.is_empty() {
                    self.unnamed = None;
                } else {
                    self.named.remove(name);
                }
                (true, "3")
            }
            Message::Execute { fails } => (!fails, "C"),
            Message::Query {
                deallocates_all,
                fails,
            } => {
                self.unnamed = None;
                if *fails {
                    return "EZ";
                }
                if *deallocates_all {
                    self.named.clear();
                }
                return "CZ";
            }
            Message::Sync => {
                self.ignore_till_sync = false;
                (true, "Z")
            }
        };
        self.ignore_till_sync = !ok;
        if ok { reply } else { "E" }
    }

    fn parse(&mut self, name: &[u8], text: &[u8]) -> bool {
        if name.is_empty() {
            self.unnamed = None;
        }
        if text == NONSENSE || self.named.contains_key(name) {
            return false;
        }
        if name.is_empty() {
            self.unnamed = Some(text.to_vec());
        } else {
            self.named.insert(name.to_vec(), text.to_vec());
        }
        true
    }
}

#[derive(Default)]
struct Client {
    statements: ClientStatements,
    /// What it would see without a pooler.
    alone: Postgres,
    expected: String,
    seen: String,
}

#[derive(Default)]
struct Server {
    postgres: Postgres,
    ledger: Ledger,
    journal: Journal,
    statements: ServerStatements,
    wire: VecDeque<(Message, bool)>,
    replies: VecDeque<(u8, bool)>,
}

struct Run {
    chance: Chance,
    interner: Interner,
    fresh: u32,
}

fn server_name(statement: &Statement) -> Vec<u8> {
    let mut name = Vec::new();
    statement.write_server_name(&mut name);
    name
}

impl Server {
    fn send(&mut self, request: Request, deal: Deal, ops: u8, message: Message) {
        assert_ne!(self.ledger.request(request, deal, ops), Sent::Discard);
        self.wire.push_back((message, false));
    }

    fn ensure_held(&mut self, statement: &Statement) {
        if self.statements.touch(statement.id()) {
            return;
        }
        self.make_room();
        self.journal.hold(&mut self.statements, statement.id());
        let parse = Message::Parse(server_name(statement), statement.text().to_vec());
        self.send(Request::Parse, Deal::Skip, 1, parse);
    }

    fn make_room(&mut self) {
        while let Some(id) = self.statements.evictable(HELD_MAX) {
            self.journal.release(&mut self.statements, id);
            let mut name = Vec::new();
            pooler_protocol::prepared::write_server_name(id, &mut name);
            self.send(Request::Close, Deal::Skip, 1, Message::Close(name));
        }
    }

    fn ensure_unnamed(&mut self, client: &Client) {
        let mine = client.statements.unnamed().cloned();
        let (request, message) = match (&mine, self.statements.unnamed) {
            (Some(mine), Unnamed::Is(id)) if mine.id() == id => return,
            (None, Unnamed::None | Unnamed::Untracked) => return,
            (Some(s), _) => {
                let parse = Message::Parse(Vec::new(), s.text().to_vec());
                (Request::Parse, parse)
            }
            (None, _) => (Request::Close, Message::Close(Vec::new())),
        };
        self.journal
            .replay_unnamed(&client.statements, &mut self.statements);
        self.send(request, Deal::Skip, 1, message);
    }

    fn parse_named(&mut self, client: &mut Client, name: &[u8], statement: Arc<Statement>) {
        let id = statement.id();
        if let Some(taken) = client.statements.find(name).cloned() {
            self.ensure_held(&taken);
            self.journal.note_taken(name);
            let again = Message::Parse(server_name(&taken), statement.text().to_vec());
            return self.send(Request::Parse, Deal::Forward, 1, again);
        }
        if self.statements.touch(id) {
            self.journal.name(&mut client.statements, name, statement);
            assert!(self.ledger.answer(Answer::ParseComplete, 1));
            return;
        }
        self.make_room();
        self.journal.hold(&mut self.statements, id);
        let parse = Message::Parse(server_name(&statement), statement.text().to_vec());
        self.journal.name(&mut client.statements, name, statement);
        self.send(Request::Parse, Deal::Forward, 2, parse);
    }

    /// Whether what becomes of `message` depends on what is not confirmed yet.
    fn must_wait(&self, client: &Client, interner: &mut Interner, message: &Message) -> bool {
        let id = |name: &[u8]| client.statements.find(name).map(|s| s.id());
        match message {
            Message::Bind(name) if name.is_empty() => self.journal.must_wait_for_unnamed(),
            Message::Bind(name) | Message::Close(name) if !name.is_empty() => {
                self.journal.must_wait(name, id(name))
            }
            Message::Parse(name, text) if !name.is_empty() => {
                let new = interner.intern(text).unwrap().id();
                self.journal.must_wait(name, Some(new)) || self.journal.must_wait(name, id(name))
            }
            _ => false,
        }
    }

    /// The relay's rule for one message of a client's.
    fn enter(&mut self, client: &mut Client, interner: &mut Interner, message: Message) {
        if self.ledger.is_discarding() && !matches!(message, Message::Sync) {
            return;
        }
        match message {
            Message::Parse(ref name, ref text) if name.is_empty() => {
                if text == LONG {
                    self.journal
                        .replace_unnamed_untracked(&mut client.statements, &mut self.statements);
                } else {
                    let statement = Some(interner.intern(text).unwrap());
                    self.journal.replace_unnamed(
                        &mut client.statements,
                        &mut self.statements,
                        statement,
                    );
                }
                self.send(Request::Parse, Deal::Forward, 1, message);
            }
            Message::Parse(name, text) => {
                let statement = interner.intern(&text).unwrap();
                self.parse_named(client, &name, statement);
            }
            Message::Bind(ref name) if name.is_empty() => {
                self.ensure_unnamed(client);
                self.send(Request::Bind, Deal::Forward, 0, message);
            }
            Message::Bind(name) => {
                let known = client.statements.find(&name).cloned();
                if let Some(statement) = &known {
                    self.ensure_held(statement);
                }
                let name = known.map_or(name, |s| server_name(&s));
                self.send(Request::Bind, Deal::Forward, 0, Message::Bind(name));
            }
            Message::Close(ref name) if name.is_empty() => {
                self.journal
                    .replace_unnamed(&mut client.statements, &mut self.statements, None);
                self.send(Request::Close, Deal::Forward, 1, message);
            }
            Message::Close(name) => {
                let known = self.journal.forget(&mut client.statements, &name);
                assert!(self.ledger.answer(Answer::CloseComplete, u8::from(known)));
            }
            Message::Execute { .. } => self.send(Request::Execute, Deal::Forward, 0, message),
            Message::Query { .. } => {
                self.journal
                    .replace_unnamed(&mut client.statements, &mut self.statements, None);
                self.send(Request::Query, Deal::Forward, 1, message);
            }
            Message::Sync => {
                self.journal.note_sync();
                self.send(Request::Sync, Deal::Forward, 0, message);
            }
        }
    }

    fn work(&mut self) {
        let Some((message, _)) = self.wire.pop_front() else {
            return;
        };
        let replies = self.postgres.consume(&message);
        let deallocates_all = matches!(
            message,
            Message::Query {
                deallocates_all: true,
                ..
            }
        );
        for tag in replies.bytes() {
            self.replies
                .push_back((tag, deallocates_all && tag == b'C'));
        }
    }

    /// The client has gone: the open batch is broken off, and what is owed is read to the end.
    fn settle(&mut self) {
        if self.ledger.is_unsynced() && !self.ledger.is_discarding() {
            let nobody = Message::Bind(b"nobody".to_vec());
            self.send(Request::Bind, Deal::Skip, 0, nobody);
        }
        self.send(Request::Sync, Deal::Skip, 0, Message::Sync);
        let mut nobody = Client::default();
        while self.ledger.outstanding() > 0 {
            self.work();
            self.read(&mut nobody);
        }
    }

    fn give_answers(&mut self, client: &mut Client) {
        while let Some((answer, kept)) = self.ledger.take_answer() {
            self.journal.keep(kept);
            client.seen.push(char::from(answer.bytes()[0]));
        }
    }

    fn read(&mut self, client: &mut Client) {
        self.give_answers(client);
        let Some((tag, deallocated_all)) = self.replies.pop_front() else {
            return;
        };
        let verdict = self.ledger.response(tag, b'I').unwrap();
        self.journal.keep(verdict.kept);
        self.journal.void(
            &mut client.statements,
            &mut self.statements,
            verdict.voided,
            verdict.failed,
        );
        if deallocated_all {
            self.journal
                .deallocate_all(&mut client.statements, &mut self.statements);
        }
        if verdict.deal == Deal::Forward {
            client.seen.push(char::from(tag));
        }
        self.give_answers(client);
        self.ledger.check_invariants();
    }
}

impl Run {
    fn name(&mut self) -> Vec<u8> {
        const NAMES: [&[u8]; 8] = [b"", b"", b"a", b"b", b"c", b"d", b"e", b"f"];
        NAMES[usize::try_from(self.chance.below(8)).unwrap()].to_vec()
    }

    fn text(&mut self, name: &[u8]) -> Vec<u8> {
        match self.chance.below(10) {
            0 => NONSENSE.to_vec(),
            1 if name.is_empty() => LONG.to_vec(),
            n => format!("text {n}").into_bytes(),
        }
    }

    fn message(&mut self) -> Message {
        let name = self.name();
        match self.chance.below(16) {
            0..4 => {
                let text = self.text(&name);
                Message::Parse(name, text)
            }
            4..8 => Message::Bind(name),
            8 | 9 => Message::Close(name),
            10 => Message::Execute {
                fails: self.chance.one_in(2),
            },
            11 => Message::Query {
                deallocates_all: false,
                fails: self.chance.one_in(3),
            },
            _ => Message::Sync,
        }
    }

    /// What a client sends in one go. Behind DEALLOCATE ALL comes only what needs no statement that
    /// it drops: the pooler learns of it when it is done.
    fn batch(&mut self) -> Vec<Message> {
        let mut batch: Vec<_> = (0..self.chance.below(24)).map(|_| self.message()).collect();
        if self.chance.one_in(4) {
            batch.push(Message::Query {
                deallocates_all: true,
                fails: false,
            });
            for _ in 0..self.chance.below(4) {
                self.fresh += 1;
                let fresh = format!("fresh {}", self.fresh).into_bytes();
                let message = match self.chance.below(3) {
                    0 => Message::Close(self.name()),
                    1 => Message::Parse(fresh.clone(), fresh),
                    _ => Message::Execute {
                        fails: self.chance.one_in(2),
                    },
                };
                batch.push(message);
            }
        }
        batch.push(Message::Sync);
        batch
    }

    /// Returns whether the client left in the middle.
    fn serve(&mut self, client: &mut Client, server: &mut Server) -> bool {
        let mut batch = VecDeque::from(self.batch());
        let leaves = self.chance.one_in(6);
        let eager = 3 + self.chance.below(20);
        while !batch.is_empty() || server.ledger.outstanding() > 0 {
            if leaves && self.chance.one_in(12) {
                server.settle();
                assert!(server.ledger.reusable().is_some());
                assert!(server.journal.is_empty());
                return true;
            }
            // Some send much before anything is answered.
            match self.chance.below(eager) {
                1 => server.work(),
                2 => server.read(client),
                _ => {
                    let Some(message) = batch.front() else {
                        continue;
                    };
                    if server.must_wait(client, &mut self.interner, message) {
                        continue;
                    }
                    let message = batch.pop_front().unwrap();
                    client.expected.push_str(client.alone.consume(&message));
                    server.enter(client, &mut self.interner, message);
                }
            }
        }
        assert!(server.ledger.reusable().is_some());
        assert!(server.journal.is_empty());
        false
    }
}

fn check_client(client: &Client) {
    assert_eq!(client.seen, client.expected);
    let known = client.alone.named.iter();
    for (name, text) in known {
        let found = client
            .statements
            .find(name)
            .expect("the client has the name");
        assert_eq!(found.text(), text);
    }
    assert_eq!(client.statements.named_len(), client.alone.named.len());
}

fn check_server(server: &Server, interned: &[Arc<Statement>]) {
    let held: Vec<_> = interned
        .iter()
        .filter(|s| server.postgres.named.contains_key(&server_name(s)))
        .collect();
    assert_eq!(held.len(), server.postgres.named.len());
    assert_eq!(server.statements.len(), held.len());
    // What was given up before it was there has made no room: the next to come makes more.
    assert!(held.len() <= 2 * HELD_MAX);
    let unnamed = server.postgres.unnamed.as_deref();
    match server.statements.unnamed {
        Unnamed::None => assert_eq!(unnamed, None),
        Unnamed::Is(id) => {
            let statement = interned.iter().find(|s| s.id() == id).unwrap();
            assert_eq!(unnamed, Some(statement.text()));
        }
        Unnamed::Untracked => assert_eq!(unnamed, Some(LONG)),
        Unnamed::Unknown => {}
    }
}

#[test]
fn t03_a_client_knows_exactly_the_names_that_postgresql_would_know() {
    for seed in 0..3_000 {
        let mut run = Run {
            chance: Chance::new(seed),
            interner: Interner::new(usize::MAX),
            fresh: 0,
        };
        let mut clients: [Client; 2] = Default::default();
        let mut servers: [Server; 2] = Default::default();
        for _ in 0..12 {
            let client = &mut clients[usize::try_from(run.chance.below(2)).unwrap()];
            let server = &mut servers[usize::try_from(run.chance.below(2)).unwrap()];
            if run.serve(client, server) {
                *client = Client::default();
            }
            check_client(client);
            let names = (0..10).map(|n| format!("text {n}"));
            let fresh = (1..=run.fresh).map(|n| format!("fresh {n}"));
            let nonsense = String::from_utf8(NONSENSE.to_vec()).unwrap();
            let interned: Vec<_> = names
                .chain(fresh)
                .chain([nonsense])
                .map(|text| run.interner.intern(text.as_bytes()).unwrap())
                .collect();
            check_server(server, &interned);
            // Its server is free for others: a statement that only the server knew is lost.
            if server.statements.unnamed == Unnamed::Untracked {
                server.statements.unnamed = Unnamed::Unknown;
                client.alone.unnamed = None;
            }
        }
    }
}
