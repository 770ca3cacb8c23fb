//! What SHOW says is so.

use crate::support::{Wire, bind, execute, parse, query, sync};
use crate::{console, error, rig, rig_with, table};

#[test]
fn clients_servers_and_their_links_are_shown() {
    let rig = rig();
    let mut console = console(&rig);
    let mut busy = rig.login_with(&[("application_name", "shop")]);
    let mut idle = rig.login();
    idle.one("SELECT 1");
    busy.rows("BEGIN");
    let pid = busy.one("SELECT pg_backend_pid()");
    let (clients, operators): (Vec<_>, Vec<_>) = table(&mut console, "SHOW CLIENTS")
        .into_iter()
        .partition(|c| c["database"] == rig.database);
    assert_eq!(clients.len(), 2, "{clients:?}");
    let shop = clients.iter().find(|c| c["application_name"] == "shop");
    let shop = shop.unwrap();
    assert_eq!(shop["state"], "active");
    assert_eq!(shop["user"], "postgres");
    assert_eq!(shop["database"], rig.database);
    assert_eq!(shop["addr"], "127.0.0.1");
    assert_eq!(shop["local_port"], rig.pooler.port().to_string());
    assert_eq!(shop["query"], "SELECT pg_backend_pid()");
    assert!(shop["connect_time"].ends_with(" UTC"), "{shop:?}");
    assert_eq!((&*shop["tls"], &*shop["replication"]), ("", "none"));
    let other = clients.iter().find(|c| c["id"] != shop["id"]).unwrap();
    assert_eq!((&*other["state"], &*other["link"]), ("idle", ""));
    let servers = table(&mut console, "SHOW SERVERS");
    let active = servers.iter().find(|s| s["state"] == "active").unwrap();
    assert_eq!(active["remote_pid"], pid);
    assert_eq!(active["link"], shop["ptr"]);
    assert_eq!(shop["link"], active["ptr"]);
    assert_eq!(active["application_name"], "shop");
    let sockets = table(&mut console, "SHOW SOCKETS");
    // The operators' own sessions are there, too, as PgBouncer has it.
    let (both, all) = (operators.len(), 2 + operators.len() + servers.len());
    assert_eq!((both, sockets.len()), (1, all), "{sockets:?}");
    let pools = table(&mut console, "SHOW POOLS");
    let pool = pools
        .iter()
        .find(|p| p["database"] == rig.database)
        .unwrap();
    assert_eq!((&*pool["cl_active"], &*pool["cl_waiting"]), ("2", "0"));
    assert_eq!(
        (&*pool["sv_active"], &*pool["pool_mode"]),
        ("1", "transaction")
    );
    busy.rows("COMMIT");
}

/// As PgBouncer has it: clients of the database `pgbouncer`, by whichever name they came; they can be ended like others.
#[test]
fn sessions_of_the_console_are_shown_and_can_be_ended() {
    let rig = rig();
    let mut console = console(&rig);
    let named = [
        ("user", "watch"),
        ("database", "pgbouncer"),
        ("application_name", "exporter"),
    ];
    let mut other = Wire::login_with(rig.pooler.port(), &named, "");
    other.one("SHOW VERSION");
    let clients = table(&mut console, "SHOW CLIENTS");
    let line = |user: &str| clients.iter().find(|c| c["user"] == user).unwrap();
    for (user, name) in [("ops", ""), ("watch", "exporter")] {
        let line = line(user);
        assert_eq!(
            (&*line["type"], &*line["database"], &*line["state"]),
            ("C", "pgbouncer", "idle")
        );
        assert_eq!((&*line["application_name"], &*line["link"]), (name, ""));
    }
    assert_eq!(clients.len(), 2, "{clients:?}");
    console.rows(&format!("KILL_CLIENT {}", line("watch")["id"]));
    other.expect("E(57P01) .");
    let left = table(&mut console, "SHOW CLIENTS");
    assert_eq!(left.len(), 1, "{left:?}");
    let own = left[0]["id"].clone();
    console.send(&[query(&format!("KILL_CLIENT {own}"))]);
    let got = console.recv_to_end();
    assert_eq!(got.last().unwrap().sqlstate(), "57P01");
}

/// A replication connection has a server connection of its own, which is nobody else's to wait for.
#[test]
fn replication_connections_are_shown_with_their_servers() {
    let rig = rig_with(|b| b.set("pool_size = 1"));
    let mut console = console(&rig);
    let mut stream = rig.login_with(&[("replication", "database"), ("application_name", "slot")]);
    stream.rows("IDENTIFY_SYSTEM");
    let find = |console: &mut Wire, sql: &str| {
        let rows = table(console, sql).into_iter();
        rows.filter(|row| row["replication"] != "none")
            .collect::<Vec<_>>()
    };
    let clients = find(&mut console, "SHOW CLIENTS");
    let servers = find(&mut console, "SHOW SERVERS");
    assert_eq!((clients.len(), servers.len()), (1, 1), "{clients:?}");
    for line in [&clients[0], &servers[0]] {
        assert_eq!(
            (&*line["replication"], &*line["state"]),
            ("logical", "active")
        );
        assert_eq!(line["application_name"], "slot");
    }
    assert_eq!(clients[0]["link"], servers[0]["ptr"]);
    assert_eq!(servers[0]["link"], clients[0]["ptr"]);
    let walsender = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender' AND datname = current_database()";
    assert_eq!(servers[0]["remote_pid"], rig.sql(walsender));
    // It is not who has the pool's server.
    let mut holder = rig.login_with(&[("application_name", "holder")]);
    holder.rows("BEGIN");
    let mut waits = rig.login();
    waits.send(&[query("SELECT 1")]);
    crate::support::wait_until("it waits", || table(&mut console, "SHOW QUEUE").len() == 1);
    let queue = table(&mut console, "SHOW QUEUE");
    assert_eq!(queue[0]["holder_application_name"], "holder");
    holder.rows("COMMIT");
    waits.expect("T D(1) C(SELECT 1) Z(I)");
    console.rows(&format!("KILL_CLIENT {}", clients[0]["id"]));
    stream.recv_to_end();
    crate::support::wait_until("it is gone", || {
        find(&mut console, "SHOW CLIENTS").is_empty()
    });
}

/// The question in an outage: who waits, since when, and for whom?
#[test]
fn the_queue_names_the_oldest_waiter_and_the_oldest_holder() {
    let rig = rig_with(|b| b.set("pool_size = 1"));
    let mut console = console(&rig);
    let mut holder = rig.login_with(&[("application_name", "report")]);
    holder.rows("BEGIN");
    holder.send(&[
        parse("slow", "SELECT count(*), 'what it runs'"),
        bind("", "slow", &[]),
        execute(""),
        sync(),
    ]);
    holder.recv_to_ready();
    assert_eq!(table(&mut console, "SHOW QUEUE").len(), 0);
    let mut first = rig.login_with(&[("application_name", "web")]);
    first.send(&[query("SELECT 1")]);
    crate::support::wait_until("it waits", || table(&mut console, "SHOW QUEUE").len() == 1);
    let mut second = rig.login_with(&[("application_name", "api")]);
    second.send(&[query("SELECT 1")]);
    crate::support::wait_until("both wait", || table(&mut console, "SHOW QUEUE").len() == 2);
    let queue = table(&mut console, "SHOW QUEUE");
    let of = |n: usize, name: &str| queue[n][name].clone();
    assert_eq!(
        (of(0, "application_name"), of(0, "position")),
        ("web".into(), "1".into())
    );
    assert_eq!(
        (of(1, "application_name"), of(1, "position")),
        ("api".into(), "2".into())
    );
    for n in [0, 1] {
        assert_eq!(of(n, "holder_application_name"), "report");
        assert_eq!(of(n, "holder_state"), "idle in transaction");
        assert_eq!(of(n, "holder_query"), "SELECT count(*), 'what it runs'");
        assert_eq!(of(n, "pool"), format!("{}/postgres", rig.database));
    }
    // Who may only look does not see what statements say.
    let mut watch = rig.pooler.login("watch", "pgbouncer");
    let seen = table(&mut watch, "SHOW QUEUE");
    assert_eq!(seen[0]["holder_query"], "<insufficient privilege>");
    holder.rows("COMMIT");
    first.expect("T D(1) C(SELECT 1) Z(I)");
    second.expect("T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn pins_say_who_is_kept_where_and_why() {
    let rig = rig();
    let mut console = console(&rig);
    let mut client = rig.login_with(&[("application_name", "locker")]);
    client.rows("SELECT pg_advisory_lock(7)");
    let pid = client.one("SELECT pg_backend_pid()");
    let pins = table(&mut console, "SHOW PINS");
    assert_eq!(pins.len(), 1, "{pins:?}");
    assert_eq!(
        (&*pins[0]["reason"], &*pins[0]["remote_pid"]),
        ("advisory_lock", &*pid)
    );
    assert_eq!(pins[0]["application_name"], "locker");
    assert!(pins[0]["since"].ends_with(" UTC"));
    client.rows("SELECT pg_advisory_unlock(7)");
    // The server is asked behind the client's own statement: the answer may come after the reply.
    crate::support::wait_until("it is free again", || {
        table(&mut console, "SHOW PINS").is_empty()
    });
}

#[test]
fn statistics_count_what_was_done() {
    let rig = rig();
    let mut console = console(&rig);
    let mut client = rig.login();
    for _ in 0..3 {
        client.one("SELECT 1");
    }
    client.send(&[
        parse("p", "SELECT 2"),
        bind("", "p", &[]),
        execute(""),
        sync(),
    ]);
    client.expect("1 2 D(2) C(SELECT 1) Z(I)");
    let stats = table(&mut console, "SHOW STATS");
    let of = stats
        .iter()
        .find(|s| s["database"] == rig.database)
        .unwrap();
    for (name, value) in [
        ("total_xact_count", "4"),
        ("total_query_count", "4"),
        ("total_server_assignment_count", "4"),
        ("total_client_parse_count", "1"),
        ("total_server_parse_count", "1"),
    ] {
        assert_eq!(of[name], value, "{name} {of:?}");
    }
    assert!(of["total_received"].parse::<u64>().unwrap() > 50);
    let totals = table(&mut console, "SHOW TOTALS");
    let queries = totals.iter().find(|t| t["name"] == "total_query_count");
    assert_eq!(queries.unwrap()["value"], "4");
    let prepared = table(&mut console, "SHOW PREPARED");
    let of = prepared.iter().find(|p| p["database"] == rig.database);
    assert_eq!(of.unwrap()["prepared_on_servers"], "1");
}

#[test]
fn databases_users_and_settings_are_shown_with_where_they_come_from() {
    let rig = rig_with(|b| {
        b.section("[databases.reports]\ndbname = \"postgres\"\nuser = \"reader\"\npool_size = 3\npool_mode = \"session\"")
            .section("[users.reader]\npool_size = 2\npassword = \"very-secret\"")
    });
    let mut console = console(&rig);
    let databases = table(&mut console, "SHOW DATABASES");
    let reports = databases.iter().find(|d| d["name"] == "reports").unwrap();
    assert_eq!(
        (&*reports["database"], &*reports["force_user"]),
        ("postgres", "reader")
    );
    assert_eq!(
        (&*reports["pool_mode"], &*reports["cluster"]),
        ("session", "main")
    );
    let users = table(&mut console, "SHOW USERS");
    let reader = users.iter().find(|u| u["name"] == "reader").unwrap();
    assert_eq!(reader["pool_size"], "2");
    let config = table(&mut console, "SHOW SETTINGS");
    let of = |key: &str| config.iter().find(|c| c["key"] == key).unwrap();
    assert_eq!(
        (
            &*of("listen")["changeable"],
            &*of("pool_size")["changeable"]
        ),
        ("no", "yes")
    );
    assert_eq!(
        (&*of("pool_size")["value"], &*of("pool_size")["default"]),
        ("5", "20")
    );
    assert!(of("pool_size")["source"].starts_with("pooler.toml:"));
    assert_eq!(of("query_timeout")["source"], "default");
    assert_eq!(of("auth.type")["value"], "trust");
}

/// Every SHOW that SHOW HELP lists, but for those that show nothing, and each EXPLAIN.
fn all_shows(wire: &mut Wire, database: &str) -> Vec<String> {
    wire.send(&[query("SHOW HELP")]);
    let got = wire.recv_to_ready();
    let help = got.iter().find(|m| m.tag == b'N').unwrap().field(b'D');
    let listed = help.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("SHOW")).then(|| format!("SHOW {}", words.next().unwrap()))
    });
    let shows = listed.filter(|show| !matches!(&**show, "SHOW HELP" | "SHOW FDS"));
    let explains = [
        format!("EXPLAIN LOGIN carl {database} 10.1.2.3"),
        "EXPLAIN ROUTE SELECT 1".to_owned(),
    ];
    shows.chain(explains).collect()
}

/// 63: no SHOW has a password in it, nor what a client sent when somebody looks who may not know.
#[test]
fn t63_no_show_has_a_secret_in_it() {
    let rig = rig_with(|b| {
        b.section("[users.carl]\npassword = \"hunter-7-secret\"\nsecond_password = \"hunter-8-secret\"")
            .section("[databases.forced]\ncluster = \"main\"\nuser = \"carl\"\npassword = \"hunter-9-secret\"")
    });
    let mut client = rig.login();
    client.rows("BEGIN");
    client.rows("SELECT 'client-7-secret'");
    for user in ["watch", "ops"] {
        let mut wire: Wire = rig.pooler.login(user, "pgbouncer");
        let all = all_shows(&mut wire, &rig.database);
        assert!(all.len() > 25, "{all:?}");
        for show in all {
            let rows = format!("{:?}", wire.rows(&show));
            assert!(!rows.contains("hunter-"), "{user} {show}: {rows}");
            assert!(
                user == "ops" || !rows.contains("client-7"),
                "{user} {show}: {rows}"
            );
        }
        wire.send(&[query("SET auth.type = 'hunter-7-secret'")]);
        let answer = format!("{:?}", wire.recv_to_ready());
        assert!(
            answer.contains("42501") || answer.contains("55P02"),
            "{answer}"
        );
    }
    // It is there to be shown.
    let clients = console(&rig).rows("SHOW CLIENTS");
    assert!(format!("{clients:?}").contains("client-7"));
    assert!(
        !rig.pooler.log().contains("-secret"),
        "{}",
        rig.pooler.log()
    );
    assert_eq!(error(&mut console(&rig), "SHOW FDS"), "0A000");
}
