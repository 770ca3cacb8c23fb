//! A statement of literals and other words that a fuzzer chooses, or of any bytes: what is left when its
//! literals are taken out.

use pooler_protocol::route::mask;

use super::take;

/// In every string, and in nothing else.
const SECRET: &str = "Hidden";

/// In every number, and in nothing else.
const DIGITS: &str = "73";

/// Whole literals; `@` stands for the secret and `#` for the digits.
const LITERALS: &[&str] = &[
    "'@'",
    "'a''@'",
    "'@''b'",
    "''''",
    "'@\\n'",
    "E'@'",
    "e'\\'@'",
    "E'@\\\\'",
    "E'a\\'b''@'",
    "U&'@'",
    "u&'@\\0061'",
    "U&'@' UESCAPE '!'",
    "B'01@'",
    "X'ff@'",
    "n'@'",
    "$$@$$",
    "$$ '@ $$",
    "$t$@$t$",
    "$t$ $$ @ $t$",
    "$a1$ $t$ @' $a1$",
    "#",
    "#.#",
    ".#",
    "#e#",
    "#E-#",
    "0x#",
    "0b1#",
    "#_#",
    "1#.",
    "'@' \n '@'",
    "'/* @'",
    "'-- @'",
    "-#",
    "+.#",
    "E'\\\\\\'@'",
];

/// What may stand between them.
const OTHERS: &[&str] = &[
    "SELECT",
    ",",
    "(",
    ")",
    "=",
    "<>",
    "||",
    "::text",
    "a",
    "\"q '1\"",
    "\"/*\"",
    "\"$$\"",
    "$1",
    "t.c",
    "/* '@' */",
    "/* /* # */ '@ */",
    "-- '@'\n",
    ";",
    "IN",
    "é",
    "U&\"q\"",
    "[",
    "]",
    "->>",
    "x1",
];

/// See the module.
pub fn run(mut data: &[u8]) {
    if take(&mut data) < 32 {
        check_any(data);
        return;
    }
    let mut text = String::new();
    for byte in data {
        let pick = usize::from(byte >> 1);
        text.push_str(match byte & 1 {
            0 => LITERALS[pick % LITERALS.len()],
            _ => OTHERS[pick % OTHERS.len()],
        });
        text.push(' ');
    }
    let text = text.replace('@', SECRET).replace('#', DIGITS);
    // Cut anywhere, too: only the beginning of a long statement is kept.
    let cut = data
        .first()
        .map_or(0, |b| usize::from(*b) % (text.len() + 1));
    for text in [text.as_bytes(), &text.as_bytes()[..cut]] {
        let masked = check_any(text);
        let masked = String::from_utf8_lossy(&masked);
        assert!(!masked.contains(SECRET), "{masked}");
        assert!(!masked.contains(DIGITS), "{masked}");
    }
}

/// What holds for any bytes: nothing that is left is a literal, so there is nothing more to take out.
fn check_any(text: &[u8]) -> Vec<u8> {
    let mut masked = Vec::new();
    mask(text, &mut masked);
    assert!(masked.len() <= text.len() + 4);
    assert!(!masked.iter().any(u8::is_ascii_control));
    let mut again = Vec::new();
    mask(&masked, &mut again);
    assert!(again == masked || masked.ends_with(b"..."), "{text:?}");
    masked
}
