//! The ledger over whole exchanges: what the relay asks of it a transaction.

use pooler_protocol::ledger::{Deal, Ledger, Request, Verdict};

/// Batches in the pipeline.
const PIPELINE: usize = 100;

/// A ledger that has room already, as that of a server that has served before.
pub(crate) fn used() -> Ledger {
    let mut ledger = Ledger::new();
    pipeline(&mut ledger);
    ledger
}

/// A simple query with one row.
pub(crate) fn simple(ledger: &mut Ledger) {
    ask(ledger, &[Request::Query]);
    reply(ledger, b"TDCZ");
    assert!(ledger.reusable().is_some(), "nothing is owed");
}

/// A prepared statement as libpq runs it.
pub(crate) fn prepared(ledger: &mut Ledger) {
    use Request::{Bind, DescribePortal, Execute, Sync};
    ask(ledger, &[Bind, DescribePortal, Execute, Sync]);
    reply(ledger, b"2TDCZ");
    assert!(ledger.reusable().is_some(), "nothing is owed");
}

/// A hundred prepared statements without rows before the first reply.
pub(crate) fn pipeline(ledger: &mut Ledger) {
    for _ in 0..PIPELINE {
        ask(ledger, &[Request::Bind, Request::Execute]);
    }
    ask(ledger, &[Request::Sync]);
    for _ in 0..PIPELINE {
        reply(ledger, b"2C");
    }
    reply(ledger, b"Z");
    assert!(ledger.reusable().is_some(), "nothing is owed");
}

fn ask(ledger: &mut Ledger, requests: &[Request]) {
    for &request in requests {
        let _sent = ledger.request(request, Deal::Forward, 0);
    }
}

fn reply(ledger: &mut Ledger, tags: &[u8]) {
    let forwarded = Verdict {
        deal: Deal::Forward,
        kept: 0,
        voided: 0,
        failed: 0,
    };
    for &tag in tags {
        // Of rows the relay asks only whose they are.
        if tag == b'D' && ledger.rows_to() == Some(Deal::Forward) {
            continue;
        }
        assert_eq!(ledger.response(tag, b'I'), Ok(forwarded));
    }
}
