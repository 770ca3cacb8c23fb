//! What a session changes: rows B26 to B28 and trap 7.

use std::time::Duration;

use pooler::demo::postgres::Postgres;

use crate::support::{
    Opening, Pooler, Rig, SERVERS, ScriptedServer, ServerWire, Wire, bind, execute, parse, query,
    sync, wait_until,
};

/// What may be left on a server, and the question that finds it.
const LEFT_BEHIND: [(&str, &str); 8] = [
    ("SET statement_timeout = '77s'", "SHOW statement_timeout"),
    ("SET search_path = evil", "SHOW search_path"),
    ("SET ROLE pg_monitor", "SELECT current_user"),
    (
        "PREPARE p AS SELECT 1",
        "SELECT count(*) FROM pg_prepared_statements WHERE name = 'p'",
    ),
    (
        "LISTEN evil",
        "SELECT count(*) FROM pg_listening_channels()",
    ),
    (
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) FROM pg_cursors",
    ),
    (
        "CREATE TEMP TABLE left_behind (a int)",
        "SELECT count(*) FROM pg_class WHERE relname = 'left_behind'",
    ),
    (
        "SELECT pg_advisory_lock(1)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
    ),
];

fn assert_nothing_left(rig: &Rig, cases: &[(&str, &str)]) {
    for (command, question) in cases {
        let clean = rig.direct().one(question);
        for extended in [false, true] {
            let mut wire = rig.login();
            if extended {
                wire.send(&[parse("", command), bind("", "", &[]), execute(""), sync()]);
            } else {
                wire.send(&[query(command)]);
            }
            let got = wire.recv_to_ready();
            assert!(got.iter().any(|m| m.tag == b'C'), "{command}: {got:?}");
            wire.leave();
            let mut other = rig.login();
            assert_eq!(other.one(question), clean, "{command}");
            other.leave();
        }
    }
}

#[test]
fn b26_t29_a_session_pool_is_reset_between_clients() {
    let rig = Rig::with(|b| b.set("pool_size = 1").set("pool_mode = \"session\""));
    assert_nothing_left(&rig, &LEFT_BEHIND);
    rig.assert_sound();
}

#[test]
fn b26_t29_what_commands_leave_behind_reaches_nobody_else() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    assert_nothing_left(&rig, &LEFT_BEHIND[..6]);
    rig.assert_sound();
}

#[test]
fn b27_b28_a_reported_setting_follows_its_client_over_all_servers() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let mut a = rig.login_with(&[("application_name", "of a"), ("TimeZone", "Asia/Tokyo")]);
    let mut b = rig.login_with(&[("application_name", "of b"), ("DateStyle", "German")]);
    assert_eq!(a.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(b.parameters["DateStyle"], "German, DMY");
    a.send(&[query("SET TimeZone = 'Europe/Paris'")]);
    let got = a.recv_to_ready();
    assert!(
        got.iter().any(|m| m.is("S(TimeZone=Europe/Paris)")),
        "{got:?}"
    );
    b.send(&[query("SET application_name = 'renamed'")]);
    let got = b.recv_to_ready();
    assert!(
        got.iter().any(|m| m.is("S(application_name=renamed)")),
        "{got:?}"
    );
    let home = rig.direct().one("SHOW TimeZone");
    let style = rig.direct().one("SHOW DateStyle");
    let mut plain = rig.login();
    let mut holder = rig.login();
    for round in 0..6 {
        // Another server each time.
        if round % 2 == 0 {
            holder.rows("BEGIN");
        } else {
            holder.rows("COMMIT");
        }
        assert_eq!(a.one("SHOW TimeZone"), "Europe/Paris");
        assert_eq!(a.one("SHOW application_name"), "of a");
        assert_eq!(b.one("SHOW application_name"), "renamed");
        assert_eq!(b.one("SHOW DateStyle"), "German, DMY");
        assert_eq!(plain.one("SHOW TimeZone"), home);
        assert_eq!(plain.one("SHOW DateStyle"), style);
        assert_eq!(plain.one("SHOW application_name"), "");
    }
    // In the extended protocol the settings go in front, too, and nothing of it is seen.
    for wire in [&mut a, &mut b, &mut plain] {
        wire.send(&[
            parse("", "SELECT 1"),
            bind("", "", &[]),
            execute(""),
            sync(),
        ]);
        wire.expect("1 2 D(1) C(SELECT 1) Z(I)");
    }
    rig.assert_sound();
}

#[test]
fn t31_a_setting_that_is_rolled_back_is_not_kept() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    let mut other = rig.login();
    let home = wire.one("SHOW TimeZone");
    wire.rows("BEGIN; SET TimeZone = 'Asia/Tokyo'");
    wire.rows("ROLLBACK");
    assert_eq!(other.one("SHOW TimeZone"), home);
    assert_eq!(wire.one("SHOW TimeZone"), home);
    wire.rows("BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'");
    wire.rows("COMMIT");
    assert_eq!(other.one("SHOW TimeZone"), home);
    assert_eq!(wire.one("SHOW TimeZone"), home);
    wire.rows("BEGIN; SET TimeZone = 'Asia/Tokyo'; SAVEPOINT s; SET TimeZone = 'Europe/Paris'");
    wire.rows("ROLLBACK TO s; COMMIT");
    assert_eq!(other.one("SHOW TimeZone"), home);
    assert_eq!(wire.one("SHOW TimeZone"), "Asia/Tokyo");
    rig.assert_sound();
}

#[test]
fn t07_notices_and_notifications_reach_who_is_in_a_transaction() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    wire.send(&[query(
        "DO $$ BEGIN RAISE NOTICE 'hello'; RAISE WARNING 'world'; END $$",
    )]);
    let got = wire.expect("N(00000) N(01000) C(DO) Z(I)");
    assert_eq!(
        (got[0].text(), got[1].text()),
        ("hello".to_owned(), "world".to_owned())
    );
    wire.send(&[query("BEGIN; LISTEN c; NOTIFY c, 'self'; COMMIT")]);
    wire.expect("C(BEGIN) C(LISTEN) C(NOTIFY) C(COMMIT) A(c|self) Z(I)");
    // When it leaves, its server listens no longer: what is notified then disturbs no client.
    drop(wire);
    let mut other = rig.login();
    assert_eq!(other.one("SELECT 1"), "1");
    rig.sql("NOTIFY c, 'nobody'");
    assert_eq!(other.one("SELECT 2"), "2");
    rig.assert_sound();
}

/// A reload of PostgreSQL makes it send ParameterStatus to idle sessions, a client's or the pool's.
#[test]
fn t07_parameter_status_may_come_at_any_time() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let mut idle = rig.login();
    assert_eq!(idle.one("SELECT 1"), "1");
    let mut open = rig.login();
    open.rows("BEGIN");
    rig.sql(&format!(
        "ALTER DATABASE {} SET TimeZone = 'Asia/Tokyo'",
        rig.database
    ));
    assert_eq!(open.one("SELECT 2"), "2");
    open.rows("COMMIT");
    assert_eq!(idle.one("SELECT 3"), "3");
    rig.assert_sound();
}

/// A backend that ends while it idles is replaced, and no client sees it (rows C01, C02).
#[test]
fn c01_c02_a_backend_is_terminated() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    let kill = &format!("SELECT count(pg_terminate_backend(pid)) {SERVERS}");
    for _ in 0..3 {
        assert_eq!(wire.one("SELECT 1"), "1");
        rig.direct().one(kill);
        rig.wait_sql(&format!("NOT EXISTS (SELECT {SERVERS})"));
    }
    wire.send(&[query("SELECT pg_sleep(100)")]);
    rig.wait_sql("count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)' AND state = 'active' AND datname = current_database()");
    rig.direct().one(kill);
    let got = wire.recv_to_end();
    assert!(got.iter().any(|m| m.is("E(57P01)")), "{got:?}");
    let mut wire: Wire = rig.login();
    wire.rows("BEGIN");
    rig.direct().one(kill);
    wait_until("the client hears of it", || {
        wire.set_patience(Duration::from_millis(100));
        !matches!(wire.poll(), crate::support::Received::Silence)
    });
    rig.assert_sound();
}

/// Two clients with different settings take turns on one server. It answers nothing that sets them before it has the
/// client's own statement: a pooler that waited for that answer would wait for ever.
#[test]
fn t30_settings_go_in_front_of_the_statement_and_cost_no_round_trip() {
    let server = ScriptedServer::start(|mut wire: ServerWire| {
        let Opening::Startup(_) = wire.read_opening() else {
            return;
        };
        wire.send(&ServerWire::login_reply(7));
        let mut kept = Vec::new();
        while let Some(message) = wire.recv() {
            let sets = message.argument().contains("set_config");
            if message.tag == b'Q' {
                kept.extend(ServerWire::row_reply("x"));
            }
            if message.tag == b'Q' && !sets {
                wire.send(&std::mem::take(&mut kept));
            }
        }
    });
    let pooler = Pooler::builder()
        .host(server.port())
        .set("pool_size = 1")
        .set("inspect_functions = false")
        .start();
    let login = |name| {
        let parameters = [("user", "u"), ("database", "d"), ("application_name", name)];
        Wire::login_with(pooler.port(), &parameters, "")
    };
    let (mut a, mut b) = (login("a"), login("b"));
    for _ in 0..10 {
        assert_eq!(a.one("SELECT 'a'"), "x");
        assert_eq!(a.one("SELECT 'a again'"), "x");
        assert_eq!(b.one("SELECT 'b'"), "x");
    }
    let received = server.received();
    let count = |part: &str| received.iter().filter(|l| l.contains(part)).count();
    assert_eq!(count("SELECT 'a"), 20);
    assert_eq!(count("SELECT 'b"), 10);
    // Once each time that the client is another one.
    assert_eq!(count("set_config"), 20, "{received:?}");
    assert_eq!(count("Q("), 50, "{received:?}");
}

/// However two clients spell a value, the server shows one: between them nothing is set.
#[test]
fn t30_values_that_are_equal_to_the_server_are_not_set_again() {
    let postgres = Postgres::builder()
        .setting("log_statement", "all")
        .start()
        .expect("PostgreSQL");
    let pooler = Pooler::before(&postgres).set("pool_size = 1").start();
    let mut clients = [(); 2].map(|()| pooler.login("postgres", "postgres"));
    let spellings = [
        [
            "set datestyle to 'german, ymd'",
            "SET DateStyle = German,YMD",
        ],
        ["SET work_mem TO 8192", "SET work_mem = '8MB'"],
        [
            "SET search_path = a,b , \"C\"",
            "SET search_path TO a, b, 'C'",
        ],
        [
            "SET statement_timeout TO 60000",
            "SET statement_timeout = '1min'",
        ],
        ["SELECT set_config('app.me', 'x', false)", "SET app.me = x"],
    ];
    for both in spellings {
        for (wire, spelling) in clients.iter_mut().zip(both) {
            wire.rows(spelling);
        }
    }
    assert_eq!(clients[0].one("SELECT 'from here on'"), "from here on");
    for turn in 0..10 {
        assert_eq!(clients[turn % 2].one("SHOW work_mem"), "8MB");
    }
    let log = postgres.log();
    let (_, log) = log.split_once("'from here on'").expect("it is logged");
    assert_eq!(log.matches("SHOW work_mem").count(), 10);
    assert!(!log.contains("set_config"), "{log}");
}

/// A dump sets `search_path` and reads for a while; nobody else sees that.
#[test]
fn t29_pg_dump_changes_nobodys_search_path() {
    let rig = Rig::with(|b| b.set("pool_size = 3"));
    rig.sql("CREATE TABLE t AS SELECT g AS i, repeat('x', 500) AS pad FROM generate_series(1, 20000) AS g");
    let program = pooler::demo::find_program("pg_dump").expect("pg_dump");
    let dump = || {
        let mut command = std::process::Command::new(&program);
        let port = rig.pooler.port().to_string();
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            &rig.database,
        ]);
        command.output().expect("pg_dump")
    };
    std::thread::scope(|scope| {
        let dumping = scope.spawn(|| (dump(), dump()));
        let mut sessions: Vec<Wire> = (0..100).map(|_| rig.login()).collect();
        while !dumping.is_finished() {
            for wire in &mut sessions {
                assert_eq!(wire.one("SHOW search_path"), "\"$user\", public");
            }
        }
        let (first, second) = dumping.join().expect("it does not panic");
        for out in [first, second] {
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            assert!(out.stdout.len() > 20_000 * 500);
        }
        for wire in &mut sessions {
            assert_eq!(wire.one("SHOW search_path"), "\"$user\", public");
        }
    });
    rig.assert_sound();
}
