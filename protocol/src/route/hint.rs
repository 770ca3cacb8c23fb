//! What a statement asks for in a comment at one of its ends: `/*pooler.route='replica'*/`.
//!
//! As sqlcommenter writes it: keys and values encoded as in a URL, the value in quotes, commas between
//! the pairs, which may stand beside pairs of others. A value that is not known is no hint. A comment
//! in a string or in the middle of a statement is none either.

use super::lexer::{comment_end, last_token_end};

/// Where the statements of a session may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// Proven reads to replicas, everything else to the primary.
    Auto,
    /// Everything to the primary.
    Primary,
    /// Everything to a replica, where a write fails.
    Replica,
    /// As [`Route::Auto`], with replicas before the primary wherever they are.
    PreferReplica,
}

/// What a session's reads must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Whatever a replica has.
    Eventual,
    /// What the session wrote itself.
    Session,
}

impl Route {
    /// The setting of that.
    pub const SETTING: &str = "pooler.route";

    /// As it is written in a hint, in SET, in a startup option and in the configuration; in any case.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let all = [
            Self::Auto,
            Self::Primary,
            Self::Replica,
            Self::PreferReplica,
        ];
        all.into_iter()
            .find(|route| route.name().as_bytes().eq_ignore_ascii_case(text))
    }

    /// As [`Self::parse`] takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::PreferReplica => "prefer-replica",
        }
    }
}

impl Consistency {
    /// The setting of that.
    pub const SETTING: &str = "pooler.consistency";

    /// As it is written in a hint, in SET, in a startup option and in the configuration; in any case.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let all = [Self::Eventual, Self::Session];
        all.into_iter()
            .find(|it| it.name().as_bytes().eq_ignore_ascii_case(text))
    }

    /// As [`Self::parse`] takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Session => "session",
        }
    }
}

/// What the comments of one text ask for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Hints {
    /// Where it may go.
    pub route: Option<Route>,
    /// What it must see.
    pub consistency: Option<Consistency>,
}

/// Longest value that can be one, as it is written, in bytes.
pub(super) const VALUE_LEN_MAX: usize = 64;

/// The hints of a text. Those at its end count more than those in front.
#[inline]
#[must_use]
pub fn hints(text: &[u8]) -> Hints {
    let mut hints = Hints::default();
    let front = text.trim_ascii_start();
    if matches!(front.first(), Some(b'/' | b'-')) {
        read_comments(front, &mut hints);
    }
    if text[..end_of(text)].ends_with(b"*/") {
        read_end(text, &mut hints);
    }
    hints
}

/// Without what may stand behind the last comment.
#[inline]
pub(super) fn end_of(text: &[u8]) -> usize {
    let closing = |b: &u8| matches!(b, b';' | b' ' | b'\n' | b'\t' | b'\r' | b'\x0c');
    text.iter()
        .rposition(|b| !closing(b))
        .map_or(0, |at| at + 1)
}

/// The comments behind the last token; text by text only if one of them may say something.
#[cold]
fn read_end(text: &[u8], hints: &mut Hints) {
    const PREFIX: &[u8] = b"pooler.";
    let says = |part: &[u8]| part.eq_ignore_ascii_case(PREFIX);
    if !text.windows(PREFIX.len()).any(says) {
        return;
    }
    if let Some(last) = last_token_end(text) {
        read_comments(&text[last..], hints);
    }
}

/// Comments and the blanks between them, up to something else.
fn read_comments(text: &[u8], hints: &mut Hints) {
    let mut rest = text;
    loop {
        let blank = |b: &u8| matches!(b, b';' | b' ' | b'\n' | b'\t' | b'\r' | b'\x0c');
        let begin = rest.iter().position(|b| !blank(b));
        rest = &rest[begin.unwrap_or(rest.len())..];
        if rest.starts_with(b"--") {
            let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
            rest = &rest[end.unwrap_or(rest.len())..];
        } else if rest.starts_with(b"/*") {
            let Some(end) = comment_end(rest, 0) else {
                return;
            };
            read_comment(&rest[2..end - 2], hints);
            rest = &rest[end..];
        } else {
            return;
        }
    }
}

fn read_comment(body: &[u8], hints: &mut Hints) {
    for pair in body.split(|b| *b == b',') {
        let Some(equals) = pair.iter().position(|b| *b == b'=') else {
            continue;
        };
        let key = pair[..equals].trim_ascii();
        let is = |setting: &str| key.eq_ignore_ascii_case(setting.as_bytes());
        let (route, consistency) = (is(Route::SETTING), is(Consistency::SETTING));
        if !route && !consistency {
            continue;
        }
        let mut buffer = [0; VALUE_LEN_MAX];
        let Some(value) = decode(unquote(pair[equals + 1..].trim_ascii()), &mut buffer) else {
            continue;
        };
        if route {
            hints.route = Route::parse(value).or(hints.route);
        } else {
            hints.consistency = Consistency::parse(value).or(hints.consistency);
        }
    }
}

pub(super) fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'\'', inner @ .., b'\''] => inner,
        _ => value,
    }
}

/// `%2D` is a hyphen.
pub(super) fn decode<'a>(text: &'a [u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    if !text.contains(&b'%') {
        return (text.len() <= buffer.len()).then_some(text);
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    let mut len = 0;
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => (digit(*high)? << 4 | digit(*low)?, behind),
            _ => (*first, behind),
        };
        *buffer.get_mut(len)? = byte;
        len += 1;
        rest = behind;
    }
    Some(&buffer[..len])
}
