//! Pool exhausted: who waits, in which order, for how long, and what they are told.

use std::time::{Duration, Instant};

use crate::support::{
    Rig, ScriptedServer, ServerWire, Wire, bind, execute, parse, query, sync, wait_until,
};

/// A client that holds the only server of a pool of one.
fn hold(rig: &Rig) -> Wire {
    let mut holder = rig.login();
    holder.rows("BEGIN");
    holder
}

#[test]
fn t38_the_queue_is_first_in_first_out_over_all_workers() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 1")
            .set("workers = 4")
            .set("admin_users = [\"postgres\"]")
    });
    let mut operator = rig.pooler.login("postgres", "pooler");
    rig.sql("CREATE TABLE line (place serial, who int)");
    let mut holder = hold(&rig);
    let mut waiting: Vec<Wire> = (0..20).map(|_| rig.login()).collect();
    for (who, client) in waiting.iter_mut().enumerate() {
        client.send(&[query(&format!("INSERT INTO line (who) VALUES ({who})"))]);
        // One after the other: the order in which they came is what is to be proved.
        wait_until("it waits", || operator.rows("SHOW QUEUE").len() == who + 1);
    }
    let mut newcomers: Vec<Wire> = (0..5).map(|_| rig.login()).collect();
    holder.rows("COMMIT");
    for client in &mut newcomers {
        client.send(&[query("INSERT INTO line (who) VALUES (99)")]);
    }
    for client in waiting.iter_mut().chain(&mut newcomers) {
        client.expect("C(INSERT 0 1) Z(I)");
    }
    let order =
        rig.sql("SELECT string_agg(who::text, ' ' ORDER BY place) FROM line WHERE who <> 99");
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(order, expected.join(" "));
    rig.assert_sound();
}

#[test]
fn query_wait_timeout_says_how_the_queue_is_and_the_session_goes_on() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 1")
            .set("query_wait_timeout = \"500ms\"")
            .set("query_wait_notify = \"0\"")
    });
    let mut holder = hold(&rig);
    let mut client = rig.login();
    let began = Instant::now();
    client.send(&[query("SELECT 1")]);
    let got = client.expect("E(53400) Z(I)");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(3),
        "{took:?}"
    );
    let (text, detail) = (got[0].text(), got[0].field(b'D'));
    assert!(
        text.contains("query_wait_timeout") && text.contains(&rig.database),
        "{text}"
    );
    assert!(
        detail.contains("1 of 1") && detail.contains("number 1 of 1"),
        "{detail}"
    );
    assert_ne!(got[0].field(b'H'), "");
    // In an extended batch the error comes once, and ReadyForQuery at the Sync (trap 10).
    client.send(&[
        parse("", "SELECT 1"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    client.expect("E(53400) Z(I)");
    holder.rows("COMMIT");
    assert_eq!(client.one("SELECT 1"), "1");
    rig.assert_sound();
}

/// What a client is told who waits in vain.
fn told(waiter: &mut Wire) -> String {
    waiter.send(&[query("SELECT 1")]);
    waiter.expect("E(53400) Z(I)")[0].field(b'D').to_owned()
}

/// A replication connection, however old, has a server of its own, and no pool waits for that. The holder that is named is
/// one that holds.
#[test]
fn a_replication_connection_is_not_who_holds_a_pools_server() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 1")
            .set("workers = 1")
            .set("query_wait_timeout = \"800ms\"")
    });
    let mut slot = rig.login_with(&[("replication", "database"), ("application_name", "slot")]);
    slot.rows("IDENTIFY_SYSTEM");
    for name in ["first", "second"] {
        let mut holder = rig.login_with(&[("application_name", name)]);
        holder.rows("BEGIN");
        let detail = told(&mut rig.login());
        let named = format!("(application {name:?}, user \"postgres\", 127.0.0.1:");
        assert!(detail.contains(&named), "{detail}");
        holder.rows("COMMIT");
    }
}

/// Where it has the place that is waited for, of a host that takes no more connections, it is named.
#[test]
fn a_replication_connection_that_keeps_a_pool_waiting_is_named() {
    let rig = Rig::with(|b| {
        b.cluster("max_server_connections = 2")
            .set("admin_users = [\"ops\"]")
            .set("pool_size = 5")
            .set("workers = 1")
            .set("query_wait_timeout = \"1500ms\"")
    });
    let mut holder = rig.login_with(&[("application_name", "holder")]);
    let mut slot = rig.login_with(&[("replication", "database"), ("application_name", "slot")]);
    slot.rows("IDENTIFY_SYSTEM");
    holder.rows("BEGIN");
    let mut waiter = rig.login();
    waiter.send(&[query("SELECT 1")]);
    let mut console = rig.pooler.login("ops", "pooler");
    wait_until("SHOW QUEUE names it", || {
        let queue = console.rows("SHOW QUEUE");
        queue
            .iter()
            .any(|row| row.iter().any(|value| value == "slot"))
    });
    let detail = waiter.expect("E(53400) Z(I)")[0].field(b'D').to_owned();
    let named = "(application \"slot\", user \"postgres\", 127.0.0.1:";
    assert!(detail.contains(named), "{detail}");
    // When it has gone nobody has to wait.
    slot.leave();
    assert_eq!(waiter.one("SELECT 1"), "1");
    holder.rows("COMMIT");
}

/// Clients of several users share a pool. One is told who and where another of its own user is, of others the number alone.
#[test]
fn a_waiter_hears_who_holds_only_of_its_own_user() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 1")
            .set("query_wait_timeout = \"800ms\"")
            .database("user = \"postgres\"")
    });
    let port = rig.pooler.port();
    let login = |user: &str, name: &str| {
        let parameters = [
            ("user", user),
            ("database", &*rig.database),
            ("application_name", name),
        ];
        Wire::login_with(port, &parameters, "")
    };
    let mut holder = login("ada", "payroll");
    holder.rows("BEGIN");
    let own = told(&mut login("ada", ""));
    let named = "(application \"payroll\", user \"ada\", 127.0.0.1:";
    assert!(own.contains(named), "{own}");
    let other = told(&mut login("bob", ""));
    assert!(
        other.contains("longest of all, client ")
            && other.contains(" (of another user) has had one for "),
        "{other}"
    );
    for secret in ["ada", "payroll", "127.0.0.1"] {
        assert!(!other.contains(secret), "{other}");
    }
    holder.rows("COMMIT");
}

#[test]
fn a_waiter_is_told_once_that_it_waits() {
    let rig = Rig::with(|b| b.set("pool_size = 1").set("query_wait_notify = \"300ms\""));
    let mut holder = hold(&rig);
    let mut client = rig.login();
    client.send(&[query("SELECT 1")]);
    let notice = client.expect("N(00000)").remove(0);
    assert!(notice.text().contains("number 1"), "{notice:?}");
    client.expect_silence(Duration::from_millis(900));
    holder.rows("COMMIT");
    client.expect("T D(1) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

/// Waiters that leave are forgotten: the server goes to those who stay, and no place is lost over hundreds of them.
#[test]
fn t36_t37_waiters_that_leave_take_nothing_with_them() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    for round in 0..15 {
        let (mut a, mut b) = (hold(&rig), hold(&rig));
        let mut leaving: Vec<Wire> = (0..12).map(|_| rig.login()).collect();
        let mut staying = rig.login();
        for client in &mut leaving {
            client.send(&[query("SELECT 'gone'")]);
        }
        staying.send(&[query("SELECT 'stays'")]);
        // When most of them are in the queue, or are about to be.
        if round % 3 > 0 {
            std::thread::sleep(Duration::from_millis(150));
        }
        // Some leave before a server is free, some just when it is.
        let late = leaving.split_off(6);
        for client in leaving {
            client.reset();
        }
        a.send(&[query("COMMIT")]);
        for client in late {
            drop(client);
        }
        b.send(&[query("COMMIT")]);
        staying.expect("T D(stays) C(SELECT 1) Z(I)");
        a.expect("C(COMMIT) Z(I)");
        b.expect("C(COMMIT) Z(I)");
    }
    // Both places are still there.
    let (mut a, mut b) = (hold(&rig), hold(&rig));
    a.rows("COMMIT");
    b.rows("COMMIT");
    rig.assert_sound();
}

#[test]
fn t16_a_cancel_of_a_waiter_is_answered_at_once() {
    let rig = Rig::with(|b| b.set("pool_size = 1").set("admin_users = [\"postgres\"]"));
    let mut operator = rig.pooler.login("postgres", "pooler");
    let mut holder = hold(&rig);
    let mut client = rig.login();
    client.send(&[query("SELECT 1")]);
    wait_until("it waits", || operator.rows("SHOW QUEUE").len() == 1);
    let began = Instant::now();
    client.cancel();
    client.expect("E(57014) Z(I)");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(holder.one("SELECT 2"), "2", "not hit by it");
    holder.rows("COMMIT");
    assert_eq!(client.one("SELECT 1"), "1");
    rig.assert_sound();
}

/// A cancel goes its own way: it needs no place in the pool and waits for none.
#[test]
fn t14_b01_a_cancel_works_while_the_pool_is_exhausted() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 1")
            .set("max_client_conn = 3")
            .set("admin_users = [\"postgres\"]")
    });
    let mut busy = rig.login();
    busy.send(&[query("SELECT pg_sleep(60)")]);
    rig.wait_sql("EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(60)')");
    let mut waiting: Vec<Wire> = (0..2).map(|_| rig.login()).collect();
    for client in &mut waiting {
        client.send(&[query("SELECT 1")]);
    }
    let began = Instant::now();
    busy.cancel();
    busy.expect("T E(57014) Z(I)");
    assert!(began.elapsed() < Duration::from_secs(2));
    for client in &mut waiting {
        client.expect("T D(1) C(SELECT 1) Z(I)");
    }
    for client in waiting {
        client.leave();
    }
    busy.leave();
    rig.assert_sound();
}

/// A flood of cancels, right and wrong ones: queries go on, descriptors come back, none of them hits anybody else.
#[test]
fn t13_t15_a_flood_of_cancels_starves_nobody() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let victim = rig.login();
    let mut other = rig.login();
    let files = rig.pooler.open_files();
    let (process, key) = victim.key.clone();
    let port = rig.pooler.port();
    std::thread::scope(|scope| {
        for flood in 0..4 {
            let key = &key;
            scope.spawn(move || {
                for n in 0..60 {
                    let mut cancel = Wire::connect(port);
                    let mut shown = key.clone();
                    shown[0] ^= u8::from((n + flood) % 2 == 0);
                    cancel.send(&[crate::support::cancel_request(process, &shown)]);
                    if n % 3 > 0 {
                        cancel.expect(".");
                    }
                }
            });
        }
        for n in 0..100 {
            assert_eq!(other.one(&format!("SELECT {n}")), n.to_string());
        }
    });
    if let Some(before) = files {
        wait_until("the descriptors are given back", || {
            rig.pooler.open_files().is_none_or(|now| now <= before + 4)
        });
    }
    rig.assert_sound();
}

/// A cancel that is on its way keeps the server from the next client, until it has landed or was given up: then the
/// server is closed.
#[test]
fn t13_a_cancel_in_flight_never_hits_the_next_owner() {
    let server = ScriptedServer::start(|mut wire| match wire.read_opening() {
        crate::support::Opening::Startup(_) => {
            let pid = i32::try_from(wire.number()).unwrap() + 1;
            wire.send(&ServerWire::login_reply(pid));
            while let Some(got) = wire.recv() {
                if got.is("Q(SELECT 'slow')") {
                    std::thread::sleep(Duration::from_millis(400));
                }
                if got.tag == b'Q' {
                    wire.send(&ServerWire::row_reply(if got.is("Q(SELECT 'slow')") {
                        "slow"
                    } else {
                        "next"
                    }));
                }
            }
        }
        // The cancel takes longer than the query: it lands 600 ms after that has ended.
        crate::support::Opening::Cancel(..) => wire.stall(Duration::from_secs(1)),
        crate::support::Opening::Closed => {}
    });
    let pooler = crate::support::Pooler::builder()
        .host(server.port())
        .set("pool_size = 1")
        .start();
    let mut first = pooler.login("a", "a");
    first.send(&[query("SELECT 'slow'")]);
    server.wait_received("Q(SELECT 'slow')");
    let canceller = std::thread::scope(|scope| {
        // Before the cancel is on its way.
        let began = Instant::now();
        let cancel = scope.spawn(|| first.cancel());
        server.wait_received("cancel");
        let mut next = pooler.login("a", "a");
        next.send(&[query("SELECT 'next'")]);
        next.expect("T D(next) C(SELECT 1) Z(I)");
        cancel.join().expect("the cancel ends");
        began.elapsed()
    });
    let log = server.received();
    let landed = log
        .iter()
        .position(|l| l.contains("cancel"))
        .expect("a cancel");
    let asked = log
        .iter()
        .position(|l| l.contains("Q(SELECT 'next')"))
        .expect("a query");
    let same_server = log[asked].starts_with("0 ");
    assert!(
        landed < asked && (!same_server || canceller > Duration::from_millis(600)),
        "{log:?} {canceller:?}"
    );
    first.expect("T D(slow) C(SELECT 1) Z(I)");
}
