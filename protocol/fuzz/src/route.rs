//! A statement of words that a fuzzer chooses, or of any bytes: what the scan says of it, and what it
//! must say of the same text with something beside it.

use std::sync::OnceLock;

use pooler_protocol::route::{Catalogue, Verdict, classify, find_caller, hints, without_caller};

use super::take;

/// What matters to the scan, to be put together in any order.
const WORDS: &[&str] = &[
    "SELECT",
    "select",
    "FROM",
    "WITH",
    "RECURSIVE",
    "AS",
    "x",
    "\"x\"",
    "(",
    ")",
    ",",
    ";",
    ".",
    "*",
    "lower(",
    "lower",
    "writes(",
    "writes",
    "\"writes\"",
    "fresh(",
    "INSERT",
    "INTO",
    "UPDATE",
    "DELETE",
    "MERGE",
    "FOR",
    "SHARE",
    "KEY",
    "NO",
    "EXPLAIN",
    "ANALYZE",
    "'",
    "''",
    "\"",
    "\\",
    "E'",
    "U&'",
    "U&\"",
    "$$",
    "$a$",
    "$1",
    "/*",
    "*/",
    "--",
    "\n",
    "1",
    "1.5",
    "::",
    "text",
    "VALUES",
    "TABLE",
    "SHOW",
    "search_path",
    "ON",
    "DISTINCT",
    "OPERATOR(",
    "+",
    "-",
    "=",
    "##",
    "ORDER",
    "BY",
    "OVER",
    "é",
    "\u{3000}",
    "hides",
    "BEGIN",
    "READ",
    "ONLY",
    "SET",
    "TRANSACTION",
    "pooler.route='replica'",
    "traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'",
    "tracestate='x'",
    "AND",
    "NOT",
    "JOIN",
];

/// See the module.
pub fn run(mut data: &[u8]) {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    let catalogue = CATALOGUE.get_or_init(|| {
        let rows = [
            ("safe", "lower"),
            ("function", "writes"),
            ("relation", "hides"),
            ("operator", "##"),
        ];
        Catalogue::from_rows(rows.map(|(k, n)| (k.as_bytes(), n.as_bytes())))
    });
    if take(&mut data) < 64 {
        return check(data, catalogue);
    }
    let mut text = String::new();
    for byte in data {
        let spaced = byte & 0x80 == 0;
        text.push_str(WORDS[usize::from(byte & 0x7f) % WORDS.len()]);
        text.push_str(if spaced { " " } else { "" });
    }
    check(text.as_bytes(), catalogue);
}

fn check(text: &[u8], catalogue: &Catalogue) {
    let verdict = classify(text, catalogue);
    let found = hints(text);
    assert_eq!(found, hints(text));
    let without = without_caller(text);
    assert_eq!(without.len(), text.len());
    assert_eq!(find_caller(&without), None);
    assert_eq!(without_caller(&without), without);
    let around = |before: &str, after: &str| {
        let whole = [before.as_bytes(), text, after.as_bytes()].concat();
        classify(&whole, catalogue)
    };
    match verdict {
        Verdict::Unproven(doubt) => {
            assert!(
                doubt.start <= doubt.end && doubt.end <= text.len().max(doubt.start),
                "{doubt:?}"
            );
            assert!(matches!(around(" /* x */ ", ""), Verdict::Unproven(_)));
            assert!(matches!(around("SELECT 1; ", ""), Verdict::Unproven(_)));
        }
        Verdict::Empty => assert_eq!(around("SELECT 1; ", ""), Verdict::Read),
        Verdict::Read | Verdict::Begin(_) | Verdict::SetTransaction(_) => {
            assert_eq!(around("-- x\n/* y */;\t", "\n;; -- z"), verdict);
            assert!(matches!(
                around("", "\n; DELETE FROM t"),
                Verdict::Unproven(_)
            ));
            assert!(matches!(around("SELECT 1; ", ""), Verdict::Unproven(_)));
            assert!(matches!(
                around("DELETE FROM t; ", ""),
                Verdict::Unproven(_)
            ));
        }
    }
    if verdict == Verdict::Read {
        // Nothing unsafe is in it, so there is nothing to leave out.
        assert!(matches!(around("", "\n, writes(1)"), Verdict::Unproven(_)));
        assert!(!matches!(
            classify(text, &Catalogue::default()),
            Verdict::Read
        ));
    }
}
