//! The ledger under any list of requests and replies.

use pooler_protocol::ledger::{Answer, Deal, Ledger, Request, Sent};

use super::take;

const REQUESTS: [Request; 10] = [
    Request::Query,
    Request::FunctionCall,
    Request::Sync,
    Request::Parse,
    Request::Bind,
    Request::DescribeStatement,
    Request::DescribePortal,
    Request::Execute,
    Request::Close,
    Request::CopyEnd,
];

const TAGS: &[u8] = b"123CDEGHINSTVZcdnstAW";

/// A ledger, and the entries of a caller's journal that stand with it.
#[derive(Default)]
struct Caller {
    ledger: Ledger,
    ops: u32,
}

/// See the module. A byte is a request or a reply; some take another one for their particulars.
pub fn run(mut data: &[u8]) {
    let mut caller = Caller::default();
    while !data.is_empty() {
        let op = take(&mut data);
        let goes_on = match op % 32 {
            n @ 0..10 => {
                caller.request(REQUESTS[usize::from(n)], op >> 5);
                true
            }
            10 => {
                caller.answer(op >> 5);
                true
            }
            n => {
                let tag = match TAGS.get(usize::from(n) - 11) {
                    Some(tag) => *tag,
                    None => take(&mut data),
                };
                let status = [b'I', b'T', b'E', b'I'][usize::from(op >> 6)];
                caller.response(tag, status)
            }
        };
        caller.check();
        if !goes_on {
            return;
        }
    }
}

impl Caller {
    fn request(&mut self, request: Request, detail: u8) {
        let deal = if detail & 1 == 0 {
            Deal::Forward
        } else {
            Deal::Skip
        };
        let ops = match request {
            Request::Sync | Request::CopyEnd => 0,
            _ => detail >> 1,
        };
        let before = self.ledger.outstanding();
        let discarding = self.ledger.is_discarding();
        match self.ledger.request(request, deal, ops) {
            Sent::Entered => {
                self.ops += u32::from(ops);
                assert_eq!(self.ledger.outstanding(), before + 1);
                let reusable = self.ledger.reusable();
                assert!(reusable.is_none(), "{request:?} is out");
            }
            Sent::Discard => {
                assert!(discarding || request == Request::CopyEnd);
                assert_eq!(self.ledger.outstanding(), before);
            }
            Sent::Unanswered => {
                assert!(matches!(request, Request::Sync | Request::CopyEnd));
                assert!(self.ledger.reusable().is_none(), "a COPY is under way");
            }
        }
    }

    fn answer(&mut self, detail: u8) {
        let answer = match detail & 1 {
            0 => Answer::ParseComplete,
            _ => Answer::CloseComplete,
        };
        let ops = detail >> 1;
        let discarding = self.ledger.is_discarding();
        assert_eq!(self.ledger.answer(answer, ops), !discarding);
        if !discarding {
            self.ops += u32::from(ops);
        }
    }

    /// Whether the server may say more.
    fn response(&mut self, tag: u8, status: u8) -> bool {
        while let Some((answer, kept)) = self.ledger.take_answer() {
            assert_eq!(answer.bytes().len(), 5);
            self.ops = self.ops.checked_sub(kept).expect("no more than there are");
        }
        let due = self.ledger.rows_to();
        let Ok(verdict) = self.ledger.response(tag, status) else {
            assert!(tag != b'D' || due.is_none(), "rows were due");
            return false;
        };
        if matches!(tag, b'D' | b'd') {
            assert_eq!(due, Some(verdict.deal));
        }
        assert!(verdict.failed <= verdict.voided);
        assert!(verdict.voided == 0 || tag == b'E');
        let settled = verdict.kept + verdict.voided;
        self.ops = self
            .ops
            .checked_sub(settled)
            .expect("no more than there are");
        true
    }

    fn check(&self) {
        self.ledger.check_invariants();
        if self.ledger.outstanding() == 0 {
            assert_eq!(self.ops, 0, "nothing is owed, so nothing is unconfirmed");
        }
        if self.ledger.reusable().is_some() {
            assert_eq!(self.ledger.outstanding(), 0);
            assert!(!self.ledger.is_discarding() && !self.ledger.is_copying_in());
        }
    }
}
