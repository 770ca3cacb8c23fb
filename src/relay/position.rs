//! `SHOW pooler.position`: a session's causal token.
//!
//! PostgreSQL knows no such setting, so it is asked for what is meant instead: its position in the
//! write-ahead log, under the setting's name. The answer looks like that of SHOW, but for its command tag.

/// What the server is asked.
pub(super) const QUESTION: &str = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() \
    THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END)\
    ::pg_catalog.text AS \"pooler.position\"";

/// The longest text that is looked at.
const TEXT_LEN_MAX: usize = 64;

/// Whether `text` is `SHOW pooler.position` and nothing else.
#[inline]
#[must_use]
pub fn asks_position(text: &[u8]) -> bool {
    let short = text.len() <= TEXT_LEN_MAX && matches!(text.first(), Some(b'S' | b's'));
    short && is_position_question(text)
}

#[cold]
fn is_position_question(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    let mut words = text
        .split(u8::is_ascii_whitespace)
        .filter(|w| !w.is_empty());
    let show = words
        .next()
        .is_some_and(|w| w.eq_ignore_ascii_case(b"show"));
    let name = words.next().unwrap_or_default();
    let named = [
        &b"pooler.position"[..],
        b"\"pooler.position\"",
        b"\"pooler\".\"position\"",
    ];
    show && named.iter().any(|n| name.eq_ignore_ascii_case(n)) && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_question_itself_is_meant() {
        for text in [
            "SHOW pooler.position",
            "show  POOLER.position ;\n",
            "show \"pooler.position\"",
        ] {
            assert!(asks_position(text.as_bytes()), "{text}");
        }
        for text in [
            "SHOW pooler.positions",
            "SET pooler.position",
            "SHOW pooler.position, 1",
            "SELECT 1",
            "",
        ] {
            assert!(!asks_position(text.as_bytes()), "{text}");
        }
    }
}
