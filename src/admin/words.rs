//! From the text of a statement to its words, by PostgreSQL's rules for names, strings and comments.

use crate::error::Refusal;

/// The words of a statement; empty if it has none. A semicolon may stand at its end.
///
/// # Errors
/// 42601, if a quote is open at the end, or something follows the semicolon.
pub(super) fn split(text: &str) -> Result<Vec<String>, Refusal> {
    let mut words = Vec::new();
    let mut rest = skip_space(text)?;
    while let Some(first) = rest.chars().next() {
        match first {
            ';' => {
                let behind = skip_space(&rest[1..])?;
                if !behind.is_empty() {
                    return Err(wrong("send one command at a time", behind));
                }
                break;
            }
            '"' | '\'' => {
                let (word, behind) = quoted(rest, first)?;
                words.push(word);
                rest = behind;
            }
            '=' => {
                words.push("=".to_owned());
                rest = &rest[1..];
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || matches!(c, ';' | '=' | '"' | '\'');
                let end = rest.find(ends).unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                rest = &rest[end..];
            }
        }
        rest = skip_space(rest)?;
    }
    Ok(words)
}

/// Behind spaces and comments.
fn skip_space(text: &str) -> Result<&str, Refusal> {
    let mut rest = text.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, behind)| behind);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let closed = comment.split_once("*/");
            let (_, behind) = closed.ok_or_else(|| wrong("unterminated comment", rest))?;
            rest = behind;
        } else {
            return Ok(rest);
        }
        rest = rest.trim_start();
    }
}

/// What stands in quotes, and what is behind them; two quotes stand for one.
fn quoted(text: &str, quote: char) -> Result<(String, &str), Refusal> {
    let mut word = String::new();
    let mut rest = &text[1..];
    loop {
        let Some((part, behind)) = rest.split_once(quote) else {
            return Err(wrong("unterminated quote", text));
        };
        word.push_str(part);
        match behind.strip_prefix(quote) {
            Some(behind) => {
                word.push(quote);
                rest = behind;
            }
            None => return Ok((word, behind)),
        }
    }
}

fn wrong(what: &str, at: &str) -> Refusal {
    Refusal::error("42601", format!("{what}, at or near {at:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_postgresql_does_it() {
        for (text, words) in [
            ("", &[][..]),
            (" ; ", &[]),
            ("show  POOLS;", &["show", "POOLS"]),
            ("SET a=b", &["SET", "a", "=", "b"]),
            ("set a = 'it''s; x'", &["set", "a", "=", "it's; x"]),
            ("PAUSE \"My \"\"db\" 5s", &["PAUSE", "My \"db", "5s"]),
            ("/* a */ SHOW -- b\n VERSION --c", &["SHOW", "VERSION"]),
        ] {
            assert_eq!(split(text).expect(text), words, "{text}");
        }
    }

    #[test]
    fn what_is_no_single_command_is_refused() {
        for text in ["SHOW 'x", "\"", "/* a", "SHOW POOLS; SHOW STATS"] {
            let refusal = split(text).expect_err(text);
            assert_eq!((&*refusal.sqlstate, refusal.fatal), ("42601", false));
        }
    }
}
