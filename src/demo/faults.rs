//! What befalls a server: its machine dies, one of its processes dies, it stands still.

use std::io;

use super::postgres::{PATIENCE, Postgres};
use super::process::{children, kill_family, wait_until};
use super::programs::signal;

impl Postgres {
    /// Kills the postmaster and all its children at once, as the end of its machine would, but for the sockets, which the
    /// system closes. Nothing happens if it is stopped.
    ///
    /// # Errors
    /// The processes could not be killed.
    pub fn crash(&self) -> io::Result<()> {
        let mut server = self.server();
        let Some(mut child) = server.take() else {
            return Ok(());
        };
        kill_family(&mut child)?;
        self.forget_crashed();
        Ok(())
    }

    /// Kills one of the server's own processes: it ends every session with 57P02, recovers, and goes on by itself. It has
    /// begun to end them when this returns.
    ///
    /// # Errors
    /// It is stopped.
    pub fn crash_children(&self) -> io::Result<()> {
        self.running_pid()?;
        let victim =
            self.psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'")?;
        let victim = victim
            .parse()
            .map_err(|_| io::Error::other(format!("no background writer: {victim:?}")))?;
        let logged = self.log().len();
        signal("KILL", &[victim])?;
        let noticed = || {
            Ok(self
                .log()
                .get(logged..)
                .is_some_and(|new| new.contains("terminating any other active")))
        };
        if wait_until(PATIENCE, noticed)? {
            Ok(())
        } else {
            Err(io::Error::other("PostgreSQL did not notice a crash"))
        }
    }

    /// Stops every process of the server where it stands: connections hang, and so does whatever is sent over them.
    ///
    /// # Errors
    /// It is stopped.
    pub fn freeze(&self) -> io::Result<()> {
        let postmaster = self.running_pid()?;
        signal("STOP", &[postmaster])?;
        signal("STOP", &children(postmaster)?)
    }

    /// Ends [`Postgres::freeze`].
    ///
    /// # Errors
    /// It is stopped.
    pub fn thaw(&self) -> io::Result<()> {
        let postmaster = self.running_pid()?;
        signal("CONT", &children(postmaster)?)?;
        signal("CONT", &[postmaster])
    }
}
