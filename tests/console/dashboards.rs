//! What exporters and dashboards made for PgBouncer ask, word for word, and what they make of the answers.

use std::collections::BTreeSet;

use crate::support::{Wire, bind, close, describe, execute, parse, query, sync};
use crate::{console, described, rig, table};

/// Statements, and the columns that whoever asks reads by name.
const ASKED: &[(&str, &str)] = &[
    // prometheus-community/pgbouncer_exporter, by lib/pq.
    ("SHOW STATS", "database total_xact_count"),
    ("SHOW VERSION;", "version"),
    ("SHOW LISTS;", "list items"),
    ("SHOW CONFIG;", "key value default changeable"),
    (
        "SHOW databases;",
        "name host port database force_user pool_size reserve_pool pool_mode max_connections current_connections paused disabled",
    ),
    (
        "SHOW pools;",
        "database user cl_active cl_waiting sv_active sv_idle sv_used sv_tested sv_login maxwait maxwait_us \
         cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_being_canceled",
    ),
    (
        "SHOW stats;",
        "database total_query_count total_query_time total_received total_sent total_wait_time total_xact_count \
         total_xact_time total_server_assignment_count total_client_parse_count total_server_parse_count total_bind_count",
    ),
    // Datadog's check, by psycopg2.
    (
        "SHOW DATABASES",
        "name host port database force_user pool_size reserve_pool max_connections current_connections",
    ),
    (
        "SHOW POOLS",
        "database user cl_active cl_waiting sv_active maxwait pool_mode",
    ),
    ("SHOW CONFIG", "key value"),
    (
        "SHOW CLIENTS",
        "user database state addr connect_time request_time wait",
    ),
    (
        "SHOW SERVERS",
        "user database state addr connect_time request_time application_name",
    ),
    // Telegraf, by pgx.
    ("SHOW LISTS", "list items"),
    // Zabbix templates, by psql -c.
    (
        "show stats_averages",
        "database xact_count query_count wait_time",
    ),
    (
        "show stats_totals;",
        "database xact_count query_count wait_time",
    ),
    ("show users", "name pool_mode"),
    ("show mem;", "name size used free memtotal"),
];

fn assert_has(heads: &[(String, u32)], columns: &str, sql: &str) {
    let names: BTreeSet<&str> = heads.iter().map(|(name, _)| &**name).collect();
    for column in columns.split_whitespace() {
        assert!(names.contains(column), "{sql}: no {column} in {names:?}");
    }
}

#[test]
fn statements_of_exporters_work_in_both_forms_of_the_protocol() {
    let rig = rig();
    rig.login().one("SELECT 1");
    for database in ["pgbouncer", "pooler"] {
        let mut console: Wire = rig.pooler.login("watch", database);
        for (sql, columns) in ASKED {
            console.send(&[query(sql)]);
            let got = console.recv_to_ready();
            let heads = got.iter().find(|m| m.tag == b'T').expect(sql);
            let simple = described(&heads.body);
            assert_has(&simple, columns, sql);
            // lib/pq and pgx: prepared, described, run.
            console.send(&[parse("q", sql), describe("q"), sync()]);
            let got = console.recv_to_ready();
            let heads = got.iter().find(|m| m.tag == b'T').expect(sql);
            assert_eq!(described(&heads.body), simple, "{sql}");
            console.send(&[bind("", "q", &[]), execute(""), sync()]);
            let got = console.recv_to_ready();
            assert!(got.iter().all(|m| m.tag != b'E'), "{sql}: {got:?}");
            console.send(&[close("q"), sync()]);
            console.recv_to_ready();
        }
        // lib/pq's Ping, and psycopg2's session setup.
        console.send(&[query(";")]);
        console.expect("I Z(I)");
        for sql in [
            "BEGIN",
            "ROLLBACK",
            "SET datestyle = 'ISO'",
            "SET client_encoding TO 'UTF8'",
        ] {
            console.send(&[query(sql)]);
            let got = console.recv_to_ready();
            assert!(got.iter().all(|m| m.tag != b'E'), "{sql}: {got:?}");
        }
    }
}

/// The exporter refuses SHOW CONFIG with other than three or four columns, and reads two keys as numbers.
#[test]
fn the_configuration_is_as_the_exporter_counts_it() {
    let rig = rig();
    let mut console = console(&rig);
    let config = table(&mut console, "SHOW CONFIG;");
    for key in ["max_client_conn", "max_user_connections"] {
        let row = config.iter().find(|row| row["key"] == key).expect(key);
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row["value"].parse::<f64>().is_ok(), "{row:?}");
    }
    let lists = table(&mut console, "SHOW LISTS;");
    for row in &lists {
        assert!(row["items"].parse::<i64>().is_ok(), "{row:?}");
    }
    let names: BTreeSet<&str> = lists.iter().map(|row| &*row["list"]).collect();
    for name in [
        "databases",
        "users",
        "pools",
        "free_clients",
        "used_clients",
        "login_clients",
        "free_servers",
        "used_servers",
        "dns_names",
        "dns_zones",
        "dns_queries",
        "dns_pending",
    ] {
        assert!(names.contains(name), "{name}");
    }
}
