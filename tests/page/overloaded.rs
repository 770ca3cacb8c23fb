//! An overloaded pool: whatever an operator or a client looks at names the same waiter and the same holder.

use std::time::Duration;

use serde_json::Value;

use crate::browser::Browser;
use crate::support::{Message, Rig, Wire, get, metrics_port, query, wait_until};

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"";

/// Long enough to look at everything before the first gives up.
const WAIT: Duration = Duration::from_secs(20);

fn begin(rig: &Rig, name: &str, sql: &str) -> Wire {
    let mut wire = rig.login_with(&[("application_name", name)]);
    wire.rows("BEGIN");
    wire.rows(sql);
    wire
}

/// A session that has asked for something and gets nothing.
fn wait(rig: &Rig, name: &str, port: u16, before: usize) -> Wire {
    let mut wire = rig.login_with(&[("application_name", name)]);
    wire.set_patience(2 * WAIT);
    wire.send(&[query("SELECT 1")]);
    wait_until("it waits", || {
        status(port)["totals"]["waiting"] == before + 1
    });
    wire
}

/// The status, once every worker has had its say in time.
fn status(port: u16) -> Value {
    let mut status = Value::Null;
    wait_until("every worker answers", || {
        let (line, body) = get(port, "/status.json");
        assert!(line.ends_with("200 OK"), "{line}");
        status = serde_json::from_str(&body).unwrap();
        status["silent_workers"]
            .as_array()
            .is_some_and(Vec::is_empty)
    });
    status
}

/// The value of a metric of the database.
fn metric(port: u16, name: &str, database: &str) -> f64 {
    let text = get(port, "/metrics").1;
    let begin = format!("{name}{{database=\"{database}\"");
    let line = text.lines().find(|line| line.starts_with(&begin));
    let value = line.and_then(|line| line.rsplit_once(' ')).expect(&begin).1;
    value.parse().unwrap()
}

/// The first row of SHOW QUEUE, by the names of its columns.
fn queue(rig: &Rig) -> Vec<(String, String)> {
    let mut console = rig.pooler.login("ops", "pooler");
    console.send(&[query("SHOW QUEUE")]);
    let got = console.recv_to_ready();
    let heads = got.iter().find(|m| m.tag == b'T').unwrap();
    let row = got.iter().find(|m| m.tag == b'D').unwrap();
    names(heads).into_iter().zip(row.columns()).collect()
}

fn names(heads: &Message) -> Vec<String> {
    let mut rest = &heads.body[2..];
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|b| *b == 0) {
        names.push(String::from_utf8(rest[..end].to_vec()).unwrap());
        rest = &rest[end + 19..];
    }
    names
}

#[test]
fn queue_page_metrics_and_error_name_the_same_waiter_and_holder() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 2")
            .set("admin_users = [\"ops\"]")
            .set(&format!("query_wait_timeout = \"{}s\"", WAIT.as_secs()))
            .set("query_wait_notify = \"0\"")
            .section(METRICS)
    });
    let port = metrics_port(&rig.pooler);
    let mut browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.wait_for("Number(document.body?.dataset.looks) > 0");
    let mut report = begin(&rig, "report", "SELECT 'secret', count(*) FROM pg_class");
    let mut import = begin(&rig, "import", "SELECT 2");
    let mut web = wait(&rig, "web", port, 0);
    let _api = wait(&rig, "api", port, 1);
    let _cron = wait(&rig, "cron", port, 2);

    let row = queue(&rig);
    let of = |name: &str| row.iter().find(|(n, _)| n == name).unwrap().1.clone();
    assert_eq!(
        (of("application_name"), of("position")),
        ("web".into(), "1".into())
    );
    assert_eq!(of("holder_application_name"), "report");
    let (waiter, holder) = (of("client"), of("holder"));

    let before = status(port);
    let oldest_wait = metric(port, "pooler_oldest_wait_seconds", &rig.database);
    let oldest_checkout = metric(port, "pooler_oldest_checkout_seconds", &rig.database);
    // The one after this is begun after the metrics were asked for.
    let middle = status(port);
    let mut after = middle.clone();
    wait_until("it is collected anew", || {
        after = status(port);
        after["collected"] != middle["collected"]
    });
    for seen in [&before, &after] {
        let (first, holding) = (&seen["waiting"][0], &seen["holding"][0]);
        assert_eq!(first["client"].to_string(), waiter, "{seen}");
        assert_eq!(first["application_name"], "web", "{seen}");
        assert_eq!(first["holder"]["client"].to_string(), holder, "{seen}");
        assert_eq!(holding["client"].to_string(), holder, "{seen}");
        assert_eq!(holding["application_name"], "report", "{seen}");
        assert_eq!(holding["state"], "idle in transaction", "{seen}");
        assert_eq!(
            holding["statement"], "SELECT ?, count(*) FROM pg_class",
            "{seen}"
        );
        assert_eq!(holding["waiting"], 3, "{seen}");
        assert_eq!(seen["pools"][0]["waiting"], 3, "{seen}");
        assert_eq!(seen["pools"][0]["active"], 2, "{seen}");
    }
    // What the metrics call the oldest is as old as those two.
    for (value, list, name) in [
        (oldest_wait, "waiting", "waited_seconds"),
        (oldest_checkout, "holding", "held_seconds"),
    ] {
        let then = |seen: &Value| seen[list][0][name].as_f64().unwrap();
        let (low, high) = (then(&before), then(&after));
        assert!(
            low <= value && value <= high,
            "{list}: {low} {value} {high}"
        );
    }

    browser.wait_for("document.querySelectorAll('#waiting .waiter').length === 3");
    assert_eq!(browser.texts("#waiting .name"), ["web", "api", "cron"]);
    let first = browser.texts("#waiting .waiter").remove(0);
    assert!(
        first.contains(&format!("behind report (client {holder})")),
        "{first}"
    );
    assert_eq!(browser.texts("#holding .name"), ["report", "import"]);

    // The oldest gives up first, and is told who holds.
    let got = web.expect("E(53400) Z(I)");
    let (detail, hint) = (got[0].field(b'D'), got[0].field(b'H'));
    for part in [
        "2 of 2 server connections are in use".to_owned(),
        "number 1 of 3".to_owned(),
        format!("client {holder} (application \"report\", user \"postgres\", 127.0.0.1:"),
        "is idle in transaction".to_owned(),
    ] {
        assert!(detail.contains(&part), "{part}\n{detail}");
    }
    assert!(
        !detail.contains("secret") && !detail.contains("SELECT"),
        "{detail}"
    );
    assert!(
        hint.contains("SHOW QUEUE") && hint.contains("query_wait_timeout"),
        "{hint}"
    );
    report.rows("COMMIT");
    import.rows("COMMIT");
}
