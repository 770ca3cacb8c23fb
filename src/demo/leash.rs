//! A child process that does not outlive this one.
//!
//! `Drop` ends it; and when this process dies without dropping anything, a shell that waits on a pipe from here kills it.
//! The child has its own process group: Ctrl-C at the terminal reaches us, and we end it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::process::wait_child;
use super::programs::{command, signal};

/// Waits for the end of its input, then kills `$1`. As long as it runs nobody has reaped `$1`, unless it was the system
/// after our own death: then it is too late by a moment at most.
const WATCHER: &str = "trap '' HUP INT TERM QUIT PIPE
while read -r _; do :; done
kill -s KILL \"$1\" 2>/dev/null";

/// How long a child has to end after a polite request.
const GRACE: Duration = Duration::from_secs(3);

/// The child and what watches over it.
pub struct Leashed {
    child: Child,
    watcher: Option<Child>,
}

impl Leashed {
    /// Starts a program that will end with this process at the latest.
    ///
    /// # Errors
    /// The program, or a shell, cannot be started.
    pub fn start(program: &mut Command) -> io::Result<Self> {
        let mut child = program.process_group(0).spawn()?;
        let mut watcher = command("sh");
        watcher
            .args(["-c", WATCHER, "pooler-leash", &child.id().to_string()])
            .current_dir("/")
            .process_group(0);
        match watcher
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
        {
            Ok(watcher) => Ok(Self {
                child,
                watcher: Some(watcher),
            }),
            Err(e) => {
                child.kill()?;
                child.wait()?;
                Err(e)
            }
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.dismiss_watcher();
        }
        Ok(status)
    }

    /// Asks it to end, and kills it if it has not after a few seconds.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stop(&mut self) -> io::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        signal("TERM", &[self.child.id()])?;
        if wait_child(&mut self.child, GRACE)?.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        self.dismiss_watcher();
        Ok(())
    }

    /// The child is gone and its number may become another's: the watcher must not act any more.
    fn dismiss_watcher(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            // It can only fail if the watcher is gone, which is what we want.
            drop(watcher.kill().and_then(|()| watcher.wait()));
        }
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        // A child that cannot be stopped now is the watcher's: its pipe closes with us.
        drop(self.stop());
    }
}
