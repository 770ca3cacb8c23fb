//! PostgreSQL servers to which the pooler connects by TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pooler::config::TlsNegotiation;
use pooler::demo::postgres::Postgres;

use crate::bridge;
use crate::certs::Authority;
use crate::clients::{authority, section};
use crate::support::{Pooler, ScriptedServer, Wire, query, wait_until};

/// A PostgreSQL whose `ssl` is on, with this certificate and these rules in front.
pub(crate) fn postgres_with(pair: &(String, String), ca: &str, rules: &[&str]) -> Postgres {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    show(&postgres, pair);
    postgres.write_file("root.crt", ca.as_bytes()).unwrap();
    postgres.set_conf("ssl", "on").unwrap();
    postgres.set_conf("ssl_ca_file", "root.crt").unwrap();
    postgres.set_hba(rules).unwrap();
    postgres.reload().unwrap();
    postgres
}

fn show(postgres: &Postgres, (certificate, key): &(String, String)) {
    postgres
        .write_file("server.crt", certificate.as_bytes())
        .unwrap();
    postgres.write_file("server.key", key.as_bytes()).unwrap();
}

/// What a login by a pooler with this `[tls.server]` gives: whether the server's connection is encrypted, or the error.
fn by(host: &str, port: u16, section: &str) -> Result<String, String> {
    by_database(host, port, "there", section)
}

/// The same, of this database.
pub(crate) fn by_database(
    host: &str,
    port: u16,
    database: &str,
    section: &str,
) -> Result<String, String> {
    try_login(&before(host, port, section), database)
}

pub(crate) fn before(host: &str, port: u16, section: &str) -> Pooler {
    let hosts = format!("hosts = [{{ host = \"{host}\", port = {port} }}]");
    Pooler::builder()
        .set("query_wait_timeout = \"5s\"")
        .section(&format!("[tls.server]\n{section}\n[clusters.other]\n{hosts}\n[databases.there]\ncluster = \"other\"\ndbname = \"postgres\""))
        .host(port)
        .start()
}

pub(crate) fn try_by(pooler: &Pooler) -> Result<String, String> {
    try_login(pooler, "there")
}

fn try_login(pooler: &Pooler, database: &str) -> Result<String, String> {
    let who = [("user", "postgres"), ("database", database)];
    match Wire::try_login(pooler.port(), &who, "") {
        Ok(mut wire) => Ok(wire.one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")),
        Err(e) => Err(format!("{e:?}")),
    }
}

fn verify(mode: &str, ca: &Path) -> String {
    format!("mode = \"{mode}\"\nca = {ca:?}")
}

fn yes() -> Result<String, String> {
    Ok("t".to_owned())
}

fn no() -> Result<String, String> {
    Ok("f".to_owned())
}

#[test]
fn each_mode_meets_servers_with_and_without_tls_and_their_rules() {
    let (authority, dir) = authority();
    let ca = authority.file("ca.crt");
    let other = Authority::new(&dir).file("other.crt");
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(&pair, authority.pem(), &[]);
    let port = postgres.port();
    let plain = |mode: &str| format!("mode = \"{mode}\"");
    for (mode, any, only_tls, only_plain) in [
        ("disable", no(), Err(()), no()),
        ("allow", no(), yes().map_err(drop), no()),
        ("prefer", yes(), yes().map_err(drop), no()),
        ("require", yes(), yes().map_err(drop), Err("".to_owned())),
    ] {
        for (rule, expected) in [
            ("# none", any.clone().map_err(drop)),
            ("hostnossl all all all reject", only_tls),
            ("hostssl all all all reject", only_plain.map_err(drop)),
        ] {
            postgres.set_hba(&[rule]).unwrap();
            postgres.reload().unwrap();
            let got = by("localhost", port, &plain(mode));
            assert_eq!(
                got.clone().map_err(drop),
                expected,
                "{mode}, {rule}: {got:?}"
            );
        }
    }
    postgres.set_hba(&[]).unwrap();
    postgres.reload().unwrap();
    assert_eq!(by("localhost", port, &verify("verify-full", &ca)), yes());
    assert_eq!(by("127.0.0.1", port, &verify("verify-ca", &ca)), yes());
    for (host, section) in [
        ("127.0.0.1", verify("verify-full", &ca)),
        ("localhost", verify("verify-ca", &other)),
        ("localhost", verify("verify-full", &other)),
        // As libpq: with a root certificate there, require verifies.
        ("localhost", verify("require", &other)),
        ("localhost", plain("verify-full")),
    ] {
        let error = by(host, port, &section).unwrap_err();
        assert!(error.contains("no TLS with"), "{section}: {error}");
    }
    assert_eq!(by("localhost", port, &verify("prefer", &other)), no());
    // A server without TLS.
    postgres.set_conf("ssl", "off").unwrap();
    postgres.reload().unwrap();
    assert_eq!(by("localhost", port, &plain("prefer")), no());
    let error = by("localhost", port, &plain("require")).unwrap_err();
    assert!(error.contains("does not offer TLS"), "{error}");
}

#[test]
fn an_expired_certificate_is_refused_and_one_of_a_name_alone_is_not() {
    let (authority, _dir) = authority();
    let ca = authority.file("ca.crt");
    let postgres = postgres_with(
        &authority.sign_expired("localhost", &["localhost"]),
        authority.pem(),
        &[],
    );
    let port = postgres.port();
    let error = by("localhost", port, &verify("verify-ca", &ca)).unwrap_err();
    assert!(
        error.contains("expired") || error.contains("Expired"),
        "{error}"
    );
    assert_eq!(
        by("localhost", port, "mode = \"require\""),
        yes(),
        "nobody looks"
    );
    show(&postgres, &authority.sign("localhost", &[]));
    postgres.reload().unwrap();
    assert_eq!(by("localhost", port, &verify("verify-full", &ca)), yes());
    // Signed by itself, and marked as an authority's, as `openssl req -x509` makes it.
    let (certificate, key) = self_signed();
    let file = authority.write("self.crt", &certificate);
    show(&postgres, &(certificate, key));
    postgres.reload().unwrap();
    assert_eq!(by("localhost", port, &verify("verify-full", &file)), yes());
    assert!(by("localhost", port, &verify("verify-full", &ca)).is_err());
}

fn self_signed() -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_it() {
    let (authority, _dir) = authority();
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(
        &pair,
        authority.pem(),
        &["hostssl all all all cert", "host all all all reject"],
    );
    let (cert, key): (PathBuf, PathBuf) = authority.files("client", "postgres", &[]);
    let shown = format!("mode = \"require\"\ncert = {cert:?}\nkey = {key:?}");
    assert_eq!(by("localhost", postgres.port(), &shown), yes());
    let error = by("localhost", postgres.port(), "mode = \"require\"").unwrap_err();
    assert!(error.contains("28000"), "{error}");
}

#[test]
fn t19_a_cancel_goes_by_tls_to_a_server_that_was_connected_so() {
    let (authority, _dir) = authority();
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(&pair, authority.pem(), &[]);
    postgres.set_conf("log_connections", "on").unwrap();
    postgres.set_conf("log_min_messages", "debug2").unwrap();
    postgres.reload().unwrap();
    let pooler = before("localhost", postgres.port(), "mode = \"require\"");
    let mut wire = pooler.login("postgres", "there");
    wire.send(&[query("SELECT pg_sleep(30)")]);
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("it sleeps", || {
        postgres.psql(sleeps).is_ok_and(|n| n.trim() == "1")
    });
    let encrypted = || postgres.log().matches("SSL connection from").count();
    let before = encrypted();
    assert!(before >= 1, "the session's");
    wire.cancel();
    wire.expect("T E(57014) Z(I)");
    assert_eq!(wire.one("SELECT 1"), "1");
    wait_until("the request's is noted", || encrypted() > before);
}

#[test]
fn t53_bytes_behind_a_servers_answer_are_refused() {
    let server = ScriptedServer::start(|mut wire| {
        wire.send(b"S\x52\x00\x00\x00\x08\x00\x00\x00\x00");
        std::thread::sleep(Duration::from_secs(1));
    });
    let pooler = before("localhost", server.port(), "mode = \"require\"");
    let error = try_by(&pooler).unwrap_err();
    assert!(error.contains("unencrypted"), "{error}");
}

#[test]
fn a_server_that_stops_in_the_handshake_is_given_up_in_time() {
    let server = ScriptedServer::start(|mut wire| {
        wire.send(b"S");
        std::thread::sleep(Duration::from_secs(20));
    });
    let hosts = server.port();
    let pooler = Pooler::builder()
        .set("server_connect_timeout = \"500ms\"")
        .section("[tls.server]\nmode = \"require\"")
        .host(hosts)
        .start();
    let error = Wire::try_login(pooler.port(), &[("user", "a"), ("database", "b")], "").err();
    assert!(format!("{error:?}").contains("08001"), "{error:?}");
    wait_until("it is logged", || {
        pooler.log().contains("server_connect_timeout")
    });
}

#[test]
fn scram_is_bound_to_the_servers_certificate_and_passed_through() {
    let (_authority, dir) = authority();
    // A signature by P-384: the hash that is bound to is another than that of SCRAM.
    let authority = Authority::of(&rcgen::PKCS_ECDSA_P384_SHA384, &dir);
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(
        &pair,
        authority.pem(),
        &["hostssl all all all scram-sha-256"],
    );
    postgres
        .psql("SET password_encryption = 'scram-sha-256'; CREATE ROLE ann LOGIN PASSWORD 'secret'")
        .unwrap();
    let verifier = postgres
        .psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'ann'")
        .unwrap();
    let (cert, key) = authority.files("pooler", "localhost", &["localhost"]);
    let pooler = Pooler::builder()
        .auth("type = \"scram-sha-256\"")
        .database("dbname = \"postgres\"")
        .section(&format!(
            "[users.ann]\npassword = \"{}\"\n[tls.client]\ncert = {cert:?}\nkey = {key:?}\n[tls.server]\nmode = \"require\"\nchannel_binding = \"require\"",
            verifier.trim()
        ))
        .host(postgres.port())
        .start();
    let through = crate::bridge::start(
        pooler.port(),
        None,
        pooler::config::TlsNegotiation::Postgres,
    );
    for port in [pooler.port(), through] {
        let who = [("user", "ann"), ("database", "postgres")];
        let mut wire = Wire::try_login(port, &who, "secret").unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(
            wire.one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"),
            "t"
        );
    }
}

#[test]
fn t61_a_changed_authority_is_asked_of_new_connections_and_old_ones_go() {
    let (authority, dir) = authority();
    let ca = authority.file("ca.crt");
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(&pair, authority.pem(), &[]);
    let pooler = before("localhost", postgres.port(), &verify("verify-full", &ca));
    let mut wire = pooler.login("postgres", "there");
    let pid = wire.one("SELECT pg_backend_pid()");
    pooler.signal("HUP");
    wait_until("a reload", || {
        pooler.log().matches("configuration reloaded").count() == 1
    });
    assert_eq!(
        wire.one("SELECT pg_backend_pid()"),
        pid,
        "nothing has changed"
    );
    authority.write("ca.crt", Authority::new(&dir).pem());
    pooler.signal("HUP");
    wait_until("a reload", || {
        pooler.log().matches("configuration reloaded").count() == 2
    });
    let error = wire.try_rows("SELECT 1").unwrap_err();
    assert!(format!("{error:?}").contains("no TLS with"), "{error:?}");
}

/// The console says of each connection how it is encrypted: version and cipher, by the names that PostgreSQL has for them.
#[test]
fn the_console_shows_how_connections_are_encrypted() {
    const TLS: usize = 17;
    let (authority, _) = authority();
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(&pair, authority.pem(), &[]);
    let pooler = Pooler::before(&postgres)
        .set("admin_users = [\"ops\"]")
        .section(&section(&authority, ""))
        .section("[tls.server]\nmode = \"require\"")
        .start();
    let encrypted = bridge::start(pooler.port(), None, TlsNegotiation::Postgres);
    let mut by_tls = Wire::login(encrypted, "postgres", "postgres");
    let theirs =
        by_tls.one("SELECT version || '/' || cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    let mut console = pooler.login("ops", "pgbouncer");
    let mut by_tls_too = Wire::login(encrypted, "ops", "pgbouncer");
    by_tls_too.one("SHOW VERSION");
    let mut shown = |sql: &str, database: &str| {
        let rows = console.rows(sql).into_iter();
        let mut shown: Vec<_> = rows
            .filter(|row| row[2] == database)
            .map(|row| row[TLS].clone())
            .collect();
        shown.sort();
        shown
    };
    assert!(theirs.starts_with("TLSv1.3/TLS_"), "{theirs}");
    assert_eq!(shown("SHOW CLIENTS", "postgres"), [theirs.as_str()]);
    assert_eq!(shown("SHOW SERVERS", "postgres"), [theirs.as_str()]);
    assert_eq!(shown("SHOW CLIENTS", "pgbouncer"), ["", theirs.as_str()]);
}
