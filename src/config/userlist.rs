//! PgBouncer's list of users: a name and a secret in double quotes on each line.
//!
//! A double quote inside is doubled. Empty lines and lines that begin with `;` are comments, and so
//! is what follows the secret. A line that makes no sense is an error, never skipped: it could be
//! the one that an operator relies on. No message repeats a secret.

use std::collections::BTreeMap;
use std::path::Path;

use pooler_protocol::auth::{Secret, SecretError};

use super::error::Problems;

/// Users by name. An empty secret makes the user known and unable to log in with a password.
pub(crate) type Userlist = BTreeMap<String, Option<Secret>>;

/// Reads a user list. As in PgBouncer, the last line of a name counts.
pub(crate) fn parse(text: &str, file: &Path, problems: &mut Problems) -> Userlist {
    let mut users = Userlist::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        match parse_line(line) {
            Ok((name, secret)) => {
                if users.insert(name.clone(), secret).is_some() {
                    let message = format!("{name:?} stands there again; this line counts");
                    problems.warn_in(file, number, message);
                }
            }
            Err(message) => problems.error_in(file, number, message),
        }
    }
    users
}

fn parse_line(line: &str) -> Result<(String, Option<Secret>), String> {
    const EXPECTED: &str = "expected \"name\" \"secret\", both in double quotes";
    let (name, rest) = quoted(line).ok_or(EXPECTED)?;
    let (secret, _) = quoted(rest.trim_start()).ok_or(EXPECTED)?;
    if name.is_empty() {
        return Err("the name is empty; name the user".to_owned());
    }
    match Secret::parse(&secret) {
        Ok(secret) => Ok((name, Some(secret))),
        Err(SecretError::Empty) => Ok((name, None)),
        Err(error) => Err(format!("the secret of {name:?}: {error}")),
    }
}

/// The text in the double quotes that `text` begins with, and what follows them.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut content = String::new();
    loop {
        let end = rest.find('"')?;
        content.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                content.push('"');
                rest = after;
            }
            None => return Some((content, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_the_rest_of_a_line_is_a_comment() {
        for (text, content, rest) in [
            (r#""app" "x""#, "app", r#" "x""#),
            (r#""a""b""""#, r#"a"b""#, ""),
            (r#""" x"#, "", " x"),
            (r#""a b;c" ; comment"#, "a b;c", " ; comment"),
        ] {
            assert_eq!(quoted(text), Some((content.to_owned(), rest)), "{text}");
        }
        for text in ["", "app", "\"app", "'app'", "\"app\"\"", "\"\"\"\"\""] {
            assert_eq!(quoted(text), None, "{text}");
        }
    }

    #[test]
    fn a_list_is_read_to_its_end() {
        let text = "; users\n\n\"app\" \"one\"\n  \"o\"\"ps\"   \"tw\"\"o\" extra\nbroken \"x\"\n\
                    \"none\" \"\"\n\"app\" \"three\"\n\"only\"\n\"\" \"x\"\n";
        let file = Path::new("userlist.txt");
        let mut problems = Problems::new(Path::new("pooler.toml"));
        let users = parse(text, file, &mut problems);
        assert_eq!(users.keys().collect::<Vec<_>>(), ["app", "none", "o\"ps"]);
        assert!(users["none"].is_none());
        let quoted = users["o\"ps"].as_ref().expect("a secret");
        assert!(quoted.check_password("o\"ps", b"tw\"o"));
        let last = users["app"].as_ref().expect("a secret");
        assert!(last.check_password("app", b"three"));
        let message = problems
            .finish()
            .expect_err("three lines are broken")
            .to_string();
        assert_eq!(
            message,
            "userlist.txt:5: expected \"name\" \"secret\", both in double quotes\n\
             userlist.txt:8: expected \"name\" \"secret\", both in double quotes\n\
             userlist.txt:9: the name is empty; name the user"
        );
    }
}
