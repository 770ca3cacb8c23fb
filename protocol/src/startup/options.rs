//! The `options` parameter: command-line switches of a server process in a startup packet.
//!
//! Of PostgreSQL's switches the two that name a setting are read: `-c name=value` and
//! `--name=value` (PostgreSQL's documentation, "libpq / Connection Strings", `options`). The
//! others are one-letter abbreviations of settings; they are refused, not dropped.

/// The most settings that one `options` may name.
const SETTINGS_MAX: usize = 1_000;

/// What can be wrong with `options`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A switch that is not read, or an argument that is no switch.
    #[error("invalid command-line argument for server process: {0}")]
    Argument(String),
    /// A switch without a value or without a name.
    #[error("{0} requires a value")]
    NoValue(String),
    /// More than a thousand settings.
    #[error("too many settings in startup parameter \"options\"")]
    TooMany,
}

impl OptionsError {
    /// The SQLSTATE that PostgreSQL reports: a syntax error.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            OptionsError::Argument(_) | OptionsError::NoValue(_) => "42601",
            OptionsError::TooMany => "54000",
        }
    }
}

/// Parses `options` into names and values, in order.
///
/// White space separates arguments unless a backslash is in front of it; two backslashes are one.
/// As in PostgreSQL, a dash inside a name is read as an underscore.
///
/// # Errors
///
/// See [`OptionsError`].
pub fn parse_options(options: &str) -> Result<Vec<(String, String)>, OptionsError> {
    let mut settings = Vec::new();
    let mut arguments = split(options).into_iter();
    while let Some(argument) = arguments.next() {
        if settings.len() == SETTINGS_MAX {
            return Err(OptionsError::TooMany);
        }
        let setting = if argument == "-c" {
            let value = arguments
                .next()
                .ok_or_else(|| OptionsError::NoValue(argument.clone()))?;
            parse_setting("-c ", &value)?
        } else if let Some(setting) = argument.strip_prefix("-c") {
            parse_setting("-c ", setting)?
        } else if let Some(setting) = argument.strip_prefix("--") {
            parse_setting("--", setting)?
        } else {
            return Err(OptionsError::Argument(argument));
        };
        settings.push(setting);
    }
    Ok(settings)
}

fn parse_setting(switch: &str, setting: &str) -> Result<(String, String), OptionsError> {
    match setting.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.replace('-', "_"), value.to_owned())),
        _ => Err(OptionsError::NoValue(format!("{switch}{setting}"))),
    }
}

/// Splits at white space that has no backslash in front, and takes the backslashes away.
fn split(options: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut argument: Option<String> = None;
    let mut chars = options.chars();
    while let Some(char) = chars.next() {
        match char {
            // The vertical tab is white space to C and not to `char::is_ascii_whitespace`.
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => arguments.extend(argument.take()),
            '\\' => argument.get_or_insert_default().extend(chars.next()),
            _ => argument.get_or_insert_default().push(char),
        }
    }
    arguments.extend(argument);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(of: &[(&str, &str)]) -> Result<Vec<(String, String)>, OptionsError> {
        Ok(of
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect())
    }

    #[test]
    fn t33_every_spelling_of_a_setting() {
        for (options, expected) in [
            ("", &[][..]),
            ("   ", &[]),
            ("-c geqo=off", &[("geqo", "off")]),
            ("-cgeqo=off", &[("geqo", "off")]),
            ("--geqo=off", &[("geqo", "off")]),
            (
                " -c  a=1\t--b=2\n-cc=3 ",
                &[("a", "1"), ("b", "2"), ("c", "3")],
            ),
            ("--statement-timeout=5min", &[("statement_timeout", "5min")]),
            ("-c search-path=my-schema", &[("search_path", "my-schema")]),
            (r"-c search_path=a,\ b", &[("search_path", "a, b")]),
            (r"-c a=\\b", &[("a", r"\b")]),
            (r"-c a=b\", &[("a", "b")]),
            ("-c a=", &[("a", "")]),
            ("-c a=b=c", &[("a", "b=c")]),
            (r"--my.x=\=\-\ü", &[("my.x", "=-ü")]),
        ] {
            assert_eq!(parse_options(options), settings(expected), "{options:?}");
        }
    }

    #[test]
    fn t33_what_is_no_setting_is_refused() {
        for (options, error) in [
            ("-c", OptionsError::NoValue("-c".into())),
            ("-c a", OptionsError::NoValue("-c a".into())),
            ("-c =a", OptionsError::NoValue("-c =a".into())),
            ("--a", OptionsError::NoValue("--a".into())),
            ("--", OptionsError::NoValue("--".into())),
            ("-e", OptionsError::Argument("-e".into())),
            ("-c a=1 b=2", OptionsError::Argument("b=2".into())),
        ] {
            assert_eq!(parse_options(options), Err(error.clone()), "{options:?}");
            assert_eq!(error.sqlstate(), "42601");
        }
        let many = "--a=1 ".repeat(SETTINGS_MAX + 1);
        assert_eq!(parse_options(&many), Err(OptionsError::TooMany));
    }
}
