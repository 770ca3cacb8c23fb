//! `pg_hba.conf` and `pg_ident.conf`: who may connect from where and how, and under which name.
//!
//! Files are tokens (`tokens`), tokens are rules (`rule`) and maps (`ident`). Nothing here reads a
//! file or asks anybody: included files come through [`Files`], and what a decision depends on beyond
//! the connection itself ([`Facts`]) is asked for with a [`Need`]. The first rule that fits decides.
//!
//! Invariant: a line that is not understood makes the whole file an error. Skipping one could skip a
//! `reject` (trap 60).
//!
//! PostgreSQL's documentation: "The pg_hba.conf File" and "User Name Maps", as of version 17.

mod address;
mod ident;
mod ldap;
mod pattern;
mod rule;
mod rules;
mod tokens;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use ident::IdentMaps;
pub use ldap::{Ldap, LdapEncryption, LdapFilter, LdapScope, LdapWay};
pub use rule::{ClientCert, ClientName, Method, Pam, Rule, Transport};
pub use rules::{Asked, Came, Decision, Facts, Need, Rules};

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was asked for.
    pub file: Arc<Path>,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct LineError {
    /// Which.
    pub place: Place,
    /// One line.
    pub message: String,
}

/// The files that a file includes, and itself.
pub trait Files {
    /// The text of a file; nothing if there is no such file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&mut self, path: &Path) -> Result<Option<String>, String>;

    /// The files in a directory.
    ///
    /// # Errors
    /// Why it cannot be listed.
    fn list(&mut self, directory: &Path) -> Result<Vec<PathBuf>, String>;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
