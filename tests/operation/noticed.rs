//! The log of slow statements and of clients that come and go, and what becomes of queries when nobody reads it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pooler::demo::{free_port, make_dir};

use crate::support as m;
use crate::support::{Pooler, Rig, Wire, postgres, wait_until};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn line(rig: &Rig, parts: &[&str]) -> String {
    let mut found = None;
    wait_until("the log has the line", || {
        let log = rig.pooler.log();
        found = log
            .lines()
            .find(|line| parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned);
        found.is_some()
    });
    found.expect("just seen")
}

#[test]
fn t63_slow_statements_are_logged_without_what_may_be_data() {
    let rig = Rig::with(|b| b.section("format = \"json\"\nslow_query = \"0\"\n"));
    let mut client = rig.login_with(&[("application_name", "invoices")]);
    client.rows("SELECT 'Hidden', g FROM generate_series(1, 7) g /* Hidden */");
    let slow = line(&rig, &["slow statement", "generate_series"]);
    for part in [
        "\"statement\":\"SELECT ?, g FROM generate_series(?, ?) g\"",
        "\"rows\":7",
        "\"user\":\"postgres\"",
        &format!("\"database\":\"{}\"", rig.database),
        "\"application_name\":\"invoices\"",
        "\"server\":\"127.0.0.1:",
        "\"peer\":\"127.0.0.1:",
        "\"waited_seconds\":",
        "\"ran_seconds\":",
        "\"bytes\":",
    ] {
        assert!(slow.contains(part), "{part}: {slow}");
    }
    assert!(
        !slow.contains("sqlstate") && !slow.contains("trace_id"),
        "{slow}"
    );
    // An error, and a caller that is named in a comment.
    let error = client.try_rows(&format!("SELECT 1/0 AS broken /*traceparent='{PARENT}'*/"));
    assert_eq!(error.expect_err("a division by zero").sqlstate(), "22012");
    let slow = line(&rig, &["slow statement", "AS broken"]);
    assert!(slow.contains("\"sqlstate\":\"22012\""), "{slow}");
    assert!(
        slow.contains("\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\""),
        "{slow}"
    );
    // A prepared statement is known by its text.
    client.send(&[
        m::parse("s", "SELECT $1::text AS prepared, 'Hidden'"),
        m::sync(),
    ]);
    client.recv_to_ready();
    client.send(&[m::bind("", "s", &["Hidden"]), m::execute(""), m::sync()]);
    client.recv_to_ready();
    wait_until("the second of the two is logged", || {
        let log = rig.pooler.log();
        log.lines()
            .any(|l| l.contains("AS prepared") && l.contains("\"rows\":1"))
    });
    client.rows("SELECT set_config('pooler.traceparent', '', false)");
    client.leave();
    let log = rig.pooler.log();
    assert!(!log.contains("Hidden"), "{log}");
}

#[test]
fn what_may_be_data_is_logged_when_asked_for_but_no_secret() {
    let keys = "slow_query = \"0\"\nslow_query_literals = true\nslow_query_parameters = true\n";
    let rig = Rig::with(|b| b.section(keys));
    let mut client = rig.login();
    client.rows("SELECT 'shown'");
    line(&rig, &["slow statement", "SELECT 'shown'"]);
    client.send(&[
        m::parse("", "SELECT $1::text AS x"),
        m::bind("", "", &["given"]),
        m::execute(""),
        m::sync(),
    ]);
    client.recv_to_ready();
    line(&rig, &["AS x", "$1 =", "given"]);
    client.rows("DO $$BEGIN END$$; SELECT 'Hidden' AS password");
    line(&rig, &["slow statement", "AS password"]);
    assert!(!rig.pooler.log().contains("Hidden"));
}

/// Waiting for a server counts, and is told apart from the work of the server.
#[test]
fn a_statement_that_waited_is_slow() {
    let rig = Rig::with(|b| b.set("pool_size = 1").section("slow_query = \"1s\"\n"));
    let mut holder = rig.login();
    let mut waiter = rig.login();
    holder.rows("BEGIN");
    waiter.send(&[m::query("SELECT 2 AS waited_for_it")]);
    std::thread::sleep(Duration::from_millis(2000));
    holder.rows("COMMIT");
    waiter.recv_to_ready();
    let slow = line(&rig, &["slow statement", "waited_for_it"]);
    let number = |name: &str| -> f64 {
        let (_, rest) = slow.split_once(name).expect("a field");
        let rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != 'e' && c != '-');
        rest[..end.unwrap_or(rest.len())].parse().expect("a number")
    };
    assert!(
        number("waited_seconds") >= 1.0 && number("ran_seconds") < 1.0,
        "{slow}"
    );
    let log = rig.pooler.log();
    assert!(!log.contains("COMMIT"), "{log}");
}

#[test]
fn clients_that_come_and_go_are_logged_with_the_reason() {
    let rig = Rig::with(|b| b.section("slow_query = \"off\"\nconnections = true\n"));
    rig.login().leave();
    let login = line(&rig, &["login", &rig.database]);
    assert!(login.contains("seconds"), "{login}");
    line(&rig, &["logout", "seconds", "the client said so"]);
    drop(rig.login());
    line(&rig, &["logout", "the client closed its connection"]);
    let mut client = rig.login();
    client.send_bytes(b"\xff\0\0\0\x04");
    client.recv_to_end();
    line(&rig, &["logout", "invalid frontend message type"]);
}

/// Trap of traced applications: the comment changes with every call, and no statement is ever the same.
#[test]
fn statements_that_differ_in_the_callers_trace_are_prepared_once() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut client = rig.login();
    for n in 0..20 {
        let caller = PARENT.replace("b7ad6b71692033", &format!("{n:014x}"));
        let name = format!("s{n}");
        let text = format!("SELECT $1::text /*route='x',traceparent='{caller}'*/");
        client.send(&[
            m::parse(&name, &text),
            m::bind("", &name, &["one"]),
            m::execute(""),
            m::sync(),
        ]);
        let replies = client.recv_to_ready();
        assert!(replies.iter().all(|r| r.tag != b'E'), "{replies:?}");
    }
    let held = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%route%'";
    assert_eq!(client.one(held), "1");
}

struct Unread(Child);

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A full disk or a stalled collector: nobody reads the standard error, and every statement is logged.
#[test]
fn a_stalled_log_stalls_no_query() {
    let port = free_port().expect("a port");
    let dir = make_dir("stalled-log").expect("a directory");
    let file = dir.join("pooler.toml");
    let text = Pooler::before(postgres())
        .section("slow_query = \"0\"\n")
        .toml(port);
    std::fs::write(&file, text).expect("a file");
    let child = Command::new(env!("CARGO_BIN_EXE_pooler"))
        .arg("run")
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn();
    let mut unread = Unread(child.expect("the pooler"));
    wait_until("it listens", || Wire::try_connect(port).is_ok());
    let mut client = Wire::login(port, "postgres", "postgres");
    let began = Instant::now();
    // Far more than the pipe and the queue take.
    for n in 0..4000 {
        assert_eq!(client.one(&format!("SELECT {n}")), n.to_string());
    }
    assert!(began.elapsed() < Duration::from_secs(60));
    // Read at last, it says that something is missing.
    let stderr = unread.0.stderr.take().expect("a pipe");
    let said = BufReader::new(stderr).lines().map_while(Result::ok);
    assert!(
        said.take(4000)
            .any(|l| l.contains("lines of the log were dropped"))
    );
}
