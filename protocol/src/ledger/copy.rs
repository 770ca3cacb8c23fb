//! COPY IN: what the server reads as data, and which Syncs it swallows.

use super::{Deal, Entry, Ledger, Request, Sent};

/// Whether the server reads COPY data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyIn {
    /// It does not, or the end of the data has been sent.
    No,
    /// It does, and ignores Sync and Flush.
    Open,
    /// It does, and will break off at a message that was sent in the middle of the data.
    Cut,
}

impl Ledger {
    /// The server reads COPY data now, and ignores each Sync until the client ends the copy.
    pub(super) fn begin_copy_in(&mut self) {
        self.copy_in = CopyIn::Open;
        let before = self.swallowed;
        let mut at = 1;
        while let Some(&entry) = self.entries.get(at) {
            match entry.asked() {
                Some(Request::Sync) => {
                    self.entries.remove(at);
                    self.swallowed = self.swallowed.saturating_add(1);
                }
                Some(_) => {
                    self.copy_in = CopyIn::Cut;
                    break;
                }
                None if entry.is(Request::CopyEnd) => {
                    self.entries.remove(at);
                    self.copy_in = CopyIn::No;
                    break;
                }
                None => at += 1,
            }
        }
        if self.swallowed > before {
            let last = self.entries.iter().rev().find_map(|e| e.asked());
            self.unsynced = last.is_some_and(|request| !request.ends_ready());
        }
    }

    pub(super) fn request_copy_end(&mut self) -> Sent {
        match self.copy_in {
            CopyIn::Open => {
                self.copy_in = CopyIn::No;
                Sent::Unanswered
            }
            CopyIn::Cut => Sent::Unanswered,
            // The client may send its data before it has seen CopyInResponse.
            CopyIn::No if self.copyable > 0 => {
                self.enter(Entry::Owed {
                    request: Request::CopyEnd,
                    deal: Deal::Forward,
                    ops: 0,
                });
                Sent::Entered
            }
            CopyIn::No => Sent::Discard,
        }
    }
}
