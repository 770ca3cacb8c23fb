//! SUSPEND: what is unsent leaves, nothing is read, nobody loses a server; it always ends.

use std::time::{Duration, Instant};

use crate::support::{Builder, Received, Rig, Wire, query, wait_until};
use crate::{begin_login, console, error, rig, rig_with, table};

fn is_suspended(console: &mut Wire) -> bool {
    table(console, "SHOW STATE")[2]["value"] == "yes"
}

/// A client that takes in nothing of a long answer, until there is something that cannot be sent.
fn deaf(rig: &Rig, watch: &mut Wire) -> Wire {
    deaf_with(rig, watch, ("client_encoding", "UTF8"))
}

/// One that logs in with this parameter, too.
fn deaf_with(rig: &Rig, watch: &mut Wire, more: (&str, &str)) -> Wire {
    let mut deaf = rig.login_with(&[("application_name", "deaf"), more]);
    deaf.shrink_receive_buffer();
    deaf.send(&[query(
        "SELECT repeat('x', 1000) FROM generate_series(1, 100000)",
    )]);
    wait_until("its answer is stuck", || {
        let sockets = table(watch, "SHOW SOCKETS").into_iter();
        let mut its = sockets.filter(|s| s["application_name"] == "deaf" && s["type"] == "C");
        its.any(|s| s["send_avail"] != "0")
    });
    deaf
}

#[test]
fn t76_suspend_lets_everything_stand_still_and_resume_lets_it_go_on() {
    let rig = rig();
    let mut console = console(&rig);
    let (mut busy, mut idle) = (rig.login(), rig.login());
    busy.rows("BEGIN");
    let pid = busy.one("SELECT pg_backend_pid()");
    idle.one("SELECT 1");
    busy.send(&[query("SELECT pg_sleep(2), 'late'")]);
    let its_query = format!("(SELECT query FROM pg_stat_activity WHERE pid = {pid})");
    rig.wait_sql(&format!("{its_query} LIKE '%late%'"));
    console.rows("SUSPEND 5s");
    assert!(is_suspended(&mut console));
    // PostgreSQL has its answer ready, and it stays there; what others ask does not even reach it.
    rig.wait_sql(&format!(
        "(SELECT state = 'idle in transaction' FROM pg_stat_activity WHERE pid = {pid})"
    ));
    idle.send(&[query("SELECT 'early'")]);
    let mut new = begin_login(&rig, &[]);
    busy.expect_silence(Duration::from_millis(300));
    idle.expect_silence(Duration::from_millis(100));
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT ''early'''";
    assert_eq!(rig.sql(asked), "0");
    // Operators can be told, and can get in.
    assert_eq!(table(&mut console, "SHOW CLIENTS").len(), 3);
    for sql in ["SUSPEND", "PAUSE", "KILL"] {
        assert_eq!(error(&mut console, sql), "55000", "{sql}");
    }
    crate::console(&rig).rows("RESUME");
    busy.expect("T D(|late) C(SELECT 1) Z(T)");
    idle.expect("T D(early) C(SELECT 1) Z(I)");
    new.finish_login("postgres", "").unwrap();
    assert_eq!(new.one("SELECT 2"), "2");
    assert_eq!(busy.one("SELECT pg_backend_pid()"), pid);
    busy.rows("COMMIT");
    assert!(!is_suspended(&mut console));
    rig.assert_sound();
}

#[test]
fn t76_a_suspend_that_takes_too_long_is_undone_and_names_who_takes_nothing_in() {
    let rig = rig();
    let (mut operator, mut watch) = (console(&rig), console(&rig));
    let mut deaf = deaf(&rig, &mut watch);
    let began = Instant::now();
    let failed = operator
        .try_rows("SUSPEND 400ms")
        .expect_err("a deaf client");
    assert_eq!(failed.sqlstate(), "57014");
    let detail = failed.field(b'D');
    assert!(
        detail.contains("\"deaf\"") && detail.contains("has not taken"),
        "{detail}"
    );
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert!(!is_suspended(&mut watch));
    assert_eq!(rig.login().one("SELECT 1"), "1");
    // Its own answer is whole.
    let got = deaf.recv_to_ready();
    assert_eq!(got.iter().filter(|m| m.tag == b'D').count(), 100_000);
}

#[test]
fn t76_a_suspend_ends_with_whoever_asked_for_it_unless_it_was_reached() {
    let rig = rig();
    let mut watch = console(&rig);
    let _deaf = deaf(&rig, &mut watch);
    let mut operator = console(&rig);
    operator.send(&[query("SUSPEND")]);
    wait_until("it is suspended", || is_suspended(&mut watch));
    operator.reset();
    wait_until("it goes on", || !is_suspended(&mut watch));
    assert_eq!(rig.login().one("SELECT 1"), "1");
}

/// Who resumes need not wait until what was asked for can be reached, and whoever asked for it hears of that.
#[test]
fn t76_a_suspend_that_somebody_resumes_ends_at_once() {
    let rig = rig();
    let mut watch = console(&rig);
    let _deaf = deaf(&rig, &mut watch);
    let mut operator = console(&rig);
    operator.send(&[query("SUSPEND")]);
    wait_until("it is suspended", || is_suspended(&mut watch));
    operator.expect_silence(Duration::from_millis(300));
    watch.rows("RESUME");
    operator.expect("E(55000) Z(I)");
    assert_eq!(rig.login().one("SELECT 1"), "1");
}

/// A pause that is given up opens what it has closed, not what somebody else has closed since.
#[test]
fn t76_what_is_given_up_does_not_undo_what_others_have_asked_for_since() {
    let rig = rig();
    let (mut first, mut second) = (console(&rig), console(&rig));
    let mut busy = rig.login();
    busy.rows("BEGIN");
    first.send(&[query("PAUSE 2s")]);
    let opened = [error(&mut second, "PAUSE"), error(&mut second, "SUSPEND")];
    assert_eq!(opened, ["55000", "55000"]);
    second.rows("RESUME");
    second.rows("SUSPEND 5s");
    first.expect("E(57014) Z(I)");
    assert!(is_suspended(&mut second));
    busy.send(&[query("SELECT 1")]);
    busy.expect_silence(Duration::from_millis(300));
    second.rows("RESUME");
    busy.expect("T D(1) C(SELECT 1) Z(T)");
    busy.rows("COMMIT");
    rig.assert_sound();
}

/// It lasts longer than every timeout here. Each of these clients would be ended by another of them if that time counted,
/// meanwhile or as soon as everything goes on.
#[test]
fn a_suspend_costs_nobody_a_session() {
    let rig = rig_with(|b| {
        let timeouts = [
            "client_idle",
            "idle_transaction",
            "transaction",
            "query",
            "query_wait",
        ];
        let set = |b: Builder, name| b.set(&format!("{name}_timeout = \"5s\""));
        timeouts.into_iter().fold(b.set("pool_size = 2"), set)
    });
    let mut console = console(&rig);
    let (mut idle, mut block, mut busy) = (rig.login(), rig.login(), rig.login());
    let mut waiter = rig.login_with(&[("application_name", "waiter")]);
    idle.one("SELECT 1");
    block.rows("BEGIN");
    // It ends while nobody reads the answer.
    busy.send(&[query("SELECT pg_sleep(3), 'late'")]);
    wait_until("both servers are taken", || {
        table(&mut console, "SHOW POOLS")
            .iter()
            .any(|pool| pool["sv_active"] == "2")
    });
    waiter.send(&[query("SELECT 'at last'")]);
    wait_until("it waits", || !table(&mut console, "SHOW QUEUE").is_empty());
    console.rows("SUSPEND 5s");
    block.expect_silence(Duration::from_millis(6000));
    console.rows("RESUME");
    busy.expect("T D(|late) C(SELECT 1) Z(I)");
    waiter.expect("T D(at last) C(SELECT 1) Z(I)");
    assert_eq!(block.one("SELECT 'still there'"), "still there");
    block.rows("COMMIT");
    assert_eq!(idle.one("SELECT 2"), "2");
    rig.assert_sound();
}

/// And what is left of a timeout is left afterwards.
#[test]
fn timeouts_go_on_after_a_suspend() {
    let rig = rig_with(|b| b.set("idle_transaction_timeout = \"1s\""));
    let mut console = console(&rig);
    let mut block = rig.login();
    block.rows("BEGIN");
    console.rows("SUSPEND 5s");
    block.expect_silence(Duration::from_millis(1500));
    console.rows("RESUME");
    block.expect("E(25P03) .");
}

/// Who logs in meanwhile waits no longer than a login may take.
#[test]
fn a_login_does_not_wait_for_ever() {
    let rig = rig_with(|b| b.set("client_login_timeout = \"1s\""));
    let mut console = console(&rig);
    console.rows("SUSPEND 5s");
    let got = begin_login(&rig, &[]).recv_to_end();
    assert_eq!(got.last().unwrap().sqlstate(), "57P03", "{got:?}");
    console.rows("RESUME");
    assert_eq!(rig.login().one("SELECT 1"), "1");
}

/// Who waits to be let in has a place, and gives it back by leaving.
#[test]
fn a_login_that_is_given_up_takes_no_place() {
    let rig = rig_with(|b| b.set("max_client_conn = 1"));
    let mut console = console(&rig);
    console.rows("SUSPEND 5s");
    // It waits, or there is no place for it.
    let begin = || {
        let mut new = begin_login(&rig, &[]);
        new.set_patience(Duration::from_secs(1));
        matches!(new.poll(), Received::Silence).then_some(new)
    };
    let first = begin().expect("the only place");
    begin_login(&rig, &[]).expect("E(53300) .");
    first.reset();
    let mut second = None;
    wait_until("it has given its place back", || {
        second = begin();
        second.is_some()
    });
    console.rows("RESUME");
    let mut second = second.unwrap();
    second.set_patience(Duration::from_secs(20));
    second.finish_login("postgres", "").unwrap();
    assert_eq!(second.one("SELECT 1"), "1");
}

/// What a replication connection has not passed on is unsent, too, and none of it is lost.
#[test]
fn a_suspend_waits_for_replication_connections() {
    let rig = rig();
    let mut console = console(&rig);
    let mut deaf = deaf_with(&rig, &mut console, ("replication", "database"));
    let failed = console.try_rows("SUSPEND 1s").expect_err("a deaf client");
    let detail = failed.field(b'D');
    assert!(
        detail.contains("\"deaf\"") && detail.contains("has not taken"),
        "{detail}"
    );
    let got = deaf.recv_to_ready();
    assert_eq!(got.iter().filter(|m| m.tag == b'D').count(), 100_000);
    // It stands still, and goes on.
    console.rows("SUSPEND 5s");
    deaf.send(&[query("SELECT 'late'")]);
    deaf.expect_silence(Duration::from_millis(300));
    console.rows("RESUME");
    deaf.expect("T D(late) C(SELECT 1) Z(I)");
    deaf.leave();
    rig.assert_sound();
}

/// Transactions have to end before the pooler can: there is no standing still any more.
#[test]
fn t75_nothing_is_suspended_while_the_pooler_drains() {
    let rig = rig();
    let mut console = console(&rig);
    let mut busy = rig.login();
    busy.rows("BEGIN");
    rig.pooler.signal("TERM");
    wait_until("it drains", || {
        rig.pooler.log().contains("received a signal")
    });
    assert_eq!(error(&mut console, "SUSPEND 5s"), "55000");
    assert_eq!(busy.one("SELECT 1"), "1");
    busy.rows("COMMIT");
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
}

#[test]
fn a_database_that_is_paused_is_not_suspended_as_well() {
    let rig = rig();
    let mut console = console(&rig);
    console.rows(&format!("PAUSE {}", rig.database));
    assert_eq!(error(&mut console, "SUSPEND"), "55000");
    console.rows("RESUME");
}

#[test]
fn kill_client_reaches_a_session_that_stands_still() {
    let rig = rig();
    let mut console = console(&rig);
    let mut busy = rig.login_with(&[("application_name", "victim")]);
    busy.rows("BEGIN");
    console.rows("SUSPEND 5s");
    let clients = table(&mut console, "SHOW CLIENTS");
    let victim = clients.iter().find(|c| c["application_name"] == "victim");
    console.rows(&format!("KILL_CLIENT {}", victim.unwrap()["id"]));
    busy.expect("E(57P01) .");
    console.rows("RESUME");
    rig.assert_sound();
}

#[test]
fn t75_a_suspend_does_not_keep_the_pooler_from_ending() {
    for signal in ["TERM", "INT"] {
        let rig = rig();
        let mut console = console(&rig);
        let mut idle = rig.login();
        idle.one("SELECT 1");
        console.rows("SUSPEND 5s");
        rig.pooler.signal(signal);
        idle.expect("E(57P01) .");
        assert_eq!(rig.pooler.wait_exit().code(), Some(0), "{signal}");
    }
}
