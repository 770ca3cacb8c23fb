//! Commands that change something, and who may give them.

use std::time::Duration;

use crate::support::{Rig, SERVERS, Wire, bind, execute, parse, query, startup, sync, wait_until};
use crate::{console, error, rig, rig_with, table};

/// The notices and the end of a command.
fn told(wire: &mut Wire, sql: &str) -> String {
    wire.send(&[query(sql)]);
    let got = wire.recv_to_ready();
    let lines = got
        .iter()
        .map(|m| String::from_utf8_lossy(&m.body).into_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// 62: whoever only looks changes nothing; who is neither does not even get in.
#[test]
fn t62_permissions_hold_for_every_command() {
    let rig = rig();
    let mut watch = rig.pooler.login("watch", "pgbouncer");
    let mut admin = console(&rig);
    let help = told(&mut admin, "SHOW HELP");
    for command in [
        "SET pool_size = 3",
        "RELOAD",
        "PAUSE",
        "SUSPEND",
        "RESUME",
        "DISABLE x",
        "ENABLE x",
        "RECONNECT",
        "KILL",
        "KILL_CLIENT 1",
        "WAIT_CLOSE",
        "SHUTDOWN",
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "SHOW FDS",
        "PAUSE too many words",
    ] {
        assert_eq!(error(&mut watch, command), "42501", "{command}");
        let name = command.split(' ').next().unwrap();
        assert!(help.contains(name), "{name} is not in {help}");
    }
    assert_eq!(table(&mut watch, "SHOW VERSION").len(), 1);
    for database in ["pooler", "pgbouncer"] {
        let mut stranger = rig.connect();
        stranger.send(&[startup(&[("user", "postgres"), ("database", database)])]);
        stranger.expect("E(42501) .");
    }
}

/// 62: what was prepared by an operator runs as whoever that is now.
#[test]
fn t62_a_command_prepared_before_a_reload_is_not_for_who_lost_the_right() {
    let mut rig = rig();
    let mut wire = console(&rig);
    wire.send(&[parse("p", "PAUSE"), sync()]);
    wire.expect("1 Z(I)");
    wire.send(&[parse("s", "SHOW CLIENTS"), sync()]);
    wire.expect("1 Z(I)");
    rig.pooler.reload(|b| {
        b.set("admin_users = [\"other\"]")
            .set("stats_users = [\"ops\"]")
    });
    wait_until("it is read", || {
        rig.pooler.log().contains("configuration reloaded")
    });
    wire.send(&[bind("", "p", &[]), execute(""), sync()]);
    wire.expect("2 E(42501) Z(I)");
    wire.send(&[bind("", "s", &[]), execute(""), sync()]);
    let got = wire.recv_to_ready();
    assert!(got.iter().any(|m| m.tag == b'D'), "{got:?}");
    rig.pooler.reload(|b| b.set("stats_users = [\"another\"]"));
    wait_until("it is read", || {
        rig.pooler.log().matches("configuration reloaded").count() == 2
    });
    wire.send(&[bind("", "s", &[]), execute(""), sync()]);
    wire.expect("2 E(42501) Z(I)");
    assert_eq!(rig.login().one("SELECT 1"), "1");
}

#[test]
fn what_is_no_command_is_told_how_to_find_one() {
    let rig = rig();
    let mut console = console(&rig);
    for (sql, sqlstate) in [
        ("SELECT 1", "42601"),
        ("SHOW POLS", "42601"),
        ("SHOW", "42601"),
        ("PAUSE 'x", "42601"),
        ("SHOW POOLS; SHOW STATS", "42601"),
        ("KILL_CLIENT", "42601"),
        ("SHUTDOWN NOW", "42601"),
        ("KILL_CLIENT 99999", "22023"),
        ("PAUSE pooler", "0A000"),
        ("RESUME", "55000"),
    ] {
        let failed = console.try_rows(sql).expect_err(sql);
        assert_eq!(failed.sqlstate(), sqlstate, "{sql}");
        let hint = failed.field(b'H');
        assert!(
            sqlstate != "42601" || !hint.is_empty() || sql.contains(['\'', ';']),
            "{sql}"
        );
    }
    assert_eq!(told(&mut console, ""), "\nI");
}

#[test]
fn a_reload_says_what_it_changed_and_what_needs_a_restart() {
    let rig = rig();
    let mut console = console(&rig);
    let file = rig.pooler.dir().join("pooler.toml");
    let old = std::fs::read_to_string(&file).unwrap();
    assert!(told(&mut console, "RELOAD").contains("nothing has changed"));
    let new = old
        .replace("pool_size = 5", "pool_size = 7\nworkers = 3")
        .replace("workers = 2\n", "");
    std::fs::write(&file, format!("{new}\n[databases.more]\n")).unwrap();
    let said = told(&mut console, "RELOAD");
    for part in [
        "pool_size: \"5\" -> \"7\"",
        "[databases.more] added",
        "in effect only after a restart: workers",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.ends_with("RELOAD\0\nI"), "{said}");
}

/// 74: a bad file changes nothing, and the operator is told where it is wrong.
#[test]
fn t74_a_failed_reload_changes_nothing_and_names_file_line_and_key() {
    let rig = rig();
    let mut console = console(&rig);
    let before = table(&mut console, "SHOW SETTINGS");
    let file = rig.pooler.dir().join("pooler.toml");
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        old.replace("pool_size = 5", "pool_size = \"many\"\npool_sise = 2"),
    )
    .unwrap();
    let failed = console.try_rows("RELOAD").expect_err("a bad file");
    assert_eq!(failed.sqlstate(), "F0000");
    let said = format!("{} {}", failed.text(), failed.field(b'D'));
    assert!(
        said.contains("pooler.toml:") && said.contains("pool_sise"),
        "{said}"
    );
    assert_eq!(table(&mut console, "SHOW SETTINGS"), before);
    assert_eq!(rig.login().one("SELECT 1"), "1");
}

/// 74: neither a reload that is refused nor one that is not touches statistics, or servers of a pool that stays as it is.
#[test]
fn t74_reloads_keep_statistics_and_servers() {
    let rig = rig();
    let mut console = console(&rig);
    let mut client = rig.login();
    let pid = client.one("SELECT pg_backend_pid()");
    let counted = |console: &mut Wire| {
        let stats = table(console, "SHOW STATS");
        let of = stats.iter().find(|s| s["database"] == rig.database);
        let of = of.unwrap();
        (
            of["total_xact_count"].parse::<u64>().unwrap(),
            of["total_xact_time"].parse::<u64>().unwrap(),
        )
    };
    let before = counted(&mut console);
    assert_eq!(before.0, 1);
    let file = rig.pooler.dir().join("pooler.toml");
    let old = std::fs::read_to_string(&file).unwrap();
    for (new, taken) in [
        (
            old.replace("pool_size = 5", "pool_size = 6\npool_sise = 2"),
            false,
        ),
        (old.replace("pool_size = 5", "pool_size = 6"), true),
        (
            format!("{old}\n[databases.more]\ncluster = \"main\"\n"),
            true,
        ),
    ] {
        std::fs::write(&file, new).unwrap();
        assert_eq!(console.try_rows("RELOAD").is_ok(), taken);
        assert_eq!(counted(&mut console), before);
    }
    assert_eq!(client.one("SELECT pg_backend_pid()"), pid);
    assert_eq!(counted(&mut console).0, 2);
}

#[test]
fn set_changes_what_can_change_until_the_next_reload() {
    let rig = rig_with(|b| b.set("pool_size = 1"));
    let mut console = console(&rig);
    let mut first = rig.login();
    first.rows("BEGIN");
    let mut second = rig.login();
    second.send(&[query("SELECT 1")]);
    second.expect_silence(Duration::from_millis(300));
    assert!(told(&mut console, "SET pool_size = 2").contains("pool_size: \"1\" -> \"2\""));
    second.expect("T D(1) C(SELECT 1) Z(I)");
    let source = |console: &mut Wire| {
        let config = table(console, "SHOW SETTINGS");
        let row = config.iter().find(|c| c["key"] == "pool_size").unwrap();
        (row["value"].clone(), row["source"].clone())
    };
    assert_eq!(source(&mut console), ("2".to_owned(), "SET".to_owned()));
    for (sql, sqlstate) in [
        ("SET listen = '127.0.0.1:1'", "55P02"),
        ("SET log.level = debug", "55P02"),
        ("SET pool_sise = 1", "42704"),
        ("SET pool_size = many", "22023"),
        ("SET pool_size 1", "42601"),
    ] {
        assert_eq!(error(&mut console, sql), sqlstate, "{sql}");
    }
    // What drivers set of their own accord.
    let mut watch = rig.pooler.login("watch", "pgbouncer");
    for wire in [&mut console, &mut watch] {
        assert!(told(wire, "SET extra_float_digits = 3").contains("SET ignored"));
        assert_eq!(wire.one("SHOW client_encoding"), "UTF8");
    }
    told(&mut console, "RELOAD");
    assert_eq!(source(&mut console).0, "1");
    first.rows("COMMIT");
}

#[test]
fn a_disabled_database_keeps_its_clients_and_lets_nobody_in() {
    let rig = rig();
    let mut console = console(&rig);
    let mut client = rig.login();
    console.rows(&format!("DISABLE {}", rig.database));
    assert_eq!(client.one("SELECT 1"), "1");
    let login = || {
        Wire::try_login(
            rig.pooler.port(),
            &[("user", "postgres"), ("database", &rig.database)],
            "",
        )
    };
    assert_eq!(login().err().unwrap().sqlstate(), "55000");
    let databases = table(&mut console, "SHOW DATABASES");
    let ours = databases
        .iter()
        .find(|d| d["name"] == rig.database)
        .unwrap();
    assert_eq!((&*ours["disabled"], &*ours["paused"]), ("1", "0"));
    console.rows(&format!("ENABLE {}", rig.database));
    assert!(login().is_ok());
}

#[test]
fn reconnect_replaces_servers_between_transactions_and_wait_close_waits_for_it() {
    let rig = rig();
    let mut console = console(&rig);
    let mut client = rig.login();
    client.rows("BEGIN");
    let pid = client.one("SELECT pg_backend_pid()");
    console.rows(&format!("RECONNECT {}", rig.database));
    let servers = table(&mut console, "SHOW SERVERS");
    assert_eq!(servers[0]["close_needed"], "1");
    assert_eq!(
        error(&mut console, &format!("WAIT_CLOSE {} 300ms", rig.database)),
        "57014"
    );
    assert_eq!(client.one("SELECT pg_backend_pid()"), pid);
    console.send(&[query("WAIT_CLOSE")]);
    console.expect_silence(Duration::from_millis(300));
    client.rows("COMMIT");
    console.expect("C(WAIT_CLOSE) Z(I)");
    assert_ne!(client.one("SELECT pg_backend_pid()"), pid);
}

#[test]
fn kill_client_ends_one_session_and_what_it_runs() {
    let rig = rig();
    let mut console = console(&rig);
    let mut busy = rig.login_with(&[("application_name", "victim")]);
    let mut other = rig.login();
    other.one("SELECT 1");
    busy.send(&[query("SELECT pg_sleep(60)")]);
    rig.wait_sql("EXISTS (SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)')");
    let clients = table(&mut console, "SHOW CLIENTS");
    let victim = clients.iter().find(|c| c["application_name"] == "victim");
    console.rows(&format!("KILL_CLIENT {}", victim.unwrap()["id"]));
    busy.expect("E(57P01) .");
    assert_eq!(other.one("SELECT 1"), "1");
    rig.assert_sound();
}

#[test]
fn kill_ends_all_sessions_of_a_database_and_pauses_it() {
    let rig = rig();
    let mut console = console(&rig);
    let (mut busy, mut idle) = (rig.login(), rig.login());
    busy.rows("BEGIN");
    console.rows(&format!("KILL {}", rig.database));
    busy.expect("E(57P01) .");
    idle.expect("E(57P01) .");
    wait_until("no server is left", || {
        rig.sql(&format!("SELECT count(*) {SERVERS}")) == "0"
    });
    let mut late = rig.login();
    late.send(&[query("SELECT 1")]);
    late.expect_silence(Duration::from_millis(300));
    console.rows(&format!("RESUME {}", rig.database));
    late.expect("T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn t75_the_console_is_there_while_the_pooler_drains_and_stops_nothing() {
    let dir = std::env::temp_dir().join(format!("pooler-console-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let rig = rig_with(|b| b.listen(dir.to_str().unwrap()));
    let mut before = console(&rig);
    let mut busy = rig.login();
    busy.rows("BEGIN");
    before.rows("SHUTDOWN WAIT_FOR_CLIENTS");
    wait_until("it drains", || {
        rig.pooler.log().contains("told by the console")
    });
    // Its own session and the one that it waits for.
    assert_eq!(table(&mut before, "SHOW CLIENTS").len(), 2);
    // By the Unix socket also who comes now.
    let psql = |user: &str, database: &str, sql: &str| {
        let mut psql = std::process::Command::new("psql");
        psql.args([
            "-X",
            "-At",
            "-h",
            dir.to_str().unwrap(),
            "-p",
            &rig.pooler.port().to_string(),
        ]);
        let output = psql
            .args(["-U", user, "-d", database, "-c", sql])
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let shown = psql("ops", "pgbouncer", "SHOW CLIENTS");
    assert!(shown.starts_with("C|postgres|"), "{shown}");
    wait_until("the worker has heard of it", || {
        psql("postgres", &rig.database, "SELECT 1").contains("shutting down")
    });
    busy.rows("COMMIT");
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
    before.recv_to_end();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn shutdown_ends_at_once() {
    let rig = rig();
    let mut console = console(&rig);
    let mut busy = rig.login();
    busy.rows("BEGIN");
    console.send(&[query("SHUTDOWN")]);
    busy.expect("E(57P01) .");
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
}

#[test]
fn operators_get_in_where_clients_do_not() {
    let rig = rig_with(|b| b.set("max_client_conn = 1"));
    let mut only = rig.login();
    only.one("SELECT 1");
    let refused = Wire::try_login(
        rig.pooler.port(),
        &[("user", "postgres"), ("database", &rig.database)],
        "",
    );
    assert_eq!(refused.err().unwrap().sqlstate(), "53300");
    for user in ["ops", "watch"] {
        let mut wire = rig.pooler.login(user, "pgbouncer");
        let clients = table(&mut wire, "SHOW CLIENTS").into_iter();
        let inside = clients.filter(|client| client["database"] == rig.database);
        assert_eq!(inside.count(), 1);
    }
}

/// The same methods as for any other client.
#[test]
fn operators_prove_who_they_are() {
    let rig: Rig = rig_with(|b| {
        b.auth("type = \"scram-sha-256\"")
            .section("[users.ops]\npassword = \"right\"")
    });
    let login = |password: &str| {
        Wire::try_login(
            rig.pooler.port(),
            &[("user", "ops"), ("database", "pooler")],
            password,
        )
    };
    assert_eq!(login("wrong").err().unwrap().sqlstate(), "28P01");
    let mut wire = login("right").unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(table(&mut wire, "SHOW VERSION").len(), 1);
}
