//! The words of a text as PostgreSQL's scanner (`scan.l`) takes them.
//!
//! It never guesses. What another setting (`standard_conforming_strings`), another version or another
//! encoding of the client could take differently is unreadable, and so is what does not end: a text
//! with one unreadable word is none that anything is known of. See "Lexical Structure" in PostgreSQL's
//! documentation.

use super::{Doubt, Reason};

/// Longest name that PostgreSQL does not cut, in bytes.
pub(super) const NAME_LEN_MAX: usize = 63;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name without quotes; in lower case in [`Lexer::name`].
    Word,
    /// A name in quotes, as it stands between them in [`Lexer::name`].
    Quoted,
    /// A string; what is between its quotes is at [`Lexer::inner`].
    Text,
    /// A number.
    Number,
    /// `$1`.
    Param,
    /// An operator of one or more characters, but not `=>`, which names an argument.
    Operator,
    /// One of `( ) [ ] , . ; :`, or `::`, `:=`, `=>` and `..` by their first character.
    Mark(u8),
    /// Nothing comes any more.
    End,
    /// It cannot be known what the server would see.
    Unreadable,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// No text is as long as 4 GB.
    start: u32,
    end: u32,
}

impl Token {
    /// None at all.
    pub(super) const NONE: Self = Self {
        kind: Kind::Mark(b';'),
        start: 0,
        end: 0,
    };

    pub(super) fn start(self) -> usize {
        self.start as usize
    }

    pub(super) fn end(self) -> usize {
        self.end as usize
    }

    /// For that reason, or because it cannot be read.
    #[cold]
    pub(super) fn doubt(self, reason: Reason) -> Doubt {
        let reason = match self.kind {
            Kind::Unreadable => Reason::Unreadable,
            _ => reason,
        };
        let (start, end) = (self.start as usize, self.end as usize);
        Doubt { reason, start, end }
    }
}

/// Reads a text token by token.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    name: [u8; NAME_LEN_MAX + 1],
    name_len: usize,
    inner: (usize, usize),
    is_ascii: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            name: [0; NAME_LEN_MAX + 1],
            name_len: 0,
            inner: (0, 0),
            is_ascii: true,
        }
    }

    /// The name that was read last, padded with zeros to [`Self::padded`].
    #[inline]
    pub(super) fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }

    /// The same with the zeros that fill its last eight bytes.
    #[inline]
    pub(super) fn padded(&self) -> &[u8] {
        &self.name[..self.name_len.next_multiple_of(8)]
    }

    /// Whether the name that was read last has no byte beyond ASCII.
    #[inline]
    pub(super) fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    /// What stands between the quotes of the string that was read last.
    pub(super) fn inner(&self) -> &'a [u8] {
        &self.text[self.inner.0..self.inner.1]
    }

    /// The text of a token.
    pub(super) fn slice(&self, token: Token) -> &'a [u8] {
        &self.text[token.start as usize..token.end as usize]
    }

    #[inline]
    fn peek(&self, ahead: usize) -> u8 {
        // No text has a zero byte in it that means anything.
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// The next token.
    #[inline]
    pub(super) fn next(&mut self) -> Token {
        if !self.skip_blank() {
            return self.token(self.at, Kind::Unreadable);
        }
        let start = self.at;
        let Some(&first) = self.text.get(start) else {
            return self.token(start, Kind::End);
        };
        let kind = match CLASS[usize::from(first)] {
            Class::Letter => self.word(first),
            Class::Digit => self.number(),
            Class::Operator => self.operator(),
            Class::Mark => self.mark(first),
            Class::Quote => {
                self.at += 1;
                self.string(false)
            }
            Class::DoubleQuote => self.quoted(),
            Class::Dollar => self.dollar(),
            Class::Blank | Class::Other => Kind::Unreadable,
        };
        self.token(start, kind)
    }

    #[inline]
    fn token(&self, start: usize, kind: Kind) -> Token {
        let end = self.at.max(start);
        let (start, end) = (start as u32, end as u32);
        Token { kind, start, end }
    }

    /// Behind blanks and comments; false if a comment does not end.
    #[inline]
    fn skip_blank(&mut self) -> bool {
        loop {
            match self.peek(0) {
                b' ' | b'\n' | b'\t' | b'\r' | b'\x0c' => self.at += 1,
                b'-' if self.peek(1) == b'-' => {
                    let rest = &self.text[self.at..];
                    let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                    self.at += end.unwrap_or(rest.len());
                }
                b'/' if self.peek(1) == b'*' => {
                    let Some(end) = comment_end(self.text, self.at) else {
                        return false;
                    };
                    self.at = end;
                }
                _ => return true,
            }
        }
    }

    #[inline]
    fn word(&mut self, first: u8) -> Kind {
        let next = self.peek(1);
        if next == b'\'' {
            match first | 0x20 {
                b'e' => {
                    self.at += 2;
                    return self.string(true);
                }
                b'b' | b'x' | b'n' => {
                    self.at += 2;
                    return self.string(false);
                }
                _ => {}
            }
        }
        if next == b'&' && first | 0x20 == b'u' && matches!(self.peek(2), b'\'' | b'"') {
            return Kind::Unreadable;
        }
        let rest = &self.text[self.at..];
        let mut len = 1;
        while let Some(&byte) = rest.get(len)
            && IN_NAME[usize::from(byte)]
        {
            len += 1;
        }
        if len > NAME_LEN_MAX {
            return Kind::Unreadable;
        }
        self.name_len = len;
        self.is_ascii = self.copy_lower(rest, len);
        self.at += len;
        if !self.is_ascii && !self.is_whole(&rest[..len]) {
            return Kind::Unreadable;
        }
        Kind::Word
    }

    /// Makes the first `len` bytes of `rest` the name, in lower case, eight at a time; whether all of them are ASCII.
    #[inline]
    fn copy_lower(&mut self, rest: &[u8], len: usize) -> bool {
        const HIGH: u64 = 0x8080_8080_8080_8080;
        const ONES: u64 = 0x0101_0101_0101_0101;
        let mut seen = 0;
        for (at, to) in (0..len).step_by(8).zip(self.name.chunks_exact_mut(8)) {
            let word = match rest.get(at..at + 8) {
                Some(eight) => u64::from_le_bytes(eight.try_into().expect("BUG: eight bytes")),
                None => rest[at..]
                    .iter()
                    .rev()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte)),
            };
            let left = len - at;
            let word = if left < 8 {
                word & !(!0 << (left * 8))
            } else {
                word
            };
            seen |= word & HIGH;
            // The high bit of each byte that is a capital: at least A, and not above Z.
            let low = word & !HIGH;
            let capital = (low + (0x80 - u64::from(b'A')) * ONES)
                & !(low + (0x7f - u64::from(b'Z')) * ONES)
                & !word
                & HIGH;
            to.copy_from_slice(&(word | capital >> 2).to_le_bytes());
        }
        seen == 0
    }

    /// Whether a name beyond ASCII is surely no other one. In SJIS, BIG5, GBK, UHC, GB18030 and JOHAB
    /// the second byte of a letter may be one of ASCII, which then does not end the name; and a
    /// Turkish server makes an `i` of the dotted capital.
    #[cold]
    fn is_whole(&self, name: &[u8]) -> bool {
        let open = name.last().is_some_and(|last| *last >= 0x80);
        if open && matches!(self.peek(0), 0x30..=0x7e) {
            return false;
        }
        !name.contains(&0xdd) && !name.windows(2).any(|pair| pair == [0xc4, 0xb0])
    }

    /// A name in quotes; two of them in a row are one of its letters.
    fn quoted(&mut self) -> Kind {
        self.name = [0; NAME_LEN_MAX + 1];
        self.at += 1;
        let mut len = 0;
        let mut seen = 0;
        loop {
            let byte = match (self.peek(0), self.peek(1)) {
                (0, _) => return Kind::Unreadable,
                (b'"', b'"') => {
                    self.at += 1;
                    b'"'
                }
                (b'"', _) => break,
                (byte, _) => byte,
            };
            if len >= NAME_LEN_MAX {
                return Kind::Unreadable;
            }
            self.name[len] = byte;
            seen |= byte;
            len += 1;
            self.at += 1;
        }
        self.at += 1;
        self.name_len = len;
        self.is_ascii = seen < 0x80;
        match len {
            0 => Kind::Unreadable,
            _ => Kind::Quoted,
        }
    }

    /// A string behind its first quote. With `escapes` a backslash takes what follows it along.
    /// Without, it must stand before no quote: whether it does so there, a setting decides. In either,
    /// it may be the second half of a letter when it follows a byte beyond ASCII.
    fn string(&mut self, escapes: bool) -> Kind {
        let begin = self.at;
        loop {
            let rest = &self.text[self.at.min(self.text.len())..];
            let Some(next) = rest.iter().position(|b| matches!(b, b'\'' | b'\\')) else {
                self.at = self.text.len();
                return Kind::Unreadable;
            };
            self.at += next;
            match (rest[next], escapes) {
                (b'\'', _) if self.peek(1) == b'\'' => self.at += 2,
                (b'\'', _) => break,
                (_, true) => {
                    let behind = self.at.checked_sub(1).map(|before| self.text[before]);
                    // What it takes along may be the first half of a letter.
                    if behind.is_some_and(|b| b >= 0x80) || self.peek(1) >= 0x80 {
                        return Kind::Unreadable;
                    }
                    self.at += 2;
                }
                (_, false) if self.peek(1) == b'\'' => return Kind::Unreadable,
                (_, false) => self.at += 1,
            }
        }
        self.inner = (begin, self.at);
        self.at += 1;
        Kind::Text
    }

    /// `$1`, `$$...$$` or `$tag$...$tag$`.
    fn dollar(&mut self) -> Kind {
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            self.skip_digits();
            return self.apart(Kind::Param);
        }
        let rest = &self.text[self.at..];
        let in_tag = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let tag = 1 + rest[1..].iter().take_while(|b| in_tag(b)).count();
        if rest.get(tag) != Some(&b'$') {
            return Kind::Unreadable;
        }
        let (fence, inside) = rest.split_at(tag + 1);
        let Some(end) = find(inside, fence) else {
            return Kind::Unreadable;
        };
        let begin = self.at + fence.len();
        self.inner = (begin, begin + end);
        self.at = begin + end + fence.len();
        Kind::Text
    }

    fn skip_digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    /// Digits with a point and an exponent. What later versions take more (`0xff`, `1_000`) earlier
    /// ones take for a number and a name.
    fn number(&mut self) -> Kind {
        self.skip_digits();
        if self.peek(0) == b'.' {
            self.at += 1;
            self.skip_digits();
        }
        if self.peek(0) | 0x20 == b'e' {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if !self.peek(1 + sign).is_ascii_digit() {
                return Kind::Unreadable;
            }
            self.at += 1 + sign;
            self.skip_digits();
        }
        match self.peek(0) {
            b'.' => Kind::Unreadable,
            _ => self.apart(Kind::Number),
        }
    }

    /// `kind`, unless a name follows without a blank.
    fn apart(&self, kind: Kind) -> Kind {
        match IN_NAME[usize::from(self.peek(0))] {
            true => Kind::Unreadable,
            false => kind,
        }
    }

    fn mark(&mut self, first: u8) -> Kind {
        if first == b'.' && self.peek(1).is_ascii_digit() {
            return self.number();
        }
        let twice = match first {
            b':' => matches!(self.peek(1), b':' | b'='),
            b'.' => self.peek(1) == b'.',
            _ => false,
        };
        self.at += 1 + usize::from(twice);
        Kind::Mark(first)
    }

    /// The longest run of an operator's characters that begins no comment, without a sign at its
    /// end: "A multiple-character operator name cannot end in + or -, unless the name also contains"
    /// one of those that standard SQL does not have.
    fn operator(&mut self) -> Kind {
        let rest = &self.text[self.at..];
        let mut len = 0;
        let mut odd = false;
        while let Some(&byte) = rest.get(len)
            && CLASS[usize::from(byte)] == Class::Operator
        {
            let next = rest.get(len + 1).copied();
            if len > 0 && matches!((byte, next), (b'-', Some(b'-')) | (b'/', Some(b'*'))) {
                break;
            }
            odd |= b"~!@#^&|`?%".contains(&byte);
            len += 1;
        }
        while len > 1 && !odd && matches!(rest[len - 1], b'+' | b'-') {
            len -= 1;
        }
        self.at += len;
        match &rest[..len] {
            b"=>" => Kind::Mark(b'='),
            _ => Kind::Operator,
        }
    }
}

/// Where the last word ends, if all of them can be read.
pub(super) fn last_token_end(text: &[u8]) -> Option<usize> {
    let mut lexer = Lexer::new(text);
    let mut last = 0;
    loop {
        let token = lexer.next();
        match token.kind {
            Kind::End => return Some(last),
            Kind::Unreadable => return None,
            Kind::Mark(b';') => {}
            _ => last = token.end(),
        }
    }
}

/// Behind the comment that begins at `at`: comments nest. `None` if it does not end.
pub(super) fn comment_end(text: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = at;
    loop {
        let rest = text.get(at..)?;
        at += rest.iter().position(|b| matches!(b, b'*' | b'/'))?;
        match text.get(at..at + 2)? {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|part| part == what)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Operator,
    Mark,
    Quote,
    DoubleQuote,
    Dollar,
    Blank,
    Other,
}

/// What a token is that begins with each byte.
static CLASS: [Class; 256] = {
    let mut table = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*'
            | b'/' | b'%' | b'<' | b'>' | b'=' => Class::Operator,
            b'(' | b')' | b'[' | b']' | b',' | b'.' | b';' | b':' => Class::Mark,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b' ' | b'\n' | b'\t' | b'\r' | b'\x0c' => Class::Blank,
            _ => Class::Other,
        };
        byte += 1;
    }
    table
};

/// What may stand in a name without quotes, behind its first letter.
static IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let class = CLASS[byte];
        table[byte] = matches!(class, Class::Letter | Class::Digit | Class::Dollar);
        byte += 1;
    }
    table
};
