//! Who called, as a statement says it: `/*traceparent='00-...-...-01'*/` at one of its ends, as
//! sqlcommenter writes it (keys and values encoded as in a URL), in the form of W3C's "Trace Context".

use std::borrow::Cow;
use std::ops::Range;

use super::hint::{VALUE_LEN_MAX, decode, end_of, unquote};
use super::lexer::{comment_end, last_token_end};

/// The setting of a session that says the same for all its statements.
pub const TRACEPARENT_SETTING: &str = "pooler.traceparent";

/// Bytes of a `traceparent` of version 00.
const PARENT_LEN: usize = 55;

/// The longest comment at the end of a statement that is looked into, in bytes.
const COMMENT_LEN_MAX: usize = 2048;

/// The longest `tracestate` that is passed on, in bytes: as much as the standard asks for (section 3.3.1.5 there).
const STATE_LEN_MAX: usize = 512;

/// A span of the caller's, in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span in it.
    pub span_id: [u8; 8],
    /// The caller records the trace.
    pub sampled: bool,
}

/// Who called: its span, and what goes with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The span, and its trace.
    pub parent: TraceParent,
    /// The `tracestate` (W3C's "Trace Context", section 3.3): printable ASCII, at most 512 bytes. What it means is the
    /// business of those who wrote it.
    pub state: Option<String>,
}

impl Caller {
    /// Bytes of the `tracestate`.
    #[must_use]
    pub fn state_len(&self) -> usize {
        self.state.as_ref().map_or(0, String::len)
    }
}

impl TraceParent {
    /// Of version 00, or the front of a later one that is alike (section 3.2 there).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (front, more) = text.split_first_chunk::<PARENT_LEN>()?;
        let hyphens = front[2] == b'-' && front[35] == b'-' && front[52] == b'-';
        if !hyphens || more.first().is_some_and(|behind| *behind != b'-') {
            return None;
        }
        let [version] = hex::<1>(&front[..2])?;
        let trace_id = hex::<16>(&front[3..35])?;
        let span_id = hex::<8>(&front[36..52])?;
        let [flags] = hex::<1>(&front[53..])?;
        let known = version == 0 && more.is_empty() || (1..0xff).contains(&version);
        let valid = known && trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }
}

/// `N` bytes from `2 * N` hexadecimal digits, in lower case.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (DIGIT[usize::from(pair[0])], DIGIT[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < 16 && text.len() == 2 * N).then_some(bytes)
}

/// What each byte is worth as a digit; 16 or more for what is none.
static DIGIT: [u8; 256] = {
    let mut table = [u8::MAX; 256];
    let mut byte = 0;
    while byte < 256 {
        match byte as u8 {
            digit @ b'0'..=b'9' => table[byte] = digit - b'0',
            digit @ b'a'..=b'f' => table[byte] = digit - b'a' + 10,
            _ => {}
        }
        byte += 1;
    }
    table
};

/// The caller that the comments of `text` name; one at its end counts more than one in front.
#[inline]
#[must_use]
pub fn find_caller(text: &[u8]) -> Option<Caller> {
    find_caller_if(text, |_| true)
}

/// The same, if it is `wanted`. Only then is the whole text read to see whether what looks like a comment at its
/// end is one: callers that record nothing, which most do not, cost little.
#[inline]
#[must_use]
pub fn find_caller_if(text: &[u8], wanted: impl Fn(&TraceParent) -> bool) -> Option<Caller> {
    if !may_have_comment(text) {
        return None;
    }
    let mut front = Said::default();
    let at = each_front_pair(text, &mut |key, value| front.hear(text, key, value));
    let mut end = Said::default();
    let last = last_comment(text, at);
    if let Some((_, body)) = last.clone() {
        each_pair_in(text, body, &mut |key, value| end.hear(text, key, value));
    }
    let mut parent = end.parent.or(front.parent).filter(&wanted)?;
    if (end.parent.is_some() || end.state.is_some())
        && let Some((begin, _)) = last
        && !is_comment(text, begin)
    {
        // It is the end of a string: what stands in front counts alone.
        end = Said::default();
        parent = front.parent.filter(wanted)?;
    }
    let mut buffer = [0; STATE_LEN_MAX];
    let state = end.state.or(front.state);
    let state = state.and_then(|value| read_state(&text[value], &mut buffer).map(str::to_owned));
    Some(Caller { parent, state })
}

/// What the comments at one end say of the caller; of two that say the same, the later one that can be read.
#[derive(Default)]
struct Said {
    parent: Option<TraceParent>,
    /// Where the `tracestate` stands.
    state: Option<Range<usize>>,
}

impl Said {
    #[cold]
    fn hear(&mut self, text: &[u8], key: &[u8], value: Range<usize>) {
        let mut buffer = [0; STATE_LEN_MAX];
        if key.eq_ignore_ascii_case(b"traceparent") {
            let value = decode(&text[value], &mut buffer[..VALUE_LEN_MAX]);
            self.parent = value.and_then(TraceParent::parse).or(self.parent);
        } else if key.eq_ignore_ascii_case(b"tracestate")
            && read_state(&text[value.clone()], &mut buffer).is_some()
        {
            self.state = Some(value);
        }
    }
}

/// A `tracestate`, if it can be passed on.
fn read_state<'a>(value: &'a [u8], buffer: &'a mut [u8]) -> Option<&'a str> {
    let value = str::from_utf8(decode(value, buffer)?).ok()?;
    let printable = |c: char| c.is_ascii_graphic() || c == ' ';
    (!value.is_empty() && value.chars().all(printable)).then_some(value)
}

/// The same statement whoever calls: the values of `traceparent` and `tracestate` in its comments are
/// zeros, so that statements which differ in them alone are one. Nothing else moves: positions in errors
/// are right, and what is a comment stays one.
#[inline]
#[must_use]
pub fn without_caller(text: &[u8]) -> Cow<'_, [u8]> {
    if !may_have_comment(text) {
        return Cow::Borrowed(text);
    }
    let mut values = Vec::new();
    each_pair(text, |key, value| {
        let concerned = [&b"traceparent"[..], b"tracestate"];
        if concerned.iter().any(|name| key.eq_ignore_ascii_case(name)) {
            values.push(value);
        }
    });
    let mut text = Cow::Borrowed(text);
    for value in values {
        for byte in &mut text.to_mut()[value] {
            // Comments nest, and one that began or ended elsewhere would make other statements of what is in it.
            if !matches!(*byte, b'/' | b'*') {
                *byte = b'0';
            }
        }
    }
    text
}

/// Whether a text has a comment at one of its ends, where a caller could be named. Nearly all statements have
/// none.
#[inline]
#[must_use]
pub fn may_have_comment(text: &[u8]) -> bool {
    let front = text.trim_ascii_start();
    front.starts_with(b"/*") || text[..end_of(text)].ends_with(b"*/")
}

/// Calls `see` with the key of each pair in a comment at one of the ends, and where its value stands
/// without its quotes.
#[cold]
fn each_pair(text: &[u8], mut see: impl FnMut(&[u8], Range<usize>)) {
    let at = each_front_pair(text, &mut see);
    if let Some((begin, body)) = last_comment(text, at)
        && is_comment(text, begin)
    {
        each_pair_in(text, body, &mut see);
    }
}

/// The same of those in front; where what follows them begins.
#[cold]
fn each_front_pair(text: &[u8], see: &mut impl FnMut(&[u8], Range<usize>)) -> usize {
    let mut at = text.len() - text.trim_ascii_start().len();
    while text[at..].starts_with(b"/*") {
        let Some(end) = comment_end(text, at) else {
            return text.len();
        };
        each_pair_in(text, at + 2..end - 2, see);
        at = end + (text[end..].len() - text[end..].trim_ascii_start().len());
    }
    at
}

/// What looks like a comment about a trace at the end of `text`, behind `at`: where it begins, and what is in it. It
/// may be in a string: see [`is_comment`].
fn last_comment(text: &[u8], at: usize) -> Option<(usize, Range<usize>)> {
    let end = end_of(text);
    let from = end.saturating_sub(COMMENT_LEN_MAX).max(at);
    if end <= from || !text[..end].ends_with(b"*/") {
        return None;
    }
    let last = &text[from..end];
    let begin = (0..last.len() - 1).rfind(|&n| last[n..n + 2] == *b"/*")?;
    let body = from + begin + 2..end - 2;
    let says = last[begin..]
        .windows(5)
        .any(|w| w[0] | 0x20 == b't' && w.eq_ignore_ascii_case(b"trace"));
    (says && body.start <= body.end).then_some((from + begin, body))
}

/// Whether the comment that begins there is one: all words stand in front of it.
fn is_comment(text: &[u8], begin: usize) -> bool {
    last_token_end(text).is_some_and(|token| token <= begin)
}

fn each_pair_in(text: &[u8], body: Range<usize>, see: &mut impl FnMut(&[u8], Range<usize>)) {
    let base = text.as_ptr().addr();
    for pair in text[body].split(|b| *b == b',') {
        let Some(equals) = pair.iter().position(|b| *b == b'=') else {
            continue;
        };
        let value = unquote(pair[equals + 1..].trim_ascii());
        let begin = value.as_ptr().addr() - base;
        see(pair[..equals].trim_ascii(), begin..begin + value.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn callers_are_named_at_either_end() {
        let parent = TraceParent::parse(PARENT.as_bytes()).expect("as in the standard");
        assert_eq!(
            (parent.trace_id[0], parent.span_id[7], parent.sampled),
            (0x0a, 0x31, true)
        );
        let encoded = PARENT.replace('-', "%2D");
        for text in [
            format!("/*traceparent='{PARENT}'*/ SELECT 1"),
            format!("SELECT 1 /*a='b',traceparent='{PARENT}',tracestate='x%3D1'*/"),
            format!("SELECT 1 /* Traceparent = '{encoded}' */ ; "),
            format!("/* x */ /*traceparent='{PARENT}'*/ SELECT 1 /*y*/"),
        ] {
            let found = find_caller(text.as_bytes());
            assert_eq!(found.map(|it| it.parent), Some(parent), "{text}");
            let without = without_caller(text.as_bytes());
            assert_eq!(without.len(), text.len());
            assert_eq!(find_caller(&without), None, "{text}");
            assert!(!without.windows(4).any(|w| w == b"0af7"), "{text}");
        }
        for text in [
            format!("SELECT '/*traceparent=''{PARENT}''*/"),
            format!("SELECT $$ /*traceparent='{PARENT}'*/"),
            format!("SELECT /*traceparent='{PARENT}'*/ 1"),
            "SELECT 1 /*traceparent='00-0-1-01'*/".to_owned(),
            "SELECT 1 /* traceparent= */".to_owned(),
            "/*".to_owned(),
            "/*/".to_owned(),
            String::new(),
        ] {
            assert_eq!(find_caller(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn callers_that_nobody_wants_are_none() {
        let unsampled = PARENT.replace("-01", "-00");
        let sampled = |caller: &TraceParent| caller.sampled;
        for (text, is_wanted) in [
            (format!("SELECT 1 /*traceparent='{PARENT}'*/"), true),
            (format!("SELECT 1 /*traceparent='{unsampled}'*/"), false),
            (
                format!("/*traceparent='{PARENT}'*/ SELECT 1 /*traceparent='{unsampled}'*/"),
                false,
            ),
            (
                format!("/*traceparent='{unsampled}'*/ SELECT 1 /*traceparent='{PARENT}'*/"),
                true,
            ),
            (
                format!("/*traceparent='{PARENT}'*/ SELECT '/*traceparent=''{PARENT}''*/"),
                true,
            ),
            (
                format!("/*traceparent='{unsampled}'*/ SELECT '/*traceparent=''{PARENT}''*/"),
                false,
            ),
        ] {
            let found = find_caller_if(text.as_bytes(), sampled);
            assert_eq!(found.is_some(), is_wanted, "{text}");
        }
    }

    #[test]
    fn only_what_the_standard_allows_is_a_caller() {
        let bad = [
            PARENT.to_uppercase(),
            PARENT.replace("00-", "ff-"),
            format!("{PARENT}-more"),
            PARENT.replace("b7ad6b7169203331", "0000000000000000"),
            PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            PARENT[..50].to_owned(),
        ];
        for bad in bad {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
        let later = format!("{}-more", PARENT.replace("00-", "01-"));
        assert!(TraceParent::parse(later.as_bytes()).is_some());
        assert!(TraceParent::parse(format!("{later}-").as_bytes()).is_some());
        let longer = PARENT.replace("00-", "01-") + "f";
        assert_eq!(TraceParent::parse(longer.as_bytes()), None);
        for (at, old) in PARENT.bytes().enumerate() {
            let others: &[u8] = match old {
                b'-' => b"0f_",
                _ => b"/:`gF-\xff",
            };
            for other in others {
                let mut bad = PARENT.as_bytes().to_vec();
                bad[at] = *other;
                assert_eq!(TraceParent::parse(&bad), None, "{}", bad.escape_ascii());
            }
        }
        let parent = TraceParent {
            trace_id: [0x0a; 16],
            span_id: [0xf9; 8],
            sampled: false,
        };
        let text = format!("00-{}-{}-02", "0a".repeat(16), "f9".repeat(8));
        assert_eq!(TraceParent::parse(text.as_bytes()), Some(parent));
    }

    #[test]
    fn a_text_without_its_caller_is_the_same_statement() {
        for (text, without) in [
            (
                "/*tracestate=/*,x*/ DROP TABLE t; */ SELECT 1",
                "/*tracestate=/*,x*/ DROP TABLE t; */ SELECT 1",
            ),
            (
                "/*tracestate=a /* b */ c,x=y*/ SELECT 1",
                "/*tracestate=00/*000*/00,x=y*/ SELECT 1",
            ),
            (
                "/*tracestate='a/*/ DROP TABLE t; */*/ SELECT 1",
                "/*tracestate=00/*/000000000000000*/*/ SELECT 1",
            ),
            (
                "SELECT 1 /*tracestate='a/b*c',tracestate=x*/",
                "SELECT 1 /*tracestate='0/0*0',tracestate=0*/",
            ),
        ] {
            let found = without_caller(text.as_bytes());
            assert_eq!(str::from_utf8(&found), Ok(without));
        }
        let many = format!(
            "/*{}*/ SELECT 1",
            vec![format!("traceparent={PARENT}"); 9].join(",")
        );
        assert_eq!(find_caller(&without_caller(many.as_bytes())), None);
    }

    #[test]
    fn what_goes_with_a_trace_is_passed_on_if_it_can_be() {
        let parent = format!("traceparent='{PARENT}'");
        for (text, state) in [
            (
                format!("SELECT 1 /*{parent},tracestate='a%3D1%2Cb%3D2'*/"),
                Some("a=1,b=2"),
            ),
            (
                format!("/*{parent},tracestate='a%3D1'*/ SELECT 1"),
                Some("a=1"),
            ),
            (
                format!("/*{parent}*/ SELECT 1 /*tracestate='b=2'*/"),
                Some("b=2"),
            ),
            (
                format!("/*tracestate='a=1'*/ SELECT 1 /*{parent}*/"),
                Some("a=1"),
            ),
            (
                format!("/*tracestate='a=1'*/ SELECT 1 /*{parent},tracestate='b'*/"),
                Some("b"),
            ),
            (
                format!("/*{parent},tracestate='a=1'*/ SELECT '/*tracestate=''b''*/"),
                Some("a=1"),
            ),
            (
                format!("/*{parent},tracestate='a=1'*/ /*tracestate=''*/ SELECT 1"),
                Some("a=1"),
            ),
            (
                format!("/*{parent},tracestate='a=1'*/ SELECT 1 /*tracestate=''*/"),
                Some("a=1"),
            ),
            (format!("/*{parent}*/ SELECT 1"), None),
            (format!("SELECT 1 /*{parent},tracestate=''*/"), None),
            (format!("/*{parent},tracestate='%00trace'*/ SELECT 1"), None),
        ] {
            let found = find_caller(text.as_bytes()).expect("a caller");
            assert_eq!(found.state.as_deref(), state, "{text}");
        }
        let most = "s".repeat(STATE_LEN_MAX);
        for (value, is_passed_on) in [
            (most.clone(), true),
            (format!("{most}s"), false),
            (most.replacen('s', "%73", 1), true),
            (most.replacen('s', "%73", 1) + "s", false),
        ] {
            let text = format!("/*{parent},tracestate='{value}'*/ SELECT 1");
            let found = find_caller(text.as_bytes()).expect("a caller");
            assert_eq!(found.state, is_passed_on.then(|| most.clone()), "{text}");
        }
        assert_eq!(find_caller(b"SELECT 1 /*tracestate='a=1'*/"), None);
    }
}
