//! Pools by session: what a client sees is what it would see on a direct connection.

use std::time::Duration;

use crate::support::{Rig, SERVERS, Wire, query, startup};

fn rig(size: u32) -> Rig {
    Rig::with(|b| {
        b.set("pool_mode = \"session\"")
            .set(&format!("pool_size = {size}"))
    })
}

fn pid(wire: &mut Wire) -> String {
    wire.one("SELECT pg_backend_pid()")
}

/// How often somebody has logged in to the server as these tests do, and is still there.
fn servers(rig: &Rig) -> String {
    rig.sql(&format!("SELECT count(*) {SERVERS}"))
}

#[test]
fn what_is_reset_goes_back_to_the_startup_parameters() {
    let rig = rig(2);
    let more = [
        ("options", "-c work_mem=7MB -c statement_timeout=77s"),
        ("search_path", "a, \"B c\""),
        ("DateStyle", "Postgres, MDY"),
        ("TimeZone", "PST8PDT"),
    ];
    let mut wire = rig.login_with(&more);
    let settings = [
        ("work_mem", "7MB"),
        ("statement_timeout", "77s"),
        ("search_path", "a, \"B c\""),
        ("DateStyle", "Postgres, MDY"),
        ("TimeZone", "PST8PDT"),
    ];
    for reset in [
        "RESET ALL",
        "DISCARD ALL",
        "SET SESSION AUTHORIZATION DEFAULT",
    ] {
        wire.rows("SET work_mem = '9MB'");
        wire.rows("SET DateStyle = 'ISO'");
        wire.rows(reset);
        if reset.starts_with("SET") {
            wire.rows("RESET work_mem");
            wire.rows("RESET DateStyle");
        }
        for (name, value) in settings {
            assert_eq!(wire.one(&format!("SHOW {name}")), value, "{reset}: {name}");
        }
    }
    // Who says nothing gets the server's own.
    let mut plain = rig.login();
    assert_eq!(plain.one("SHOW work_mem"), "4MB");
    assert_ne!(pid(&mut plain), pid(&mut wire));
    wire.leave();
    plain.leave();
    // The same parameters: the same server, clean again.
    let mut again = rig.login_with(&more);
    assert_eq!(again.one("SHOW work_mem"), "7MB");
    again.leave();
    rig.assert_sound();
}

#[test]
fn a_server_is_there_from_the_login_on_and_its_process_is_the_clients() {
    let rig = rig(1);
    let mut first = rig.login();
    assert_eq!(servers(&rig), "1");
    assert_eq!(pid(&mut first), first.key.0.to_string());
    // By that process id it is cancelled, on whichever worker it lives.
    first.send(&[query("SELECT pg_sleep(100)")]);
    rig.wait_sql(
        "count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)' AND datname = current_database()",
    );
    first.cancel();
    first.expect("T E(57014) Z(I)");
    // The next one waits for it at its login; one that goes away meanwhile leaves the queue.
    let mut second = Wire::connect(rig.pooler.port());
    let opening = startup(&[("user", "postgres"), ("database", &rig.database)]);
    second.send(std::slice::from_ref(&opening));
    let mut third = Wire::connect(rig.pooler.port());
    third.send(&[opening]);
    second.expect_silence(Duration::from_millis(300));
    second.reset();
    let was = pid(&mut first);
    first.leave();
    third.finish_login("postgres", "").expect("its turn");
    assert_eq!(pid(&mut third), was);
    third.leave();
    rig.assert_sound();
}

#[test]
fn t36_servers_of_all_parameters_share_one_size() {
    let rig = rig(2);
    for n in 0..10 {
        let name = format!("app{n}");
        let mut wire = rig.login_with(&[("application_name", &name)]);
        assert_eq!(wire.one("SHOW application_name"), name);
        assert!(["1", "2"].contains(&&*servers(&rig)), "{}", servers(&rig));
        wire.leave();
    }
    // Two at work: a third waits, whatever its parameters are.
    let mut a = rig.login_with(&[("application_name", "a")]);
    let b = rig.login_with(&[("application_name", "b")]);
    let mut c = Wire::connect(rig.pooler.port());
    let asked = [
        ("user", "postgres"),
        ("database", &rig.database),
        ("application_name", "c"),
    ];
    c.send(&[startup(&asked)]);
    c.expect_silence(Duration::from_millis(300));
    b.leave();
    c.finish_login("postgres", "").expect("its turn");
    assert_eq!(c.one("SHOW application_name"), "c");
    assert_eq!(a.one("SHOW application_name"), "a");
    a.leave();
    c.leave();
    rig.assert_sound();
}

#[test]
fn errors_of_startup_parameters_come_word_for_word() {
    let rig = rig(2);
    for (name, value) in [
        ("work_mem", "much"),
        ("no_such_setting", "1"),
        ("options", "-c nonsense"),
        ("options", "--shared_buffers=1"),
        ("client_encoding", "klingon"),
    ] {
        let asked = [
            ("user", "postgres"),
            ("database", &*rig.database),
            (name, value),
        ];
        let _took = rig.assert_refused_as_directly(&asked);
    }
    rig.assert_sound();
}

#[test]
fn a_role_made_anew_does_not_meet_an_old_server() {
    let rig = rig(2);
    let role = format!("role_{}", rig.database);
    let login = || rig.pooler.login(&role, &rig.database);
    rig.sql(&format!("CREATE ROLE {role} LOGIN"));
    let mut wire = login();
    let old = pid(&mut wire);
    let wait_clean = || {
        let idle = "query = 'DISCARD ALL' AND state = 'idle'";
        rig.wait_sql(&format!(
            "count(*) = 1 FROM pg_stat_activity WHERE pid = {old} AND {idle}"
        ));
    };
    wire.leave();
    wait_clean();
    let mut wire = login();
    assert_eq!(
        pid(&mut wire),
        old,
        "it is reused as long as nothing changed"
    );
    wire.leave();
    wait_clean();
    rig.sql(&format!("DROP ROLE {role}; CREATE ROLE {role} LOGIN"));
    let mut wire = login();
    assert_ne!(pid(&mut wire), old);
    assert_eq!(wire.one("SELECT session_user"), role);
    wire.leave();
    rig.sql(&format!("DROP ROLE {role}"));
    rig.assert_sound();
}

#[test]
fn t75_sigterm_ends_sessions_between_transactions() {
    let rig = rig(2);
    let mut idle = rig.login();
    let mut busy = rig.login();
    busy.rows("BEGIN");
    rig.pooler.signal("TERM");
    idle.expect("E(57P01)");
    assert_eq!(busy.one("SELECT 1"), "1");
    busy.send(&[query("COMMIT")]);
    busy.expect("C(COMMIT) Z(I) E(57P01)");
    assert!(rig.pooler.wait_exit().success());
}
