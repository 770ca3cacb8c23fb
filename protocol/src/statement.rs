//! What the text of a statement makes one suspect: that it leaves something behind in the session.
//!
//! This is no parser and must not be: the server is asked what is really there. A [`scan`] that
//! suspects too much costs a question, one that suspects too little would leave a client's state
//! to the next, so in doubt a word counts wherever it stands, in a string or a comment too.
//!
//! What it cannot see are functions of the database's own that do such things under another name;
//! these are added by [`Marks::ALL`] where a statement cannot but call something (CALL, DO).

/// What a statement may do, and where it stands in a transaction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Marks(u16);

impl Marks {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A setting of the session changes.
    pub const SETTINGS: Self = Self(1);
    /// The session listens, or no longer does.
    pub const LISTEN: Self = Self(1 << 1);
    /// An advisory lock of the session is taken or given back.
    pub const LOCKS: Self = Self(1 << 2);
    /// Something temporary is made.
    pub const TEMPORARY: Self = Self(1 << 3);
    /// A cursor is made that outlives its transaction.
    pub const CURSOR: Self = Self(1 << 4);
    /// A statement is prepared or given up by SQL.
    pub const PREPARED: Self = Self(1 << 5);
    /// Any of these.
    pub const ALL: Self = Self(0b11_1111);
    /// Something is dropped: it may be the last temporary thing.
    pub const DROPS: Self = Self(1 << 6);
    /// A cursor is closed: it may be the last that outlived its transaction.
    pub const CLOSES: Self = Self(1 << 7);
    /// A transaction block begins.
    pub const BEGINS: Self = Self(1 << 8);
    /// A transaction block ends.
    pub const ENDS: Self = Self(1 << 9);
    /// It may be a COPY.
    pub const COPIES: Self = Self(1 << 10);
    /// It cannot be known any more what the session holds.
    pub const UNKNOWN: Self = Self(1 << 11);
    /// Something may be drawn from a sequence.
    pub const DRAWS: Self = Self(1 << 12);
    /// It is asked what was drawn from a sequence last.
    pub const DRAWN: Self = Self(1 << 13);
    /// A whole database may be dropped, renamed, moved or copied ([`vacated_database`]).
    pub const DATABASE: Self = Self(1 << 14);

    /// Whether all of `other` is in it.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is nothing in it.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in both.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in it and not in `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What the server is to be asked about, when the session holds `held`: what was suspected, and
    /// of what is held whether it is gone.
    #[inline]
    #[must_use]
    pub fn questions(self, held: Self) -> Self {
        let mut asked = self.and(Self::ALL);
        if self.has(Self::DROPS) {
            asked |= held.and(Self::TEMPORARY);
        }
        if self.has(Self::CLOSES) {
            asked |= held.and(Self::CURSOR);
        }
        asked
    }
}

impl std::ops::BitOr for Marks {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Marks {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// The longest word that [`scan`] looks for, and what may stand around it, in bytes: so much of two
/// pieces of one text must be looked at together.
pub const WORD_LEN_MAX: usize = 24;

/// What a whole text, or the beginning of one, makes one suspect.
#[inline]
#[must_use]
pub fn scan(text: &[u8]) -> Marks {
    first_word(text) | scan_on(text)
}

/// As [`scan`], of a piece from the middle of a text.
#[inline]
#[must_use]
pub fn scan_on(text: &[u8]) -> Marks {
    let mut marks = Marks::NONE;
    for (at, &byte) in text.iter().enumerate() {
        // One letter of each word that is rare enough, without regard to case.
        if RARE[usize::from(byte)] {
            marks |= around(text, at);
        }
    }
    marks
}

/// Letters by which the words are found: `adVisory`, `nextVal` and its like, `teMp`, `Hold`, `set_Config` by its underscore,
/// and the semicolon in front of a statement.
static RARE: [bool; 256] = {
    let mut table = [false; 256];
    let letters = b"VvMmHh_;";
    let mut at = 0;
    while at < letters.len() {
        table[letters[at] as usize] = true;
        at += 1;
    }
    table
};

#[inline]
fn around(text: &[u8], at: usize) -> Marks {
    match text[at] | 0x20 {
        b'v' if word_at(text, at.wrapping_sub(2), b"advisory") => {
            let rest = &text[at + 6..];
            // Those of the transaction end with it.
            match rest.get(..5) {
                Some(end) if end.eq_ignore_ascii_case(b"_xact") => Marks::NONE,
                _ => Marks::LOCKS,
            }
        }
        b'v' if word_at(text, at.wrapping_sub(4), b"nextval") => Marks::DRAWS,
        b'v' if word_at(text, at.wrapping_sub(3), b"setval") => Marks::DRAWS,
        b'v' if word_at(text, at.wrapping_sub(4), b"currval") => Marks::DRAWN,
        b'v' if word_at(text, at.wrapping_sub(4), b"lastval") => Marks::DRAWN,
        b'm' if word_at(text, at.wrapping_sub(2), b"temp") => temporary(text, at - 2),
        b'h' if word_at(text, at, b"hold") && is_apart(text, at, 4) => Marks::CURSOR,
        // The underscore, with that bit.
        0x7f if word_at(text, at.wrapping_sub(3), b"set_config") => {
            match text.get(at + 7..).is_some_and(is_local_call) {
                true => Marks::NONE,
                false => Marks::SETTINGS,
            }
        }
        b';' => first_word(&text[at + 1..]),
        _ => Marks::NONE,
    }
}

/// `temp` and `temporary`, also behind an underscore (`pg_temp`), but not `template` or `tempo`.
fn temporary(text: &[u8], at: usize) -> Marks {
    let before = at.checked_sub(1).map(|b| text[b]);
    if before.is_some_and(|b| b.is_ascii_alphanumeric()) {
        return Marks::NONE;
    }
    let len = if word_at(text, at, b"temporary") {
        9
    } else {
        4
    };
    let after = text.get(at + len);
    match after.is_some_and(|&b| b.is_ascii_alphanumeric() || (b == b'_' && before != Some(b'_'))) {
        true => Marks::NONE,
        false => Marks::TEMPORARY,
    }
}

/// Whether the arguments that begin `text` are those of a `set_config` that lasts no longer than
/// its transaction: the last of them is the word `true`.
fn is_local_call(text: &[u8]) -> bool {
    let mut depth = 0usize;
    let mut quoted = false;
    let mut last = 0;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'\'' => quoted = !quoted,
            _ if quoted => {}
            b'(' => {
                depth += 1;
                last = at + 1;
            }
            b',' if depth == 1 => last = at + 1,
            b')' if depth == 1 => {
                return text[last..at].trim_ascii().eq_ignore_ascii_case(b"true");
            }
            b')' => depth = depth.saturating_sub(1),
            // A backslash may make of a quote what it is not.
            b'\\' | b'$' => return false,
            _ => {}
        }
    }
    false
}

/// What the first word of a statement says.
fn first_word(text: &[u8]) -> Marks {
    let text = skip_blank(text);
    let Some(&first) = text.first() else {
        return Marks::NONE;
    };
    let is = |word: &[u8]| word_at(text, 0, word) && is_apart(text, 0, word.len());
    let next = |word: &[u8]| skip_blank(&text[word.len()..]);
    match first | 0x20 {
        b's' if is(b"set") => {
            let what = next(b"set");
            let only_here = [&b"local"[..], b"transaction", b"constraints"];
            match only_here.iter().any(|w| word_at(what, 0, w)) {
                true => Marks::NONE,
                false => Marks::SETTINGS,
            }
        }
        b's' if is(b"start") => Marks::BEGINS,
        b'r' if is(b"reset") => Marks::SETTINGS,
        b'r' if is(b"rollback") && !names_savepoint(next(b"rollback")) => end(text),
        b'l' if is(b"listen") => Marks::LISTEN,
        b'u' if is(b"unlisten") => Marks::LISTEN,
        b'd' if is(b"discard") => Marks::ALL,
        b'd' if is(b"do") => Marks::ALL | Marks::DRAWS,
        b'd' if is(b"deallocate") => Marks::PREPARED,
        b'd' if is(b"drop") => match word_at(next(b"drop"), 0, b"database") {
            true => Marks::DATABASE,
            false => Marks::DROPS,
        },
        b'a' if is(b"alter") && word_at(next(b"alter"), 0, b"database") => Marks::DATABASE,
        b'c' if is(b"create") && word_at(next(b"create"), 0, b"database") => Marks::DATABASE,
        b'p' if is(b"prepare") && !word_at(next(b"prepare"), 0, b"transaction") => Marks::PREPARED,
        b'p' if is(b"prepare") => Marks::ENDS,
        b'e' if is(b"execute") => Marks::ALL | Marks::DRAWS,
        b'e' if is(b"end") => end(text),
        b'a' if is(b"abort") => end(text),
        b'c' if is(b"call") => Marks::ALL | Marks::DRAWS,
        b'c' if is(b"close") => Marks::CLOSES,
        b'c' if is(b"copy") => Marks::COPIES | Marks::DRAWS,
        b'i' if is(b"insert") => Marks::DRAWS,
        b'm' if is(b"merge") => Marks::DRAWS,
        b'w' if is(b"with") => Marks::DRAWS,
        b'c' if is(b"commit") && !word_at(next(b"commit"), 0, b"prepared") => end(text),
        b'b' if is(b"begin") => Marks::BEGINS,
        _ => Marks::NONE,
    }
}

fn names_savepoint(text: &[u8]) -> bool {
    let mut text = text;
    for word in [&b"work"[..], b"transaction"] {
        if word_at(text, 0, word) {
            text = skip_blank(&text[word.len()..]);
        }
    }
    word_at(text, 0, b"to") || word_at(text, 0, b"prepared")
}

/// The end of a transaction block, and with AND CHAIN the beginning of the next.
fn end(text: &[u8]) -> Marks {
    let chains = text.windows(5).any(|w| w.eq_ignore_ascii_case(b"chain"));
    if chains {
        Marks::ENDS | Marks::BEGINS
    } else {
        Marks::ENDS
    }
}

/// Behind blanks, comments, and the parentheses in which a SELECT may stand.
fn skip_blank(mut text: &[u8]) -> &[u8] {
    loop {
        match text {
            [
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' | b'(' | b';',
                rest @ ..,
            ] => {
                text = rest;
            }
            [b'-', b'-', rest @ ..] => {
                let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                text = &rest[end.unwrap_or(rest.len())..];
            }
            [b'/', b'*', rest @ ..] => text = behind_comment(rest),
            _ => return text,
        }
    }
}

/// Comments nest.
fn behind_comment(mut text: &[u8]) -> &[u8] {
    let mut depth = 1;
    while depth > 0 {
        match text {
            [b'*', b'/', rest @ ..] => {
                depth -= 1;
                text = rest;
            }
            [b'/', b'*', rest @ ..] => {
                depth += 1;
                text = rest;
            }
            [_, rest @ ..] => text = rest,
            [] => break,
        }
    }
    text
}

#[inline]
fn word_at(text: &[u8], at: usize, word: &[u8]) -> bool {
    text.get(at..)
        .and_then(|t| t.get(..word.len()))
        .is_some_and(|t| t.eq_ignore_ascii_case(word))
}

/// Whether the `len` bytes at `at` are no part of a longer word.
fn is_apart(text: &[u8], at: usize, len: usize) -> bool {
    let in_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
    let before = at.checked_sub(1).and_then(|b| text.get(b));
    !before.is_some_and(in_word) && !text.get(at + len).is_some_and(in_word)
}

/// Calls `see` with every name in `text` that may be that of a setting of an application's own
/// (`app.tenant`): the server lists all settings but these, so they must be asked for by name. Such
/// a name stands in quotes, or behind SET.
pub fn custom_settings(text: &[u8], mut see: impl FnMut(&str)) {
    let in_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.');
    let mut at = 0;
    let mut before: &[u8] = b"";
    for word in text.split(|b| !in_name(b)) {
        let quoted = at > 0 && matches!(text[at - 1], b'\'' | b'"');
        let set = [&b"set"[..], b"session", b"local"];
        if (quoted || set.iter().any(|w| before.eq_ignore_ascii_case(w)))
            && let Some(name) = as_custom_setting(word)
        {
            see(name);
        }
        if !word.is_empty() {
            before = word;
        }
        at += word.len() + 1;
    }
}

/// `bytes` as the name of a setting of an application's own, if it can be one: words with dots
/// between them, as PostgreSQL takes them without quotes.
#[must_use]
pub fn as_custom_setting(bytes: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(bytes).ok()?;
    let mut words = 0;
    for word in name.split('.') {
        let mut letters = word.bytes();
        let first = letters.next()?;
        let starts = first.is_ascii_alphabetic() || first == b'_';
        let goes_on = letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'));
        if !starts || !goes_on {
            return None;
        }
        words += 1;
    }
    (words > 1 && name.len() < 128).then_some(name)
}

/// The name of the statement that `text` gives up or runs, if that is all it does, and the bytes of
/// `text` in which the name stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// As PostgreSQL understands it: without quotes, in lower case if it had none, cut to 63 bytes.
    pub name: Vec<u8>,
    /// Where it stands.
    pub place: std::ops::Range<usize>,
}

/// What a text that names a prepared statement does with it.
#[derive(Debug, PartialEq, Eq)]
pub enum ByName {
    /// DEALLOCATE.
    Deallocate(Named),
    /// EXECUTE.
    Execute(Named),
}

/// Reads a text that is one DEALLOCATE (but not ALL) or one EXECUTE.
#[must_use]
pub fn by_name(text: &[u8]) -> Option<ByName> {
    let start = skip_blank(text);
    let execute = word_at(start, 0, b"execute") && is_apart(start, 0, 7);
    if execute {
        let (named, _rest) = read_name(text, skip_blank(&start[7..]))?;
        // A second statement behind it would have its own meaning for the name.
        return (!text.contains(&b';') || ends_at_semicolon(text))
            .then_some(ByName::Execute(named));
    }
    if !word_at(start, 0, b"deallocate") || !is_apart(start, 0, 10) {
        return None;
    }
    let mut rest = skip_blank(&start[10..]);
    if word_at(rest, 0, b"prepare") && is_apart(rest, 0, 7) {
        let behind = skip_blank(&rest[7..]);
        if !behind.is_empty() {
            rest = behind;
        }
    }
    if word_at(rest, 0, b"all") && is_apart(rest, 0, 3) {
        return None;
    }
    let (named, rest) = read_name(text, rest)?;
    skip_blank(rest)
        .is_empty()
        .then_some(ByName::Deallocate(named))
}

/// The database that `text` drops, renames, moves or copies, if it does one of these: PostgreSQL waits
/// some seconds for everybody else to leave that database, and fails if somebody does not.
#[must_use]
pub fn vacated_database(text: &[u8]) -> Option<Vec<u8>> {
    let start = skip_blank(text);
    if let Some(rest) = behind(start, b"drop") {
        let rest = behind(rest, b"database")?;
        let exists = behind(rest, b"if").and_then(|rest| behind(rest, b"exists"));
        let (named, _rest) = read_name(text, exists.unwrap_or(rest))?;
        return Some(named.name);
    }
    let copies = behind(start, b"create");
    let rest = behind(copies.or_else(|| behind(start, b"alter"))?, b"database")?;
    let (named, rest) = read_name(text, rest)?;
    let rest = skip_blank(rest);
    if copies.is_none() {
        let moves = behind(rest, b"set").and_then(|rest| behind(rest, b"tablespace"));
        return (moves.is_some() || behind(rest, b"rename").is_some()).then_some(named.name);
    }
    let word = b"template";
    let at = (0..rest.len()).find(|&at| word_at(rest, at, word) && is_apart(rest, at, word.len()));
    let rest = skip_blank(&rest[at? + word.len()..]);
    let rest = skip_blank(rest.strip_prefix(b"=").unwrap_or(rest));
    read_name(text, rest).map(|(named, _rest)| named.name)
}

/// What follows `word`, if that is the first of `text`.
fn behind<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let first = word_at(text, 0, word) && is_apart(text, 0, word.len());
    first.then(|| skip_blank(&text[word.len()..]))
}

fn ends_at_semicolon(text: &[u8]) -> bool {
    let end = text.trim_ascii_end();
    end.iter().position(|&b| b == b';') == Some(end.len() - 1)
}

/// The identifier at the front of `rest`, which is an end of `text`, and what follows it.
fn read_name<'a>(text: &[u8], rest: &'a [u8]) -> Option<(Named, &'a [u8])> {
    const NAME_LEN_MAX: usize = 63;
    let start = text.len() - rest.len();
    let mut name = Vec::new();
    let len = if rest.first() == Some(&b'"') {
        let mut at = 1;
        loop {
            match (rest.get(at)?, rest.get(at + 1)) {
                (b'"', Some(b'"')) => {
                    name.push(b'"');
                    at += 2;
                }
                (b'"', _) => break at + 1,
                (&byte, _) => {
                    name.push(byte);
                    at += 1;
                }
            }
        }
    } else {
        let in_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || *b >= 0x80;
        let len = rest.iter().position(|b| !in_name(b)).unwrap_or(rest.len());
        name.extend(rest[..len].to_ascii_lowercase());
        len
    };
    name.truncate(NAME_LEN_MAX);
    let place = start..start + len;
    (!name.is_empty()).then_some((Named { name, place }, &rest[len..]))
}

#[cfg(test)]
#[path = "statement_tests.rs"]
mod tests;
