//! Where a password stands outside of the configuration: it may be another since that was read.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use pooler_protocol::auth::Secret;
use zeroize::Zeroizing;

use super::error::Problems;
use super::section::Section;
use super::{Config, Database, userlist};

/// How long a program may take.
const COMMAND_MAX: Duration = Duration::from_secs(10);

/// Bytes that are read of what it prints.
const OUTPUT_MAX: usize = 4096;

/// How often it is looked whether it has ended, after it has closed its output.
const LOOK: Duration = Duration::from_millis(5);

/// A place to read a password again from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// Its first two lines.
    File(PathBuf),
    /// A user of a list.
    Userlist(PathBuf, String),
    /// What a program prints.
    Command(Vec<String>),
}

impl SecretSource {
    /// Whether it is cheap, or of no use otherwise, so that each login reads it.
    #[must_use]
    pub fn for_each_login(&self) -> bool {
        !matches!(self, Self::Userlist(..))
    }

    /// The passwords there now, the first one first. Blocking, for 10 s at most.
    ///
    /// # Errors
    /// Why there are none, without what was there.
    pub fn read(&self) -> Result<Vec<Secret>, String> {
        match self {
            Self::File(file) => {
                let text = std::fs::read_to_string(file).map(Zeroizing::new);
                let text = text.map_err(|e| format!("cannot read {}: {e}", file.display()))?;
                secrets(&text).map_err(|e| format!("{}: {e}", file.display()))
            }
            Self::Userlist(file, user) => {
                let text = std::fs::read_to_string(file).map(Zeroizing::new);
                let text = text.map_err(|e| format!("cannot read {}: {e}", file.display()))?;
                let mut problems = Problems::new(file);
                let found = userlist::parse(&text, file, &mut problems).remove(user);
                let secret = found.flatten();
                secret.map(|s| vec![s]).ok_or_else(|| {
                    format!("{} has no password of {user:?} any more", file.display())
                })
            }
            Self::Command(words) => {
                let name = words.first().map_or("", String::as_str);
                let text = run(words, COMMAND_MAX)
                    .map_err(|e| format!("password_command {name:?}: {e}"))?;
                secrets(&text).map_err(|e| format!("password_command {name:?}: {e}"))
            }
        }
    }
}

/// What the first two lines are.
fn secrets(text: &str) -> Result<Vec<Secret>, String> {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let second = lines.next().filter(|line| !line.is_empty());
    let all = std::iter::once(first).chain(second);
    all.map(|line| Secret::parse(line).map_err(|e| e.to_string()))
        .collect()
}

/// Runs a program, with no input, and returns what it printed.
fn run(words: &[String], limit: Duration) -> Result<Zeroizing<String>, String> {
    let (program, arguments) = words.split_first().ok_or("it is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let end = Instant::now() + limit;
    // Each on a thread: a pipe cannot be read with a deadline. They end with the program.
    let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut text = Zeroizing::new(Vec::with_capacity(OUTPUT_MAX));
            let limit = u64::try_from(OUTPUT_MAX).unwrap_or(u64::MAX);
            let done = pipe.map(|pipe| pipe.take(limit).read_to_end(&mut text));
            let _heard = tell.send((text, done));
        });
        told
    };
    let out = read(child.stdout.take().map(|p| Box::new(p) as _));
    let said = read(child.stderr.take().map(|p| Box::new(p) as _));
    let left = || end.saturating_duration_since(Instant::now());
    let text = out.recv_timeout(left());
    let mut status = child.try_wait();
    while text.is_ok() && matches!(status, Ok(None)) && !left().is_zero() {
        std::thread::sleep(LOOK);
        status = child.try_wait();
    }
    let Ok(Some(status)) = status else {
        // It may have ended by now: then there is nothing to kill.
        let _killed = child.kill();
        let _status = child.wait();
        return Err(format!("it was not done within {limit:?}"));
    };
    let (text, _) = text.map_err(|e| e.to_string())?;
    let text = std::str::from_utf8(&text).map_err(|_| "it printed something that is not UTF-8")?;
    let text = Zeroizing::new(text.to_owned());
    if let Ok((words, _)) = said.recv_timeout(left().min(Duration::from_secs(1)))
        && !words.is_empty()
    {
        let words = String::from_utf8_lossy(&words);
        tracing::warn!(
            "password_command {program:?} says: {}",
            without(&words, &text)
        );
    }
    match status.success() {
        true => Ok(text),
        false => Err(status.to_string()),
    }
}

/// `words` without any line of `secrets`.
fn without(words: &str, secrets: &str) -> String {
    let mut words = words.trim_end().to_owned();
    for secret in secrets.lines().filter(|line| !line.is_empty()) {
        words = words.replace(secret, "...");
    }
    words
}

impl Config {
    /// Where the password of `user` comes from, if from outside: what [`Config::secret`] has.
    pub fn secret_source(&self, user: &str) -> Option<SecretSource> {
        if let Some(section) = self.user_sections.get(user) {
            let source = self.named_in(section);
            let set = self.users.get(user).is_some_and(|u| u.password.is_some());
            if set || source.is_some() {
                return source;
            }
        }
        let listed = self.userlist.get(user).is_some_and(Option::is_some);
        let file = self.auth.file.clone().filter(|_| listed)?;
        Some(SecretSource::Userlist(file, user.to_owned()))
    }

    /// The same for the logins of `database` for a client who is `client_user`.
    pub fn server_secret_source(
        &self,
        database: &Database,
        client_user: &str,
    ) -> Option<SecretSource> {
        match (&database.user, &database.password) {
            (None, _) => self.secret_source(client_user),
            (Some(user), password) => {
                let section = self.database_sections.get(&database.name)?;
                let source = self.named_in(section);
                match password {
                    Some(_) => source,
                    None => source.or_else(|| self.secret_source(user)),
                }
            }
        }
    }

    fn named_in(&self, section: &Section) -> Option<SecretSource> {
        let command = section.values().names("password_command");
        if !command.is_empty() {
            return Some(SecretSource::Command(command.to_owned()));
        }
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let file = section.values().file("password_file", directory);
        file.map(SecretSource::File)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<String, String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words, limit).map(|text| text.to_string())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_is_run_as_it_is_written_and_not_for_ever() {
        assert_eq!(sh("echo one; echo two", LONG), Ok("one\ntwo\n".to_owned()));
        let words = ["/bin/echo", "$HOME; `id`", "*"].map(str::to_owned);
        let text = run(&words, LONG).map(|text| text.to_string());
        assert_eq!(text, Ok("$HOME; `id` *\n".to_owned()), "there is no shell");
        for (script, limit, says) in [
            ("exit 3", LONG, "exit status: 3"),
            ("kill -9 $$", LONG, "signal: 9"),
            (
                "exec sleep 600",
                Duration::from_millis(50),
                "not done within 50ms",
            ),
            (
                "exec >&-; exec sleep 600",
                Duration::from_millis(50),
                "not done within 50ms",
            ),
            ("printf '\\377'", LONG, "not UTF-8"),
        ] {
            let error = sh(script, limit).expect_err(script);
            assert!(error.contains(says), "{script}: {error}");
        }
        let gone = run(&["/nowhere/at/all".to_owned()], LONG);
        assert!(gone.is_err_and(|e| e.contains("No such file")));
        assert!(
            sh("head -c 1000000 /dev/zero | tr '\\0' x", LONG)
                .map_or(true, |t| t.len() <= OUTPUT_MAX)
        );
    }

    #[test]
    fn t63_what_a_program_complains_of_is_not_its_secret() {
        assert_eq!(
            without("key is s3cret, s3cret2\n", "s3cret\nk2\n"),
            "key is ..., ...2"
        );
        assert_eq!(secrets("a\nb\nc").map(|s| s.len()), Ok(2));
        assert_eq!(secrets("a\n\n").map(|s| s.len()), Ok(1));
        assert_eq!(
            secrets("").map(|s| s.len()),
            Err("the password is empty".to_owned())
        );
    }
}
