//! Names that make a statement suspect because of what hides behind them: functions of a database's
//! own that change the session, tables with a trigger that does, views that call one.
//!
//! The text of `SELECT make_report(1)` says nothing of the temporary table that the function makes.
//! The database's catalogue does, roughly: what matters stands in the function's source. So its
//! names are read from there ([`QUESTION`]) and looked for in the statements.

use std::collections::HashSet;

use crate::statement::Marks;

/// Longest name, in bytes.
const NAME_LEN_MAX: usize = 63;

/// Names that a database may have before all of its statements with a call are suspect instead.
pub const NAMES_MAX: usize = 10_000;

/// What a database is asked: rows of `name` and a name, or of `setting` and that of a setting of an
/// application's own which a function changes. Functions whose source has a word for something that
/// outlives a transaction, functions that name one of these, tables with such a trigger, views with
/// such a call. Names that a word in a source looks like by accident cost a question too many.
pub const QUESTION: &str = r"WITH RECURSIVE
own AS (
    SELECT p.oid, p.proname, pg_catalog.lower(p.prosrc) AS source
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
    WHERE l.lanname OPERATOR(pg_catalog.<>) ALL ('{internal,c}'::pg_catalog.name[])
    AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}'::pg_catalog.name[])
),
found AS (
    SELECT oid, proname FROM own
    WHERE source OPERATOR(pg_catalog.~) '(set_config|advisory|pg_temp|\mtemp(orary)?\M|\mhold\M|\mlisten\M|\mprepare\M|\mdiscard\M|\mreset\M|(^|;|''|\m(begin|then|else|loop)\M)\s*set\s)'
    UNION
    SELECT o.oid, o.proname FROM own o, found f
    WHERE pg_catalog.strpos(o.source, pg_catalog.lower(f.proname::pg_catalog.text)) OPERATOR(pg_catalog.>) 0
)
SELECT 'name', proname::pg_catalog.text FROM found
UNION
SELECT 'setting', (pg_catalog.regexp_matches(o.source, '(?:''|\mset\s+(?:session\s+|local\s+)?)([a-z_][a-z0-9_$]*(?:\.[a-z_][a-z0-9_$]*)+)', 'g'))[1]
FROM own o, found f
WHERE f.oid OPERATOR(pg_catalog.=) o.oid AND o.source OPERATOR(pg_catalog.~) 'set_config|\mset\s'
UNION
SELECT 'name', c.relname FROM found f
JOIN pg_catalog.pg_trigger t ON t.tgfoid OPERATOR(pg_catalog.=) f.oid
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
UNION
SELECT 'name', c.relname FROM found f
JOIN pg_catalog.pg_depend d ON d.refobjid OPERATOR(pg_catalog.=) f.oid
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) d.objid
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
LIMIT 10001";

/// The names of all databases together: one that is harmless in another costs a question there.
#[derive(Debug)]
pub struct Vigilance {
    names: HashSet<Box<[u8]>>,
    /// Of each length, the letters that the names begin with, to look few words up.
    first_letters: [u32; NAME_LEN_MAX + 1],
    /// There are too many to be told apart.
    everything: bool,
}

impl Default for Vigilance {
    fn default() -> Self {
        Self {
            names: HashSet::new(),
            first_letters: [0; NAME_LEN_MAX + 1],
            everything: false,
        }
    }
}

impl Vigilance {
    /// Of these names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut vigilance = Self::default();
        for name in names {
            // A name with blanks in it is found by its longest word.
            let longest = words(name).max_by_key(|word| word.len());
            let Some(word) = longest else { continue };
            let word = word.to_ascii_lowercase();
            vigilance.first_letters[word.len().min(NAME_LEN_MAX)] |= letter(word[0]);
            vigilance.names.insert(word.into());
        }
        vigilance.everything = vigilance.names.len() > NAMES_MAX;
        vigilance
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What the words of `text` make one suspect.
    #[must_use]
    pub fn scan(&self, text: &[u8]) -> Marks {
        if self.names.is_empty() {
            return Marks::NONE;
        }
        let suspect = match self.everything {
            true => text.contains(&b'('),
            false => words(text).any(|word| self.has(word)),
        };
        if suspect {
            Marks::ALL | Marks::DRAWS
        } else {
            Marks::NONE
        }
    }

    fn has(&self, word: &[u8]) -> bool {
        if word.len() > NAME_LEN_MAX || self.first_letters[word.len()] & letter(word[0]) == 0 {
            return false;
        }
        let mut lower = [0; NAME_LEN_MAX];
        let lower = &mut lower[..word.len()];
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        self.names.contains(&*lower)
    }
}

/// One of 32 bits for the first letter of a word, without regard to case.
fn letter(first: u8) -> u32 {
    1 << (first & 0x1f)
}

/// The runs of bytes that a name without quotes may have.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let in_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || *b >= 0x80;
    text.split(move |b| !in_word(b)).filter(|w| !w.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_words_in_any_case() {
        let names = [
            &b"make_report"[..],
            b"Orders",
            b"my own function",
            "f\u{fc}r".as_bytes(),
        ];
        let vigilance = Vigilance::new(names);
        for text in [
            "SELECT MAKE_REPORT(1)",
            "select public.make_report()",
            "INSERT INTO orders VALUES (1)",
            "SELECT \"my own function\"(2)",
            "SELECT f\u{fc}r()",
        ] {
            assert!(!vigilance.scan(text.as_bytes()).is_empty(), "{text}");
        }
        for text in [
            "SELECT 1",
            "SELECT make_reports(1), remake_report",
            "own",
            "",
        ] {
            assert!(vigilance.scan(text.as_bytes()).is_empty(), "{text}");
        }
        assert!(
            Vigilance::default()
                .scan(b"SELECT make_report()")
                .is_empty()
        );
    }

    #[test]
    fn too_many_names_make_every_call_suspect() {
        let names: Vec<String> = (0..=NAMES_MAX).map(|n| format!("f{n}")).collect();
        let vigilance = Vigilance::new(names.iter().map(|n| n.as_bytes()));
        assert!(vigilance.scan(b"SELECT 1").is_empty());
        assert!(!vigilance.scan(b"SELECT g(1)").is_empty());
    }
}
