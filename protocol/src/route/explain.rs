//! EXPLAIN in front of a statement: whether that is run, too. See "EXPLAIN" in PostgreSQL's
//! documentation.

use super::keywords::Keyword;
use super::lexer::{Kind, Lexer, Token};
use super::{Catalogue, Doubt, Reason};

/// Options that do not run the statement.
const HARMLESS: &[&[u8]] = &[
    b"verbose",
    b"costs",
    b"settings",
    b"generic_plan",
    b"buffers",
    b"serialize",
    b"wal",
    b"timing",
    b"summary",
    b"memory",
    b"format",
];

/// What was read of an EXPLAIN.
pub(super) struct Explained {
    /// The statement is run.
    pub(super) analyze: bool,
    /// The first token of the statement.
    pub(super) first: Token,
}

/// What stands behind the word EXPLAIN, up to the statement.
pub(super) fn read_explain(
    lexer: &mut Lexer<'_>,
    catalogue: &Catalogue,
) -> Result<Explained, Doubt> {
    let mut first = lexer.next();
    // A parenthesis may also be that of a SELECT.
    if first.kind == Kind::Mark(b'(') {
        let mut ahead = lexer.clone();
        let word = ahead.next();
        if word.kind == Kind::Word && !begins_query(ahead.name()) {
            let analyze = read_options(lexer)?;
            let first = lexer.next();
            return Ok(Explained { analyze, first });
        }
        return Ok(Explained {
            analyze: false,
            first,
        });
    }
    let mut analyze = false;
    while first.kind == Kind::Word {
        let entry = catalogue.entry(lexer.padded(), lexer.name().len());
        match entry.keyword() {
            Keyword::Analyze | Keyword::Analyse => analyze = true,
            Keyword::Verbose => {}
            _ => break,
        }
        first = lexer.next();
    }
    Ok(Explained { analyze, first })
}

fn begins_query(name: &[u8]) -> bool {
    [&b"select"[..], b"values", b"table", b"with"].contains(&name)
}

/// `NAME [VALUE], ...)` behind the parenthesis: whether ANALYZE is on in any of them.
fn read_options(lexer: &mut Lexer<'_>) -> Result<bool, Doubt> {
    let mut analyze = false;
    loop {
        let name = lexer.next();
        let doubt = Err(name.doubt(Reason::Explain));
        let is_analyze = [&b"analyze"[..], b"analyse"].contains(&lexer.name());
        if name.kind != Kind::Word || !(is_analyze || HARMLESS.contains(&lexer.name())) {
            return doubt;
        }
        let mut next = lexer.next();
        let mut off = false;
        if matches!(next.kind, Kind::Word | Kind::Number | Kind::Text) {
            off = next.kind == Kind::Word && [&b"false"[..], b"off"].contains(&lexer.name());
            next = lexer.next();
        }
        analyze |= is_analyze && !off;
        match next.kind {
            Kind::Mark(b',') => {}
            Kind::Mark(b')') => return Ok(analyze),
            _ => return doubt,
        }
    }
}
