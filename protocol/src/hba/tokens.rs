//! From text to lines of fields of tokens, with the files that are included.
//!
//! Blanks separate fields, commas the tokens of a field. A double quote begins or ends a quoted part
//! anywhere in a token, a doubled one within is itself; `#` begins a comment outside of quotes. A
//! backslash at the end of a line joins the next, also in a comment. `@file` stands for the tokens of
//! that file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Files, LineError, Place};

/// Files within files, as PostgreSQL has it.
const DEPTH_MAX: usize = 10;

/// Tokens of all files together.
const TOKENS_MAX: usize = 1_000_000;

/// Errors that are listed; whoever mends a file begins with the first. A file that names itself twice would have a
/// thousand of them, one that does so four times a million.
const ERRORS_MAX: usize = 100;

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// It begins with a quote: it is nothing but a name.
    pub(super) quoted: bool,
}

impl Token {
    pub(super) fn is_keyword(&self, word: &str) -> bool {
        !self.quoted && self.text == word
    }
}

/// A line with something in it.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) fields: Vec<Vec<Token>>,
}

/// The lines of the file at `path` and of what it includes.
pub(super) fn read(path: &Path, files: &mut dyn Files) -> Result<Vec<Line>, Vec<LineError>> {
    let mut reader = Reader {
        files,
        lines: Vec::new(),
        errors: Vec::new(),
        tokens_left: TOKENS_MAX,
    };
    let place = Place {
        file: path.into(),
        line: 0,
    };
    reader.read_file(path, &place, 0, false);
    match reader.errors.is_empty() {
        true => Ok(reader.lines),
        false => Err(reader.errors),
    }
}

struct Reader<'a> {
    files: &'a mut dyn Files,
    lines: Vec<Line>,
    errors: Vec<LineError>,
    tokens_left: usize,
}

impl Reader<'_> {
    /// Notes an error; behind the last one that is listed nothing is read.
    fn error(&mut self, place: &Place, message: impl Into<String>) {
        if self.errors.len() >= ERRORS_MAX {
            self.tokens_left = 0;
            return;
        }
        self.errors.push(LineError {
            place: place.clone(),
            message: message.into(),
        });
    }

    /// The text of a file that is named at `place`.
    fn text(&mut self, path: &Path, place: &Place, depth: usize, optional: bool) -> Option<String> {
        if depth > DEPTH_MAX {
            self.error(
                place,
                format!("{}: files are nested too deeply", path.display()),
            );
            return None;
        }
        match self.files.read(path) {
            Ok(Some(text)) => return Some(text),
            Ok(None) if optional => {}
            Ok(None) => self.error(place, format!("there is no file {}", path.display())),
            Err(why) => self.error(place, format!("cannot read {}: {why}", path.display())),
        }
        None
    }

    fn read_file(&mut self, path: &Path, named_at: &Place, depth: usize, optional: bool) {
        let Some(text) = self.text(path, named_at, depth, optional) else {
            return;
        };
        let file: Arc<Path> = path.into();
        for (line, text) in logical_lines(&text) {
            let place = Place {
                file: Arc::clone(&file),
                line,
            };
            let fields = self.fields(&text, &place, depth);
            if self.tokens_left == 0 {
                return self.error(&place, "there is too much in these files");
            }
            if !fields.is_empty() && !self.include(&fields, &place, depth) {
                self.lines.push(Line { place, fields });
            }
        }
    }

    /// Does what an include line says; false if it is none.
    fn include(&mut self, fields: &[Vec<Token>], place: &Place, depth: usize) -> bool {
        let [first, second] = fields else {
            return false;
        };
        let ([kind], [name]) = (&first[..], &second[..]) else {
            return false;
        };
        let path = beside(&place.file, &name.text);
        match &*kind.text {
            "include" => self.read_file(&path, place, depth + 1, false),
            "include_if_exists" => self.read_file(&path, place, depth + 1, true),
            "include_dir" => match self.files.list(&path) {
                Ok(mut inside) => {
                    inside.retain(|path| is_included(path));
                    inside.sort();
                    for path in inside {
                        self.read_file(&path, place, depth + 1, false);
                    }
                }
                Err(why) => self.error(place, format!("cannot list {}: {why}", path.display())),
            },
            _ => return false,
        }
        true
    }

    fn fields(&mut self, text: &str, place: &Place, depth: usize) -> Vec<Vec<Token>> {
        let mut fields = Vec::new();
        let mut rest = text;
        loop {
            let mut field = Vec::new();
            let mut more = true;
            while more {
                let (token, comma);
                (token, comma, rest) = next_token(rest);
                more = comma;
                let Some(token) = token else { break };
                if self.tokens_left == 0 {
                    return fields;
                }
                self.tokens_left -= 1;
                match token.text.strip_prefix('@') {
                    Some(name) if !token.quoted && !name.is_empty() => {
                        field.extend(self.tokens_of(name, place, depth));
                    }
                    _ => field.push(token),
                }
            }
            if field.is_empty() && rest.is_empty() {
                return fields;
            }
            // A file without a token leaves a field without one: that is for the rule to judge.
            fields.push(field);
        }
    }

    /// Every token of a file that `@` names.
    fn tokens_of(&mut self, name: &str, place: &Place, depth: usize) -> Vec<Token> {
        let path = beside(&place.file, name);
        let Some(text) = self.text(&path, place, depth + 1, false) else {
            return Vec::new();
        };
        let file: Arc<Path> = path.into();
        let mut tokens = Vec::new();
        for (line, text) in logical_lines(&text) {
            let place = Place {
                file: Arc::clone(&file),
                line,
            };
            tokens.extend(self.fields(&text, &place, depth + 1).into_iter().flatten());
        }
        tokens
    }
}

/// Relative names start from the directory of the file that names them.
fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(name)
}

/// Which files of a directory count: visible ones whose names end with `.conf`.
fn is_included(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| !name.starts_with('.') && name.len() > 5 && name.ends_with(".conf"))
}

/// Lines, joined where a backslash says so, with the number of the first of each.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        let (number, mut joined) = open.take().unwrap_or((at + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(front) => {
                joined.push_str(front);
                open = Some((number, joined));
            }
            None => {
                joined.push_str(line);
                lines.push((number, joined));
            }
        }
    }
    lines.extend(open);
    lines
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

/// The next token, whether a comma stands behind it, and the rest of the line.
fn next_token(text: &str) -> (Option<Token>, bool, &str) {
    let text = text.trim_start_matches(|c| is_blank(c) || c == ',');
    let mut token = Token {
        text: String::new(),
        quoted: false,
    };
    let (mut in_quotes, mut has_quotes) = (false, false);
    let mut chars = text.char_indices().peekable();
    let end = |token: Token, has_quotes: bool, comma, rest| {
        let is_one = has_quotes || !token.text.is_empty();
        (is_one.then_some(token), comma, rest)
    };
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if in_quotes && chars.next_if(|(_, next)| *next == '"').is_some() => {
                token.text.push('"');
            }
            '"' => {
                in_quotes = !in_quotes;
                has_quotes = true;
                token.quoted |= token.text.is_empty();
            }
            _ if in_quotes => token.text.push(c),
            '#' => return end(token, has_quotes, false, ""),
            ',' => return end(token, has_quotes, true, &text[at + 1..]),
            c if is_blank(c) => return end(token, has_quotes, false, &text[at..]),
            c => token.text.push(c),
        }
    }
    end(token, has_quotes, false, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let mut rest = text;
        loop {
            let (token, comma);
            (token, comma, rest) = next_token(rest);
            let Some(token) = token else { return out };
            let (quote, comma) = (
                if token.quoted { "'" } else { "" },
                if comma { "," } else { "" },
            );
            out.push(format!("{quote}{}{comma}", token.text));
        }
    }

    #[test]
    fn quotes_commas_and_comments() {
        for (text, tokens) in [
            ("a b\tc", &["a", "b", "c"][..]),
            ("a,b , c", &["a,", "b", "c"]),
            ("\"a b\" c", &["'a b", "c"]),
            ("a\"b c\"d", &["ab cd"]),
            ("\"a\"\"b\"", &["'a\"b"]),
            ("\"\" x", &["'", "x"]),
            ("a#b c", &["a"]),
            ("\"a#b\" # c", &["'a#b"]),
            ("# all", &[]),
            ("\"a,b\",c", &["'a,b,", "c"]),
            ("\"open x", &["'open x"]),
            (",, a", &["a"]),
        ] {
            assert_eq!(split(text), tokens, "{text}");
        }
    }

    #[test]
    fn a_backslash_joins_lines_and_numbers_stay() {
        let lines = logical_lines("a \\\n b\nc\r\nd\\\r\ne\n# x \\\nf\ng\\");
        let texts: Vec<_> = lines.iter().map(|(n, t)| (*n, t.as_str())).collect();
        assert_eq!(
            texts,
            [(1, "a  b"), (3, "c"), (4, "de"), (6, "# x f"), (8, "g")]
        );
    }
}
