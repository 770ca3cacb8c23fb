//! What says which leg of a login fails: `pooler check --connect`, and EXPLAIN LOGIN.

use std::process::Command;

use pooler::demo::make_dir;
use pooler::demo::postgres::Postgres;

use crate::support::{Pooler, Wire, postgres};

/// Every login that the pooler would make is tried; secrets are in no message.
#[test]
fn t63_check_connect_says_which_login_fails() {
    let postgres = Postgres::builder()
        .auth("scram-sha-256")
        .start()
        .expect("PostgreSQL");
    postgres
        .psql("CREATE ROLE watch LOGIN PASSWORD 'watches'; CREATE ROLE bob LOGIN PASSWORD 'bobs'")
        .unwrap();
    let builder = Pooler::before(&postgres)
        .host(1)
        .auth("type = \"scram-sha-256\"")
        .cluster("monitor_user = \"watch\"")
        .section(
            "[databases.postgres]\n[databases.gone]\nuser = \"bob\"\n[users.watch]\npassword = \"watches\"\n\
             [users.bob]\npassword = \"wrong-secret\"",
        );
    let config = make_dir("legs").unwrap().join("pooler.toml");
    std::fs::write(&config, builder.toml(1)).unwrap();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
        let out = command
            .args(["check", "--connect"])
            .arg(&config)
            .output()
            .unwrap();
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
        )
    };
    let (code, text) = check();
    assert_eq!(code, Some(1), "{text}");
    let port = postgres.port();
    for line in [
        format!("127.0.0.1:{port}  monitor, \"watch\" to \"postgres\": ok"),
        format!("127.0.0.1:{port}  clients, \"watch\" to \"postgres\": ok"),
        format!(
            "127.0.0.1:{port}  clients, \"bob\" to \"postgres\": FAILED: 127.0.0.1:{port} refused the login: password"
        ),
        "127.0.0.1:1  monitor, \"watch\" to \"postgres\": FAILED: cannot connect".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert!(
        !text.contains("wrong-secret") && !text.contains("watches"),
        "{text}"
    );
    let good = Pooler::before(&postgres)
        .section("[databases.postgres]\nuser = \"bob\"\n[users.bob]\npassword = \"bobs\"")
        .toml(1);
    std::fs::write(&config, good).unwrap();
    assert_eq!(check().0, Some(0), "{}", check().1);
}

/// The rule, the secret and the login to the server, without the secret.
#[test]
fn t63_explain_login_names_each_leg() {
    let hba = make_dir("legs2").unwrap().join("pg_hba.conf");
    let rules =
        "host app bob 10.0.0.0/8 md5\nhostssl all all all scram-sha-256\nhost app +staff all md5\n";
    std::fs::write(
        &hba,
        format!("local all all trust\nhost pooler ops all trust\n{rules}"),
    )
    .unwrap();
    let pooler = Pooler::before(postgres())
        .auth("type = \"hba\"")
        .auth(&format!("hba_file = {hba:?}"))
        .auth("user = \"postgres\"")
        .auth("query = \"SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1\"")
        .set("stats_users = [\"ops\"]")
        .section("[users.bob]\npassword = \"bob-secret\"")
        .start();
    let mut console = Wire::login(pooler.port(), "ops", "pooler");
    let mut explain = |what: &str| {
        let rows = console.rows(&format!("EXPLAIN LOGIN {what}"));
        rows.into_iter()
            .map(|row| row.join(": "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let shown = explain("bob app 10.1.1.1");
    for part in [
        ":3: host app bob 10.0.0.0/8 md5",
        "secret: [users]: a plain password",
        "pooler to server: cluster \"main\", as \"bob\" to \"app\", with a plain password",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("bob-secret"));
    let shown = explain("ann app \"::1+tls\"");
    assert!(
        shown.contains(":4: hostssl all all all scram-sha-256")
            && shown.contains("auth.query, as \"postgres\""),
        "{shown}"
    );
    assert!(explain("ann app 10.1.1.1").contains("depends on the roles"));
    assert!(explain("ann other 10.1.1.1").contains("no rule fits"));
    assert!(explain("ann app").contains(":1: local all all trust"));
    assert!(explain("ops pooler").contains("the console; \"ops\" is one who may look"));
}
