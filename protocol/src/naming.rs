//! What a client is called toward the server: `application_name` by a template.
//!
//! ```text
//!   "{application}@{client}"  --facts--> frame: ["", "@10.0.0.7:5123"]  --"shop"--> shop@10.0.0.7:5123
//! ```
//! A name is what PostgreSQL would make of it: printable ASCII, and at most [`NAME_LEN_MAX`] bytes. What is too
//! long is cut from the application's own name first: what the template adds is what is asked for.

use std::fmt;

/// Bytes of `application_name` that PostgreSQL keeps (`NAMEDATALEN` less its end).
pub const NAME_LEN_MAX: usize = 63;

/// The setting.
pub const SETTING: &str = "application_name";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Application,
    Client,
    User,
    Database,
    Pooler,
}

/// What stands in braces.
const PLACES: [(&str, Place); 5] = [
    ("application", Place::Application),
    ("client", Place::Client),
    ("user", Place::User),
    ("database", Place::Database),
    ("pooler", Place::Pooler),
];

/// What is known of a client.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its address and port.
    pub client: &'a str,
    /// Who it is.
    pub user: &'a str,
    /// The database that it asked for.
    pub database: &'a str,
    /// The machine on which the pooler runs.
    pub pooler: &'a str,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (front, behind) = rest.split_at(open);
            let named = behind.strip_prefix('{').and_then(|b| b.split_once('}'));
            let Some((name, behind)) = named else {
                return Err("a brace stands alone; write {application}, say".to_owned());
            };
            let Some((_, place)) = PLACES.iter().find(|(known, _)| *known == name) else {
                let known: Vec<String> = PLACES.iter().map(|(n, _)| format!("{{{n}}}")).collect();
                return Err(format!("{{{name}}} is not one of {}", known.join(", ")));
            };
            parts.push(Part::Text(front.to_owned()));
            parts.push(Part::Place(*place));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        if text.chars().any(|c| !is_plain(c)) {
            return Err("PostgreSQL shows printable ASCII alone".to_owned());
        }
        let text = text.to_owned();
        Ok(Self { text, parts })
    }

    /// Whether it leaves the client's name as it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.text == "{application}"
    }

    /// All of it but the application's name, for one client.
    #[must_use]
    pub fn frame(&self, facts: &Facts<'_>) -> Frame {
        let mut texts = vec![String::new()];
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => text,
                Part::Place(Place::Application) => {
                    texts.push(String::new());
                    continue;
                }
                Part::Place(Place::Client) => facts.client,
                Part::Place(Place::User) => facts.user,
                Part::Place(Place::Database) => facts.database,
                Part::Place(Place::Pooler) => facts.pooler,
            };
            let last = texts.last_mut().expect("BUG: there is a first");
            last.extend(text.chars().map(shown));
        }
        Frame(texts.into_iter().map(String::into_boxed_str).collect())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The texts around the application's name; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Box<[Box<str>]>);

impl Frame {
    /// The whole name.
    #[must_use]
    pub fn fill(&self, application: &str) -> String {
        let places = self.0.len() - 1;
        let around: usize = self.0.iter().map(|text| text.len()).sum();
        let room = NAME_LEN_MAX.saturating_sub(around) / places.max(1);
        let application: String = application.chars().map(shown).take(room).collect();
        let mut name = self.0.join(&application);
        name.truncate(NAME_LEN_MAX);
        name
    }
}

fn is_plain(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic()
}

/// Names of users and databases can have any character.
fn shown(c: char) -> char {
    if is_plain(c) { c } else { '?' }
}

/// Whether a text speaks of the setting. No guess: what it does not find costs the client no more than seeing its
/// name as the server has it.
#[must_use]
pub fn mentions_name(text: &[u8]) -> bool {
    const FRONT: usize = "application".len();
    let marks = text.iter().enumerate().filter(|(_, byte)| **byte == b'_');
    let mut begins = marks.filter_map(|(at, _)| at.checked_sub(FRONT));
    begins.any(|begin| {
        let word = text.get(begin..begin + SETTING.len());
        word.is_some_and(|word| word.eq_ignore_ascii_case(SETTING.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'static> = Facts {
        client: "10.0.0.7:5123",
        user: "j\u{fc}rgen",
        database: "orders",
        pooler: "pool1",
    };

    fn filled(template: &str, application: &str) -> String {
        let template = Template::parse(template).expect("a template");
        template.frame(&FACTS).fill(application)
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(
            filled("{application}@{client}", "shop"),
            "shop@10.0.0.7:5123"
        );
        assert_eq!(
            filled("{pooler}/{database}/{user}: {application}", "x"),
            "pool1/orders/j?rgen: x"
        );
        assert_eq!(filled("fixed", "shop"), "fixed");
        assert_eq!(filled("", "shop"), "");
        assert_eq!(filled("{application} {application}", "a"), "a a");
        assert!(Template::parse("{application}").expect("one").is_identity());
    }

    #[test]
    fn what_is_too_long_is_cut_from_the_applications_name() {
        let name = filled("{application}@{client}", &"x".repeat(100));
        assert_eq!(name.len(), NAME_LEN_MAX);
        assert!(name.ends_with("xx@10.0.0.7:5123"), "{name}");
        let name = filled(&format!("{{application}}{}", "y".repeat(80)), "shop");
        assert_eq!(name, "y".repeat(NAME_LEN_MAX));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bad, why) in [
            (
                "{aplication}",
                "{aplication} is not one of {application}, {client}, {user}, {database}, {pooler}",
            ),
            ("{", "a brace stands alone; write {application}, say"),
            ("a}", "a brace stands alone; write {application}, say"),
            ("\u{fc}", "PostgreSQL shows printable ASCII alone"),
            ("a\nb", "PostgreSQL shows printable ASCII alone"),
        ] {
            assert_eq!(Template::parse(bad).expect_err(bad), why);
        }
    }

    #[test]
    fn texts_that_speak_of_the_name_are_found() {
        for text in [
            "SHOW application_name",
            "show Application_Name;",
            "SELECT current_setting('application_name')",
        ] {
            assert!(mentions_name(text.as_bytes()), "{text}");
        }
        for text in ["SHOW x", "_", "application_nam", "my_application", ""] {
            assert!(!mentions_name(text.as_bytes()), "{text}");
        }
    }
}
