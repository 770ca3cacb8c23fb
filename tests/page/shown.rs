//! What the page shows of a real pooler, to whom, and that it shows nothing else.

use std::time::Duration;

use serde_json::json;

use crate::browser::Browser;
use crate::support::{Rig, get, metrics_port, query, wait_until, wait_within};

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"";

/// Whoever takes it for HTML runs it. (PostgreSQL keeps 63 characters.)
const HOSTILE: &str = "<script>window.hacked=1</script><img src=x onerror=hacked=2>";

fn open(rig: &Rig) -> Browser {
    let mut browser = Browser::start();
    let port = metrics_port(&rig.pooler);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.wait_for("Number(document.body?.dataset.looks) > 0");
    browser
}

/// Two more looks have been shown.
fn look_again(browser: &mut Browser) {
    let looks = browser.value("Number(document.body.dataset.looks)");
    browser.wait_for(&format!(
        "Number(document.body.dataset.looks) >= {looks} + 2"
    ));
}

/// How far the page is wider than the screen.
const OVERFLOW: &str =
    "document.documentElement.scrollWidth - document.documentElement.clientWidth";

#[test]
fn a_waiter_and_its_holder_are_shown_and_gone_again_without_a_reload() {
    let rig = Rig::with(|b| {
        // A browser may take its time; the waiter is sent nothing but its answer.
        b.set("pool_size = 1")
            .set("query_wait_notify = \"0\"")
            .section(METRICS)
    });
    let mut holder = rig.login_with(&[("application_name", "report")]);
    holder.rows("BEGIN");
    holder.rows("SELECT 'hunter2', 4711");
    let mut waiter = rig.login_with(&[("application_name", HOSTILE)]);
    waiter.send(&[query("SELECT 1")]);
    let port = metrics_port(&rig.pooler);
    wait_until("it waits", || {
        get(port, "/status.json").1.contains("\"position\":1")
    });
    let mut browser = open(&rig);
    browser.wait_for("document.querySelectorAll('#waiting .waiter').length === 1");

    assert_eq!(browser.texts("#waiting .name"), [HOSTILE]);
    let behind = browser.texts("#waiting .waiter").concat();
    assert!(behind.contains("behind report (client "), "{behind}");
    assert_eq!(browser.texts("#holding .name"), ["report"]);
    assert_eq!(
        browser.texts("#holding .chip"),
        ["idle in transaction", "1 waits"]
    );
    assert_eq!(browser.texts("#holding code"), ["SELECT ?, ?"]);
    let pool = browser.texts("#pools .pool").concat();
    assert!(
        pool.contains(&format!("{} / postgres", rig.database)),
        "{pool}"
    );
    assert!(
        pool.contains("1 waiting") && pool.contains("1 of 1 in use"),
        "{pool}"
    );
    let host = browser.texts("#hosts .host").concat();
    assert!(
        host.contains("127.0.0.1:") && host.contains("primary"),
        "{host}"
    );
    assert_eq!(browser.value("window.hacked ?? null"), json!(null));
    assert_eq!(
        browser.value("document.querySelectorAll('script').length"),
        json!(1)
    );
    assert_eq!(
        browser.value("document.querySelectorAll('img').length"),
        json!(0)
    );

    holder.rows("COMMIT");
    waiter.expect("T D(1) C(SELECT 1) Z(I)");
    browser.wait_for("document.querySelector('#waiting').innerText.includes('Nobody waits')");
    // It asked for nothing but the status, and nothing was forbidden it.
    let asked = browser.value(
        "[...new Set(performance.getEntriesByType('resource').map((e) => new URL(e.name).pathname))]",
    );
    assert_eq!(asked, json!(["/status.json"]));
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

/// Latency and errors come from the counters, seconds later.
#[test]
fn latency_and_errors_of_the_last_minutes_are_drawn() {
    let rig = Rig::with(|b| b.section(METRICS));
    let mut client = rig.login();
    let mut browser = open(&rig);
    for _ in 0..50 {
        client.one("SELECT 1");
        assert!(client.try_rows("SELECT 1/0").is_err());
    }
    browser.wait_for("document.querySelectorAll('#errors .error').length > 0");
    let error = browser.texts("#errors .error").concat();
    assert!(
        error.contains("22012") && error.contains("data exception"),
        "{error}"
    );
    browser
        .wait_for("document.querySelectorAll('#latency svg .p99, #latency svg .rate').length >= 2");
    // Of the last few seconds, in which there was something then.
    wait_within(Duration::from_secs(60), "a median", || {
        client.one("SELECT 1");
        let p50 = browser.texts("#latency .key b").remove(0);
        p50.ends_with("µs") || p50.ends_with("ms")
    });
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

/// Names that do not break, long queues, in both colours.
#[test]
fn it_fits_on_a_phone_and_has_two_colours() {
    let rig = Rig::with(|b| b.set("pool_size = 1").section(METRICS));
    let long = "W".repeat(60);
    let mut holder = rig.login_with(&[("application_name", &long)]);
    holder.rows("BEGIN");
    holder.rows(&format!("SELECT 1 AS {}", "w".repeat(60)));
    let mut waiting: Vec<_> = (0..12)
        .map(|n| rig.login_with(&[("application_name", &format!("{n}{long}"))]))
        .collect();
    for client in &mut waiting {
        client.send(&[query("SELECT 1")]);
    }
    let mut browser = open(&rig);
    browser.resize(390, 844);
    browser.wait_for("document.querySelectorAll('#waiting .waiter').length === 12");
    look_again(&mut browser);
    for width in [390, 320, 768, 1280, 1920] {
        browser.resize(width, 844);
        browser.wait_for(&format!("window.innerWidth === {width}"));
        look_again(&mut browser);
        assert_eq!(browser.value(OVERFLOW), json!(0), "at {width} pixels");
    }
    let ground = "getComputedStyle(document.body).backgroundColor";
    browser.set_dark(false);
    let light = browser.value(ground);
    browser.set_dark(true);
    assert_ne!(light, browser.value(ground));
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[test]
fn it_says_when_the_pooler_answers_no_more() {
    let rig = Rig::with(|b| b.section(METRICS));
    let mut browser = open(&rig);
    rig.pooler.signal("QUIT");
    browser.wait_for(
        "document.querySelector('#banners').innerText.includes('No answer from the pooler')",
    );
    assert_eq!(browser.texts("#state"), ["no answer"]);
}

/// A key turns it off, by a reload.
#[test]
fn it_can_be_turned_off() {
    let mut rig = Rig::with(|b| b.section(METRICS));
    let port = metrics_port(&rig.pooler);
    assert!(get(port, "/").1.contains("<!doctype html>"));
    let metrics = format!("{METRICS}\nstatus_page = false");
    let toml = std::fs::read_to_string(rig.pooler.dir().join("pooler.toml")).unwrap();
    rig.pooler.reload_text(&toml.replace(METRICS, &metrics));
    wait_until("it is off", || {
        get(port, "/status.json").0.ends_with("404 Not Found")
    });
    assert!(!get(port, "/").1.contains("<!doctype html>"));
    assert!(get(port, "/metrics").0.ends_with("200 OK"));
    rig.pooler.reload(|b| b);
    wait_until("it is on", || {
        get(port, "/status.json").0.ends_with("200 OK")
    });
}
