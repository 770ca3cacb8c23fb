//! How pools grow, shrink, and share what is limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pooler::demo::postgres::Postgres;

use crate::support::{
    Builder, Pooler, Rig, SERVERS, ScriptedServer, ServerWire, Wire, query, wait_until,
};

/// Server connections to the test's database.
fn servers(watch: &mut Wire) -> usize {
    let count = watch.one(&format!("SELECT count(*) {SERVERS}"));
    count.parse().expect("a number")
}

/// Has each of `clients` do something at the same time as the others.
fn all_at_once(clients: &mut [Wire], sql: &str) {
    for client in &mut *clients {
        client.send(&[query(sql)]);
    }
    for client in clients {
        client.recv_to_ready();
    }
}

/// 200 clients on a pool that has nothing yet, whose server takes 300 ms a login: full in the time of five logins.
#[test]
fn t40_a_cold_pool_is_full_in_the_time_of_five_logins() {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let server = ScriptedServer::start(move |mut wire| {
        wire.read_opening();
        seen.fetch_max(now.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
        std::thread::sleep(Duration::from_millis(300));
        now.fetch_sub(1, Ordering::AcqRel);
        let pid = i32::try_from(wire.number()).unwrap() + 1;
        wire.send(&ServerWire::login_reply(pid));
        while let Some(got) = wire.recv() {
            if got.tag == b'Q' {
                // So long that all twenty are wanted.
                std::thread::sleep(Duration::from_millis(300));
                wire.send(&ServerWire::row_reply("1"));
            }
        }
    });
    let pooler = Pooler::builder()
        .host(server.port())
        .set("pool_size = 20")
        .set("server_connect_parallel = 4")
        .start();
    // One login, so that the others are not held up by each other's.
    drop(pooler.login("a", "a"));
    let mut clients: Vec<Wire> = (0..200).map(|_| pooler.login("a", "a")).collect();
    let began = Instant::now();
    for client in &mut clients {
        client.send(&[query("SELECT 1")]);
    }
    wait_until("20 connections", || server.connections() >= 20);
    let full = began.elapsed();
    assert!(
        full < Duration::from_secs(4),
        "{full:?}: 20 logins one by one take 6 s"
    );
    for client in &mut clients {
        client.expect("T D(1) C(SELECT 1) Z(I)");
    }
    assert_eq!(server.connections(), 20, "and no more than the pool has");
    let most = most.load(Ordering::Acquire);
    assert_eq!(most, 4, "logins at a time");
}

#[test]
fn min_pool_size_is_kept_and_idle_servers_beyond_it_are_closed() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 6")
            .set("min_pool_size = 2")
            .set("server_idle_timeout = \"500ms\"")
    });
    let mut watch = rig.direct();
    let mut clients: Vec<Wire> = (0..6).map(|_| rig.login()).collect();
    wait_until("the minimum is open", || servers(&mut watch) >= 2);
    all_at_once(&mut clients, "BEGIN");
    assert_eq!(servers(&mut watch), 6);
    all_at_once(&mut clients, "COMMIT");
    wait_until("down to the minimum", || servers(&mut watch) == 2);
    drop(clients);
    // It is kept without clients, and after a loss.
    let lost = watch.one(&format!("SELECT max(pid) {SERVERS}"));
    watch.rows(&format!("SELECT pg_terminate_backend({lost})"));
    wait_until("another is opened in its place", || {
        let gone = format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {lost})");
        watch.one(&gone) == "t" && servers(&mut watch) == 2
    });
    rig.assert_sound();
}

#[test]
fn t42_server_lifetime_replaces_servers_between_transactions() {
    let rig = Rig::with(|b| b.set("server_lifetime = \"1s\"").set("pool_size = 1"));
    let mut client = rig.login();
    let first = client.one("SELECT pg_backend_pid()");
    client.rows("BEGIN");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(
        client.one("SELECT pg_backend_pid()"),
        first,
        "not within a transaction"
    );
    client.rows("COMMIT");
    assert_ne!(client.one("SELECT pg_backend_pid()"), first);
    rig.assert_sound();
}

#[test]
fn the_reserve_is_used_when_somebody_has_waited_long() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 1")
            .set("reserve_pool_size = 1")
            .set("reserve_pool_timeout = \"600ms\"")
            .set("query_wait_notify = \"0\"")
    });
    let mut watch = rig.direct();
    let mut holder = rig.login();
    holder.rows("BEGIN");
    let mut second = rig.login();
    let began = Instant::now();
    second.rows("BEGIN");
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_millis(600) && waited < Duration::from_secs(4),
        "{waited:?}"
    );
    let mut third = rig.login();
    third.send(&[query("SELECT 3")]);
    third.expect_silence(Duration::from_secs(1));
    assert_eq!(servers(&mut watch), 2);
    holder.rows("COMMIT");
    third.expect("T D(3) C(SELECT 1) Z(I)");
    second.rows("COMMIT");
    rig.assert_sound();
}

/// Many pools under one limit: it is never passed, and a pool that needs a server gets an idle one of another's place.
fn shared_limit(change: impl FnOnce(Builder) -> Builder, who: &[(&str, &str)]) {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    for role in ["u0", "u1", "u2"] {
        postgres
            .psql(&format!("CREATE ROLE {role} LOGIN SUPERUSER"))
            .expect("a role");
        postgres
            .psql(&format!("CREATE DATABASE d{}", &role[1..]))
            .expect("a database");
    }
    let builder = Pooler::before(&postgres)
        .set("pool_size = 4")
        .set("workers = 3");
    let pooler = change(builder).start();
    let mut watch = Wire::login(postgres.port(), "postgres", "postgres");
    let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename LIKE 'u_'";
    let mut most = 0;
    for round in 0..3 {
        for (user, database) in who {
            let mut clients: Vec<Wire> = (0..4).map(|_| pooler.login(user, database)).collect();
            for client in &mut clients {
                client.send(&[query("SELECT pg_sleep(0.05)")]);
            }
            let now: usize = watch.one(count).parse().expect("a number");
            most = most.max(now);
            let began = Instant::now();
            for client in &mut clients {
                client.expect("T D C(SELECT 1) Z(I)");
            }
            let took = began.elapsed();
            assert!(
                took < Duration::from_secs(4),
                "round {round}: {user}/{database} waited {took:?}"
            );
        }
    }
    // All of them at once.
    let mut clients: Vec<Wire> = (0..18)
        .map(|n| pooler.login(who[n % who.len()].0, who[n % who.len()].1))
        .collect();
    for client in &mut clients {
        client.send(&[query("SELECT pg_sleep(0.1)")]);
    }
    let deadline = Instant::now() + Duration::from_secs(8);
    let done = std::thread::scope(|scope| {
        let all = scope.spawn(|| {
            for client in &mut clients {
                client.expect("T D C(SELECT 1) Z(I)");
            }
        });
        while !all.is_finished() && Instant::now() < deadline {
            most = most.max(watch.one(count).parse().expect("a number"));
        }
        all.join().is_ok()
    });
    assert!(
        done && most <= 5,
        "{most} server connections under a limit of 5"
    );
    assert!(most >= 4, "{most}: the limit is used");
    assert!(!pooler.log().contains("panicked"), "{}", pooler.log());
}

#[test]
fn t39_max_db_connections_is_never_passed() {
    shared_limit(
        |b| b.set("max_db_connections = 5"),
        &[("u0", "d0"), ("u1", "d0"), ("u2", "d0")],
    );
}

#[test]
fn t39_max_user_connections_is_never_passed() {
    shared_limit(
        |b| b.set("max_user_connections = 5"),
        &[("u0", "d0"), ("u0", "d1"), ("u0", "d2")],
    );
}

#[test]
fn t39_max_server_connections_is_never_passed() {
    shared_limit(
        |b| b.cluster("max_server_connections = 5"),
        &[("u0", "d0"), ("u1", "d1"), ("u2", "d2")],
    );
}

/// A limit that a reload sets counts what is open already.
#[test]
fn a_limit_that_a_reload_sets_holds_for_servers_that_are_open() {
    let mut rig = Rig::with(|b| b.set("pool_size = 6"));
    let mut watch = rig.direct();
    let mut clients: Vec<Wire> = (0..6).map(|_| rig.login()).collect();
    all_at_once(&mut clients, "BEGIN");
    assert_eq!(servers(&mut watch), 6);
    all_at_once(&mut clients, "COMMIT");
    rig.pooler
        .reload(|b| b.set("max_db_connections = 6").set("pool_size = 12"));
    wait_until("the reload", || {
        rig.pooler.log().contains("configuration reloaded")
    });
    clients.extend((0..6).map(|_| rig.login()));
    for client in &mut clients {
        client.send(&[query("SELECT pg_sleep(0.2)")]);
    }
    for _ in 0..5 {
        assert!(servers(&mut watch) <= 6);
    }
    for client in &mut clients {
        client.recv_to_ready();
    }
    rig.assert_sound();
}

/// Thousands of clients that leave do not take their servers with them.
#[test]
fn t44_clients_that_leave_at_once_leave_the_servers_open() {
    let rig = Rig::with(|b| b.set("pool_size = 5"));
    let mut clients: Vec<Wire> = (0..300).map(|_| rig.login()).collect();
    all_at_once(&mut clients, "SELECT pg_sleep(0.002)");
    let pids = format!("SELECT string_agg(pid::text, ' ' ORDER BY pid) {SERVERS}");
    let before = rig.sql(&pids);
    drop(clients);
    rig.assert_sound();
    assert_eq!(rig.sql(&pids), before);
}

/// A long queue is not taken for a dead server: nothing is closed, everybody is served.
#[test]
fn t41_waiting_long_is_no_sign_of_a_dead_server() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 1")
            .set("query_wait_timeout = \"2s\"")
            .set("server_connect_timeout = \"1s\"")
    });
    // The first session in a new database is slow to come.
    rig.sql("SELECT 1");
    let mut holder = rig.login();
    holder.rows("BEGIN");
    let pid = holder.one("SELECT pg_backend_pid()");
    let mut waiting: Vec<Wire> = (0..5).map(|_| rig.login()).collect();
    for client in &mut waiting {
        client.send(&[query("SELECT 1")]);
    }
    for client in &mut waiting {
        client.expect("E(53400) Z(I)");
    }
    assert_eq!(holder.one("SELECT pg_backend_pid()"), pid);
    holder.rows("COMMIT");
    assert_eq!(
        waiting[0].one("SELECT pg_backend_pid()"),
        pid,
        "the same server, at once"
    );
    rig.assert_sound();
}

/// Test suites and pg_restore drop, rename and copy databases that they have just used through the pooler: "database is being
/// accessed by other users", by servers that idled.
#[test]
fn a_database_can_be_dropped_renamed_and_copied_that_the_pool_has_servers_of() {
    let rig = Rig::new();
    let database = &rig.database;
    let mut admin = rig.pooler.login("postgres", "postgres");
    let use_it = |name: &str| {
        let mut both = [(); 2].map(|()| rig.pooler.login("postgres", name));
        for wire in &mut both {
            wire.rows("BEGIN");
        }
        for wire in &mut both {
            assert_eq!(wire.one("SELECT current_database()"), name);
            wire.rows("COMMIT");
        }
        both
    };
    // One whose clients stay: they have no server.
    let mut stays = use_it(database);
    admin.rows(&format!(
        "CREATE DATABASE \"{database} copied\" TEMPLATE {database}"
    ));
    assert_eq!(stays[0].one("SELECT 1"), "1");
    use_it(&format!("{database} copied"));
    admin.rows(&format!(
        "ALTER DATABASE \"{database} copied\" RENAME TO {database}_moved"
    ));
    use_it(&format!("{database}_moved"));
    admin.rows(&format!("DROP DATABASE {database}_moved"));
    assert_eq!(stays[1].one("SELECT 1"), "1");
    rig.assert_sound();
}
