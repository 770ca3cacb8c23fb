//! Clients that wait for a server before they are let in: an operator sees and reaches them as sessions that wait.

use std::time::Duration;

use crate::support::{Rig, SERVERS, Wire, wait_until};
use crate::{begin_login, console, error, rig_with, table};

/// A session of its own for each client.
fn by_session(more: &str) -> Rig {
    rig_with(|b| {
        b.set("pool_mode = \"session\"")
            .set("pool_size = 1")
            .set(more)
    })
}

/// A client that has asked to be let in, and waits for that.
fn ask(rig: &Rig, more: &[(&str, &str)], operator: &mut Wire) -> Wire {
    let before = operator.rows("SHOW QUEUE").len();
    let wire = begin_login(rig, more);
    wait_until("it is in the queue", || {
        operator.rows("SHOW QUEUE").len() == before + 1
    });
    wire
}

/// The database's active and waiting clients.
fn counts(rig: &Rig, operator: &mut Wire) -> [String; 2] {
    let pools = table(operator, "SHOW POOLS");
    let pool = pools.iter().find(|p| p["database"] == rig.database);
    ["cl_active", "cl_waiting"].map(|column| pool.expect("the pool")[column].clone())
}

fn id_of(operator: &mut Wire, name: &str) -> String {
    let clients = table(operator, "SHOW CLIENTS");
    let its = clients.iter().find(|c| c["application_name"] == name);
    its.unwrap_or_else(|| panic!("{name}: {clients:?}"))["id"].clone()
}

#[test]
fn who_waits_to_be_let_in_is_in_the_queue_with_the_holder() {
    let rig = by_session("query_wait_timeout = \"60s\"");
    let mut operator = console(&rig);
    let mut report = rig.login_with(&[("application_name", "report")]);
    report.one("SELECT 1");
    let mut web = ask(&rig, &[("application_name", "web")], &mut operator);
    let _api = ask(&rig, &[("application_name", "api")], &mut operator);
    let holder = id_of(&mut operator, "report");
    let queue = table(&mut operator, "SHOW QUEUE");
    for (row, (name, position)) in queue.iter().zip([("web", "1"), ("api", "2")]) {
        assert_eq!(row["application_name"], name);
        assert_eq!(row["position"], position);
        assert_eq!(row["user"], "postgres");
        assert_eq!(row["database"], rig.database);
        assert_eq!(row["holder"], holder);
        assert_eq!(row["holder_application_name"], "report");
    }
    let clients = table(&mut operator, "SHOW CLIENTS");
    let waiting = clients.iter().filter(|c| c["state"] == "waiting");
    assert_eq!(waiting.count(), 2, "{clients:?}");
    assert_eq!(counts(&rig, &mut operator), ["1", "2"]);
    // Let in, it has the number that it was shown with.
    let shown = id_of(&mut operator, "web");
    report.leave();
    web.finish_login("postgres", "").expect("its turn");
    assert_eq!(web.one("SELECT 1"), "1");
    assert_eq!(id_of(&mut operator, "web"), shown);
    assert_eq!(table(&mut operator, "SHOW QUEUE").len(), 1);
}

/// It is told what a session is told that waits in vain, over all the parameters that servers are started with.
#[test]
fn who_waits_in_vain_to_be_let_in_is_told_who_is_in_the_way() {
    let rig = by_session("query_wait_timeout = \"4s\"");
    let mut operator = console(&rig);
    let report = rig.login_with(&[("application_name", "report")]);
    let mut web = ask(&rig, &[("application_name", "web")], &mut operator);
    // Which has time left when that has none.
    std::thread::sleep(Duration::from_secs(2));
    let api = ask(&rig, &[("application_name", "api")], &mut operator);
    let holder = id_of(&mut operator, "report");
    let refusal = web.finish_login("postgres", "").expect_err("in vain");
    assert_eq!(
        (&*refusal.sqlstate(), &*refusal.field(b'V')),
        ("53400", "FATAL")
    );
    let detail = refusal.field(b'D');
    for part in [
        "1 of 1 server connections are in use",
        "number 1 of 2 in the queue",
        &format!("client {holder} (application \"report\""),
    ] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    api.reset();
    report.leave();
    rig.assert_sound();
}

/// In a transaction pool a server judges what a client asks for at its login, the first time.
#[test]
fn who_waits_for_its_settings_to_be_judged_is_in_the_queue() {
    let rig = rig_with(|b| b.set("pool_size = 1"));
    let mut operator = console(&rig);
    let mut busy = rig.login();
    busy.rows("BEGIN");
    let options = [("options", "-c work_mem=7MB")];
    let mut wire = ask(&rig, &options, &mut operator);
    busy.rows("COMMIT");
    wire.finish_login("postgres", "").expect("its turn");
    assert_eq!(wire.one("SHOW work_mem"), "7MB");
    // Not once it is known.
    busy.rows("BEGIN");
    rig.login_with(&options).leave();
    busy.rows("COMMIT");
    rig.assert_sound();
}

#[test]
fn kill_client_reaches_who_waits_to_be_let_in() {
    let rig = by_session("query_wait_timeout = \"60s\"");
    let mut operator = console(&rig);
    let report = rig.login_with(&[("application_name", "report")]);
    let mut web = ask(&rig, &[("application_name", "web")], &mut operator);
    let id = id_of(&mut operator, "web");
    operator.rows(&format!("KILL_CLIENT {id}"));
    web.expect("R(0) E(57P01) .");
    assert!(table(&mut operator, "SHOW QUEUE").is_empty());
    // One that leaves by itself leaves the queue, too.
    ask(&rig, &[("application_name", "gone")], &mut operator).reset();
    wait_until("it has left the queue", || {
        operator.rows("SHOW QUEUE").is_empty()
    });
    report.leave();
    rig.assert_sound();
}

/// In a transaction pool that never had a server, a login waits for what the first one says of itself.
#[test]
fn who_waits_for_a_first_server_is_seen_and_reached() {
    let rig = rig_with(|b| b.set("server_connect_timeout = \"60s\""));
    let mut operator = console(&rig);
    operator.rows(&format!("PAUSE {}", rig.database));
    let [mut killed, gone, mut served] = ["killed", "gone", "served"]
        .map(|name| ask(&rig, &[("application_name", name)], &mut operator));
    let queue = table(&mut operator, "SHOW QUEUE");
    let names: Vec<&str> = queue.iter().map(|w| &*w["application_name"]).collect();
    assert_eq!(names, ["killed", "gone", "served"]);
    let clients = table(&mut operator, "SHOW CLIENTS");
    let waiting = clients.iter().filter(|c| c["state"] == "waiting");
    assert_eq!(waiting.count(), 3, "{clients:?}");
    assert_eq!(counts(&rig, &mut operator), ["0", "3"]);
    let id = id_of(&mut operator, "killed");
    operator.rows(&format!("KILL_CLIENT {id}"));
    killed.expect("R(0) E(57P01) .");
    gone.reset();
    wait_until("it has left", || {
        let queue = table(&mut operator, "SHOW QUEUE");
        queue.iter().all(|w| w["application_name"] != "gone")
    });
    let shown = id_of(&mut operator, "served");
    operator.rows("RESUME");
    served.finish_login("postgres", "").expect("a server");
    assert_eq!(served.one("SELECT 1"), "1");
    assert_eq!(id_of(&mut operator, "served"), shown);
    rig.assert_sound();
}

#[test]
fn who_waits_for_a_first_server_through_a_pause_is_told_so() {
    let rig = rig_with(|b| b.set("query_wait_timeout = \"1s\""));
    let mut operator = console(&rig);
    operator.rows(&format!("PAUSE {}", rig.database));
    let mut web = ask(&rig, &[("application_name", "web")], &mut operator);
    let refusal = web.finish_login("postgres", "").expect_err("in vain");
    assert_eq!(refusal.sqlstate(), "53400");
    assert!(refusal.text().contains("was paused"), "{refusal:?}");
    operator.rows("RESUME");
    assert_eq!(rig.login().one("SELECT 1"), "1");
    rig.assert_sound();
}

/// A reload that takes the database away ends those who wait, too.
#[test]
fn who_waits_for_a_database_that_is_taken_away_is_told_so() {
    let mut rig = rig_with(|b| b);
    let mut operator = console(&rig);
    operator.rows(&format!("PAUSE {}", rig.database));
    let mut web = ask(&rig, &[("application_name", "web")], &mut operator);
    let text = std::fs::read_to_string(rig.pooler.dir().join("pooler.toml")).expect("a file");
    rig.pooler
        .reload_text(&text.replace("[databases.\"*\"]", "[databases.other]"));
    web.expect("R(0) E(57P01) .");
    rig.pooler.reload(|b| b);
    operator.rows("RESUME");
}

/// Nor does one whom nobody will resume for keep the pooler from ending.
#[test]
fn t75_who_waits_for_a_first_server_does_not_keep_the_pooler_from_ending() {
    let rig = rig_with(|b| b);
    let mut operator = console(&rig);
    operator.rows(&format!("PAUSE {}", rig.database));
    let mut web = ask(&rig, &[("application_name", "web")], &mut operator);
    rig.pooler.signal("TERM");
    web.expect("R(0) E(57P03) .");
    drop(operator);
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
}

/// A suspension lets nobody in, also who has got a server meanwhile.
#[test]
fn t76_nobody_is_let_in_while_everything_stands_still() {
    let mut rig = by_session("query_wait_timeout = \"60s\"");
    let mut operator = console(&rig);
    let report = rig.login_with(&[("application_name", "report")]);
    let mut web = ask(&rig, &[("application_name", "web")], &mut operator);
    operator.rows("SUSPEND 5s");
    // Room for a server of its own.
    rig.pooler.reload(|b| b.set("pool_size = 2"));
    rig.wait_sql(&format!("count(*) = 2 {SERVERS}"));
    web.expect_silence(Duration::from_millis(500));
    operator.rows("RESUME");
    web.finish_login("postgres", "").expect("a server");
    assert_eq!(web.one("SHOW application_name"), "web");
    report.leave();
    rig.assert_sound();
}

#[test]
fn t75_nothing_is_paused_while_the_pooler_drains() {
    let rig = by_session("query_wait_timeout = \"60s\"");
    let mut operator = console(&rig);
    let mut busy = rig.login();
    busy.rows("BEGIN");
    rig.pooler.signal("TERM");
    wait_until("it drains", || {
        rig.pooler.log().contains("received a signal")
    });
    for sql in ["PAUSE", &format!("PAUSE {}", rig.database)] {
        assert_eq!(error(&mut operator, sql), "55000");
    }
    // Who is in the way can still be ended.
    operator.rows(&format!("KILL {}", rig.database));
    busy.expect("E(57P01) .");
    drop(operator);
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
}

/// Nobody who is not in yet is let in by a pooler that ends, and a pause that nobody will end does not keep it from that.
#[test]
fn t75_who_waits_to_be_let_in_does_not_keep_the_pooler_from_ending() {
    for paused in [false, true] {
        let rig = by_session("query_wait_timeout = \"60s\"");
        let mut operator = console(&rig);
        let mut holder = Some(rig.login_with(&[("application_name", "report")]));
        if paused {
            holder.take().expect("a session").leave();
            operator.rows(&format!("PAUSE {} 5s", rig.database));
        }
        let mut web = ask(&rig, &[("application_name", "web")], &mut operator);
        // It keeps its server until its transaction ends.
        holder.iter_mut().for_each(|holder| {
            holder.rows("BEGIN");
        });
        rig.pooler.signal("TERM");
        web.expect("R(0) E(57P03) .");
        drop((holder, operator));
        assert_eq!(rig.pooler.wait_exit().code(), Some(0), "{paused}");
    }
}
