//! SHOW: of settings that are the session's, or that all hosts of a cluster have alike, it is a read.
//! What a host has for itself is asked of the primary: with `transaction_read_only` and
//! `in_hot_standby` drivers find out whether they reached it.

use super::lexer::{Kind, Lexer};
use super::{Doubt, Reason};

/// Settings that whoever is connected may change for himself, or that cannot differ. In order.
const ALIKE: &[&str] = &[
    "application_name",
    "backslash_quote",
    "bytea_output",
    "check_function_bodies",
    "client_encoding",
    "client_min_messages",
    "constraint_exclusion",
    "cursor_tuple_fraction",
    "datestyle",
    "debug_print_plan",
    "default_table_access_method",
    "default_tablespace",
    "default_text_search_config",
    "default_transaction_isolation",
    "escape_string_warning",
    "extra_float_digits",
    "from_collapse_limit",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "integer_datetimes",
    "intervalstyle",
    "is_superuser",
    "jit",
    "join_collapse_limit",
    "lc_collate",
    "lc_ctype",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "max_identifier_length",
    "plan_cache_mode",
    "quote_all_identifiers",
    "role",
    "row_security",
    "search_path",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
    "session_replication_role",
    "standard_conforming_strings",
    "statement_timeout",
    "temp_tablespaces",
    "timezone",
    "timezone_abbreviations",
    "transaction_isolation",
    "transaction_timeout",
    "work_mem",
    "xmlbinary",
    "xmloption",
];

/// Settings by which a session learns whether it is on a primary.
pub(super) fn tells_role(name: &[u8]) -> bool {
    matches!(name.len(), 21 | 14)
        && [&b"transaction_read_only"[..], b"in_hot_standby"]
            .iter()
            .any(|setting| name.eq_ignore_ascii_case(setting))
}

/// What stands behind SHOW, to the end of the text.
pub(super) fn read_show(lexer: &mut Lexer<'_>) -> Result<(), Doubt> {
    let first = lexer.next();
    let doubt = |reason| first.doubt(reason);
    if !matches!(first.kind, Kind::Word | Kind::Quoted) {
        return Err(doubt(Reason::Unreadable));
    }
    let mut name = [0; 64];
    let len = lexer.name().len();
    name[..len].copy_from_slice(lexer.name());
    name.make_ascii_lowercase();
    let name = &name[..len];
    let (mut words, mut dots) = (1, 0);
    loop {
        let token = lexer.next();
        match token.kind {
            Kind::End | Kind::Mark(b';') => break,
            Kind::Word | Kind::Quoted => words += 1,
            Kind::Mark(b'.') => dots += 1,
            _ => return Err(doubt(Reason::Unreadable)),
        }
    }
    let alike = match (name, words - dots) {
        // An application's own setting is the session's; the pooler's are answered by itself.
        (b"pooler", _) => false,
        (_, 1) if dots > 0 => true,
        (b"all", _) => false,
        (_, 1) => ALIKE
            .binary_search_by(|setting| setting.as_bytes().cmp(name))
            .is_ok(),
        (b"time", 2) | (b"session", 2) | (b"transaction", 3) => true,
        _ => false,
    };
    match alike {
        true => Ok(()),
        false => Err(doubt(Reason::HostSetting)),
    }
}
