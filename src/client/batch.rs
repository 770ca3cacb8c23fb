//! What the statements of a client's batch are, as far as routing is concerned.
//!
//! A batch is all messages up to a Sync, or a simple Query. It is judged whole, because it goes to one
//! server whole. What is known of a prepared statement is kept beside its text.

use pooler_protocol::frontend::{BindView, ParseView, Target, tag};
use pooler_protocol::prepared::{ClientStatements, Statement};
use pooler_protocol::route::{Hints, Reason, Summary, classify, hints};
use pooler_protocol::statement::scan;

use super::routes::Routes;
use crate::metrics::Why;
use crate::relay::{asks_position, each_message};

/// What a batch is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// What its statements are, all together.
    pub(super) class: Summary,
    /// What the first of them asks for.
    pub(super) hints: Hints,
    /// It may leave something in the session.
    pub(super) suspect: bool,
    /// It writes nothing that another session could read: it runs nothing, or changes the session alone.
    pub(super) writes_nothing: bool,
    /// It uses the unnamed statement that was there before.
    pub(super) leans: bool,
    /// It puts another unnamed statement in its place, or none.
    pub(super) replaces: bool,
}

/// What one statement is.
#[derive(Debug, Clone, Copy)]
struct Part {
    class: Summary,
    hints: Hints,
    suspect: bool,
    about_session: bool,
}

/// Of a message that cannot be read, or that names what is not there.
const UNKNOWN: Part = Part {
    class: Summary::Unproven(Reason::Unreadable),
    hints: Hints {
        route: None,
        consistency: None,
    },
    suspect: true,
    about_session: false,
};

impl Batch {
    /// Judges `batch`, whole messages of a client that has prepared `statements`.
    #[inline]
    pub(super) fn judge(batch: &[u8], statements: &ClientStatements, routes: &Routes) -> Self {
        let mut judge = Judge {
            routes,
            statements,
            parsed: None,
            runs: false,
            about_session: true,
            first: true,
            batch: Self {
                class: Summary::Empty,
                hints: Hints::default(),
                suspect: false,
                writes_nothing: true,
                leans: false,
                replaces: false,
            },
        };
        each_message(batch, |tag, body| judge.message(tag, body));
        Self {
            writes_nothing: judge.about_session || !judge.runs,
            ..judge.batch
        }
    }

    /// Whether it can be done again behind what follows it: not if the unnamed statement that it began with
    /// is another then.
    pub(super) fn is_repeatable(&self) -> bool {
        !(self.leans && self.replaces)
    }

    /// Why it is not a read, if it is none.
    pub(super) fn why(&self) -> Why {
        match self.class {
            Summary::Read => Why::Read,
            Summary::Begin(_) => Why::Block,
            Summary::Empty => Why::Incomplete,
            Summary::Refused => Why::Refused,
            Summary::Mixed => Why::Mixed,
            Summary::Unproven(reason) => Why::Unproven(reason),
        }
    }
}

/// A batch that is being judged.
struct Judge<'a> {
    routes: &'a Routes,
    statements: &'a ClientStatements,
    /// The statement that was prepared last in this very batch.
    parsed: Option<(&'a [u8], Part)>,
    /// Something is executed.
    runs: bool,
    about_session: bool,
    first: bool,
    batch: Batch,
}

impl<'a> Judge<'a> {
    #[inline]
    fn message(&mut self, tag: u8, body: &'a [u8]) {
        match tag {
            tag::QUERY => {
                self.runs = true;
                self.batch.replaces = true;
                let text = body.strip_suffix(b"\0").unwrap_or(body);
                let part = part_of(text, self.routes);
                self.note(part);
            }
            tag::PARSE => match ParseView::read(body) {
                Some(view) => {
                    let part = part_of(view.query(), self.routes);
                    self.batch.replaces |= view.name.is_empty();
                    self.parsed = Some((view.name, part));
                    self.note(part);
                }
                None => self.note(UNKNOWN),
            },
            tag::BIND => {
                let part = BindView::read(body).and_then(|view| self.find(view.statement));
                self.note(part.unwrap_or(UNKNOWN));
            }
            tag::DESCRIBE => {
                if let Some(Target::Statement(name)) = Target::read(body)
                    && let Some(part) = self.find(name)
                {
                    self.note(part);
                }
            }
            tag::EXECUTE => self.runs = true,
            tag::FUNCTION_CALL => {
                self.runs = true;
                self.note(UNKNOWN);
            }
            _ => {}
        }
    }

    /// The statement of this name.
    #[inline]
    fn find(&mut self, name: &[u8]) -> Option<Part> {
        if let Some((parsed, part)) = self.parsed
            && parsed == name
        {
            return Some(part);
        }
        if name.is_empty() && !self.batch.replaces {
            self.batch.leans = true;
        }
        named(self.statements, name).map(|statement| part_of_statement(statement, self.routes))
    }

    #[inline]
    fn note(&mut self, part: Part) {
        let batch = &mut self.batch;
        if self.first {
            self.first = false;
            batch.class = part.class;
            batch.hints = part.hints;
        } else if batch.class != part.class {
            batch.class = match (batch.class, part.class) {
                (Summary::Unproven(reason), _) | (_, Summary::Unproven(reason)) => {
                    Summary::Unproven(reason)
                }
                (Summary::Refused, _) | (_, Summary::Refused) => Summary::Refused,
                // A block and its first reads, as pgjdbc sends them.
                (Summary::Begin(mode), Summary::Read) => Summary::Begin(mode),
                (Summary::Empty, other) | (other, Summary::Empty) => other,
                _ => Summary::Mixed,
            };
        }
        batch.suspect |= part.suspect;
        self.about_session &= part.about_session;
    }
}

#[inline]
fn part_of(text: &[u8], routes: &Routes) -> Part {
    let (_, catalogue) = routes.catalogue();
    Part {
        class: class_of(text, routes, &catalogue),
        hints: hints(text),
        suspect: !scan(text).is_empty(),
        about_session: changes_session_alone(text),
    }
}

#[inline]
fn part_of_statement(statement: &Statement, routes: &Routes) -> Part {
    let (version, catalogue) = routes.catalogue();
    let look = |text: &[u8]| (class_of(text, routes, &catalogue), hints(text));
    let (class, hints) = match version {
        Some(version) => statement.routed(version, look),
        None => look(statement.query()),
    };
    Part {
        class,
        hints,
        suspect: !statement.marks().is_empty(),
        about_session: class != Summary::Read && changes_session_alone(statement.query()),
    }
}

/// What a text is, by the catalogue and by what replicas have refused.
#[inline]
fn class_of(
    text: &[u8],
    routes: &Routes,
    catalogue: &pooler_protocol::route::Catalogue,
) -> Summary {
    if asks_position(text) {
        return Summary::Unproven(Reason::HostSetting);
    }
    match Summary::from(classify(text, catalogue)) {
        Summary::Read if routes.database.was_refused(text) => Summary::Refused,
        class => class,
    }
}

/// Whether `text` is a command that changes the session and nothing else.
#[inline]
fn changes_session_alone(text: &[u8]) -> bool {
    if !matches!(
        text.first(),
        Some(b'S' | b's' | b'R' | b'r' | b'D' | b'd' | b'L' | b'l' | b'U' | b'u')
    ) {
        return false;
    }
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text);
    let end = text.iter().position(|b| !b.is_ascii_alphabetic());
    let word = &text[..end.unwrap_or(text.len())];
    let words = [
        &b"set"[..],
        b"reset",
        b"show",
        b"deallocate",
        b"listen",
        b"unlisten",
    ];
    words.iter().any(|w| word.eq_ignore_ascii_case(w)) && !text.contains(&b';')
}

/// The statement of this name; of none, the unnamed one.
#[inline]
fn named<'a>(statements: &'a ClientStatements, name: &[u8]) -> Option<&'a Statement> {
    let statement = match name {
        b"" => statements.unnamed(),
        name => statements.find(name),
    };
    statement.map(|statement| &**statement)
}

/// Calls `see` with each text that `batch` runs.
pub(super) fn each_text(batch: &[u8], statements: &ClientStatements, mut see: impl FnMut(&[u8])) {
    each_message(batch, |tag, body| match tag {
        tag::QUERY => see(body.strip_suffix(b"\0").unwrap_or(body)),
        tag::PARSE => {
            if let Some(view) = ParseView::read(body) {
                see(view.query());
            }
        }
        tag::BIND => {
            let view = BindView::read(body);
            if let Some(statement) = view.and_then(|view| named(statements, view.statement)) {
                see(statement.query());
            }
        }
        _ => {}
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_about_the_session_write_nothing() {
        for text in [
            "SET x = 1",
            "set local x to 2;",
            "RESET ALL",
            "SHOW x",
            "DEALLOCATE p",
            "LISTEN c",
        ] {
            assert!(changes_session_alone(text.as_bytes()), "{text}");
        }
        for text in [
            "SET x = 1; DELETE FROM t",
            "SELECT 1",
            "settle()",
            "UPDATE t SET x = 1",
            "",
            "DELETE FROM t",
        ] {
            assert!(!changes_session_alone(text.as_bytes()), "{text}");
        }
    }
}
