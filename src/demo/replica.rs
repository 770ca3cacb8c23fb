//! Streaming replicas of a cluster: making them, catching up, promoting one, following another.

use std::io;

use super::postgres::{PATIENCE, Postgres};
use super::process::wait_until;
use super::programs::{output, server_command};

/// What the server has made durable (a primary), or replayed (a replica).
const POSITION: &str = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END";

impl Postgres {
    /// A streaming replica, with `settings` on top of this server's own; it streams when this returns. A replica can have
    /// replicas too.
    ///
    /// # Errors
    /// What `pg_basebackup` or the new server said.
    pub fn replica(&self, settings: &[(&str, &str)]) -> io::Result<Self> {
        let mut new = Self::prepare(self.auth.clone())?;
        let mut backup = server_command("pg_basebackup", new.scratch.account, new.scratch.root())?;
        backup
            .args(["-U", "postgres", "-p", &self.port().to_string(), "-h"])
            .arg(self.socket_dir());
        backup
            .args([
                "--wal-method=stream",
                "--checkpoint=fast",
                "--no-sync",
                "-D",
            ])
            .arg(new.data_dir());
        output(&mut backup)?;
        new.write_file("standby.signal", b"")?;
        new.set_conf("primary_conninfo", &self.conninfo())?;
        for (name, value) in settings {
            new.set_conf(name, value)?;
        }
        new.start_on_free_port()?;
        let streams = || Ok(new.psql("SELECT status FROM pg_stat_wal_receiver")? == "streaming");
        if wait_until(PATIENCE, streams)? {
            return Ok(new);
        }
        Err(io::Error::other(format!(
            "the replica does not stream:\n{}",
            new.log_tail()
        )))
    }

    /// Makes a replica the primary; it accepts writes when this returns.
    ///
    /// # Errors
    /// What `pg_ctl` said.
    pub fn promote(&self) -> io::Result<()> {
        let mut promote = server_command("pg_ctl", self.scratch.account, self.scratch.root())?;
        promote
            .args(["promote", "--wait", "--silent", "-D"])
            .arg(self.data_dir());
        output(&mut promote).map(drop)
    }

    /// A replica streams from another server from now on.
    ///
    /// # Errors
    /// It is stopped, or its configuration cannot be written.
    pub fn follow(&self, primary: &Self) -> io::Result<()> {
        self.set_conf("primary_conninfo", &primary.conninfo())?;
        self.reload()
    }

    /// Waits until this replica has replayed what the other server has written by now.
    ///
    /// # Errors
    /// Either is stopped, or a minute was not enough.
    pub fn wait_for(&self, primary: &Self) -> io::Result<()> {
        let wanted = primary.psql(&format!("SELECT {POSITION}"))?;
        let reached = format!("SELECT {POSITION} >= '{wanted}'");
        if wait_until(PATIENCE, || Ok(self.psql(&reached)? == "t"))? {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the replica has not reached {wanted} after {PATIENCE:?}:\n{}",
            self.log_tail()
        )))
    }

    /// How another server connects to this one: over the Unix socket, where `postgres` needs no password.
    fn conninfo(&self) -> String {
        format!(
            "host={} port={} user=postgres",
            self.socket_dir().display(),
            self.port()
        )
    }
}
