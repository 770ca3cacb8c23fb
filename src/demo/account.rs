//! The account that PostgreSQL's server runs under.
//!
//! PostgreSQL refuses to run as root. When this process is root, its servers run as `postgres` if there is such a user,
//! else as `nobody`; otherwise they run as whoever we are.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::programs::{command, output};

/// An unprivileged user and its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) name: &'static str,
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None` when this process is unprivileged already.
    pub(super) fn for_servers() -> io::Result<Option<Self>> {
        if id("-u", None)? != 0 {
            return Ok(None);
        }
        let found = ["postgres", "nobody"].into_iter().find_map(|name| {
            let (uid, gid) = (id("-u", Some(name)).ok()?, id("-g", Some(name)).ok()?);
            (uid != 0).then_some(Self { name, uid, gid })
        });
        let none = "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as: create one";
        found
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, none))
    }

    /// The command will run under this account.
    pub(super) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// The account becomes the owner.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }
}

fn id(what: &str, name: Option<&str>) -> io::Result<u32> {
    let said = output(command("id").arg(what).args(name))?;
    said.parse()
        .map_err(|_| io::Error::other(format!("id {what} printed {said:?}")))
}
