//! BEGIN, START TRANSACTION and SET TRANSACTION, word by word. See "BEGIN" and "SET TRANSACTION" in
//! PostgreSQL's documentation.

use super::lexer::{Kind, Lexer, Token};
use super::{Doubt, Reason, TransactionMode};

/// What stands behind the first word of one of the three, whose `kind` it is, to the end of the text.
pub(super) fn read_modes(lexer: &mut Lexer<'_>, kind: Statement) -> Result<TransactionMode, Doubt> {
    let mut words = Words::new(lexer);
    match kind {
        Statement::Begin if words.takes(b"work") || words.takes(b"transaction") => {}
        Statement::Begin => {}
        Statement::Start | Statement::Set if words.takes(b"transaction") => {}
        Statement::Start | Statement::Set => return Err(words.doubt(Reason::Command)),
    }
    let mut mode = TransactionMode::default();
    let mut modes = 0;
    while !words.is_at_end() {
        if modes > 0 && words.next.kind == Kind::Mark(b',') {
            words.advance();
        }
        read_mode(&mut words, &mut mode)?;
        modes += 1;
    }
    if modes == 0 && kind == Statement::Set {
        return Err(words.doubt(Reason::Command));
    }
    words.end().map(|()| mode)
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    Begin,
    Start,
    Set,
}

fn read_mode(words: &mut Words<'_, '_>, mode: &mut TransactionMode) -> Result<(), Doubt> {
    if words.takes(b"read") {
        mode.read_only = Some(match () {
            () if words.takes(b"only") => true,
            () if words.takes(b"write") => false,
            () => return Err(words.doubt(Reason::Command)),
        });
        return Ok(());
    }
    if words.takes(b"isolation") && words.takes(b"level") {
        mode.serializable = words.takes(b"serializable");
        let known = mode.serializable
            || (words.takes(b"repeatable") && words.takes(b"read"))
            || (words.takes(b"read") && (words.takes(b"committed") || words.takes(b"uncommitted")));
        return known.then_some(()).ok_or(words.doubt(Reason::Command));
    }
    let _not = words.takes(b"not");
    match words.takes(b"deferrable") {
        true => Ok(()),
        false => Err(words.doubt(Reason::Command)),
    }
}

/// One word ahead.
struct Words<'l, 'a> {
    lexer: &'l mut Lexer<'a>,
    next: Token,
}

impl<'l, 'a> Words<'l, 'a> {
    fn new(lexer: &'l mut Lexer<'a>) -> Self {
        let next = lexer.next();
        Self { lexer, next }
    }

    fn advance(&mut self) {
        self.next = self.lexer.next();
    }

    /// Takes that word, if it is the next.
    fn takes(&mut self, word: &[u8]) -> bool {
        let is = self.next.kind == Kind::Word && self.lexer.name() == word;
        if is {
            self.advance();
        }
        is
    }

    fn is_at_end(&self) -> bool {
        matches!(self.next.kind, Kind::End | Kind::Mark(b';'))
    }

    /// Nothing but semicolons may come.
    fn end(mut self) -> Result<(), Doubt> {
        while self.next.kind == Kind::Mark(b';') {
            self.advance();
        }
        match self.next.kind {
            Kind::End => Ok(()),
            _ => Err(self.doubt(Reason::SeveralStatements)),
        }
    }

    fn doubt(&self, reason: Reason) -> Doubt {
        self.next.doubt(reason)
    }
}
