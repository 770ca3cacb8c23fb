//! What statements that differ in their constants and blanks alone have in common.

use super::lexer::{Kind, Lexer};

/// FNV-1a.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// A number that is the same for texts which differ only in constants, blanks and comments. A text that
/// cannot be read is itself.
#[must_use]
pub fn fingerprint(text: &[u8]) -> u64 {
    let mut lexer = Lexer::new(text);
    let mut hash = OFFSET;
    loop {
        let token = lexer.next();
        match token.kind {
            Kind::End => return hash,
            Kind::Unreadable => return mix(OFFSET, text),
            Kind::Text | Kind::Number | Kind::Param => hash = mix(hash, b"?"),
            Kind::Word | Kind::Quoted => hash = mix(mix(hash, b" "), lexer.name()),
            Kind::Operator | Kind::Mark(_) => hash = mix(hash, &text[token.start()..token.end()]),
        }
    }
}

fn mix(hash: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    bytes.iter().fold(hash, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_and_blanks_do_not_count() {
        let same = [
            "SELECT f(1, 'a') FROM t",
            "select  F(2,'b''c')\nFROM t -- why",
            "SELECT /* traceparent='00-1' */ f($1, E'\\'') FROM \"t\"",
        ];
        for text in same {
            assert_eq!(
                fingerprint(text.as_bytes()),
                fingerprint(same[0].as_bytes()),
                "{text}"
            );
        }
        for other in [
            "SELECT f(1) FROM t",
            "SELECT g(1, 'a') FROM t",
            "SELECT f(1, a) FROM t",
            "'",
            "",
        ] {
            assert_ne!(
                fingerprint(other.as_bytes()),
                fingerprint(same[0].as_bytes()),
                "{other}"
            );
        }
    }
}
