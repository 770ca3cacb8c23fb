//! Servers that only look as if they were at rest, and clients that only look as if they were read:
//! what a review of the relay found.

use crate::support::{
    Opening, Pooler, Rig, ScriptedServer, ServerWire, Wire, bind, copy_data, copy_done, copy_fail,
    execute, flush, message, parse, query, sync, wait_until,
};

/// A pooler before a scripted server, and a client of it.
fn before(script: impl Fn(ServerWire) + Send + Sync + 'static) -> (ScriptedServer, Pooler, Wire) {
    let server = ScriptedServer::start(script);
    let pooler = Pooler::builder()
        .host(server.port())
        .set("pool_size = 1")
        .start();
    let client = pooler.login("u", "d");
    (server, pooler, client)
}

/// Nothing that no Sync followed is committed: a server that dies then takes it along, and the
/// client has to hear of it although it had every reply.
#[test]
fn a_server_that_dies_after_flush_ends_the_session() {
    let (_server, _pooler, mut client) = before(|mut wire| {
        if wire.accept_login() && wire.recv_until(b'H') {
            let replies = [
                message(b'1', b""),
                message(b'2', b""),
                message(b'C', b"INSERT 0 1\0"),
            ];
            wire.send(&replies.concat());
        }
        wire.close();
    });
    client.send(&[
        parse("", "INSERT INTO t VALUES (1)"),
        bind("", "", &[]),
        execute(""),
        flush(),
    ]);
    client.expect("1 2 C(INSERT 0 1) E(08006) .");
}

/// A failed batch goes on to its Sync: what is left of it must not be run by another server.
#[test]
fn t03_a_server_that_dies_while_it_ignores_a_batch_ends_the_session() {
    let (_server, _pooler, mut client) = before(|mut wire| {
        if wire.accept_login() && wire.recv_until(b'H') {
            wire.send(&ServerWire::error("ERROR", "42601", "syntax error"));
        }
        wire.close();
    });
    client.send(&[parse("", "nonsense"), flush()]);
    client.expect("E(42601) E(08006) .");
}

/// B17: a client that dies in the middle of a message; the pooler's own goodbye must not be the end
/// of it.
#[test]
fn b17_half_a_message_is_not_completed_by_a_goodbye() {
    let (server, _pooler, mut client) = before(|mut wire| match wire.read_opening() {
        Opening::Startup(_) => {
            wire.send(&ServerWire::login_reply(7));
            while wire.recv().is_some() {}
        }
        Opening::Cancel(..) | Opening::Closed => {}
    });
    let text = format!("SELECT '{}', pay() ", "x".repeat(100_000));
    let whole = query(&text);
    client.send_bytes(&whole[..whole.len() - 2]);
    drop(client);
    wait_until("the server to be closed", || {
        server
            .received()
            .iter()
            .any(|line| line.ends_with("closed"))
    });
    let queries: Vec<String> = server.received();
    assert!(
        !queries.iter().any(|line| line.contains("pay()")),
        "a query that was never sent whole has arrived"
    );
}

/// What was held back behind DISCARD must not keep the client unread for ever.
#[test]
fn t25_a_client_is_read_again_after_discard_all() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    rig.sql("CREATE TABLE t (a text)");
    let mut client = rig.login();
    for command in ["DISCARD ALL", "DEALLOCATE ALL"] {
        client.send(&[query(command)]);
        client.expect(&format!("S* C({command}) Z(I)"));
        client.send(&[query("COPY t FROM STDIN")]);
        client.expect("G");
        client.send(&[copy_data(b"x\n"), copy_done()]);
        client.expect("C(COPY 1) Z(I)");
    }
    rig.assert_sound();
}

/// As libpq copies with PQexecParams: Sync behind Execute, and again behind CopyFail.
#[test]
fn t04_a_failed_copy_gives_its_server_back() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    rig.sql("CREATE TABLE t (a text)");
    let mut client = rig.login();
    client.send(&[
        parse("", "COPY t FROM STDIN"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    client.expect("1 2 G");
    client.send(&[copy_fail("enough"), sync()]);
    client.expect("E(57014) Z(I)");
    // The only server serves somebody else, and then this client again.
    assert_eq!(rig.login().one("SELECT 1"), "1");
    assert_eq!(client.one("SELECT 2"), "2");
    rig.assert_sound();
}

/// Short messages that each call for a long statement: a Bind for every one of many statements of
/// which the server may hold few.
#[test]
fn t49_short_messages_do_not_call_for_gigabytes_at_once() {
    let rig = Rig::with(|b| b.set("pool_size = 1\nmax_prepared_statements = 2"));
    let mut client = rig.login();
    let filler = "x".repeat(100_000);
    for n in 0..3 {
        client.send(&[
            parse(&format!("s{n}"), &format!("SELECT {n} /*{filler}*/")),
            sync(),
        ]);
        client.expect("1 Z(I)");
    }
    rig.pooler.forget_peak();
    let before = rig.pooler.peak_rss_kb();
    let rounds = 600;
    let mut batch = Vec::new();
    for round in 0..rounds {
        batch.push(bind("", &format!("s{}", round % 3), &[]));
        batch.push(execute(""));
    }
    batch.push(sync());
    client.send(&batch);
    for round in 0..rounds {
        client.expect(&format!("2 D({}) C(SELECT 1)", round % 3));
    }
    client.expect("Z(I)");
    let grown = rig.pooler.peak_rss_kb().saturating_sub(before);
    assert!(
        grown < 24 * 1024,
        "{grown} kB for {} kB of messages",
        batch.concat().len() / 1024
    );
    rig.assert_sound();
}

/// Drivers that prepare with other sessions' transactions open, and wait for it, must not wait for
/// themselves: what a server of the pool has accepted needs no server to be accepted once more.
#[test]
fn a_known_statement_is_prepared_while_every_server_is_taken() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut first = rig.login();
    first.send(&[parse("a", "SELECT 41 + 1"), sync()]);
    first.expect("1 Z(I)");
    for _ in 0..2 {
        first.send(&[bind("", "a", &[]), execute(""), sync()]);
        first.expect("2 D(42) C(SELECT 1) Z(I)");
    }
    first.send(&[query("BEGIN")]);
    first.expect("C(BEGIN) Z(T)");

    let mut second = rig.login();
    second.send(&[parse("b", "SELECT 41 + 1"), sync()]);
    second.expect("1 Z(I)");
    // The name is taken now, and only a server can say so as PostgreSQL would; so it waits.
    second.send(&[parse("b", "SELECT 41 + 1"), sync()]);
    first.send(&[query("COMMIT")]);
    first.expect("C(COMMIT) Z(I)");
    second.expect("E(42P05) Z(I)");
    second.send(&[bind("", "b", &[]), execute(""), sync()]);
    second.expect("2 D(42) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

/// What a client sends waits for what goes in front of it; when that was answered the server went to the next in the queue,
/// whose settings are others, and so on for ever. PDO does this: it prepares by protocol and deallocates by SQL.
#[test]
fn t25_deallocate_takes_its_turn_among_clients_of_other_settings() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    std::thread::scope(|scope| {
        for session in 0..6 {
            let rig = &rig;
            scope.spawn(move || {
                let mut wire = rig.login();
                wire.rows(&format!("SET app.me = 's{session}'"));
                for turn in 0..30 {
                    let sql = format!("SELECT current_setting('app.me'), {turn}");
                    wire.send(&[
                        parse("mine", &sql),
                        bind("", "mine", &[]),
                        execute(""),
                        sync(),
                    ]);
                    wire.expect(&format!("1 2 D(s{session}|{turn}) C(SELECT 1) Z(I)"));
                    wire.send(&[query("DEALLOCATE mine")]);
                    wire.expect("C(DEALLOCATE) Z(I)");
                }
            });
        }
    });
    rig.assert_sound();
}

/// What is prepared by protocol is deallocated by SQL without a server; everything else that looks like it has to queue.
#[test]
fn t25_deallocate_by_name_needs_no_server() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let (mut holder, mut wire) = (rig.login(), rig.login());
    for name in ["first", "Second", "third"] {
        wire.send(&[parse(name, "SELECT 7"), sync()]);
        wire.expect("1 Z(I)");
    }
    holder.rows("BEGIN");
    wire.send(&[
        query("DEALLOCATE PREPARE First"),
        query("/* x */ deallocate \"Second\";"),
    ]);
    wire.expect("C(DEALLOCATE) Z(I) C(DEALLOCATE) Z(I)");
    wire.send(&[query("DEALLOCATE first")]);
    wire.expect_silence(std::time::Duration::from_millis(100));
    holder.rows("COMMIT");
    wire.expect("E(26000) Z(I)");
    wire.send(&[query("DEALLOCATE third; SELECT 1")]);
    assert_eq!(wire.recv_to_ready().last().map(|m| m.tag), Some(b'Z'));
    wire.send(&[bind("", "Second", &[]), sync()]);
    wire.expect("E(26000) Z(I)");
    rig.assert_sound();
}
