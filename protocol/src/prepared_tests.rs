//! The names a client has, the statements a server holds, and what an error takes back.

use super::*;

fn interner() -> Interner {
    Interner::new(1 << 20)
}

#[test]
fn t22_equal_texts_are_one_statement_and_types_tell_apart() {
    let mut i = interner();
    let a = i.intern(b"SELECT $1\0\0\0").expect("room");
    let b = i.intern(b"SELECT $1\0\0\0").expect("room");
    let c = i.intern(b"SELECT $1\0\0\x01\0\0\0\x17").expect("room");
    assert!(Arc::ptr_eq(&a, &b));
    assert_ne!(a.id(), c.id());
}

#[test]
fn t24_texts_are_bounded_in_bytes_and_forgotten_when_unused() {
    let mut i = Interner::new(1000);
    let kept = i.intern(&[b'x'; 500]).expect("room");
    assert_eq!(
        i.intern(&[b'y'; 500]).expect_err("no room"),
        OutOfBudget { limit: 1000 }
    );
    drop(kept);
    let next = i.intern(&[b'y'; 500]).expect("room again");
    assert_eq!(i.usage(), (1, 628));
    drop(next);
    for n in 0..10_000_u32 {
        let _ = i.intern(&n.to_be_bytes()).expect("room");
    }
    assert!(i.usage().0 <= 200, "{:?}", i.usage());
}

#[test]
fn t03_a_failed_parse_leaves_the_name_free() {
    let (mut i, mut client, mut server) = (
        interner(),
        ClientStatements::default(),
        ServerStatements::default(),
    );
    let mut journal = Journal::default();
    let s = i.intern(b"nonsense\0\0\0").expect("room");
    journal.hold(&mut server, s.id());
    journal.name(&mut client, b"a", s);
    assert!(client.find(b"a").is_some() && server.len() == 1);
    journal.void(&mut client, &mut server, 2, 2);
    assert!(client.find(b"a").is_none() && server.is_empty());
    assert!(journal.is_empty());
}

#[test]
fn t03_a_skipped_close_keeps_the_name_and_the_holding() {
    let (mut i, mut client, mut server) = (
        interner(),
        ClientStatements::default(),
        ServerStatements::default(),
    );
    let mut journal = Journal::default();
    let s = i.intern(b"SELECT 1\0\0\0").expect("room");
    journal.hold(&mut server, s.id());
    journal.name(&mut client, b"a", Arc::clone(&s));
    journal.keep(2);
    assert!(journal.forget(&mut client, b"a"));
    journal.release(&mut server, s.id());
    journal.void(&mut client, &mut server, 2, 0);
    assert!(client.find(b"a").is_some());
    assert!(server.touch(s.id()));
}

#[test]
fn t09_a_failed_parse_drops_the_unnamed_statement_and_a_skipped_one_does_not() {
    let (mut i, mut client, mut server) = (
        interner(),
        ClientStatements::default(),
        ServerStatements::default(),
    );
    let mut journal = Journal::default();
    let a = i.intern(b"SELECT 1\0\0\0").expect("room");
    let b = i.intern(b"SELECT 2\0\0\0").expect("room");
    journal.replace_unnamed(&mut client, &mut server, Some(Arc::clone(&a)));
    journal.keep(1);
    journal.replace_unnamed(&mut client, &mut server, Some(Arc::clone(&b)));
    journal.void(&mut client, &mut server, 1, 0);
    assert!(client.unnamed().is_some_and(|s| Arc::ptr_eq(s, &a)));
    assert_eq!(server.unnamed, Unnamed::Is(a.id()));
    journal.replace_unnamed(&mut client, &mut server, Some(b));
    journal.void(&mut client, &mut server, 1, 1);
    assert!(client.unnamed().is_none());
    assert_eq!(server.unnamed, Unnamed::Unknown);
}

/// A skipped batch once cost a client the long unnamed statement that it had before.
#[test]
fn t09_a_skipped_parse_keeps_an_unnamed_statement_whose_text_is_not_kept() {
    let (mut i, mut client, mut server) = (
        interner(),
        ClientStatements::default(),
        ServerStatements::default(),
    );
    let mut journal = Journal::default();
    let a = i.intern(b"SELECT 1\0\0\0").expect("room");
    journal.replace_unnamed_untracked(&mut client, &mut server);
    journal.keep(1);
    journal.replace_unnamed(&mut client, &mut server, Some(a));
    journal.void(&mut client, &mut server, 1, 0);
    assert_eq!(server.unnamed, Unnamed::Untracked);
}

#[test]
fn t25_what_is_sent_behind_deallocate_all_outlives_it() {
    let (mut i, mut client, mut server) = (
        interner(),
        ClientStatements::default(),
        ServerStatements::default(),
    );
    let mut journal = Journal::default();
    let old = i.intern(b"SELECT 1\0\0\0").expect("room");
    let new = i.intern(b"SELECT 2\0\0\0").expect("room");
    journal.hold(&mut server, old.id());
    journal.name(&mut client, b"old", Arc::clone(&old));
    journal.keep(2);
    // Sent: DEALLOCATE ALL, Close of "old", Parse of "new", Sync. The first answer comes.
    assert!(journal.forget(&mut client, b"old"));
    journal.hold(&mut server, new.id());
    journal.name(&mut client, b"new", Arc::clone(&new));
    journal.deallocate_all(&mut client, &mut server);
    assert!(client.find(b"new").is_some() && server.touch(new.id()));
    assert!(!server.touch(old.id()));
    // The Parse fails, and the Close before it is undone with it: there is nothing to undo.
    journal.void(&mut client, &mut server, 3, 0);
    assert!(client.find(b"old").is_none() && client.find(b"new").is_none());
    assert!(server.is_empty());
}

#[test]
fn t20_the_statement_used_longest_ago_is_evicted() {
    let (mut server, mut journal) = (ServerStatements::default(), Journal::default());
    for id in 1..=3 {
        journal.hold(&mut server, id);
    }
    assert!(server.touch(1));
    assert_eq!(server.evictable(4), None);
    assert_eq!(server.evictable(3), Some(2));
}

/// Two batches at once, the first of which fails: once the client was left with the statement from
/// before both, and ran that one when it met another server.
#[test]
fn t21_a_batch_that_fails_takes_nothing_from_the_batch_behind_it() {
    let (mut i, mut client, mut server) = (
        interner(),
        ClientStatements::default(),
        ServerStatements::default(),
    );
    let mut journal = Journal::default();
    let [a, b, c] = [b"a\0\0\0", b"b\0\0\0", b"c\0\0\0"].map(|text| i.intern(text).expect("room"));
    for statement in [&a, &b, &c] {
        journal.replace_unnamed(&mut client, &mut server, Some(Arc::clone(statement)));
        journal.note_sync();
    }
    journal.keep(1);
    journal.void(&mut client, &mut server, 1, 0);
    assert!(client.unnamed().is_some_and(|s| Arc::ptr_eq(s, &c)));
    assert_eq!(server.unnamed, Unnamed::Is(c.id()));
    // The last one fails, too, and is skipped: what it would have replaced is not `b`.
    journal.void(&mut client, &mut server, 1, 0);
    assert!(client.unnamed().is_some_and(|s| Arc::ptr_eq(s, &a)));
    assert_eq!(server.unnamed, Unnamed::Is(a.id()));
}

#[test]
fn t21_what_is_not_confirmed_is_not_built_upon_behind_a_sync() {
    let (mut i, mut client, mut server) = (
        interner(),
        ClientStatements::default(),
        ServerStatements::default(),
    );
    let mut journal = Journal::default();
    let s = i.intern(b"SELECT 1\0\0\0").expect("room");
    journal.hold(&mut server, s.id());
    journal.name(&mut client, b"a", Arc::clone(&s));
    journal.replace_unnamed(&mut client, &mut server, Some(Arc::clone(&s)));
    assert!(!journal.must_wait(b"a", Some(s.id())), "it fails with them");
    assert!(!journal.must_wait_for_unnamed());
    journal.note_sync();
    assert!(journal.must_wait(b"a", None) && journal.must_wait(b"b", Some(s.id())));
    assert!(!journal.must_wait(b"b", None));
    assert!(journal.must_wait_for_unnamed() && !journal.is_synced());
    journal.replace_unnamed(&mut client, &mut server, Some(Arc::clone(&s)));
    assert!(!journal.must_wait_for_unnamed(), "this batch has its own");
    journal.keep(3);
    assert!(journal.is_synced());
    assert!(!journal.must_wait(b"a", Some(s.id())));
    assert!(!journal.must_wait_for_unnamed());
}
