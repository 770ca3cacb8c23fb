//! What brings a server from one client's settings to another's.

use pooler_protocol::settings::Settings;

/// Two clients that differ in one setting of five.
pub(crate) fn pair() -> (Settings, Settings) {
    let from = Settings::from_pairs([
        ("application_name", "web"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("search_path", "shop, public"),
        ("TimeZone", "UTC"),
    ]);
    let to = from.with("application_name", Some("batch"));
    (from, to)
}

/// The query that does it, or nothing if they agree.
pub(crate) fn difference(from: &Settings, to: &Settings) -> Option<String> {
    from.query_to(to)
}
