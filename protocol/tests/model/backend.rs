//! A backend as PostgreSQL's main loop, simple queries, extended messages and COPY IN make it,
//! without the SQL: each message says what it will do. Replies carry the message that caused them.

use std::collections::{HashSet, VecDeque};

pub(crate) type Id = u32;

/// What a statement does when it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Rows(u8),
    /// Rows up to the limit of the Execute.
    Suspended(u8),
    Command,
    Empty,
    Begin,
    Commit,
    Rollback,
    CopyOut(u8),
    /// Reads data; fails by itself when it has read so many messages.
    CopyIn {
        fails_after: Option<u8>,
    },
    /// Sends so many rows, then fails.
    Fail(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Query(Vec<Action>),
    FunctionCall,
    Sync,
    Flush,
    Parse,
    Bind,
    DescribeStatement {
        rows: bool,
    },
    DescribePortal {
        rows: bool,
    },
    Execute(Action),
    Close,
    CopyData,
    CopyDone,
    CopyFail,
    /// Not sent: the pooler answers it. The model notes whether PostgreSQL would have.
    Answered,
    /// Not sent: the pooler found it of no use. The model checks that it was of none.
    Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: Id,
    pub(crate) kind: Kind,
    /// Ends in an error (for what can fail and has no action that says so).
    pub(crate) fails: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) tag: u8,
    pub(crate) status: u8,
    pub(crate) cause: Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    Implicit,
    Block,
    Failed,
}

/// A COPY that reads data: of which message, what follows it in a simple Query, and how many
/// messages it reads before it fails.
#[derive(Debug, Clone)]
struct CopyIn {
    id: Id,
    rest: Option<VecDeque<Action>>,
    fails_after: Option<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Backend {
    transaction: Transaction,
    ignore_till_sync: bool,
    copy: Option<CopyIn>,
    pub(crate) replies: VecDeque<Reply>,
    /// Messages that were ignored up to a Sync.
    pub(crate) skipped: HashSet<Id>,
}

impl Backend {
    pub(crate) fn new() -> Self {
        Self {
            transaction: Transaction::None,
            ignore_till_sync: false,
            copy: None,
            replies: VecDeque::new(),
            skipped: HashSet::new(),
        }
    }

    /// Nothing is open, and it waits for any message.
    pub(crate) fn is_idle(&self) -> bool {
        self.transaction == Transaction::None && !self.ignore_till_sync && self.copy.is_none()
    }

    pub(crate) fn is_in_block(&self) -> bool {
        matches!(self.transaction, Transaction::Block | Transaction::Failed)
    }

    pub(crate) fn consume(&mut self, message: &Message) {
        let id = message.id;
        if message.kind == Kind::Dropped {
            let harmless = self.ignore_till_sync || self.copy.is_none();
            assert!(
                harmless,
                "message {id} was dropped and would have been COPY data"
            );
            return;
        }
        if self.copy.is_some() && message.kind != Kind::Answered {
            return self.copy_reads(message);
        }
        if self.ignore_till_sync && message.kind != Kind::Sync {
            self.skipped.insert(id);
            return;
        }
        match &message.kind {
            Kind::Query(actions) => {
                let actions = actions.iter().copied().collect();
                self.begin_statement();
                self.run_query(id, actions);
            }
            Kind::FunctionCall => {
                self.begin_statement();
                if message.fails || self.transaction == Transaction::Failed {
                    self.abort(id);
                } else {
                    self.say(b'V', id);
                }
                self.ready(id);
            }
            Kind::Sync => {
                self.ignore_till_sync = false;
                // The commit of an implicit transaction may fail: a deferred constraint, say.
                if message.fails && self.transaction == Transaction::Implicit {
                    self.abort(id);
                }
                self.ready(id);
            }
            Kind::Parse | Kind::Bind | Kind::Close => {
                if message.kind != Kind::Close {
                    self.begin_statement();
                    if message.fails {
                        return self.fail_extended(id);
                    }
                }
                let tag = match message.kind {
                    Kind::Parse => b'1',
                    Kind::Bind => b'2',
                    _ => b'3',
                };
                self.say(tag, id);
            }
            Kind::DescribeStatement { rows } | Kind::DescribePortal { rows } => {
                self.begin_statement();
                let of_statement = matches!(message.kind, Kind::DescribeStatement { .. });
                // The parameters may be out before the columns fail.
                if of_statement && (!message.fails || id.is_multiple_of(2)) {
                    self.say(b't', id);
                }
                if message.fails {
                    return self.fail_extended(id);
                }
                self.say(if *rows { b'T' } else { b'n' }, id);
            }
            Kind::Execute(action) => {
                self.begin_statement();
                self.execute(id, *action);
            }
            Kind::Flush | Kind::CopyData | Kind::CopyDone | Kind::CopyFail => {}
            Kind::Answered | Kind::Dropped => {}
        }
    }

    fn begin_statement(&mut self) {
        if self.transaction == Transaction::None {
            self.transaction = Transaction::Implicit;
        }
    }

    fn run_query(&mut self, id: Id, mut actions: VecDeque<Action>) {
        if actions.is_empty() {
            self.say(b'I', id);
        }
        while let Some(action) = actions.pop_front() {
            self.begin_statement();
            if self.refuses(action) {
                self.abort(id);
                break;
            }
            if let Action::Rows(_) | Action::Suspended(_) = action {
                self.say(b'T', id);
            }
            if let Action::Fail(rows @ 1..) = action {
                self.say(b'T', id);
                (0..rows).for_each(|_| self.say(b'D', id));
            }
            match action {
                Action::Fail(_) => {
                    self.abort(id);
                    break;
                }
                Action::CopyIn { fails_after } => {
                    return self.begin_copy(id, Some(actions), fails_after);
                }
                // There is no limit in a simple Query.
                Action::Suspended(rows) => self.run(id, Action::Rows(rows)),
                Action::Empty => self.run(id, Action::Command),
                action => self.run(id, action),
            }
        }
        self.ready(id);
    }

    fn execute(&mut self, id: Id, action: Action) {
        if self.refuses(action) {
            return self.fail_extended(id);
        }
        match action {
            Action::Fail(rows) => {
                (0..rows).for_each(|_| self.say(b'D', id));
                self.fail_extended(id);
            }
            Action::CopyIn { fails_after } => self.begin_copy(id, None, fails_after),
            action => self.run(id, action),
        }
    }

    fn refuses(&self, action: Action) -> bool {
        self.transaction == Transaction::Failed
            && !matches!(action, Action::Rollback | Action::Commit)
    }

    /// What succeeds at once.
    fn run(&mut self, id: Id, action: Action) {
        let (rows, last) = match action {
            Action::Rows(rows) => (rows, b'C'),
            Action::Suspended(rows) => (rows, b's'),
            Action::Empty => (0, b'I'),
            _ => (0, b'C'),
        };
        (0..rows).for_each(|_| self.say(b'D', id));
        match action {
            Action::CopyOut(rows) => {
                self.say(b'H', id);
                (0..rows).for_each(|_| self.say(b'd', id));
                self.say(b'c', id);
            }
            Action::Begin => self.transaction = Transaction::Block,
            Action::Commit | Action::Rollback => self.transaction = Transaction::None,
            _ => {}
        }
        self.say(last, id);
    }

    fn begin_copy(&mut self, id: Id, rest: Option<VecDeque<Action>>, fails_after: Option<u8>) {
        self.say(b'G', id);
        self.copy = Some(CopyIn {
            id,
            rest,
            fails_after,
        });
        self.copy_may_fail();
    }

    fn copy_may_fail(&mut self) {
        if self.copy.as_ref().is_some_and(|c| c.fails_after == Some(0)) {
            self.fail_copy();
        }
    }

    fn fail_copy(&mut self) {
        let Some(copy) = self.copy.take() else { return };
        if copy.rest.is_some() {
            self.abort(copy.id);
            self.ready(copy.id);
        } else {
            self.fail_extended(copy.id);
        }
    }

    fn copy_reads(&mut self, message: &Message) {
        match message.kind {
            Kind::Sync | Kind::Flush | Kind::CopyData => {
                if let Some(copy) = &mut self.copy {
                    copy.fails_after = copy.fails_after.map(|n| n - 1);
                }
                self.copy_may_fail();
            }
            Kind::CopyFail => self.fail_copy(),
            Kind::CopyDone => {
                let Some(copy) = self.copy.take() else { return };
                self.say(b'C', copy.id);
                if let Some(rest) = copy.rest {
                    if rest.is_empty() {
                        self.ready(copy.id);
                    } else {
                        self.run_query(copy.id, rest);
                    }
                }
            }
            _ => panic!("the model client sends no {message:?} as COPY data"),
        }
    }

    fn abort(&mut self, id: Id) {
        self.transaction = match self.transaction {
            Transaction::Block | Transaction::Failed => Transaction::Failed,
            Transaction::None | Transaction::Implicit => Transaction::None,
        };
        self.say(b'E', id);
    }

    fn fail_extended(&mut self, id: Id) {
        self.abort(id);
        self.ignore_till_sync = true;
    }

    fn ready(&mut self, id: Id) {
        if self.transaction == Transaction::Implicit {
            self.transaction = Transaction::None;
        }
        self.say(b'Z', id);
    }

    fn say(&mut self, tag: u8, cause: Id) {
        let status = match self.transaction {
            Transaction::None | Transaction::Implicit => b'I',
            Transaction::Block => b'T',
            Transaction::Failed => b'E',
        };
        self.replies.push_back(Reply { tag, status, cause });
    }
}
