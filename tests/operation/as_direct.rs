//! Pools by session, where a server has served before: the next client must not be able to tell it from one of its own.

use std::cell::RefCell;
use std::time::Duration;

use pooler::demo::postgres::Postgres;

use crate::support::{Message, Pooler, Rig, SERVERS, Wire, startup, wait_until};

fn rig(size: u32) -> Rig {
    Rig::with(|b| {
        b.set("pool_mode = \"session\"")
            .set(&format!("pool_size = {size}"))
    })
}

fn pid(wire: &mut Wire) -> String {
    wire.one("SELECT pg_backend_pid()")
}

/// Waits until the server of that process is clean and idle.
fn wait_clean(rig: &Rig, pid: &str) {
    rig.wait_sql(&format!(
        "count(*) = 1 FROM pg_stat_activity WHERE pid = {pid} AND query = 'DISCARD ALL' AND state = 'idle'"
    ));
}

/// The notices between the startup packet and ReadyForQuery.
fn notices_at_login(port: u16, user: &str, database: &str) -> Vec<Message> {
    let mut wire = Wire::connect(port);
    wire.send(&[startup(&[("user", user), ("database", database)])]);
    let got = wire.recv_to_ready();
    let says = |tag| got.iter().position(|m| m.tag == tag);
    assert!(says(b'N') < says(b'S'), "{got:?}");
    wire.leave();
    got.into_iter().filter(|m| m.tag == b'N').collect()
}

/// A server that PostgreSQL warned of at its login: the warning went to the log alone, and the client never saw it.
#[test]
fn t07_a_notice_at_login_arrives_word_for_word() {
    let rig = rig(2);
    let role = format!("role_{}", rig.database);
    rig.sql(&format!("CREATE ROLE {role} LOGIN"));
    rig.sql(&format!(
        "ALTER ROLE {role} SET default_tablespace = 'nowhere'"
    ));
    let direct = notices_at_login(crate::support::postgres().port(), &role, &rig.database);
    assert_eq!(direct.len(), 1, "{direct:?}");
    // By a server that was just opened, and by one that served before.
    for _ in 0..3 {
        let ours = notices_at_login(rig.pooler.port(), &role, &rig.database);
        assert_eq!(ours, direct);
    }
    rig.assert_sound();
    rig.sql(&format!("DROP ROLE {role}"));
}

/// What an administrator changes between two logins holds from the second on: the server was kept, with what it was born with.
#[test]
fn what_was_changed_for_a_role_or_a_database_holds_from_the_next_login_on() {
    let rig = rig(2);
    let database = &rig.database;
    let role = format!("role_{database}");
    rig.sql(&format!("CREATE ROLE {role} LOGIN"));
    for (change, ask, expected) in [
        (
            "ALTER ROLE {role} SET work_mem = '5MB'",
            "SHOW work_mem",
            "5MB",
        ),
        (
            "ALTER ROLE {role} SET work_mem = '6MB'",
            "SHOW work_mem",
            "6MB",
        ),
        (
            "ALTER ROLE {role} IN DATABASE {database} SET work_mem = '7MB'",
            "SHOW work_mem",
            "7MB",
        ),
        ("ALTER ROLE {role} RESET ALL", "SHOW work_mem", "7MB"),
        (
            "ALTER ROLE {role} IN DATABASE {database} RESET ALL",
            "SHOW work_mem",
            "4MB",
        ),
        (
            "ALTER DATABASE {database} SET TimeZone = 'PST8PDT'",
            "SHOW TimeZone",
            "PST8PDT",
        ),
        ("ALTER ROLE {role} SUPERUSER", "SHOW is_superuser", "on"),
        ("ALTER ROLE {role} NOSUPERUSER", "SHOW is_superuser", "off"),
    ] {
        let change = change
            .replace("{role}", &role)
            .replace("{database}", database);
        let mut wire = rig.pooler.login(&role, database);
        let was = pid(&mut wire);
        wire.leave();
        wait_clean(&rig, &was);
        rig.sql(&change);
        let mut wire = rig.pooler.login(&role, database);
        assert_eq!(wire.one(ask), expected, "{change}");
        let now = pid(&mut wire);
        assert_ne!(now, was, "{change}");
        wire.leave();
        wait_clean(&rig, &now);
        // And as long as nothing changes, it is the same server.
        let mut wire = rig.pooler.login(&role, database);
        assert_eq!(pid(&mut wire), now);
        wire.leave();
        wait_clean(&rig, &now);
    }
    rig.sql(&format!("DROP ROLE {role}"));
    rig.assert_sound();
}

/// It does so for a server that nobody has had yet, too: it was opened before.
#[test]
fn what_was_changed_since_a_server_was_opened_holds_from_the_first_login_on() {
    let rig = Rig::with(|b| {
        b.set("pool_mode = \"session\"")
            .set("pool_size = 2")
            .set("min_pool_size = 1")
    });
    let was = pid(&mut rig.login());
    rig.sql(&format!("SELECT pg_terminate_backend({was})"));
    let opened =
        format!("{SERVERS} AND pid <> {was} AND state = 'idle' AND query ~ 'session_user'");
    rig.wait_sql(&format!("EXISTS (SELECT {opened})"));
    let database = &rig.database;
    rig.sql(&format!("ALTER DATABASE {database} SET work_mem = '5MB'"));
    assert_eq!(rig.login().one("SHOW work_mem"), "5MB");
    rig.assert_sound();
}

/// Who must not log in any more is told so by PostgreSQL, although a server of his still idles.
#[test]
fn who_must_not_log_in_any_more_gets_no_server() {
    let rig = rig(2);
    let database = &rig.database;
    let role = format!("role_{database}");
    rig.sql(&format!("CREATE ROLE {role} LOGIN"));
    rig.sql(&format!(
        "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"
    ));
    let asked = [("user", &*role), ("database", &**database)];
    let says = |port| Wire::try_login(port, &asked, "").err();
    for (allow, forbid) in [
        (
            format!("GRANT CONNECT ON DATABASE {database} TO {role}"),
            format!("REVOKE CONNECT ON DATABASE {database} FROM {role}"),
        ),
        (
            format!("GRANT CONNECT ON DATABASE {database} TO {role}"),
            format!("ALTER ROLE {role} NOLOGIN"),
        ),
    ] {
        rig.sql(&allow);
        // The last refusal stands for a moment.
        std::thread::sleep(Duration::from_millis(300));
        let mut wire = rig.pooler.login(&role, database);
        let was = pid(&mut wire);
        wire.leave();
        wait_clean(&rig, &was);
        rig.sql(&forbid);
        let theirs = says(crate::support::postgres().port()).expect("a refusal");
        let ours = says(rig.pooler.port()).expect("a refusal");
        assert_eq!(
            (ours.sqlstate(), ours.text()),
            (theirs.sqlstate(), theirs.text()),
            "{forbid}"
        );
    }
    rig.sql(&format!(
        "REVOKE ALL ON DATABASE {database} FROM {role}; DROP ROLE {role}"
    ));
}

/// Errors that stand until something is changed by hand come at once. They were taken for passing ones: the client waited for
/// query_wait_timeout while the pooler logged in again and again.
#[test]
fn every_refusal_at_login_comes_at_once() {
    let rig = rig(2);
    for (name, value) in [
        // 0A000: nothing converts to it from UTF8.
        ("client_encoding", "MULE_INTERNAL"),
        // 58P01: a library that is not there.
        ("options", "-c session_preload_libraries=no_such_library"),
        // 22023, for comparison.
        ("TimeZone", "Nowhere"),
    ] {
        let asked = [
            ("user", "postgres"),
            ("database", &*rig.database),
            (name, value),
        ];
        let took = rig.assert_refused_as_directly(&asked);
        assert!(took < Duration::from_secs(2), "{name}={value}");
    }
    // 55000: a database that takes nobody.
    let closed = format!("{}_closed", rig.database);
    rig.sql(&format!("CREATE DATABASE {closed} ALLOW_CONNECTIONS false"));
    let asked = [("user", "postgres"), ("database", &*closed)];
    let _took = rig.assert_refused_as_directly(&asked);
    rig.sql(&format!("DROP DATABASE {closed}"));
    rig.assert_sound();
}

/// What the server reported while a client had it is true for the next one too: the pooler went on telling what the server
/// had said at its own login.
#[test]
fn t35_what_changed_while_a_client_had_the_server_is_told_to_the_next() {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    let pooler = Pooler::before(&postgres)
        .set("pool_mode = \"session\"")
        .set("pool_size = 1")
        .start();
    let mut first = pooler.login("postgres", "postgres");
    let was = pid(&mut first);
    first.rows("SET DateStyle = 'German'");
    for sql in [
        "ALTER SYSTEM SET TimeZone = 'PST8PDT'",
        "ALTER SYSTEM SET IntervalStyle = 'iso_8601'",
        "SELECT pg_reload_conf()",
    ] {
        postgres.psql(sql).expect("SQL that works");
    }
    crate::support::wait_until("the reload", || first.one("SHOW TimeZone") == "PST8PDT");
    first.leave();
    let mut second = pooler.login("postgres", "postgres");
    assert_eq!(pid(&mut second), was);
    for name in ["TimeZone", "IntervalStyle", "DateStyle"] {
        let shown = second.one(&format!("SHOW {name}"));
        assert_eq!(second.parameters[name], shown, "{name}");
    }
    second.leave();
}

/// A client that waits with parameters of its own is not passed by those who came later and have others: the server that
/// became free served their kind for ever.
#[test]
fn t38_nobody_is_passed_by_clients_of_other_parameters() {
    let rig = Rig::with(|b| {
        b.set("pool_mode = \"session\"")
            .set("pool_size = 1")
            .set("admin_users = [\"postgres\"]")
    });
    let operator = RefCell::new(rig.pooler.login("postgres", "pooler"));
    let waiting = || operator.borrow_mut().rows("SHOW QUEUE").len();
    let ask = |name: &str| {
        let before = waiting();
        let mut wire = Wire::connect(rig.pooler.port());
        let database = ("database", &*rig.database);
        wire.send(&[startup(&[
            ("user", "postgres"),
            database,
            ("application_name", name),
        ])]);
        // Before the next one asks.
        wait_until("it is in the queue", || waiting() == before + 1);
        wire
    };
    for round in 0..3 {
        let holder = rig.login_with(&[("application_name", "a")]);
        let mut first = ask("b");
        let mut second = ask("a");
        let mut third = ask("b");
        holder.leave();
        for (waiting, others) in [(&mut first, "b"), (&mut second, "a"), (&mut third, "b")] {
            waiting
                .finish_login("postgres", "")
                .unwrap_or_else(|e| panic!("round {round}: {others}: {e:?}"));
            assert_eq!(waiting.one("SHOW application_name"), others);
            let done = std::mem::replace(waiting, Wire::connect(rig.pooler.port()));
            done.leave();
        }
    }
    rig.assert_sound();
}

/// The server of a session that has ended does not keep its database from being dropped.
#[test]
fn a_database_that_sessions_have_left_can_be_dropped() {
    let rig = rig(2);
    let other = format!("{}_other", rig.database);
    let mut admin = rig.login();
    admin.rows(&format!("CREATE DATABASE {other}"));
    let mut wire = rig.pooler.login("postgres", &other);
    let was = pid(&mut wire);
    wire.leave();
    wait_clean(&rig, &was);
    admin.rows(&format!("ALTER DATABASE {other} RENAME TO {other}_moved"));
    admin.rows(&format!("DROP DATABASE {other}_moved"));
    admin.leave();
    rig.assert_sound();
}

/// What ends an idle session is told at once and in the server's words.
#[test]
fn an_idle_session_hears_why_it_ends() {
    let rig = rig(2);
    for limit in [
        "idle_session_timeout",
        "idle_in_transaction_session_timeout",
    ] {
        let says = |wire: &mut Wire| {
            wire.rows(&format!("SET {limit} = '100ms'"));
            if limit.contains("transaction") {
                wire.rows("BEGIN");
            }
            wire.recv_to_end()
        };
        let theirs = says(&mut rig.direct());
        let ours = says(&mut rig.login());
        assert_eq!(ours, theirs, "{limit}");
    }
    rig.assert_sound();
}

/// A replication connection is the client's own: so are the errors of its login.
#[test]
fn errors_of_a_replication_login_come_word_for_word() {
    let rig = rig(2);
    let asked = [
        ("user", "postgres"),
        ("database", &*rig.database),
        ("replication", "database"),
        ("work_mem", "much"),
    ];
    let says = |port| Wire::try_login(port, &asked, "").err().expect("a refusal");
    let theirs = says(crate::support::postgres().port());
    assert_eq!(says(rig.pooler.port()).body, theirs.body);
}
