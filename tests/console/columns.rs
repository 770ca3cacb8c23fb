//! Columns are PgBouncer's, in its order and of its types; ours stand behind them.
//!
//! `make parity` asks the program itself: 1.24.1 and 1.26.1 have said so, and 1.25 changed no column by its changelog. 1.26 has
//! one column more in SHOW STATS and its parts (clients that logged in), and neither SUSPEND nor SHOW FDS any more.

use crate::support::query;
use crate::{console, described, rig};

const TEXT: u32 = 25;
const INT4: u32 = 23;
const INT8: u32 = 20;
const NUMERIC: u32 = 1700;

const SOCKET: &str = "type user database replication state addr port:i local_addr local_port:i connect_time request_time \
    wait:i wait_us:i close_needed:i ptr link remote_pid:i tls application_name prepared_statements:i id:i";

const BUFFERS: &str =
    " recv_pos:i pkt_pos:i pkt_remain:i send_pos:i send_remain:i pkt_avail:i send_avail:i";

/// `:i` is int4, `:q` int8, `:n` numeric, all others text. Behind `+` are our own.
pub(crate) fn sheets() -> Vec<(&'static str, String)> {
    let own = |s: &str| s.to_owned();
    vec![
        ("CLIENTS", format!("{SOCKET} + query")),
        ("SERVERS", own(SOCKET)),
        ("SOCKETS", format!("{SOCKET}{BUFFERS}")),
        ("ACTIVE_SOCKETS", format!("{SOCKET}{BUFFERS}")),
        (
            "POOLS",
            own(
                "database user cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active:i \
                 sv_active_cancel:i sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i sv_login:i maxwait:i maxwait_us:i \
                 pool_mode load_balance_hosts + pool_size:i paused:i oldest_transaction_us:q",
            ),
        ),
        (
            "DATABASES",
            own(
                "name host port:i database force_user pool_size:i min_pool_size:i reserve_pool_size:i server_lifetime:i \
                 pool_mode load_balance_hosts max_connections:i current_connections:i max_client_connections:i \
                 current_client_connections:i paused:i disabled:i + cluster reserve_pool:i",
            ),
        ),
        ("LISTS", own("list items:i")),
        (
            "USERS",
            own(
                "name pool_size reserve_pool_size pool_mode max_user_connections:i current_connections:i \
                 max_user_client_connections:i current_client_connections:i",
            ),
        ),
        (
            "STATS",
            own(
                "database total_server_assignment_count:n total_xact_count:n total_query_count:n total_received:n \
                 total_sent:n total_xact_time:n total_query_time:n total_wait_time:n total_client_parse_count:n \
                 total_server_parse_count:n total_bind_count:n avg_server_assignment_count:n avg_xact_count:n \
                 avg_query_count:n avg_recv:n avg_sent:n avg_xact_time:n avg_query_time:n avg_wait_time:n \
                 avg_client_parse_count:n avg_server_parse_count:n avg_bind_count:n + total_requests:n",
            ),
        ),
        (
            "STATS_TOTALS",
            own(
                "database server_assignment_count:n xact_count:n query_count:n bytes_received:n bytes_sent:n xact_time:n \
                 query_time:n wait_time:n client_parse_count:n server_parse_count:n bind_count:n",
            ),
        ),
        (
            "STATS_AVERAGES",
            own(
                "database server_assignment_count:n xact_count:n query_count:n bytes_received:n bytes_sent:n xact_time:n \
                 query_time:n wait_time:n avg_client_parse_count:n avg_server_parse_count:n avg_bind_count:n",
            ),
        ),
        ("TOTALS", own("name value:n")),
        ("MEM", own("name size:i used:i free:i memtotal:i")),
        ("PEERS", own("peer_id:i host port:i pool_size:i")),
        (
            "PEER_POOLS",
            own(
                "peer_id:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active_cancel:i sv_login:i",
            ),
        ),
        ("DNS_HOSTS", own("hostname ttl:q addrs")),
        ("DNS_ZONES", own("zonename serial:q count:i")),
        ("STATE", own("key value")),
        ("VERSION", own("version")),
        ("CONFIG", own("key value default changeable")),
        (
            "SETTINGS",
            own("key value default changeable + source unit"),
        ),
    ]
}

pub(crate) fn columns(sheet: &str) -> Vec<(String, u32)> {
    let column = |word: &str| {
        let (name, kind) = word.split_once(':').unwrap_or((word, ""));
        let oid = match kind {
            "i" => INT4,
            "q" => INT8,
            "n" => NUMERIC,
            _ => TEXT,
        };
        (name.to_owned(), oid)
    };
    let words = sheet.split_whitespace().filter(|word| *word != "+");
    words.map(column).collect()
}

#[test]
fn columns_are_pgbouncers_in_order_and_type_and_ours_come_last() {
    let rig = rig();
    let mut console = console(&rig);
    rig.login().one("SELECT 1");
    for (name, sheet) in sheets() {
        console.send(&[query(&format!("SHOW {name}"))]);
        let got = console.recv_to_ready();
        let heads = got.iter().find(|m| m.tag == b'T').unwrap();
        assert_eq!(described(&heads.body), columns(&sheet), "SHOW {name}");
        let tag = got.iter().find(|m| m.tag == b'C').unwrap();
        assert_eq!(tag.argument(), "SHOW", "SHOW {name}");
    }
}

#[test]
fn lists_and_totals_have_pgbouncers_lines() {
    let rig = rig();
    let mut console = console(&rig);
    let first = |rows: Vec<Vec<String>>| -> String {
        let names: Vec<String> = rows.into_iter().map(|row| row[0].clone()).collect();
        names.join(" ")
    };
    assert_eq!(
        first(console.rows("SHOW LISTS")),
        "databases users peers pools peer_pools free_clients used_clients login_clients free_servers used_servers \
         dns_names dns_zones dns_queries dns_pending"
    );
    assert_eq!(
        first(console.rows("SHOW TOTALS")),
        "total_server_assignment_count total_xact_count total_query_count total_client_bytes total_server_bytes \
         total_xact_time total_query_time total_wait_time total_ps_client_parse_count total_ps_server_parse_count \
         total_ps_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_client_bytes \
         avg_server_bytes avg_xact_time avg_query_time avg_wait_time avg_ps_client_parse_count \
         avg_ps_server_parse_count avg_ps_bind_count"
    );
    assert_eq!(first(console.rows("SHOW STATE")), "active paused suspended");
}
