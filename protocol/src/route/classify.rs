//! The walk over the words of one text. See [`classify`].

use super::begin::{Statement, read_modes};
use super::catalogue::Entry;
use super::explain::read_explain;
use super::keywords::Keyword;
use super::lexer::{Kind, Lexer, Token};
use super::show::{read_show, tells_role};
use super::{Catalogue, Doubt, Reason, Verdict};

/// Longest text that is looked at, in bytes.
pub const TEXT_LEN_MAX: usize = 64 * 1024;

/// Deepest nesting of parentheses that is looked at: one bit each.
const DEPTH_MAX: u32 = 63;

/// What `text` is, in a database with these names. Linear in its length; allocates nothing.
///
/// A read is one statement: SELECT, also in parentheses and with set operations, VALUES, TABLE, WITH
/// before these, SHOW of what all hosts have alike, and EXPLAIN of one of them, or of a writing one
/// that is not run. No word of it is INSERT, UPDATE, DELETE, MERGE or INTO, no FOR is followed by the
/// strength of a lock, no name is one that the catalogue calls unsafe, wherever it stands (`(t).f` calls
/// `f(t)`), and every name with a parenthesis behind it is that of a function which the catalogue calls
/// safe, a construct of the grammar, or a list of columns.
#[must_use]
pub fn classify(text: &[u8], catalogue: &Catalogue) -> Verdict {
    match decide(text, catalogue) {
        Ok(verdict) => verdict,
        Err(doubt) => Verdict::Unproven(doubt),
    }
}

fn decide(text: &[u8], catalogue: &Catalogue) -> Result<Verdict, Doubt> {
    if text.len() > TEXT_LEN_MAX {
        let (reason, start, end) = (Reason::TooLong, 0, 0);
        return Err(Doubt { reason, start, end });
    }
    let mut lexer = Lexer::new(text);
    let mut token = lexer.next();
    while token.kind == Kind::Mark(b';') {
        token = lexer.next();
    }
    if token.kind == Kind::End {
        return Ok(Verdict::Empty);
    }
    let keyword = first_word(token, &mut lexer, catalogue);
    let begins = |kind, lexer: &mut Lexer<'_>| read_modes(lexer, kind);
    match keyword {
        Keyword::Begin => return begins(Statement::Begin, &mut lexer).map(Verdict::Begin),
        Keyword::Start => return begins(Statement::Start, &mut lexer).map(Verdict::Begin),
        Keyword::Set => return begins(Statement::Set, &mut lexer).map(Verdict::SetTransaction),
        _ => {}
    }
    if let Some(reason) = catalogue.hopeless() {
        return Err(token.doubt(reason));
    }
    let mut walk = Walk::new(lexer, catalogue);
    match keyword {
        Keyword::Select | Keyword::Values | Keyword::Table | Keyword::With => {
            walk.begin(token, false)?
        }
        Keyword::Show => {
            read_show(&mut walk.lexer)?;
            walk.end()?;
            return Ok(Verdict::Read);
        }
        Keyword::Explain => {
            let explained = read_explain(&mut walk.lexer, catalogue)?;
            walk.begin(explained.first, !explained.analyze)?;
        }
        _ if token.kind == Kind::Mark(b'(') => walk.begin(token, false)?,
        Keyword::Insert | Keyword::Update | Keyword::Delete | Keyword::Merge => {
            return Err(token.doubt(Reason::Write));
        }
        _ => return Err(token.doubt(Reason::Command)),
    }
    walk.run()?;
    Ok(Verdict::Read)
}

/// The keyword that the token just read is.
fn first_word(token: Token, lexer: &mut Lexer<'_>, catalogue: &Catalogue) -> Keyword {
    match token.kind {
        Kind::Word => catalogue
            .entry(lexer.padded(), lexer.name().len())
            .keyword(),
        _ => Keyword::None,
    }
}

/// A token that was passed, as far as what follows depends on it.
#[derive(Debug, Clone, Copy)]
struct Passed {
    token: Token,
    /// Of a word; [`Keyword::None`] of any other token.
    keyword: Keyword,
    /// It is the name of a function that is safe.
    safe_function: bool,
    ascii: bool,
}

impl Passed {
    fn is_mark(&self, mark: u8) -> bool {
        self.token.kind == Kind::Mark(mark)
    }

    fn is_name(&self) -> bool {
        matches!(self.token.kind, Kind::Word | Kind::Quoted)
    }

    /// A word that can be the name of a table or of a column list, and nothing else.
    fn is_plain_name(&self) -> bool {
        self.is_name() && self.keyword == Keyword::None
    }
}

/// See the module.
struct Walk<'a, 'c> {
    lexer: Lexer<'a>,
    catalogue: &'c Catalogue,
    /// The last three tokens, the last one first.
    passed: [Passed; 3],
    /// Open parentheses. One bit for each, the innermost the lowest, in the two below.
    depth: u32,
    /// Names of a WITH come here.
    in_with: u64,
    /// What stands behind this parenthesis is an expression: it is that of ON or OPERATOR.
    before_expression: u64,
    /// The statement is explained and not run.
    only_explained: bool,
    has_with: bool,
}

impl<'a, 'c> Walk<'a, 'c> {
    fn new(lexer: Lexer<'a>, catalogue: &'c Catalogue) -> Self {
        let token = Token::NONE;
        let none = Passed {
            token,
            keyword: Keyword::None,
            safe_function: false,
            ascii: true,
        };
        Self {
            lexer,
            catalogue,
            passed: [none; 3],
            depth: 0,
            in_with: 0,
            before_expression: 0,
            only_explained: false,
            has_with: false,
        }
    }

    /// Takes the first token of the statement, which the lexer has just read.
    fn begin(&mut self, first: Token, only_explained: bool) -> Result<(), Doubt> {
        self.only_explained = only_explained;
        let mut token = first;
        while token.kind == Kind::Mark(b'(') {
            self.take(token)?;
            token = self.lexer.next();
        }
        match (
            first_word(token, &mut self.lexer, self.catalogue),
            only_explained,
        ) {
            (Keyword::Select | Keyword::Values | Keyword::Table | Keyword::With, _) => {}
            (Keyword::Insert | Keyword::Update | Keyword::Delete | Keyword::Merge, true) => {}
            (Keyword::Insert | Keyword::Update | Keyword::Delete | Keyword::Merge, false) => {
                return Err(token.doubt(Reason::Write));
            }
            _ => return Err(token.doubt(Reason::Command)),
        }
        self.take(token)?;
        Ok(())
    }

    fn run(&mut self) -> Result<(), Doubt> {
        loop {
            let token = self.lexer.next();
            match token.kind {
                Kind::End => return Ok(()),
                Kind::Mark(b';') => return self.end(),
                _ => self.take(token)?,
            }
        }
    }

    /// Nothing but semicolons may come.
    fn end(&mut self) -> Result<(), Doubt> {
        loop {
            let token = self.lexer.next();
            match token.kind {
                Kind::End => return Ok(()),
                Kind::Mark(b';') => {}
                _ => return Err(token.doubt(Reason::SeveralStatements)),
            }
        }
    }

    #[inline]
    fn take(&mut self, token: Token) -> Result<(), Doubt> {
        let mut passed = Passed {
            token,
            keyword: Keyword::None,
            safe_function: false,
            ascii: true,
        };
        match token.kind {
            Kind::Word | Kind::Quoted => {
                let entry = self
                    .catalogue
                    .entry(self.lexer.padded(), self.lexer.name().len());
                self.take_name(token, entry)?;
                passed.safe_function = entry.is_safe_function();
                passed.ascii = self.lexer.is_ascii();
                if token.kind == Kind::Word {
                    passed.keyword = entry.keyword();
                    self.take_keyword(token, passed.keyword)?;
                }
            }
            Kind::Mark(b'(') => self.open(token)?,
            Kind::Mark(b')') => self.close(token)?,
            Kind::Text => self.take_text(token)?,
            Kind::Operator => self.take_operator(token)?,
            Kind::Mark(_) | Kind::Number | Kind::Param => {}
            Kind::Unreadable | Kind::End => return Err(token.doubt(Reason::Unreadable)),
        }
        self.passed = [passed, self.passed[0], self.passed[1]];
        Ok(())
    }

    #[inline]
    fn take_name(&self, token: Token, entry: Entry) -> Result<(), Doubt> {
        if let Some(reason) = entry.doubt() {
            return Err(token.doubt(reason));
        }
        if !self.lexer.is_ascii() && self.catalogue.has_unsafe_beyond_ascii() {
            return Err(token.doubt(Reason::Unreadable));
        }
        Ok(())
    }

    #[inline]
    fn take_keyword(&mut self, token: Token, keyword: Keyword) -> Result<(), Doubt> {
        match keyword {
            Keyword::Insert
            | Keyword::Update
            | Keyword::Delete
            | Keyword::Merge
            | Keyword::Into
                if !self.only_explained =>
            {
                let reason = match keyword {
                    Keyword::Into => Reason::Into,
                    _ if self.passed[0].keyword == Keyword::For => Reason::Locking,
                    _ if self.has_with => Reason::ModifyingWith,
                    _ => Reason::Write,
                };
                Err(token.doubt(reason))
            }
            // An EXPLAIN of a SELECT INTO, too, makes nothing; but it is none of the statements that
            // were thought of.
            Keyword::Into => match self.passed[0].keyword {
                Keyword::Insert | Keyword::Merge => Ok(()),
                _ => Err(token.doubt(Reason::Into)),
            },
            Keyword::No | Keyword::Share | Keyword::Key
                if self.passed[0].keyword == Keyword::For && !self.only_explained =>
            {
                Err(token.doubt(Reason::Locking))
            }
            Keyword::With if self.passed[0].is_mark(b'(') || self.passed[0].is_mark(b';') => {
                self.has_with = true;
                self.in_with |= 1;
                Ok(())
            }
            Keyword::Select | Keyword::Values | Keyword::Table => {
                self.in_with &= !1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, token: Token) -> Result<(), Doubt> {
        if self.depth == DEPTH_MAX {
            return Err(token.doubt(Reason::Unreadable));
        }
        let before = self.passed[0];
        if before.is_name() && !self.only_explained && !self.is_harmless(before) {
            return Err(before.token.doubt(Reason::UnknownFunction));
        }
        let is_own = before.token.kind == Kind::Word;
        let expects = is_own && matches!(before.keyword, Keyword::On | Keyword::Operator);
        self.depth += 1;
        self.in_with <<= 1;
        self.before_expression = self.before_expression << 1 | u64::from(expects);
        Ok(())
    }

    fn close(&mut self, token: Token) -> Result<(), Doubt> {
        if self.depth == 0 {
            return Err(token.doubt(Reason::Unreadable));
        }
        self.depth -= 1;
        self.in_with >>= 1;
        // The bit of the parenthesis that was closed last is kept beside, see `is_column_list`.
        self.before_expression = self.before_expression.rotate_right(1);
        Ok(())
    }

    /// Whether a parenthesis behind that name calls nothing that may do more than look.
    fn is_harmless(&self, name: Passed) -> bool {
        (name.safe_function && name.ascii)
            || (name.token.kind == Kind::Word && self.is_construct(name.keyword))
            || self.is_column_list()
    }

    /// Keywords that are no functions; those that could be one by that name only where they cannot.
    fn is_construct(&self, keyword: Keyword) -> bool {
        let before = self.passed[1];
        match keyword {
            Keyword::Construct
            | Keyword::All
            | Keyword::As
            | Keyword::Distinct
            | Keyword::From
            | Keyword::Group
            | Keyword::Grouping
            | Keyword::Join
            | Keyword::Not
            | Keyword::On
            | Keyword::Only
            | Keyword::Select
            | Keyword::Table
            | Keyword::Time
            | Keyword::Values => true,
            Keyword::Over | Keyword::Filter => before.is_mark(b')'),
            Keyword::By => {
                matches!(
                    before.keyword,
                    Keyword::Group | Keyword::Order | Keyword::Partition
                )
            }
            Keyword::Sets => before.keyword == Keyword::Grouping,
            Keyword::Rollup | Keyword::Cube => before.keyword == Keyword::By,
            Keyword::Materialized => matches!(before.keyword, Keyword::As | Keyword::Not),
            Keyword::Zone => before.keyword == Keyword::Time,
            Keyword::Escape | Keyword::Second => before.token.kind == Kind::Text,
            Keyword::Operator => self.names_operator(),
            _ => false,
        }
    }

    /// Whether names and dots and then an operator come, behind `OPERATOR(`.
    fn names_operator(&self) -> bool {
        let mut ahead = self.lexer.clone();
        loop {
            match ahead.next().kind {
                Kind::Word | Kind::Quoted | Kind::Mark(b'.') => {}
                kind => return kind == Kind::Operator,
            }
        }
    }

    /// Whether the last name is a second name of a table with names of its columns: behind AS, behind
    /// the name of a WITH, behind the parenthesis of a subquery or a function, or behind a table.
    fn is_column_list(&self) -> bool {
        let [name, before, first] = self.passed;
        if before.is_mark(b',') {
            return self.in_with & 1 != 0;
        }
        if before.is_mark(b')') {
            return name.is_plain_name() && self.before_expression >> 63 == 0;
        }
        match before.keyword {
            Keyword::As | Keyword::With | Keyword::Recursive => true,
            Keyword::Ordinality => name.is_plain_name(),
            Keyword::None if before.is_name() && name.is_plain_name() => {
                first.is_mark(b'.')
                    || matches!(first.keyword, Keyword::From | Keyword::Join | Keyword::Only)
            }
            _ => false,
        }
    }

    fn take_text(&self, token: Token) -> Result<(), Doubt> {
        // The second goes on with the first, whatever kind that was.
        if self.passed[0].token.kind == Kind::Text {
            return Err(token.doubt(Reason::Unreadable));
        }
        match tells_role(self.lexer.inner()) {
            true => Err(token.doubt(Reason::HostSetting)),
            false => Ok(()),
        }
    }

    fn take_operator(&self, token: Token) -> Result<(), Doubt> {
        let name = self.lexer.slice(token);
        let name = if name == b"!=" { b"<>" } else { name };
        match self.catalogue.is_unsafe_operator(name) {
            true => Err(token.doubt(Reason::Operator)),
            false => Ok(()),
        }
    }
}
