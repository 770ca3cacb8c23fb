//! What a client sends in one go, and what must come back for each part of it.

use crate::dice::Dice;
use crate::support::{
    bind, close, copy_data, copy_done, copy_fail, describe_portal, execute, execute_rows, flush,
    parse, query, sync,
};

/// A message of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Of this type.
    Tag(u8),
    /// DataRow with this one column.
    Row(String),
    /// DataRow with this and so many `x` behind it.
    Long(String, usize),
    /// CopyData with this line.
    Line(String),
    /// CommandComplete.
    Done(String),
}

/// The error in which a statement is to end.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) sqlstate: &'static str,
    /// What its message holds.
    pub(crate) text: String,
    /// Messages of the reply in front of it; `None` where the pooler may answer some itself.
    pub(crate) after: Option<usize>,
}

/// One statement of a group.
#[derive(Debug)]
pub(crate) struct Statement {
    /// The reply if it succeeds.
    pub(crate) expect: Vec<Expect>,
    pub(crate) failure: Option<Failure>,
    /// Rows that it writes.
    pub(crate) writes: Vec<String>,
}

/// What one ReadyForQuery ends.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) statements: Vec<Statement>,
    /// The transaction status that follows.
    pub(crate) status: u8,
    /// Offset of the first byte behind it.
    pub(crate) end: usize,
}

/// Everything that goes in one write.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) groups: Vec<Group>,
}

impl Group {
    /// Whether it ends a transaction.
    pub(crate) fn ends(&self) -> bool {
        let mut last = self.statements.iter().filter_map(|s| s.expect.last());
        last.any(|e| matches!(e, Expect::Done(tag) if matches!(&**tag, "COMMIT" | "ROLLBACK")))
    }
}

/// How a statement is said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Simple,
    Extended,
}

/// Composes the batches of one client.
pub(crate) struct Planner {
    pub(crate) dice: Dice,
    client: usize,
    generation: usize,
    number: usize,
    /// Statements that the session has, by name, with their texts.
    names: Vec<(String, String)>,
    /// As the last ReadyForQuery said, or as the next ones will.
    pub(crate) status: u8,
    /// `application_name` of the session.
    pub(crate) application: String,
    /// Once in so many statements something happens that takes long.
    rare: usize,
    bytes: Vec<u8>,
    groups: Vec<Group>,
    group: Group,
    /// A statement of the group fails: nothing behind it is done.
    failed: bool,
}

impl Planner {
    pub(crate) fn new(client: usize, seed: u64, rare: usize) -> Self {
        Self {
            dice: Dice::new(seed, client as u64 + 1),
            client,
            generation: 0,
            number: 0,
            names: Vec::new(),
            status: b'I',
            application: String::new(),
            rare,
            bytes: Vec::new(),
            groups: Vec::new(),
            group: Group::default(),
            failed: false,
        }
    }

    /// The session has just begun.
    pub(crate) fn begin_session(&mut self) {
        self.generation += 1;
        self.names.clear();
        self.status = b'I';
        self.application = format!("soak{}g{}", self.client, self.generation % 7);
    }

    /// Known to nobody else, and never used again.
    pub(crate) fn tag(&mut self) -> String {
        self.number += 1;
        format!("c{}g{}n{}", self.client, self.generation, self.number)
    }

    /// The next batch.
    pub(crate) fn batch(&mut self) -> Batch {
        let groups = if self.dice.once_in(3) {
            1 + self.dice.below(6)
        } else {
            1
        };
        for _ in 0..groups {
            match self.dice.below(2) {
                0 => self.simple_group(),
                _ => self.extended_group(),
            }
        }
        self.finish()
    }

    /// Ends the transaction and forgets the names, after something came in between.
    pub(crate) fn recovery(&mut self) -> Batch {
        if self.status != b'I' {
            self.simple("ROLLBACK", vec![done("ROLLBACK")], None, vec![]);
            self.status = b'I';
            self.end_simple();
        }
        for name in NAMES {
            self.bytes.extend(close(name));
            self.push(vec![Expect::Tag(b'3')], None, vec![]);
        }
        self.names.clear();
        self.end_extended();
        self.finish()
    }

    fn finish(&mut self) -> Batch {
        Batch {
            bytes: std::mem::take(&mut self.bytes),
            groups: std::mem::take(&mut self.groups),
        }
    }

    fn simple_group(&mut self) {
        let control = self.control();
        if let Some((sql, tag, status)) = control {
            self.simple(sql, vec![done(tag)], None, vec![]);
            self.status = status;
            return self.end_simple();
        }
        self.work(Way::Simple);
        self.end_simple();
    }

    fn extended_group(&mut self) {
        let statements = 1 + self.dice.below(4);
        // In front BEGIN, at the end what ends it: elsewhere their meaning depends on the neighbours.
        if self.status == b'I' && self.dice.once_in(6) {
            self.extended("BEGIN", vec![done("BEGIN")], None, vec![]);
            self.status = b'T';
        }
        for _ in 0..statements {
            // In a transaction that has failed the pooler takes a Parse that PostgreSQL refuses.
            if self.status != b'E' && self.dice.once_in(4) {
                self.named();
            } else {
                self.work(Way::Extended);
            }
            if self.dice.once_in(12) {
                self.bytes.extend(flush());
            }
        }
        if !self.failed && self.status == b'T' && self.dice.once_in(3) {
            let (sql, tag) = self.either("COMMIT", "ROLLBACK");
            self.extended(sql, vec![done(tag)], None, vec![]);
            self.status = b'I';
        }
        self.end_extended();
    }

    fn either(&mut self, a: &'static str, b: &'static str) -> (&'static str, &'static str) {
        if self.dice.once_in(2) { (a, a) } else { (b, b) }
    }

    /// A statement about the transaction, its command tag and the status behind it.
    fn control(&mut self) -> Option<(&'static str, &'static str, u8)> {
        match self.status {
            b'I' if self.dice.once_in(6) => Some(("BEGIN", "BEGIN", b'T')),
            b'T' if self.dice.once_in(3) => {
                let (sql, tag) = self.either("COMMIT", "ROLLBACK");
                Some((sql, tag, b'I'))
            }
            b'E' if !self.dice.once_in(4) => {
                let (sql, _) = self.either("COMMIT", "ROLLBACK");
                Some((sql, "ROLLBACK", b'I'))
            }
            _ => None,
        }
    }

    fn work(&mut self, way: Way) {
        let tag = self.tag();
        if self.dice.once_in(self.rare) {
            let sql = format!("SELECT '{tag}' || pg_sleep(1.6)::text");
            return self.say(way, &sql, rows(vec![tag], way), None, vec![]);
        }
        match self.dice.below(24) {
            0..=6 => {
                let sql = format!("SELECT '{tag}'");
                self.say(way, &sql, rows(vec![tag], way), None, vec![]);
            }
            7 | 8 => {
                let n = 1 + self.dice.below(60);
                let sql = format!("SELECT '{tag}-' || g FROM generate_series(1, {n}) g");
                let all = (1..=n).map(|g| format!("{tag}-{g}")).collect();
                self.say(way, &sql, rows(all, way), None, vec![]);
            }
            9 => {
                let n = if self.dice.once_in(20) {
                    1_500_000
                } else {
                    self.dice.below(150_000)
                };
                let sql = format!("SELECT '{tag}' || repeat('x', {n})");
                let expect = reply(vec![Expect::Long(tag, n)], "SELECT 1", way);
                self.say(way, &sql, expect, None, vec![]);
            }
            10 => {
                let ms = self.dice.below(20);
                let sql = format!("SELECT '{tag}' || pg_sleep(0.0{ms:02})::text");
                self.say(way, &sql, rows(vec![tag], way), None, vec![]);
            }
            11 | 12 => {
                let sql = format!(
                    "SELECT '{tag}/' || current_setting('application_name') || '/' || current_setting('TimeZone')"
                );
                let zone = ZONES[self.client % ZONES.len()];
                let row = format!("{tag}/{}/{zone}", self.application);
                self.say(way, &sql, rows(vec![row], way), None, vec![]);
            }
            13..=16 => {
                let sql = format!("INSERT INTO written VALUES ('{tag}') RETURNING tag");
                let expect = reply(vec![Expect::Row(tag.clone())], "INSERT 0 1", way);
                self.say(way, &sql, expect, None, vec![tag]);
            }
            17 => self.fail_at_once(way, tag),
            18 => self.fail_midway(way, &tag),
            19 => self.copy_out(way, &tag),
            20 | 21 => self.copy_in(way, &tag),
            22 => self.portal(&tag, way),
            _ => self.unknown_name(tag, way),
        }
    }

    fn fail_at_once(&mut self, way: Way, tag: String) {
        let sql = format!("SELECT '{tag}'::int");
        let failure = failure("22P02", tag, Some(0));
        self.say(way, &sql, vec![], Some(failure), vec![]);
    }

    fn fail_midway(&mut self, way: Way, tag: &str) {
        let sql = format!(
            "SELECT '{tag}-' || g || left((1 / (5 - g))::text, 0) FROM generate_series(1, 9) g"
        );
        let mut expect = rows((1..5).map(|g| format!("{tag}-{g}")).collect(), way);
        expect.pop();
        let failure = failure("22012", String::new(), Some(expect.len()));
        self.say(way, &sql, expect, Some(failure), vec![]);
    }

    fn copy_out(&mut self, way: Way, tag: &str) {
        let n = 1 + self.dice.below(200);
        let sql = format!("COPY (SELECT '{tag}-' || g FROM generate_series(1, {n}) g) TO STDOUT");
        let mut expect = front(way);
        expect.push(Expect::Tag(b'H'));
        expect.extend((1..=n).map(|g| Expect::Line(format!("{tag}-{g}\n"))));
        expect.push(Expect::Tag(b'c'));
        expect.push(done(&format!("COPY {n}")));
        self.say(way, &sql, expect, None, vec![]);
    }

    fn copy_in(&mut self, way: Way, tag: &str) {
        let n = 1 + self.dice.below(30);
        let fails = self.dice.once_in(4);
        let mut expect = front(way);
        expect.push(Expect::Tag(b'G'));
        let at = expect.len();
        if !fails {
            expect.push(done(&format!("COPY {n}")));
        }
        let failure = fails.then(|| failure("57014", tag.to_owned(), Some(at)));
        let lines: Vec<String> = (1..=n).map(|g| format!("{tag}-{g}")).collect();
        let data: Vec<u8> = lines
            .iter()
            .flat_map(|l| copy_data(format!("{l}\n").as_bytes()))
            .collect();
        let writes = if fails { vec![] } else { lines };
        self.say(way, "COPY written FROM STDIN", expect, failure, writes);
        self.bytes.extend(data);
        self.bytes
            .extend(if fails { copy_fail(tag) } else { copy_done() });
    }

    /// A portal that is read in parts.
    fn portal(&mut self, tag: &str, way: Way) {
        if way == Way::Simple {
            return self.fail_at_once(way, tag.to_owned());
        }
        let sql = format!("SELECT '{tag}-' || g FROM generate_series(1, 7) g");
        self.bytes.extend(parse("", &sql));
        self.bytes.extend(bind("p", "", &[]));
        self.bytes.extend(describe_portal("p"));
        self.bytes.extend(execute_rows("p", 3));
        self.bytes.extend(execute_rows("p", 0));
        self.bytes.extend(crate::support::close_portal("p"));
        let mut expect = front(way);
        expect.push(Expect::Tag(b'T'));
        let row = |g: usize| Expect::Row(format!("{tag}-{g}"));
        expect.extend((1..4).map(row));
        expect.push(Expect::Tag(b's'));
        expect.extend((4..8).map(row));
        expect.push(done("SELECT 4"));
        expect.push(Expect::Tag(b'3'));
        self.push(expect, None, vec![]);
    }

    fn unknown_name(&mut self, tag: String, way: Way) {
        if way == Way::Simple {
            return self.fail_at_once(way, tag);
        }
        self.bytes.extend(bind("", &format!("no-{tag}"), &[]));
        self.bytes.extend(execute(""));
        self.push(vec![], Some(failure("26000", tag, Some(0))), vec![]);
    }

    /// A statement under a name that other clients use for texts of their own.
    fn named(&mut self) {
        let tag = self.tag();
        let name = NAMES[self.dice.below(NAMES.len())];
        let known = self.names.iter().position(|(n, _)| n == name);
        let mut expect = Vec::new();
        let text = match known {
            Some(at) if !self.dice.once_in(4) => self.names[at].1.clone(),
            Some(at) => {
                if self.dice.once_in(4) {
                    // Its name is taken. (Of two names for one text the error may name either.)
                    self.bytes.extend(parse(name, "SELECT 'never'"));
                    let failure = failure("42P05", "already exists".to_owned(), Some(0));
                    return self.push(vec![Expect::Tag(b'1')], Some(failure), vec![]);
                }
                self.bytes.extend(close(name));
                expect.push(Expect::Tag(b'3'));
                let text = self.text(name);
                self.bytes.extend(parse(name, &text));
                expect.push(Expect::Tag(b'1'));
                if !self.skipped() {
                    self.names[at].1.clone_from(&text);
                }
                text
            }
            None => {
                let text = self.text(name);
                self.bytes.extend(parse(name, &text));
                expect.push(Expect::Tag(b'1'));
                if !self.skipped() {
                    self.names.push((name.to_owned(), text.clone()));
                }
                text
            }
        };
        self.bytes.extend(bind("", name, &[&tag]));
        self.bytes.extend(execute(""));
        expect.push(Expect::Tag(b'2'));
        let suffix = text.split('\'').nth(1).unwrap_or_default();
        expect.push(Expect::Row(format!("{tag}{suffix}")));
        expect.push(done("SELECT 1"));
        self.push(expect, None, vec![]);
    }

    /// A text for `name` that no other client has; or one that all have.
    fn text(&mut self, name: &str) -> String {
        match self.dice.below(6) {
            0 => "SELECT $1::text".to_owned(),
            n => format!("SELECT $1::text || '/{}/{name}/{n}'", self.client),
        }
    }

    fn say(
        &mut self,
        way: Way,
        sql: &str,
        expect: Vec<Expect>,
        failure: Option<Failure>,
        writes: Vec<String>,
    ) {
        match way {
            Way::Simple => self.simple(sql, expect, failure, writes),
            Way::Extended => self.extended(sql, expect, failure, writes),
        }
    }

    fn simple(
        &mut self,
        sql: &str,
        expect: Vec<Expect>,
        failure: Option<Failure>,
        writes: Vec<String>,
    ) {
        self.bytes.extend(query(sql));
        self.push(expect, failure, writes);
    }

    fn extended(
        &mut self,
        sql: &str,
        mut expect: Vec<Expect>,
        failure: Option<Failure>,
        writes: Vec<String>,
    ) {
        if !matches!(expect.first(), Some(Expect::Tag(b'1'))) && failure.is_none() {
            expect.splice(0..0, front(Way::Extended));
        }
        self.bytes.extend(parse("", sql));
        self.bytes.extend(bind("", "", &[]));
        self.bytes.extend(execute(""));
        self.push(expect, failure, writes);
    }

    /// Whether the statement that comes next is not done.
    fn skipped(&self) -> bool {
        self.failed || self.status == b'E'
    }

    fn push(&mut self, expect: Vec<Expect>, failure: Option<Failure>, writes: Vec<String>) {
        let control =
            matches!(&expect[..], [.., Expect::Done(d)] if matches!(&**d, "ROLLBACK" | "COMMIT"));
        let closes = expect == [Expect::Tag(b'3')];
        // Names are looked up first.
        let nameless = failure.as_ref().is_some_and(|f| f.sqlstate == "26000");
        let failure = if self.status == b'E' && !control && !closes && !nameless {
            Some(crate::plan::failure("25P02", String::new(), None))
        } else {
            failure
        };
        if failure.is_some() {
            self.failed = true;
        }
        self.group.statements.push(Statement {
            expect,
            failure,
            writes,
        });
    }

    fn end_simple(&mut self) {
        self.end_group();
    }

    fn end_extended(&mut self) {
        self.bytes.extend(sync());
        self.end_group();
    }

    fn end_group(&mut self) {
        if std::mem::take(&mut self.failed) && self.status == b'T' {
            self.status = b'E';
        }
        let mut group = std::mem::take(&mut self.group);
        group.status = self.status;
        group.end = self.bytes.len();
        self.groups.push(group);
    }
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// `TimeZone` of the sessions of the clients.
pub(crate) const ZONES: [&str; 3] = ["UTC", "Europe/Madrid", "Asia/Tokyo"];

fn done(tag: &str) -> Expect {
    Expect::Done(tag.to_owned())
}

fn failure(sqlstate: &'static str, text: String, after: Option<usize>) -> Failure {
    Failure {
        sqlstate,
        text,
        after,
    }
}

/// What is in front of the reply proper.
fn front(way: Way) -> Vec<Expect> {
    match way {
        Way::Simple => vec![],
        Way::Extended => vec![Expect::Tag(b'1'), Expect::Tag(b'2')],
    }
}

fn reply(data: Vec<Expect>, tag: &str, way: Way) -> Vec<Expect> {
    let mut all = front(way);
    if way == Way::Simple {
        all.push(Expect::Tag(b'T'));
    }
    all.extend(data);
    all.push(done(tag));
    all
}

fn rows(values: Vec<String>, way: Way) -> Vec<Expect> {
    let tag = format!("SELECT {}", values.len());
    reply(values.into_iter().map(Expect::Row).collect(), &tag, way)
}
