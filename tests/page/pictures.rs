//! The pictures of the README, taken of a pooler that has something to do: `make pictures`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pooler::demo::postgres::Postgres;
use pooler::demo::{Leashed, find_program};

use crate::browser::Browser;
use crate::support::{Pooler, Wire, metrics_port, query};

/// How long it works before the pictures are taken: that is how much of the chart is drawn.
fn prelude() -> Duration {
    let seconds = std::env::var("POOLER_PICTURE_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|s| s.parse().ok()).unwrap_or(300))
}

/// Bytes of a picture: it stands in the repository.
const PICTURE_LEN_MAX: u64 = 200_000;

const SECTIONS: &str = r#"
[databases.shop]
pool_size = 12
[databases.reports]
pool_size = 2
routing = "off"
[databases.billing]
pool_size = 6
[databases.mail]
pool_size = 4
[metrics]
listen = "127.0.0.1:0"
"#;

/// A client of an application.
fn client(pooler: &Pooler, user: &str, database: &str, application: &str) -> Wire {
    let parameters = [
        ("user", user),
        ("database", database),
        ("application_name", application),
    ];
    Wire::login_with(pooler.port(), &parameters, "")
}

/// pgbench, for as long as this value lives.
fn pgbench(pooler: &Pooler, user: &str, database: &str, arguments: &str) -> Leashed {
    let program = find_program("pgbench").expect("pgbench, which PostgreSQL brings");
    let mut command = Command::new(program);
    command
        .args(["-n", "-h", "127.0.0.1", "-p", &pooler.port().to_string()])
        .args(["-U", user, "-T", "3600"])
        .args(arguments.split(' '))
        .arg(database)
        .env("PGAPPNAME", "storefront")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Leashed::start(&mut command).unwrap()
}

fn fill(primary: &Postgres) {
    for user in ["storefront", "analyst", "invoices", "postman"] {
        primary
            .psql(&format!("CREATE ROLE {user} LOGIN SUPERUSER"))
            .unwrap();
    }
    for database in ["shop", "reports", "billing", "mail"] {
        primary
            .psql(&format!("CREATE DATABASE {database}"))
            .unwrap();
    }
    let init = Command::new(find_program("pgbench").unwrap())
        .args(["-i", "-q", "-s", "2", "-U", "postgres", "-h"])
        .arg(primary.socket_dir())
        .args(["-p", &primary.port().to_string(), "shop"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(init.unwrap().success(), "pgbench -i");
    let orders = "CREATE TABLE orders (id bigint PRIMARY KEY, customer int, total numeric, state text); \
                  INSERT INTO orders SELECT n, n % 500, n % 97, 'new' FROM generate_series(1, 5000) n";
    primary.psql_in("reports", orders).unwrap();
    primary.psql_in("billing", orders).unwrap();
}

/// Transactions of changing length, and now and then one that fails, until `stop`.
fn trade(pooler: &Pooler, stop: &AtomicBool) {
    let mut wire = client(pooler, "invoices", "billing", "invoicing");
    for n in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let pause = 2 + n % 40 * (1 + n / 400 % 3);
        let fails = n % 150 == 149;
        let sql = match fails {
            true => "INSERT INTO orders VALUES (1, 1, 1, 'new')".to_owned(),
            false => format!("SELECT pg_sleep({}e-3)", pause),
        };
        // What fails, fails on purpose.
        drop(wire.try_rows(&sql));
        if n % 977 == 976 {
            drop(wire.try_rows("SELECT 1/0"));
        }
    }
}

#[test]
#[ignore = "takes minutes, and writes docs/pictures: make pictures"]
fn pictures_for_the_readme() {
    let primary = Postgres::builder().max_connections(200).start().unwrap();
    let replicas = [primary.replica(&[]).unwrap(), primary.replica(&[]).unwrap()];
    fill(&primary);
    let pooler = Pooler::builder()
        .host_in("dc1", primary.port())
        .host_in("dc1", replicas[0].port())
        .host_in("dc2", replicas[1].port())
        .cluster("monitor_user = \"postgres\"")
        .set("datacenter = \"dc1\"")
        .set("inspect_functions = true")
        .set("routing = \"auto\"")
        .section(&SECTIONS.replace("]\npool", "]\ncluster = \"main\"\npool"))
        .start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let _load = [
            pgbench(
                &pooler,
                "storefront",
                "shop",
                "-c 7 -j 2 -R 200 -b tpcb-like",
            ),
            pgbench(
                &pooler,
                "storefront",
                "shop",
                "-c 4 -j 1 -R 300 -b select-only",
            ),
        ];
        let mut postman = client(&pooler, "postman", "mail", "mailer");
        postman.one("SELECT 1");
        scope.spawn(|| trade(&pooler, &stop));
        let deadline = Instant::now() + prelude();
        while Instant::now() < deadline {
            postman.one("SELECT count(*) FROM pg_class");
            std::thread::sleep(Duration::from_millis(300));
        }
        take(&pooler);
    });
}

/// Ends a thread's work when it is dropped, by a panic too: the scope waits for that thread.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two hold, five wait, and the page is looked at.
fn take(pooler: &Pooler) {
    let mut browser = Browser::start();
    let port = metrics_port(pooler);
    browser.resize(1280, 900);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    let mut slow = client(pooler, "analyst", "reports", "month-end report");
    slow.rows("BEGIN");
    slow.rows("UPDATE orders SET state = 'billed' WHERE customer = 42 AND total > 10.5");
    std::thread::sleep(Duration::from_millis(4300));
    let mut busy = client(pooler, "analyst", "reports", "dashboard export");
    busy.send(&[query(
        "SELECT pg_sleep(120), 'customer 42' AS whose FROM orders WHERE id = 7",
    )]);
    let waiting: Vec<Wire> = ["checkout", "checkout", "admin", "nightly sync", "metabase"]
        .into_iter()
        .map(|name| {
            let mut wire = client(pooler, "analyst", "reports", name);
            wire.send(&[query("SELECT count(*) FROM orders")]);
            std::thread::sleep(Duration::from_millis(900));
            wire
        })
        .collect();
    browser.wait_for("document.querySelectorAll('#waiting .waiter').length >= 5");
    for (name, width, height, dark) in [
        ("status", 1280, 900, false),
        ("status-dark", 1280, 900, true),
        ("status-phone", 390, 844, false),
    ] {
        browser.resize(width, height);
        browser.set_dark(dark);
        let looks = browser.value("Number(document.body.dataset.looks)");
        browser.wait_for(&format!(
            "Number(document.body.dataset.looks) > {looks} + 1"
        ));
        let file = pictures().join(format!("{name}.png"));
        browser.take_picture(&file);
        let len = std::fs::metadata(&file).unwrap().len();
        assert!(len < PICTURE_LEN_MAX, "{}: {len} bytes", file.display());
    }
    drop((slow, busy, waiting));
}

fn pictures() -> PathBuf {
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    std::fs::create_dir_all(&pictures).unwrap();
    pictures
}
