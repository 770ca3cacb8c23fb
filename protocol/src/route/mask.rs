//! A statement without what may be data in it: each string and number becomes `?`, comments go.
//!
//! For logs and traces. It uses the lexer that proves reads, which never guesses; what that cannot read
//! ends the text with `...` (a string that does not end, say, or one whose end
//! `standard_conforming_strings` decides). So no literal survives, whatever the text is. Names stay,
//! quoted ones too, and so do parameters (`$1`). See "Lexical Structure" in PostgreSQL's documentation.

use super::lexer::{Kind, Lexer};

/// Stands for a literal.
const LITERAL: u8 = b'?';

/// Stands for all that could not be read.
const REST: &[u8] = b"...";

/// Appends `text`, a statement or the beginning of one, to `out` without its literals and comments, on
/// one line.
pub fn mask(text: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    let mut from = 0;
    loop {
        let mut lexer = Lexer::new(&text[from..]);
        let mut end = 0;
        let broken = loop {
            let token = lexer.next();
            let apart = token.start() > end && out.len() > begin;
            end = token.end();
            if apart && token.kind != Kind::End {
                out.push(b' ');
            }
            match token.kind {
                Kind::End => return,
                Kind::Unreadable => break from + token.start(),
                Kind::Text | Kind::Number => out.push(LITERAL),
                Kind::Word | Kind::Quoted | Kind::Param | Kind::Operator | Kind::Mark(_) => {
                    put_name(lexer.slice(token), out);
                }
            }
        };
        match read_on(&text[broken..], out) {
            Some(len) => from = broken + len,
            None => return out.extend_from_slice(REST),
        }
    }
}

/// A quoted name may have line breaks in it.
fn put_name(name: &[u8], out: &mut Vec<u8>) {
    out.extend(
        name.iter()
            .map(|&b| if b.is_ascii_control() { b' ' } else { b }),
    );
}

/// What the lexer leaves alone because versions and settings differ, but where it is plain how far a
/// literal goes: numbers such as `0xff` and `1_000`, and what has `U&` in front. Returns its length.
fn read_on(rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let begins_number = match rest {
        [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => true,
        [b'u' | b'U', b'&', b'\'' | b'"', ..] => false,
        _ => return None,
    };
    if begins_number {
        let in_number = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'$');
        out.push(LITERAL);
        return Some(rest.iter().take_while(|b| in_number(b)).count());
    }
    let mut lexer = Lexer::new(&rest[2..]);
    let token = lexer.next();
    match token.kind {
        Kind::Text => out.push(LITERAL),
        Kind::Quoted => put_name(&rest[..2 + token.end()], out),
        _ => return None,
    }
    Some(2 + token.end())
}

/// Whether a statement may name a secret in clear text, so that its literals are not to be shown even to
/// whoever asked for them: `ALTER ROLE ... PASSWORD '...'`, a connection string, a user mapping.
#[must_use]
pub fn may_name_secret(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 3] = [b"password", b"passphrase", b"secret"];
    WORDS.iter().any(|word| {
        text.windows(word.len())
            .any(|w| w.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let mut out = Vec::new();
        mask(text.as_bytes(), &mut out);
        String::from_utf8(out).expect("names are left whole")
    }

    #[test]
    fn literals_of_every_kind_become_marks() {
        let cases = [
            ("SELECT 1", "SELECT ?"),
            (
                "select 'a''b', E'a\\'b', $$x$$, $t$ $$ $t$",
                "select ?, ?, ?, ?",
            ),
            (
                "SELECT U&'d\\0061t', u&\"n\\0061\"",
                "SELECT ?, u&\"n\\0061\"",
            ),
            (
                "SELECT B'01', x'ff', N'n', 0xff, 1_000, 1.5e-3, .5",
                "SELECT ?, ?, ?, ?, ?, ?, ?",
            ),
            ("SELECT 'a'\n  'b' -- 'c'\n , 1", "SELECT ? ? , ?"),
            ("/* 'a' /* 1 */ */ SELECT -1::int4", "SELECT -?::int4"),
            (
                "SELECT * FROM t WHERE a=$1 AND b>7;",
                "SELECT * FROM t WHERE a=$1 AND b>?;",
            ),
            ("ALTER ROLE r PASSWORD 'p'", "ALTER ROLE r PASSWORD ?"),
            ("SELECT \"a 'b' 1\", t1.c2", "SELECT \"a 'b' 1\", t1.c2"),
            // Whether the first of these ends at its second quote, a setting decides.
            ("SELECT 'a\\' , 'b'", "SELECT ..."),
            ("SELECT 'open", "SELECT ..."),
            ("SELECT $tag$ open", "SELECT ..."),
            ("SELECT 1 /* open 'x'", "SELECT ? ..."),
            ("SELECT 1e'x\\'y', 'z'", "SELECT ?..."),
            ("", ""),
        ];
        for (text, wanted) in cases {
            assert_eq!(masked(text), wanted, "{text}");
        }
    }

    #[test]
    fn secrets_are_suspected_wherever_they_stand() {
        assert!(may_name_secret(b"alter role r passWORD 'x'"));
        assert!(may_name_secret(b"SELECT dblink('host=h password=x')"));
        assert!(!may_name_secret(b"SELECT pass"));
    }
}
