//! What exporters and dashboards made for PgBouncer ask, word for word, and what they make of the answers.
//!
//! Read in their sources, of which each entry names the file and what was the newest version at hand: of prometheus-community's
//! exporter 0.11, of Datadog's check the one with metrics of clients and servers, of Telegraf the one with `show_commands`,
//! Debian 12's exporter 1.7. Zabbix has no template of its own for PgBouncer; the one here is the most used of those that
//! others wrote, and reads by position.

use std::collections::BTreeSet;

use crate::support::{Wire, bind, close, describe, execute, parse, query, sync};
use crate::{console, described, rig, table};

/// Who asks: statements, and the columns that are read of each by name.
const ASKED: &[(&str, &[(&str, &str)])] = &[
    // lib/pq, simple protocol.
    (
        "prometheus-community/pgbouncer_exporter, collector.go",
        &[
            ("SHOW STATS", ""),
            ("SHOW VERSION;", "version"),
            ("SHOW LISTS;", "list items"),
            ("SHOW CONFIG;", "key value default changeable"),
            (
                "SHOW databases;",
                "name host port database force_user pool_size reserve_pool pool_mode max_connections current_connections \
                 paused disabled",
            ),
            (
                "SHOW pools;",
                "database user cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel \
                 sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait",
            ),
            (
                "SHOW stats_totals;",
                "database query_count query_time bytes_received bytes_sent wait_time xact_count xact_time \
                 client_parse_count server_parse_count bind_count",
            ),
        ],
    ),
    // psycopg2, in autocommit.
    (
        "DataDog/integrations-core, pgbouncer/datadog_checks/pgbouncer/metrics.py and pgbouncer.py",
        &[
            (
                "SHOW STATS",
                "database total_xact_count total_query_count total_received total_sent total_query_time total_xact_time \
                 total_wait_time avg_xact_count avg_query_count avg_wait_time avg_recv avg_sent avg_xact_time avg_query_time",
            ),
            (
                "SHOW POOLS",
                "database user cl_active cl_waiting sv_active sv_idle sv_used sv_tested sv_login maxwait maxwait_us",
            ),
            (
                "SHOW DATABASES",
                "name pool_size max_connections current_connections",
            ),
            ("SHOW CONFIG", "key value"),
            (
                "SHOW CLIENTS",
                "database user state connect_time request_time wait wait_us",
            ),
            (
                "SHOW SERVERS",
                "database user state connect_time request_time",
            ),
            ("SHOW VERSION;", "version"),
        ],
    ),
    // pgx, simple protocol; every other column becomes a field by its own name.
    (
        "influxdata/telegraf, plugins/inputs/pgbouncer/pgbouncer.go",
        &[
            ("SHOW STATS", "database"),
            ("SHOW POOLS", "database user pool_mode"),
            ("SHOW LISTS", "list items"),
            ("SHOW DATABASES", "name database"),
        ],
    ),
    // psycopg2, in autocommit.
    (
        "Debian's prometheus-pgbouncer-exporter, collectors.py",
        &[
            (
                "SHOW STATS;",
                "database total_requests total_received total_sent total_query_time",
            ),
            ("SHOW POOLS;", "database user cl_active cl_waiting"),
            ("SHOW DATABASES;", "database pool_size reserve_pool"),
            ("SHOW LISTS;", "list items"),
        ],
    ),
    // psql -t -c
    (
        "Lelik13a/Zabbix-PgBouncer, pgbouncer.sh",
        &[
            ("show pools;", "database user"),
            ("show totals;", "name value"),
            ("show lists;", "list items"),
            ("show stats;", "database"),
            ("show databases;", "name"),
            ("show state;", "key value"),
        ],
    ),
];

/// What the Zabbix template takes from a line by counting from 1 (zbx_templates/Template App PgBouncer new.xml).
const BY_POSITION: &[(&str, &[(usize, &str)])] = &[
    (
        "show pools;",
        &[
            (1, "database"),
            (2, "user"),
            (11, "sv_used"),
            (12, "sv_tested"),
            (13, "sv_login"),
        ],
    ),
    (
        "show stats;",
        &[
            (1, "database"),
            (19, "avg_query_time"),
            (20, "avg_wait_time"),
        ],
    ),
];

fn assert_has(heads: &[(String, u32)], columns: &str, sql: &str) {
    let names: BTreeSet<&str> = heads.iter().map(|(name, _)| &**name).collect();
    for column in columns.split_whitespace() {
        assert!(names.contains(column), "{sql}: no {column} in {names:?}");
    }
}

fn heads(console: &mut Wire, sql: &str) -> Vec<(String, u32)> {
    console.send(&[query(sql)]);
    let got = console.recv_to_ready();
    let heads = got.iter().find(|m| m.tag == b'T');
    described(&heads.unwrap_or_else(|| panic!("{sql}: {got:?}")).body)
}

#[test]
fn statements_of_exporters_work_in_both_forms_of_the_protocol() {
    let rig = rig();
    rig.login().one("SELECT 1");
    for database in ["pgbouncer", "pooler"] {
        let mut console: Wire = rig.pooler.login("watch", database);
        for (sql, columns) in ASKED.iter().flat_map(|(_, asked)| *asked) {
            let simple = heads(&mut console, sql);
            assert_has(&simple, columns, sql);
            // What a driver does that knows only the extended protocol: prepared, described, run.
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
        // lib/pq's and pgx's Ping.
        for ping in [";", "-- ping"] {
            console.send(&[query(ping)]);
            console.expect("I Z(I)");
        }
        for sql in [
            "BEGIN",
            "ROLLBACK",
            "SET datestyle TO 'ISO'",
            "SET client_encoding TO 'UTF8'",
            "SET extra_float_digits = 3",
        ] {
            console.send(&[query(sql)]);
            let got = console.recv_to_ready();
            assert!(got.iter().all(|m| m.tag != b'E'), "{sql}: {got:?}");
        }
    }
}

/// prometheus-community's exporter refuses SHOW CONFIG with other than three or four columns, SHOW LISTS with other than two and
/// SHOW VERSION with more than that one, and reads two keys as numbers.
#[test]
fn the_configuration_is_as_the_exporter_counts_it() {
    let rig = rig();
    let mut console = console(&rig);
    assert_eq!(heads(&mut console, "SHOW CONFIG;").len(), 4);
    assert_eq!(heads(&mut console, "SHOW LISTS;").len(), 2);
    assert_eq!(heads(&mut console, "SHOW VERSION;").len(), 1);
    let config = table(&mut console, "SHOW CONFIG;");
    for key in ["max_client_conn", "max_user_connections"] {
        let row = config.iter().find(|row| row["key"] == key).expect(key);
        assert!(row["value"].parse::<f64>().is_ok(), "{row:?}");
    }
    let lists = table(&mut console, "SHOW LISTS;");
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

/// Datadog's check reads date and time from these columns up to the second blank, and the first three numbers of the version.
#[test]
fn times_and_version_are_written_as_datadogs_check_reads_them() {
    let rig = rig();
    let mut client = rig.login();
    client.rows("BEGIN");
    let mut console = console(&rig);
    for sql in ["SHOW CLIENTS", "SHOW SERVERS"] {
        let rows = table(&mut console, sql);
        assert!(!rows.is_empty(), "{sql}");
        for row in rows {
            for column in ["connect_time", "request_time"] {
                let shape: String = row[column]
                    .chars()
                    .map(|c| if c.is_ascii_digit() { '9' } else { c })
                    .collect();
                assert_eq!(shape, "9999-99-99 99:99:99 UTC", "{sql}: {row:?}");
            }
        }
    }
    let version = console.one("SHOW VERSION;");
    let first = version.split(|c: char| !c.is_ascii_digit() && c != '.');
    let first = first.map(|word| word.split('.').collect::<Vec<_>>());
    let number = first.into_iter().find(|parts| parts.len() == 3);
    assert_eq!(number.expect("a version")[..2], ["1", "25"], "{version}");
}

/// Telegraf's plugin takes every column of SHOW STATS but the database for a whole number, and gives up on another; its driver
/// will not use the simple protocol unless the server says these two.
#[test]
fn telegraf_finds_whole_numbers_and_a_server_that_it_can_talk_to() {
    let rig = rig();
    rig.login().one("SELECT 1");
    let mut console = console(&rig);
    let said = |name: &str| console.parameters.get(name).cloned();
    assert_eq!(said("standard_conforming_strings").as_deref(), Some("on"));
    assert_eq!(said("client_encoding").as_deref(), Some("UTF8"));
    for row in table(&mut console, "SHOW STATS") {
        for (column, value) in row.iter().filter(|(column, _)| *column != "database") {
            assert!(value.parse::<i64>().is_ok(), "{column} {value:?}");
        }
    }
    for (name, oid) in heads(&mut console, "SHOW LISTS") {
        assert!(name == "list" || [20, 23].contains(&oid), "{name} {oid}");
    }
}

#[test]
fn the_zabbix_template_finds_its_numbers_by_counting() {
    let rig = rig();
    let mut console = console(&rig);
    for (sql, positions) in BY_POSITION {
        let heads = heads(&mut console, sql);
        for (position, name) in *positions {
            assert_eq!(heads[position - 1].0, *name, "{sql} {position}");
        }
    }
}
