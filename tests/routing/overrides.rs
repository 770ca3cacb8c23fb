//! Who says otherwise: SET, startup option, user, database.

use pooler::demo::free_port;

use crate::scene::{Hosts, PORT, Scene, scrape};

#[test]
fn a_session_chooses_by_set_and_by_startup_option() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    wire.rows("SET pooler.route = 'primary'");
    scene.assert_on_primary(&mut wire, PORT);
    assert_eq!(wire.one("SHOW pooler.route"), "primary");
    wire.rows("RESET pooler.route");
    scene.assert_local_reads(&mut wire, PORT);
    let mut option = scene.login_with(&[("options", "-c pooler.route=primary")]);
    scene.assert_on_primary(&mut option, PORT);
    // SET is stronger than the option.
    option.rows("SET pooler.route = 'auto'");
    scene.assert_local_reads(&mut option, PORT);
}

#[test]
fn on_a_replica_by_choice_a_write_fails() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    scene.sql("CREATE TABLE t (x int)");
    let mut wire = scene.login();
    wire.rows("SET pooler.route = 'replica'");
    scene.assert_local_reads(&mut wire, PORT);
    assert_eq!(
        wire.try_rows("INSERT INTO t VALUES (1)")
            .unwrap_err()
            .sqlstate(),
        "25006"
    );
    wire.rows("BEGIN");
    assert_ne!(scene.place(&wire.one(PORT)), "primary");
    assert_eq!(
        wire.try_rows("INSERT INTO t VALUES (1)")
            .unwrap_err()
            .sqlstate(),
        "25006"
    );
    wire.rows("ROLLBACK");
    wire.rows("SET pooler.route = 'prefer-replica'");
    scene.assert_local_reads(&mut wire, PORT);
    wire.rows("INSERT INTO t VALUES (1)");
    assert_eq!(wire.one("SELECT count(*) FROM t"), "1");
}

#[test]
fn the_user_is_stronger_than_the_database() {
    let scene = Scene::on(Hosts::shared(), |b| {
        b.database("route = \"primary\"")
            .section("[users.reporter]\nroute = \"replica\"")
    });
    scene.sql("CREATE ROLE reporter LOGIN");
    let mut wire = scene.login_with(&[("options", "-c pooler.route=auto")]);
    scene.assert_local_reads(&mut wire, PORT);
    let mut plain = scene.login();
    scene.assert_on_primary(&mut plain, PORT);
    let mut reporter = scene.pooler.login("reporter", &scene.database);
    scene.assert_local_reads(&mut reporter, PORT);
}

#[test]
fn explicit_routing_proves_nothing_and_obeys() {
    let scene = Scene::on(Hosts::shared(), |b| {
        b.set("routing = \"explicit\"")
            .database("route = \"prefer-replica\"")
    });
    let mut wire = scene.login();
    wire.rows("SET pooler.route = 'auto'");
    scene.assert_on_primary(&mut wire, PORT);
    wire.rows("SET pooler.route = 'replica'");
    scene.assert_local_reads(&mut wire, PORT);
}

#[test]
fn a_hint_is_stronger_than_all_else() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    scene.sql("CREATE TABLE t (x int)");
    let mut wire = scene.login();
    scene.assert_on_primary(&mut wire, &format!("/*pooler.route='primary'*/ {PORT}"));
    scene.assert_on_primary(
        &mut wire,
        &format!("{PORT} /*traceparent='00-1-1-01',pooler.route='primary'*/"),
    );
    wire.rows("SET pooler.route = 'primary'");
    scene.assert_local_reads(&mut wire, &format!("{PORT} /*pooler.route='replica'*/"));
    scene.assert_local_reads(
        &mut wire,
        &format!("/*pooler.route='prefer-replica'*/ {PORT}"),
    );
    let write = "INSERT INTO t VALUES (1) /*pooler.route='replica'*/";
    assert_eq!(wire.try_rows(write).unwrap_err().sqlstate(), "25006");
    // In a string it is none.
    scene.assert_on_primary(
        &mut wire,
        "SELECT current_setting('port') WHERE '/*pooler.route=''replica''*/' <> ''",
    );
}

#[test]
fn who_prefers_replicas_asks_them_once_for_what_they_refuse() {
    let metrics = free_port().expect("a port");
    let scene = Scene::on(Hosts::shared(), |b| {
        b.section(&format!("[metrics]\nlisten = \"127.0.0.1:{metrics}\""))
    });
    scene.sql("CREATE TABLE t (x int); INSERT INTO t VALUES (0)");
    for n in 0..5 {
        // One that has not written yet: the others go to the primary anyway.
        let mut wire = scene.login_with(&[("options", "-c pooler.route=prefer-replica")]);
        wire.rows(&format!("UPDATE t SET x = {n}"));
    }
    let text = scrape(metrics);
    let retried = text
        .lines()
        .filter(|line| line.starts_with("pooler_retried_on_primary_total{"));
    let retried = retried.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    assert_eq!(retried.sum::<u64>(), 1);
    scene.hosts.wait_replayed();
    assert_eq!(scene.login().one("SELECT x FROM t"), "4");
}
