//! What only one connection can hold, and the question whether it is there.

use pooler_protocol::settings::quote;
use pooler_protocol::statement::Marks;

/// The longest value of a setting that is carried from server to server, in bytes; a client with a
/// longer one stays where it is.
const VALUE_LEN_MAX: usize = 8000;

/// Something that only one connection can hold.
#[derive(Debug)]
pub struct Kind {
    /// What raises it.
    pub marks: Marks,
    /// In the answer.
    pub(super) letter: &'static str,
    /// In metrics.
    pub reason: &'static str,
    /// In an error.
    pub(super) what: &'static str,
    /// The rest of a SELECT: true if it is there.
    is_there: &'static str,
}

/// Everything of that kind.
pub static KINDS: [Kind; 8] = [
    Kind {
        marks: Marks::LISTEN,
        letter: "l",
        reason: "listen",
        what: "a LISTEN",
        // It is asked which channels.
        is_there: "",
    },
    Kind {
        marks: Marks::LOCKS,
        letter: "a",
        reason: "advisory_lock",
        what: "an advisory lock",
        is_there: "EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
                   AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())",
    },
    Kind {
        marks: Marks::TEMPORARY,
        letter: "t",
        reason: "temporary",
        what: "a temporary object",
        is_there: "EXISTS (SELECT FROM pg_catalog.pg_depend \
                   WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
                   AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())",
    },
    Kind {
        marks: Marks::CURSOR,
        letter: "h",
        reason: "cursor",
        what: "a cursor WITH HOLD",
        is_there: "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)",
    },
    Kind {
        marks: Marks::PREPARED,
        letter: "p",
        reason: "prepared",
        what: "a statement prepared by SQL",
        is_there: "EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)",
    },
    Kind {
        marks: Marks::SETTINGS,
        letter: "v",
        reason: "setting",
        what: "a setting that cannot be carried",
        is_there: "",
    },
    Kind {
        marks: Marks::DRAWS,
        letter: "",
        reason: "sequence",
        what: "the last value of a sequence",
        is_there: "",
    },
    Kind {
        marks: Marks::UNKNOWN,
        letter: "",
        reason: "unknown",
        what: "something that could not be found out",
        is_there: "",
    },
];

/// The kinds in `held`.
pub fn reasons(held: Marks) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(move |kind| held.has(kind.marks))
}

/// The question itself: rows of a letter, a name and a value in hexadecimal UTF-8, so that neither
/// `client_encoding` nor `bytea_output` changes what they mean. Everything is qualified: the
/// client's own functions and operators must not be found instead.
pub(super) fn question(asked: Marks, custom: &[Box<str>], user: Option<&str>) -> String {
    let mut sql = String::new();
    let mut put = |select: &str| {
        if !sql.is_empty() {
            sql.push_str(" UNION ALL ");
        }
        sql.push_str(select);
    };
    for kind in &KINDS {
        if asked.has(kind.marks) && !kind.is_there.is_empty() {
            put(&format!(
                "SELECT '{}', '', '' WHERE {}",
                kind.letter, kind.is_there
            ));
        }
    }
    if asked.has(Marks::LISTEN) {
        put(
            "SELECT 'l', pg_catalog.encode(pg_catalog.convert_to(c, 'UTF8'), 'hex'), '' \
             FROM pg_catalog.pg_listening_channels() AS c",
        );
    }
    if !asked.has(Marks::SETTINGS) {
        return sql;
    }
    let row = |name: &str, value: &str| {
        let text = format!("pg_catalog.convert_to({value}, 'UTF8')");
        format!(
            "SELECT CASE WHEN pg_catalog.octet_length({text}) OPERATOR(pg_catalog.>) {VALUE_LEN_MAX} \
             THEN 'v' ELSE 's' END, {name}, \
             pg_catalog.encode(pg_catalog.substring({text}, 1, {VALUE_LEN_MAX}), 'hex')"
        )
    };
    put(&format!(
        "{} FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session'",
        row("name", "pg_catalog.current_setting(name)")
    ));
    put(&format!(
        "{} WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'",
        row("'role'", "pg_catalog.current_setting('role')")
    ));
    if let Some(user) = user {
        let session = "pg_catalog.current_setting('session_authorization')";
        put(&format!(
            "{} WHERE {session} OPERATOR(pg_catalog.<>) {}",
            row("'session_authorization'", session),
            quote(user)
        ));
    }
    for name in custom {
        let name = quote(name);
        let value = format!("pg_catalog.current_setting({name}, true)");
        put(&format!(
            "{} WHERE {value} OPERATOR(pg_catalog.<>) ''",
            row(&name, &value)
        ));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_suspected_is_asked_about() {
        let sql = question(Marks::LISTEN | Marks::CURSOR, &["a.b".into()], Some("u"));
        assert_eq!(
            sql,
            "SELECT 'h', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
             UNION ALL SELECT 'l', pg_catalog.encode(pg_catalog.convert_to(c, 'UTF8'), 'hex'), '' \
             FROM pg_catalog.pg_listening_channels() AS c"
        );
        let all = question(Marks::ALL, &["a.b".into()], Some("u"));
        assert!(
            all.contains("current_setting( 'a.b', true)")
                || all.contains("current_setting('a.b', true)"),
            "{all}"
        );
    }
}
