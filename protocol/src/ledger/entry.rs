//! The words of the ledger: what is asked, who gets the answer, and what is no answer at all.

/// A message to the server that it answers, or that changes how it answers others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Query: anything up to ReadyForQuery.
    Query,
    /// FunctionCall: a result, then ReadyForQuery.
    FunctionCall,
    /// Sync: ReadyForQuery.
    Sync,
    /// Parse: ParseComplete.
    Parse,
    /// Bind: BindComplete.
    Bind,
    /// Describe of a statement: ParameterDescription, then as for a portal.
    DescribeStatement,
    /// Describe of a portal: RowDescription or NoData.
    DescribePortal,
    /// Execute: rows or COPY data, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// Close: CloseComplete.
    Close,
    /// CopyDone or CopyFail: nothing of its own, but it ends COPY IN.
    CopyEnd,
}

/// Who gets the reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deal {
    /// The client.
    Forward,
    /// Nobody: the pooler asked, and only an error would matter.
    Skip,
    /// The pooler: it asked, and reads the answer.
    Read,
}

/// A reply that the pooler gives in the server's place, in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To a Parse of a statement that the server holds already.
    ParseComplete,
    /// To a Close of a statement that the pooler keeps on the server.
    CloseComplete,
}

impl Request {
    /// Whether ReadyForQuery ends its answer; the others wait for a Sync.
    pub(super) fn ends_ready(self) -> bool {
        matches!(self, Self::Query | Self::FunctionCall | Self::Sync)
    }

    /// Whether it may turn out to be a COPY.
    pub(super) fn may_copy(self) -> bool {
        matches!(self, Self::Query | Self::Execute)
    }
}

impl Answer {
    /// The message.
    #[must_use]
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::ParseComplete => b"1\0\0\0\x04",
            Self::CloseComplete => b"3\0\0\0\x04",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Owed {
        request: Request,
        deal: Deal,
        /// Entries of the caller's journal that stand or fall with this request.
        ops: u8,
    },
    Answer {
        answer: Answer,
        ops: u8,
    },
}

impl Entry {
    pub(super) fn ops(self) -> u32 {
        match self {
            Self::Owed { ops, .. } | Self::Answer { ops, .. } => u32::from(ops),
        }
    }

    pub(super) fn is(self, wanted: Request) -> bool {
        matches!(self, Self::Owed { request, .. } if request == wanted)
    }

    /// The request that the server was sent and answers; neither an answer of the pooler's nor an
    /// end of COPY is one.
    pub(super) fn asked(self) -> Option<Request> {
        match self {
            Self::Owed { request, .. } if request != Request::CopyEnd => Some(request),
            _ => None,
        }
    }
}

/// What to do with a message that a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// Send it: an entry waits for its answer.
    Entered,
    /// Drop it: the server would ignore it until Sync, or has no use for it.
    Discard,
    /// Send it, but the server will not answer it (Sync inside COPY IN).
    Unanswered,
}

/// What to do with a message that a server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Who gets it.
    pub deal: Deal,
    /// Oldest entries of the caller's journal that are now true.
    pub kept: u32,
    /// Then, oldest entries of the journal that will never be: they are to be undone, the newest of
    /// them first.
    pub voided: u32,
    /// Of the voided ones, how many belong to the request that failed itself (the others were
    /// skipped by the server and changed nothing there).
    pub failed: u32,
}

impl Verdict {
    pub(super) const fn to(deal: Deal) -> Self {
        Self {
            deal,
            kept: 0,
            voided: 0,
            failed: 0,
        }
    }
}

/// A server message that answers nothing that was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reply while nothing is owed.
    #[error("the server sent {:?} although nothing was asked of it", char::from(*.tag))]
    Unasked {
        /// Its type byte.
        tag: u8,
    },
    /// A reply of the wrong kind.
    #[error("the server sent {:?} in answer to {expected:?}", char::from(*.tag))]
    Mismatch {
        /// Its type byte.
        tag: u8,
        /// What was owed.
        expected: Request,
    },
    /// ReadyForQuery with a status that does not exist.
    #[error("the server sent ReadyForQuery with status {status:#04x}")]
    BadStatus {
        /// The status byte.
        status: u8,
    },
    /// An error in a COPY, behind which more was sent than a Sync: whether the server has read
    /// that Sync, and so whether it ran or skipped the rest, cannot be known.
    #[error("COPY failed with further requests behind a Sync: what became of these is unknown")]
    Undecidable,
}
