//! Where a password stands in a file of its own: it may have changed there since the configuration was read.

use std::path::{Path, PathBuf};

use pooler_protocol::auth::Secret;

use super::error::Problems;
use super::section::Section;
use super::{Config, Database, userlist};

/// A place to read a password again from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFile {
    /// Its first line.
    Password(PathBuf),
    /// A user of a list.
    Userlist(PathBuf, String),
}

impl SecretFile {
    /// What stands there now; nothing if that is of no use, which the next reload will say. Blocking.
    pub fn read(&self) -> Option<Secret> {
        match self {
            Self::Password(file) => {
                let text = std::fs::read_to_string(file).ok()?;
                Secret::parse(text.lines().next()?).ok()
            }
            Self::Userlist(file, user) => {
                let text = std::fs::read_to_string(file).ok()?;
                let mut problems = Problems::new(file);
                userlist::parse(&text, file, &mut problems).remove(user)?
            }
        }
    }
}

impl Config {
    /// The file that the password of `user` comes from, if it does: what [`Config::secret`] has.
    pub fn secret_file(&self, user: &str) -> Option<SecretFile> {
        if self.users.get(user).is_some_and(|u| u.password.is_some()) {
            return self.password_file(self.user_sections.get(user)?);
        }
        let listed = self.userlist.get(user).is_some_and(Option::is_some);
        let file = self.auth.file.clone().filter(|_| listed)?;
        Some(SecretFile::Userlist(file, user.to_owned()))
    }

    /// The same for the logins of `database` for a client who is `client_user`.
    pub fn server_secret_file(&self, database: &Database, client_user: &str) -> Option<SecretFile> {
        match (&database.user, &database.password) {
            (None, _) => self.secret_file(client_user),
            (Some(_), Some(_)) => self.password_file(self.database_sections.get(&database.name)?),
            (Some(user), None) => self.secret_file(user),
        }
    }

    fn password_file(&self, section: &Section) -> Option<SecretFile> {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let file = section.values().file("password_file", directory);
        file.map(SecretFile::Password)
    }
}
