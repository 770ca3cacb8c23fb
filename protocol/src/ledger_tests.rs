//! Transcripts of whole exchanges, and what the ledger makes of them.

#![allow(
    clippy::let_underscore_must_use,
    reason = "what a request became shows in what follows"
)]

use super::*;

/// Plays requests (before the arrow) and replies (behind it) by their type bytes.
fn sent(ledger: &mut Ledger, requests: &str) {
    for c in requests.chars() {
        let request = match c {
            'Q' => Request::Query,
            'F' => Request::FunctionCall,
            'S' => Request::Sync,
            'P' => Request::Parse,
            'B' => Request::Bind,
            'D' => Request::DescribeStatement,
            'd' => Request::DescribePortal,
            'E' => Request::Execute,
            'C' => Request::Close,
            'c' => Request::CopyEnd,
            _ => unreachable!("no request {c}"),
        };
        let _ = ledger.request(request, Deal::Forward, 0);
        ledger.check_invariants();
    }
}

fn got(ledger: &mut Ledger, replies: &str) -> Result<(), Violation> {
    let mut status = b'I';
    for c in replies.bytes() {
        match c {
            b'-' => status = b'T',
            b'!' => status = b'E',
            b'.' => status = b'I',
            tag => {
                while ledger.take_answer().is_some() {}
                ledger.response(tag, status)?;
                ledger.check_invariants();
            }
        }
    }
    while ledger.take_answer().is_some() {}
    Ok(())
}

fn ends_reusable(requests: &str, replies: &str) -> bool {
    let mut ledger = Ledger::new();
    sent(&mut ledger, requests);
    got(&mut ledger, replies).expect("a reply that was asked for");
    ledger.reusable().is_some()
}

#[test]
fn whole_exchanges_leave_a_reusable_server() {
    for (requests, replies) in [
        ("Q", "TDDCZ"),
        ("Q", "IZ"),
        ("Q", "TDCTDCZ"),
        ("Q", "EZ"),
        ("Q", "TDDEZ"),
        ("PBDES", "12tTDCZ"),
        ("PBdES", "12nCZ"),
        ("PBES", "12IZ"),
        ("PBES", "12DsZ"),
        ("F", "VZ"),
        ("Q", "HdddcCZ"),
        ("S", "Z"),
        ("CS", "3Z"),
    ] {
        assert!(ends_reusable(requests, replies), "{requests} -> {replies}");
    }
}

#[test]
fn t01_no_release_while_pipelined_requests_are_out() {
    let mut ledger = Ledger::new();
    sent(&mut ledger, "QSFPBES");
    for (replies, reusable) in [("TDCZ", false), ("Z", false), ("VZ", false), ("12CZ", true)] {
        got(&mut ledger, replies).expect("asked for");
        assert_eq!(ledger.reusable().is_some(), reusable, "after {replies}");
    }
}

#[test]
fn t03_an_error_takes_the_entries_up_to_sync_with_it() {
    // The Query in the middle of the failed batch is skipped by the server, too.
    assert!(ends_reusable("PBEPBEQSPBES", "1EZ12CZ"));
    let mut ledger = Ledger::new();
    sent(&mut ledger, "PBE");
    got(&mut ledger, "E").expect("asked for");
    assert!(ledger.is_discarding());
    assert_eq!(
        ledger.request(Request::Parse, Deal::Forward, 0),
        Sent::Discard
    );
    assert!(!ledger.answer(Answer::ParseComplete, 0));
    assert!(ledger.reusable().is_none());
    sent(&mut ledger, "S");
    got(&mut ledger, "Z").expect("asked for");
    assert!(ledger.reusable().is_some());
}

#[test]
fn t03_the_journal_hears_what_was_kept_and_what_was_voided() {
    let mut ledger = Ledger::new();
    for (request, ops) in [
        (Request::Parse, 2),
        (Request::Parse, 1),
        (Request::Close, 3),
    ] {
        let _ = ledger.request(request, Deal::Forward, ops);
    }
    assert!(ledger.answer(Answer::CloseComplete, 1));
    sent(&mut ledger, "S");
    let kept = ledger.response(b'1', 0).expect("asked for");
    assert_eq!((kept.kept, kept.voided), (2, 0));
    let error = ledger.response(b'E', 0).expect("asked for");
    assert_eq!((error.kept, error.voided, error.failed), (0, 5, 1));
}

#[test]
fn t02_answers_keep_their_place_and_die_with_the_batch() {
    let mut ledger = Ledger::new();
    sent(&mut ledger, "E");
    assert!(ledger.answer(Answer::ParseComplete, 0));
    sent(&mut ledger, "BS");
    assert_eq!(
        ledger.take_answer(),
        None,
        "not between the rows of the Execute before"
    );
    got(&mut ledger, "DD").expect("asked for");
    assert_eq!(ledger.take_answer(), None);
    ledger.response(b'C', 0).expect("asked for");
    assert_eq!(ledger.take_answer(), Some((Answer::ParseComplete, 0)));
    got(&mut ledger, "2Z").expect("asked for");
    assert!(ledger.reusable().is_some());

    sent(&mut ledger, "E");
    assert!(ledger.answer(Answer::ParseComplete, 0));
    sent(&mut ledger, "S");
    ledger.response(b'E', 0).expect("asked for");
    assert_eq!(
        ledger.take_answer(),
        None,
        "the server would have skipped the Parse"
    );
    got(&mut ledger, "Z").expect("asked for");
    assert!(ledger.reusable().is_some());
}

#[test]
fn t04_sync_inside_copy_in_is_not_answered() {
    // As libpq does it: Sync behind Execute at once, and again behind CopyDone.
    let mut ledger = Ledger::new();
    sent(&mut ledger, "PBdES");
    got(&mut ledger, "12nG").expect("asked for");
    assert!(ledger.is_copying_in() && ledger.reusable().is_none());
    sent(&mut ledger, "cS");
    got(&mut ledger, "CZ").expect("asked for");
    assert!(ledger.reusable().is_some());
}

#[test]
fn t04_copy_data_sent_before_the_response_is_seen() {
    assert!(ends_reusable("PBEScS", "12GCZ"));
    assert!(ends_reusable("QcQ", "GCZTDCZ"));
    // Two COPYs in one Query, both sent ahead.
    assert!(ends_reusable("Qcc", "GCGCZ"));
}

#[test]
fn t04_a_failed_copy_comes_back_once_the_client_has_synced() {
    let mut ledger = Ledger::new();
    sent(&mut ledger, "PBES");
    got(&mut ledger, "12GE").expect("asked for");
    assert!(ledger.reusable().is_none(), "the server waits for Sync");
    sent(&mut ledger, "cS");
    got(&mut ledger, "Z").expect("asked for");
    assert!(
        ledger.reusable().is_none() && ledger.needs_question(),
        "the first Sync may have been read by COPY or behind it"
    );
    sent(&mut ledger, "CS");
    got(&mut ledger, "3Z").expect("asked for");
    assert!(ledger.reusable().is_some(), "nothing came between");

    let mut ledger = Ledger::new();
    sent(&mut ledger, "Q");
    got(&mut ledger, "GEZ").expect("asked for");
    assert!(ledger.reusable().is_some(), "a simple Query needs no Sync");
    assert_eq!(
        ledger.request(Request::CopyEnd, Deal::Forward, 0),
        Sent::Discard,
        "PostgreSQL ignores what comes late"
    );
    assert!(ledger.reusable().is_some());
}

/// `COPY a_view FROM STDIN` says CopyInResponse and fails before it reads anything; libpq has sent
/// its first Sync by then. That Sync was once taken for swallowed: the server was free at its
/// ReadyForQuery, and the next client got the second one.
#[test]
fn t04_a_copy_that_fails_before_it_reads_answers_both_syncs() {
    for (requests, replies) in [("cS", "Z"), ("", "Z"), ("cSQ", "ZZTDCZ"), ("cSQ", "ZTDCZ")] {
        let mut ledger = Ledger::new();
        sent(&mut ledger, "PBES");
        got(&mut ledger, "12GE").expect("asked for");
        sent(&mut ledger, requests);
        got(&mut ledger, replies).expect("either may be");
        let asked = requests.ends_with('Q');
        assert_eq!(ledger.reusable().is_some(), asked || requests.is_empty());
        if !asked {
            sent(&mut ledger, "S");
            got(&mut ledger, "Z").expect("asked for");
        }
    }
    assert!(ends_reusable("PBEScS", "12GEZZ"));
}

/// The end of the data was once taken for the end of the doubt.
#[test]
fn t04_a_sync_that_races_with_a_copy_error_leaves_a_question() {
    for copy_end in ["", "c"] {
        let mut ledger = Ledger::new();
        sent(&mut ledger, "PBE");
        got(&mut ledger, "12G").expect("asked for");
        assert_eq!(
            ledger.request(Request::Sync, Deal::Forward, 0),
            Sent::Unanswered
        );
        sent(&mut ledger, copy_end);
        got(&mut ledger, "E").expect("asked for");
        sent(&mut ledger, "S");
        got(&mut ledger, "Z").expect("asked for");
        assert!(ledger.reusable().is_none() && ledger.needs_question());
        got(&mut ledger, "Z").expect("of the other Sync");
        assert!(ledger.reusable().is_some());
    }
}

#[test]
fn t04_what_follows_a_failed_copy_is_not_guessed_at() {
    let mut ledger = Ledger::new();
    sent(&mut ledger, "EScPBES");
    got(&mut ledger, "G").expect("asked for");
    assert_eq!(got(&mut ledger, "E"), Err(Violation::Undecidable));
}

#[test]
fn t04_no_copy_ends_before_its_data() {
    for replies in ["GC", "GDC", "GZ", "GT", "GG"] {
        let mut ledger = Ledger::new();
        sent(&mut ledger, "Q");
        assert!(got(&mut ledger, replies).is_err(), "{replies}");
    }
    // Nor does anything else end it.
    for (requests, replies) in [("Qc", "GT"), ("Qc", "GI"), ("Ec", "Gs"), ("Ec", "GD")] {
        let mut ledger = Ledger::new();
        sent(&mut ledger, requests);
        assert!(
            got(&mut ledger, replies).is_err(),
            "{requests} -> {replies}"
        );
    }
}

/// A batch that was flushed and not synced was once taken for the end of the transaction.
#[test]
fn t09_flush_without_sync_keeps_the_server() {
    for (requests, replies) in [("P", "1"), ("PBdE", "12nC"), ("C", "3"), ("QPBE", "CZ12C")] {
        let mut ledger = Ledger::new();
        sent(&mut ledger, requests);
        got(&mut ledger, replies).expect("asked for");
        assert!(
            ledger.reusable().is_none(),
            "{requests} left a transaction open"
        );
        sent(&mut ledger, "S");
        got(&mut ledger, "Z").expect("asked for");
        assert!(ledger.reusable().is_some());
    }
    assert!(
        ends_reusable("PBEQ", "12CCZ"),
        "a Query ends the batch, too"
    );
    // COPY has read the Sync that was meant to end the batch.
    assert!(!ends_reusable("PBESc", "12GC"));
}

#[test]
fn t07_asynchronous_messages_come_at_any_time() {
    let mut ledger = Ledger::new();
    got(&mut ledger, "NAS").expect("allowed while idle");
    assert!(ledger.reusable().is_some());
    let _ = ledger.request(Request::Query, Deal::Skip, 0);
    assert_eq!(ledger.response(b'N', 0).expect("allowed").deal, Deal::Skip);
    assert_eq!(
        ledger.response(b'A', 0).expect("allowed").deal,
        Deal::Forward,
        "who listens gets it, whatever the pooler is asking"
    );
    got(&mut ledger, "TDSCZ").expect("asked for");
    assert!(ledger.reusable().is_some());
}

#[test]
fn a_transaction_keeps_its_server() {
    let mut ledger = Ledger::new();
    sent(&mut ledger, "QQ");
    got(&mut ledger, "C-Z").expect("asked for");
    assert_eq!(ledger.status(), TransactionStatus::Open);
    got(&mut ledger, "E!Z").expect("asked for");
    assert_eq!(ledger.status(), TransactionStatus::Failed);
    assert!(ledger.reusable().is_none());
}

#[test]
fn replies_that_nobody_asked_for_are_violations() {
    for (requests, replies) in [
        ("", "Z"),
        ("", "D"),
        ("Q", "TDCZD"),
        ("Q", "1"),
        ("P", "2"),
        ("BS", "Z"),
        ("E", "T"),
        ("S", "C"),
        ("Q", "K"),
        ("Q", "R"),
        ("Q", "\u{1}"),
        ("F", "D"),
        // One message less, one message more.
        ("Q", "Z"),
        ("Q", "TDZ"),
        ("Q", "D"),
        ("Q", "EC"),
        ("F", "Z"),
        ("F", "VV"),
        ("QQ", "CZZ"),
    ] {
        let mut ledger = Ledger::new();
        sent(&mut ledger, requests);
        assert!(
            got(&mut ledger, replies).is_err(),
            "{requests} -> {replies}"
        );
    }
    let mut ledger = Ledger::new();
    sent(&mut ledger, "Q");
    assert_eq!(
        ledger.response(b'Z', b'X'),
        Err(Violation::BadStatus { status: b'X' })
    );
}

#[test]
fn an_error_nobody_asked_for_ends_the_server() {
    let mut ledger = Ledger::new();
    got(&mut ledger, "E").expect("the server says why it leaves");
    assert!(ledger.reusable().is_none());
}
