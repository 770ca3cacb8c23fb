//! `pg_ident.conf`: which users a name from elsewhere (of a certificate, of the operating system) may be.

use std::path::Path;

use super::pattern::{Expression, UserPattern};
use super::rule::only;
use super::tokens::{self, Line};
use super::{Files, LineError, Need};

/// The place of an expression's first group in the third column.
const GROUP: &str = "\\1";

/// All maps.
#[derive(Debug, Clone, Default)]
pub struct IdentMaps {
    lines: Vec<Mapping>,
}

#[derive(Debug, Clone)]
struct Mapping {
    map: String,
    from: From,
    to: UserPattern,
    /// The third column has a place for the group.
    template: Option<String>,
}

#[derive(Debug, Clone)]
enum From {
    Name(String),
    Matches(Expression),
}

impl IdentMaps {
    /// Reads a file, and what it includes.
    ///
    /// # Errors
    /// All lines that are wrong.
    pub fn read(path: &Path, files: &mut dyn Files) -> Result<Self, Vec<LineError>> {
        let read = tokens::read(path, files)?;
        let mut errors = Vec::new();
        let mut lines = Vec::new();
        for line in read {
            match parse(&line) {
                Ok(mapping) => lines.push(mapping),
                Err(message) => errors.push(LineError {
                    place: line.place,
                    message,
                }),
            }
        }
        match errors.is_empty() {
            true => Ok(Self { lines }),
            false => Err(errors),
        }
    }

    /// Whether there is a map of this name.
    #[must_use]
    pub fn has(&self, map: &str) -> bool {
        self.lines.iter().any(|line| line.map == map)
    }

    /// Whether there is a line for which the roles of a user would have to be known.
    #[must_use]
    pub fn needs_roles(&self) -> bool {
        let group = |line: &Mapping| matches!(line.to, UserPattern::Group(_));
        self.lines.iter().any(group)
    }

    /// Whether who is called `name` elsewhere may be `user`, who has these roles. Without a map the names
    /// must be the same.
    ///
    /// # Errors
    /// The roles decide, and are not known.
    pub fn allows(
        &self,
        map: Option<&str>,
        name: &str,
        user: &str,
        roles: Option<&[String]>,
    ) -> Result<bool, Need> {
        let Some(map) = map.filter(|map| !map.is_empty()) else {
            return Ok(name == user);
        };
        let mut unknown = false;
        for line in self.lines.iter().filter(|line| line.map == map) {
            match line.allows(name, user, roles) {
                Some(true) => return Ok(true),
                Some(false) => {}
                None => unknown = true,
            }
        }
        match unknown {
            true => Err(Need::Roles),
            false => Ok(false),
        }
    }
}

impl Mapping {
    fn allows(&self, name: &str, user: &str, roles: Option<&[String]>) -> Option<bool> {
        match (&self.from, &self.template) {
            (From::Name(from), _) if from == name => self.to.fits(user, roles),
            (From::Name(_), _) => Some(false),
            (From::Matches(expression), Some(template)) => {
                let group = expression.0.captures(name).and_then(|found| found.get(1));
                // What a stranger's name puts in is a name, whatever it looks like.
                Some(group.is_some_and(|group| template.replacen(GROUP, group.as_str(), 1) == user))
            }
            (From::Matches(expression), None) if expression.0.is_match(name) => {
                self.to.fits(user, roles)
            }
            (From::Matches(_), None) => Some(false),
        }
    }
}

fn parse(line: &Line) -> Result<Mapping, String> {
    let mut fields = line.fields.iter();
    let map = only(fields.next(), "name of the map")?;
    let from = only(fields.next(), "name to be mapped")?;
    let to = only(fields.next(), "user")?;
    if fields.next().is_some() {
        return Err("there is more than three columns".to_owned());
    }
    let expression = match from.text.strip_prefix('/') {
        Some(expression) => Some(Expression::parse(expression)?),
        None => None,
    };
    // A group of the third column's own expression is none of the second's.
    let wants_group = expression.is_some() && to.text.contains(GROUP) && !to.text.starts_with('/');
    if let (Some(expression), true) = (&expression, wants_group)
        && expression.0.captures_len() < 2
    {
        return Err(format!(
            "{:?} has no group for the \\1 of {:?}",
            from.text, to.text
        ));
    }
    Ok(Mapping {
        map: map.text.clone(),
        from: expression.map_or_else(|| From::Name(from.text.clone()), From::Matches),
        to: UserPattern::parse(to)?,
        template: wants_group.then(|| to.text.clone()),
    })
}
