//! One thread of the pooler that does not go on, stopped as a debugger stops it; and what the others do meanwhile.

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use pooler::demo::skipped;

/// A thread that is stopped until this is dropped; for the thread that stopped it alone.
pub(crate) struct Stuck(Pid);

impl Stuck {
    /// Stops this thread. `None` where nobody may do that: some containers forbid ptrace(2).
    pub(crate) fn new(thread: i32) -> Option<Self> {
        let thread = Pid::from_raw(thread);
        if let Err(e) = ptrace::seize(thread, ptrace::Options::empty()) {
            skipped("ptrace", &e);
            return None;
        }
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Some(Self(thread))
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

/// The number of a thread, from where the system shows it.
pub(crate) fn id_of(thread: &std::path::Path) -> i32 {
    thread
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap()
}
