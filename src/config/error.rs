//! What can be wrong with a configuration, and where.
//!
//! A file is read to its end before it is refused: every problem in it is reported, each with
//! file, line and key, and with what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used. `Display` writes one problem a line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file itself cannot be read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file was read and does not make sense. Never empty.
    #[error("{}", one_a_line(problems))]
    Invalid {
        /// Every problem that was found, in the order of the file where it has one.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong, or worth a warning, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration, or a file that it names.
    pub file: PathBuf,
    /// Counted from 1; none when the problem is that something is missing altogether.
    pub line: Option<usize>,
    /// Table and key, such as `[pooler] pool_size`; may be empty.
    pub place: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.place.is_empty() {
            write!(f, " {}:", self.place)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Collects problems and warnings while a configuration is read.
#[derive(Debug)]
pub(crate) struct Problems {
    file: PathBuf,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(file: &Path) -> Problems {
        Problems {
            file: file.to_owned(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn error(
        &mut self,
        line: Option<usize>,
        place: impl Into<String>,
        message: impl Into<String>,
    ) {
        let problem = self.problem(line, place.into(), message.into());
        self.errors.push(problem);
    }

    pub(crate) fn warn(
        &mut self,
        line: Option<usize>,
        place: impl Into<String>,
        message: impl Into<String>,
    ) {
        let problem = self.problem(line, place.into(), message.into());
        self.warnings.push(problem);
    }

    /// An error in a file that the configuration names.
    pub(crate) fn error_in(&mut self, file: &Path, line: usize, message: impl Into<String>) {
        self.errors.push(in_file(file, line, message.into()));
    }

    /// A warning about a file that the configuration names.
    pub(crate) fn warn_in(&mut self, file: &Path, line: usize, message: impl Into<String>) {
        self.warnings.push(in_file(file, line, message.into()));
    }

    /// The warnings, or all errors, in the order of the file.
    pub(crate) fn finish(mut self) -> Result<Vec<String>, ConfigError> {
        if !self.errors.is_empty() {
            return Err(self.into_error());
        }
        in_order(&mut self.warnings, &self.file);
        Ok(self.warnings.iter().map(Problem::to_string).collect())
    }

    /// All errors, in the order of the file.
    pub(crate) fn into_error(mut self) -> ConfigError {
        in_order(&mut self.errors, &self.file);
        ConfigError::Invalid {
            problems: self.errors,
        }
    }

    fn problem(&self, line: Option<usize>, place: String, message: String) -> Problem {
        Problem {
            file: self.file.clone(),
            line,
            place,
            message,
        }
    }
}

/// Those of the configuration first, each file by line.
fn in_order(problems: &mut [Problem], configuration: &Path) {
    problems.sort_by_key(|problem| (problem.file != configuration, problem.line));
}

fn in_file(file: &Path, line: usize, message: String) -> Problem {
    Problem {
        file: file.to_owned(),
        line: Some(line),
        place: String::new(),
        message,
    }
}

fn one_a_line(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
