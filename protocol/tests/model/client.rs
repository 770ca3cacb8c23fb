//! What a client sends: a stream that depends on no reply.

use std::collections::VecDeque;

use pooler_protocol::ledger::Deal;

use super::Chance;
use super::backend::{Action, Id, Kind, Message};

/// What a run leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spared {
    Nothing,
    Errors,
}

/// Writes the stream of a client that pipelines blindly, and of the pooler's own requests in it.
pub(crate) struct Writer {
    chance: Chance,
    spared: Spared,
    next_id: Id,
    out: Vec<(Message, Deal)>,
}

impl Writer {
    fn put(&mut self, kind: Kind) {
        self.put_as(kind, Deal::Forward);
    }

    fn put_as(&mut self, kind: Kind, deal: Deal) {
        let fails = self.fails(12);
        let id = self.next_id;
        self.next_id += 1;
        self.out.push((Message { id, kind, fails }, deal));
    }

    fn fails(&mut self, one_in: u64) -> bool {
        self.spared == Spared::Nothing && self.chance.one_in(one_in)
    }

    fn action(&mut self) -> Action {
        let rows = u8::try_from(self.chance.below(4)).expect("small");
        if self.fails(10) {
            return Action::Fail(rows);
        }
        match self.chance.below(12) {
            0 => Action::Begin,
            1 => Action::Commit,
            2 => Action::Rollback,
            3 => Action::CopyOut(rows),
            4 => Action::Empty,
            5 => Action::Suspended(rows),
            6 | 7 => Action::CopyIn {
                fails_after: self.fails(3).then_some(rows),
            },
            8 => Action::Command,
            _ => Action::Rows(rows),
        }
    }

    /// The data of a COPY. Whether a Sync is among it: then, as drivers do, another one follows.
    fn copy_data(&mut self) {
        let mut synced = false;
        for _ in 0..self.chance.below(4) {
            match self.chance.below(4) {
                0 => {
                    self.put(Kind::Sync);
                    synced = true;
                }
                1 => self.put(Kind::Flush),
                _ => self.put(Kind::CopyData),
            }
        }
        if self.fails(6) {
            self.put(Kind::CopyFail);
        } else {
            self.put(Kind::CopyDone);
        }
        if synced {
            self.put(Kind::Sync);
        }
    }

    fn run(&mut self, action: Action) {
        self.put(Kind::Execute(action));
        if matches!(action, Action::CopyIn { .. }) {
            self.copy_data();
        }
    }

    fn query(&mut self) {
        let actions: Vec<_> = (0..self.chance.below(4)).map(|_| self.action()).collect();
        let copies = |a: &&Action| matches!(a, Action::CopyIn { .. });
        let copies = actions.iter().filter(copies).count();
        self.put(Kind::Query(actions));
        for _ in 0..copies {
            self.copy_data();
        }
    }

    fn step(&mut self) {
        let rows = self.chance.one_in(2);
        match self.chance.below(22) {
            0..4 => self.put(Kind::Sync),
            4 | 5 => self.query(),
            6 => self.put(Kind::FunctionCall),
            7 | 8 => self.put(Kind::Parse),
            9 => self.put(Kind::Answered),
            10 => self.put(Kind::Close),
            11 | 12 => self.put(Kind::Bind),
            13 => self.put(Kind::DescribeStatement { rows }),
            14 => self.put(Kind::DescribePortal { rows }),
            15 => self.put(Kind::Flush),
            // Too late, or of no use at all.
            16 => self.put(Kind::CopyData),
            17 => self.put(Kind::CopyDone),
            18 => self.put_as(Kind::Parse, Deal::Skip),
            _ => {
                let action = self.action();
                self.run(action);
            }
        }
    }

    pub(crate) fn write(seed: u64, spared: Spared, steps: u64) -> VecDeque<(Message, Deal)> {
        let mut writer = Self {
            chance: Chance::new(seed),
            spared,
            next_id: 1,
            out: Vec::new(),
        };
        for _ in 0..steps {
            writer.step();
        }
        // Whatever is open, this ends it.
        writer.put(Kind::Sync);
        writer.put(Kind::Query(vec![Action::Rollback]));
        if writer.fails(4) {
            // As libpq has it: COPY with a Sync behind it, then the data with another one.
            let fails_after = Some(u8::try_from(writer.chance.below(3)).expect("small"));
            writer.put(Kind::Execute(Action::CopyIn { fails_after }));
            for kind in [Kind::Sync, Kind::CopyData, Kind::CopyDone, Kind::Sync] {
                writer.put(kind);
            }
        }
        writer.out.into()
    }
}
