//! The client's half of a relay: its socket, what was read and not yet decided, what was decided
//! and not yet taken.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::coop::has_budget_remaining;

use pooler_protocol::prepared::ClientStatements;
use pooler_protocol::settings::Settings;

use super::naming::Naming;
use super::questions::Possessions;
use super::stint::Stint;
use crate::buffer::{Carry, Outbox, SCRATCH_LEN, Scratch};
use crate::net::Stream;

/// Whether the client still talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It does.
    No,
    /// It said Terminate: what it asked before is still done.
    Terminate,
    /// Its connection is closed or broken: nobody waits for what is running.
    Gone,
}

/// What a read from the client gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// This many bytes are at the front of the scratch buffer's input, carried ones included.
    Bytes(usize),
    /// Nothing more will come.
    End,
}

/// Why what the client sent is not looked at yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// It is looked at.
    No,
    /// What is before it may change the meaning of all names: the server is to answer that first.
    UntilAnswered,
    /// It builds upon a statement whose Parse or Close, behind an earlier Sync, may still fail
    /// alone.
    UntilConfirmed,
}

/// See the module.
#[derive(Debug)]
pub struct ClientSide {
    /// The socket.
    pub stream: Stream,
    /// Received, undecided.
    pub carry: Carry,
    /// The carried bytes have not been looked at: they waited for a server.
    pub unread: bool,
    /// What is carried waits for the server.
    pub held_back: HeldBack,
    /// Decided, unsent.
    pub outbox: Outbox,
    /// Bytes of the message now coming in that go to the server.
    pub pass: usize,
    /// Bytes of the message now coming in that go nowhere.
    pub drop: usize,
    /// The task is woken when something arrives: a read has found nothing since the last arrival.
    armed: bool,
    /// Whether it still talks.
    pub ended: Ended,
    /// Its prepared statements.
    pub statements: ClientStatements,
    /// What its session is set to.
    pub settings: Arc<Settings>,
    /// What it is called toward the server, if that is not its own name.
    pub naming: Option<Box<Naming>>,
    /// What else it has made of its session.
    pub possessions: Possessions,
    /// How much of what it sends goes to the server that it has now.
    pub stint: Stint,
}

impl ClientSide {
    /// A client that has just logged in; `received` is what came behind its last message.
    #[must_use]
    pub fn new(stream: Stream, settings: Arc<Settings>, received: &[u8]) -> Self {
        let mut carry = Carry::default();
        carry.replace(received);
        Self {
            stream,
            unread: !carry.is_empty(),
            carry,
            held_back: HeldBack::No,
            outbox: Outbox::default(),
            pass: 0,
            drop: 0,
            armed: false,
            ended: Ended::No,
            statements: ClientStatements::default(),
            possessions: Possessions::new(Arc::clone(&settings)),
            stint: Stint::Free,
            naming: None,
            settings,
        }
    }

    /// Reads the socket. A session is polled four times a transaction and finds something to read
    /// here in one of them: in the others the task is to be woken already, and a look at a flag
    /// is enough.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.armed && !self.stream.is_readable() {
            return Poll::Pending;
        }
        let polled = self.stream.poll_read(cx, buffer);
        // Out of budget, tokio polls the task again but has not noted whom to wake.
        self.armed = polled.is_pending() && has_budget_remaining();
        polled
    }

    /// Puts what was carried and what can be read now into the scratch buffer, and takes away what
    /// is to be dropped. The caller decides about all of it in this poll, or carries it again.
    ///
    /// # Errors
    /// What the socket says.
    #[inline]
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<io::Result<Fill>> {
        let carried = self.carry.len();
        if self.unread {
            self.unread = false;
            scratch.input[..carried].copy_from_slice(self.carry.as_slice());
            return Poll::Ready(Ok(Fill::Bytes(carried)));
        }
        loop {
            let room = &mut scratch.input[carried..carried + SCRATCH_LEN];
            let n = match self.poll_read(cx, room) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Fill::End)),
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            };
            let dropped = self.drop.min(n);
            self.drop -= dropped;
            if dropped == n {
                continue;
            }
            scratch
                .input
                .copy_within(carried + dropped..carried + n, carried);
            scratch.input[..carried].copy_from_slice(self.carry.as_slice());
            return Poll::Ready(Ok(Fill::Bytes(carried + n - dropped)));
        }
    }
}
