//! Applications that connect to the pooler by TLS.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pooler::config::TlsNegotiation;
use rustls::HandshakeKind;

use crate::bridge;
use crate::certs::Authority;
use crate::support::{
    Pooler, Received, Rig, Wire, cancel_request, message, postgres, query, startup, wait_until,
};

/// `[tls.client]` with a certificate of this authority.
pub(crate) fn section(authority: &Authority, more: &str) -> String {
    let (cert, key) = authority.files("pooler", "localhost", &["localhost"]);
    format!("[tls.client]\ncert = {cert:?}\nkey = {key:?}\n{more}\n")
}

pub(crate) fn psql(
    port: u16,
    parameters: &str,
    environment: &[(&str, &str)],
) -> Result<String, String> {
    let conninfo = format!("host=localhost port={port} user=postgres dbname=postgres {parameters}");
    let mut command = Command::new("psql");
    command.args(["-X", "-At", "-c", "SELECT 'here'", &conninfo]);
    command.env("PGCONNECT_TIMEOUT", "10");
    command.envs(environment.iter().copied());
    let out = command.output().expect("psql");
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

pub(crate) fn authority() -> (Authority, std::path::PathBuf) {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = pooler::demo::make_dir(&format!("certificates{number}")).expect("a directory");
    let authority = Authority::new(&dir);
    (authority, dir)
}

fn closed(wire: &mut Wire) {
    let got = wire.poll();
    assert!(matches!(got, Received::Closed), "{got:?}");
}

#[test]
fn each_sslmode_of_psql_meets_each_mode_of_the_pooler() {
    let (authority, dir) = authority();
    let ca = authority.file("ca.crt");
    let other = Authority::new(&dir).file("other.crt");
    let (cert, key) = authority.files("ann", "ann", &[]);
    let shown = format!("sslcert={} sslkey={}", cert.display(), key.display());
    let verify = |mode: &str, ca: &Path| format!("sslmode={mode} sslrootcert={}", ca.display());
    for (mode, plain, bare, with_certificate) in [
        ("disable", true, false, false),
        ("allow", true, true, true),
        ("prefer", true, true, true),
        ("require", false, true, true),
        ("verify-ca", false, false, true),
        ("verify-full", false, false, true),
    ] {
        let more = format!("mode = \"{mode}\"\nca = {ca:?}");
        let pooler = Pooler::before(postgres())
            .section(&section(&authority, &more))
            .start();
        let port = pooler.port();
        let can = |parameters: &str| psql(port, parameters, &[]);
        assert_eq!(can("sslmode=disable").is_ok(), plain, "{mode}");
        assert_eq!(
            can("sslmode=require").is_ok(),
            bare,
            "{mode}: {:?}",
            can("sslmode=require")
        );
        let shows = format!("{} {shown}", verify("verify-full", &ca));
        assert_eq!(
            can(&shows).is_ok(),
            with_certificate,
            "{mode}: {:?}",
            can(&shows)
        );
        assert!(can(&verify("verify-ca", &other)).is_err(), "{mode}");
        assert_eq!(can("sslmode=prefer").is_ok(), plain || bare, "{mode}");
        if !plain {
            let error = can("sslmode=disable").unwrap_err();
            assert!(error.contains("without TLS"), "{error}");
        }
    }
}

#[test]
fn a_client_certificate_of_somebody_else_is_refused_and_logged_once() {
    let (authority, dir) = authority();
    let (cert, key) = Authority::new(&dir).files("eve", "eve", &[]);
    let more = format!("mode = \"require\"\nca = {:?}", authority.file("ca.crt"));
    let pooler = Pooler::before(postgres())
        .section(&section(&authority, &more))
        .start();
    let shown = format!(
        "sslmode=require sslcert={} sslkey={}",
        cert.display(),
        key.display()
    );
    for _ in 0..3 {
        assert!(psql(pooler.port(), &shown, &[]).is_err());
    }
    wait_until("it is logged", || {
        pooler.log().contains("TLS handshake failed")
    });
    assert_eq!(
        pooler.log().matches("TLS handshake failed").count(),
        1,
        "{}",
        pooler.log()
    );
    assert!(
        psql(pooler.port(), "sslmode=require", &[]).is_ok(),
        "nobody must show one"
    );
}

/// Of each address one line, which names the whole address of the first that failed, whatever failed; and none of those whose
/// handshake was good.
#[test]
fn a_handshake_that_fails_is_logged_once_an_address() {
    let (authority, _dir) = authority();
    let pooler = Pooler::before(postgres())
        .section(&section(&authority, ""))
        .start();
    pooler.assert_serves("postgres", "postgres");
    assert!(psql(pooler.port(), "sslmode=require", &[]).is_ok());
    let from = |address: [u8; 4], bytes: &[u8]| {
        let kind = socket2::Domain::IPV4;
        let socket = socket2::Socket::new(kind, socket2::Type::STREAM, None).unwrap();
        let bound = std::net::SocketAddr::from((address, 0));
        socket.bind(&bound.into()).unwrap();
        let there = std::net::SocketAddr::from(([127, 0, 0, 1], pooler.port()));
        socket.connect(&there.into()).unwrap();
        let mut socket = std::net::TcpStream::from(socket);
        let ours = socket.local_addr().unwrap();
        socket.write_all(bytes).unwrap();
        // An alert, or the end.
        let _end = socket.read_to_end(&mut Vec::new());
        ours
    };
    // A ClientHello that is none, and a record that is no handshake's.
    let bad = [&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0][..], &[0x16, 3, 1, 0, 0]];
    let first = from([127, 0, 0, 1], bad[0]);
    let others: Vec<_> = (0..4).map(|n| from([127, 0, 0, 1], bad[n % 2])).collect();
    let elsewhere = from([127, 0, 0, 2], bad[1]);
    let lines = || {
        let log = pooler.log();
        let failed = log.lines().filter(|l| l.contains("TLS handshake failed"));
        failed.map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("both are logged", || lines().len() >= 2);
    // What came in between has been refused by now, and this comes behind it.
    pooler.assert_serves("postgres", "postgres");
    let lines = lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(&format!("peer={first}")), "{lines:?}");
    assert!(lines[1].contains(&format!("peer={elsewhere}")), "{lines:?}");
    for other in others {
        assert!(!lines.iter().any(|l| l.contains(&other.to_string())));
    }
}

#[test]
fn channel_binding_is_used_and_cannot_be_talked_away() {
    let (authority, dir) = authority();
    // The hash that is bound to is that of the authority's signature.
    let p384 = Authority::of(&rcgen::PKCS_ECDSA_P384_SHA384, &dir);
    let pairs = [
        ("ecdsa256", authority.sign("localhost", &["localhost"])),
        ("ecdsa384", p384.sign("localhost", &["localhost"])),
    ];
    for (name, pair) in pairs {
        let (cert, key) = authority.write_pair(name, &pair);
        let pooler = Pooler::before(postgres())
            .auth("type = \"scram-sha-256\"")
            .section("[users.postgres]\npassword = \"secret\"")
            .section(&format!("[tls.client]\ncert = {cert:?}\nkey = {key:?}\n"))
            .start();
        let password = ("PGPASSWORD", "secret");
        let required = ("PGCHANNELBINDING", "require");
        let port = pooler.port();
        let said = psql(port, "sslmode=require", &[password, required]);
        assert_eq!(said.as_deref(), Ok("here"), "{name}");
        assert!(
            psql(
                port,
                "sslmode=require",
                &[password, ("PGCHANNELBINDING", "disable")]
            )
            .is_ok()
        );
        assert!(psql(port, "sslmode=disable", &[password, required]).is_err());
        assert!(
            psql(
                port,
                "sslmode=require",
                &[("PGPASSWORD", "wrong"), required]
            )
            .is_err()
        );
        // `y`: it could bind and believes that we cannot, although we said so.
        let through = bridge::start(port, None, TlsNegotiation::Postgres);
        let mut wire = Wire::connect(through);
        wire.send(&[startup(&[("user", "postgres"), ("database", "postgres")])]);
        wire.expect("R");
        wire.send(&[crate::support::sasl_initial(
            "SCRAM-SHA-256",
            b"y,,n=,r=abcdefghijklmnopqrstuvwx",
        )]);
        let error = wire.recv();
        assert_eq!(error.tag, b'E');
        assert!(format!("{error:?}").contains("28000"), "{error:?}");
    }
}

#[test]
fn t53_bytes_behind_an_ssl_request_are_not_taken_for_encrypted_ones() {
    let (authority, _dir) = authority();
    let pooler = Pooler::before(postgres())
        .section(&section(&authority, ""))
        .start();
    let mut wire = Wire::connect(pooler.port());
    let mut bytes = vec![0, 0, 0, 8, 4, 210, 22, 47];
    bytes.extend(startup(&[("user", "postgres"), ("database", "postgres")]));
    wire.send_bytes(&bytes);
    // An error, or the end; never 'S', never a login.
    let got = format!("{:?}", wire.poll());
    assert!(
        got.contains("unencrypted") || got.contains("Closed"),
        "{got}"
    );
    pooler.assert_serves("postgres", "postgres");
}

#[test]
fn a_second_handshake_resumes_the_first() {
    let (authority, _dir) = authority();
    let pooler = Pooler::before(postgres())
        .section(&section(&authority, ""))
        .start();
    let config = bridge::rustls_config(&[b"postgresql"]);
    for expected in [
        HandshakeKind::Full,
        HandshakeKind::Resumed,
        HandshakeKind::Resumed,
    ] {
        let mut wire = bridge::rustls_connect(pooler.port(), &config, true).expect("direct TLS");
        let kind = wire.conn.handshake_kind().unwrap();
        wire.write_all(&startup(&[("user", "postgres"), ("database", "postgres")]))
            .unwrap();
        let mut first = [0; 9];
        wire.read_exact(&mut first).unwrap();
        assert_eq!(first[0], b'R');
        let retried = matches!(kind, HandshakeKind::FullWithHelloRetryRequest);
        assert!(
            kind == expected || (retried && expected == HandshakeKind::Full),
            "{kind:?}"
        );
    }
}

#[test]
fn direct_tls_needs_the_name_of_the_protocol() {
    let (authority, _dir) = authority();
    let pooler = Pooler::before(postgres())
        .section(&section(&authority, ""))
        .start();
    for (alpn, good) in [
        (&[&b"postgresql"[..]][..], true),
        (&[b"http/1.1"], false),
        (&[], false),
    ] {
        let config = bridge::rustls_config(alpn);
        let logged_in =
            bridge::rustls_connect(pooler.port(), &config, true).and_then(|mut wire| {
                wire.write_all(&startup(&[("user", "postgres"), ("database", "postgres")]))?;
                let mut first = [0; 9];
                wire.read_exact(&mut first).map(|()| first[0])
            });
        assert_eq!(logged_in.ok(), good.then_some(b'R'), "{alpn:?}");
    }
    // Behind an SSLRequest no name is needed.
    let config = bridge::rustls_config(&[]);
    assert!(bridge::rustls_connect(pooler.port(), &config, false).is_ok());
}

#[test]
fn a_half_open_handshake_ends_at_the_deadline_of_logins() {
    let (authority, _dir) = authority();
    let pooler = Pooler::before(postgres())
        .set("client_login_timeout = \"1s\"")
        .section(&section(&authority, ""))
        .start();
    let mut wires: Vec<Wire> = (0..20).map(|_| Wire::connect(pooler.port())).collect();
    for (n, wire) in wires.iter_mut().enumerate() {
        match n % 2 {
            0 => wire.send_bytes(&[0, 0, 0, 8, 4, 210, 22, 47]),
            // The beginning of a record.
            _ => wire.send_bytes(&[0x16, 3, 1, 2, 0, 1, 0]),
        }
    }
    pooler.assert_serves("postgres", "postgres");
    let began = Instant::now();
    for (n, wire) in wires.iter_mut().enumerate() {
        if n % 2 == 0 {
            let _s = wire.recv_bytes(1);
        }
        closed(wire);
    }
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn t61_files_are_read_again_and_a_bad_one_changes_nothing() {
    let (authority, _dir) = authority();
    let ca = authority.file("ca.crt");
    let pooler = Pooler::before(postgres())
        .section(&section(&authority, ""))
        .start();
    let verified = format!("sslmode=verify-full sslrootcert={}", ca.display());
    assert!(psql(pooler.port(), &verified, &[]).is_ok());
    let through = bridge::start(pooler.port(), None, TlsNegotiation::Postgres);
    let mut old = Wire::login(through, "postgres", "postgres");
    let reloads = |times: usize, what: &str| {
        pooler.signal("HUP");
        wait_until(what, || pooler.log().matches(what).count() >= times);
    };
    authority.write("pooler.crt", "nothing");
    reloads(1, "reload failed");
    assert!(
        pooler.log().contains("[tls.client] cert") && pooler.log().contains("pooler.crt"),
        "{}",
        pooler.log()
    );
    assert!(psql(pooler.port(), &verified, &[]).is_ok());
    // A key that belongs to another certificate.
    authority.write("pooler.crt", &authority.sign("localhost", &["localhost"]).0);
    reloads(2, "reload failed");
    assert!(psql(pooler.port(), &verified, &[]).is_ok());
    authority.files("pooler", "elsewhere", &["elsewhere"]);
    reloads(1, "configuration reloaded");
    let error = psql(pooler.port(), &verified, &[]).unwrap_err();
    assert!(error.contains("elsewhere"), "{error}");
    assert_eq!(old.one("SELECT 1"), "1");
}

#[test]
fn t19_a_cancel_request_comes_by_tls() {
    let (authority, _dir) = authority();
    for negotiation in [TlsNegotiation::Postgres, TlsNegotiation::Direct] {
        let rig = Rig::with(|b| b.section(&section(&authority, "mode = \"require\"")));
        let through = bridge::start(rig.pooler.port(), None, negotiation);
        let mut wire = Wire::login(through, "postgres", &rig.database);
        let sleeps = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')";
        wire.send(&[query("SELECT pg_sleep(30)")]);
        rig.wait_sql(sleeps);
        let mut canceller = Wire::connect(through);
        canceller.send(&[cancel_request(wire.key.0, &wire.key.1)]);
        wire.expect("T E(57014) Z(I)");
        closed(&mut canceller);
        // As libpq before version 17 does.
        wire.send(&[query("SELECT pg_sleep(30)")]);
        rig.wait_sql(sleeps);
        let mut canceller = rig.connect();
        canceller.send(&[cancel_request(wire.key.0, &wire.key.1)]);
        wire.expect("T E(57014) Z(I)");
    }
}

#[test]
fn t12_large_results_come_whole_in_records_of_8_kb() {
    let (authority, _dir) = authority();
    let rig = Rig::with(|b| b.section(&section(&authority, "")));
    let through = bridge::start(rig.pooler.port(), None, TlsNegotiation::Direct);
    let mut wire = Wire::login(through, "postgres", &rig.database);
    let rows = wire.rows("SELECT repeat('x', 1000) || g FROM generate_series(1, 20000) g");
    assert_eq!(rows.len(), 20000);
    assert!(rows[19999][0].ends_with("x20000"));
    wire.send(&[query("CREATE TABLE t (a text)")]);
    wire.expect("C(CREATE TABLE) Z(I)");
    wire.send(&[query("COPY t FROM STDIN")]);
    wire.expect("G");
    let line = format!("{}\n", "y".repeat(999));
    for _ in 0..2000 {
        wire.send(&[message(b'd', line.repeat(10).as_bytes())]);
    }
    wire.send(&[message(b'c', b"")]);
    wire.expect("C(COPY 20000) Z(I)");
    assert_eq!(wire.one("SELECT sum(length(a)) FROM t"), "19980000");
    rig.assert_sound();
    // What is on the wire, by the length field of each record.
    let sql = "SELECT repeat('x', 60000)";
    let largest = bridge::longest_record(rig.pooler.port(), &rig.database, sql);
    assert!((8 * 1024..8 * 1024 + 64).contains(&largest), "{largest}");
}

#[test]
fn slow_readers_by_tls_hold_up_nobody_and_fill_no_memory() {
    let (authority, _dir) = authority();
    let rig = Rig::with(|b| b.section(&section(&authority, "")));
    let through = bridge::start(rig.pooler.port(), None, TlsNegotiation::Postgres);
    let before = rig.pooler.rss_kb();
    let mut slow: Vec<Wire> = (0..3)
        .map(|_| Wire::login(through, "postgres", &rig.database))
        .collect();
    for wire in &mut slow {
        wire.send(&[query(
            "SELECT repeat('x', 1000) FROM generate_series(1, 64000)",
        )]);
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut other = Wire::login(through, "postgres", &rig.database);
    assert_eq!(other.one("SELECT 1"), "1");
    let grown = rig.pooler.rss_kb().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} kB");
    for wire in &mut slow {
        let rows = wire.recv_to_ready();
        assert_eq!(rows.iter().filter(|m| m.tag == b'D').count(), 64000);
    }
    rig.assert_sound();
}

/// The figure that is promised is 24 kB of resident memory, with 4000; here it is a guard against buffers that stay.
#[test]
fn an_idle_client_by_tls_keeps_no_buffer() {
    let (authority, _dir) = authority();
    let rig = Rig::with(|b| b.section(&section(&authority, "")));
    let config = bridge::rustls_config(&[b"postgresql"]);
    let login = || {
        let mut wire = bridge::rustls_connect(rig.pooler.port(), &config, true).unwrap();
        let hello = startup(&[("user", "postgres"), ("database", &rig.database)]);
        let asks = query("SELECT repeat('x', 20000)");
        wire.write_all(&[hello, asks].concat()).unwrap();
        let mut bytes = vec![0; 20000];
        wire.read_exact(&mut bytes).unwrap();
        wire
    };
    let mut wires: Vec<_> = (0..50).map(|_| login()).collect();
    let before = rig.pooler.rss_kb();
    wires.extend((0..300).map(|_| login()));
    let each = rig.pooler.rss_kb().saturating_sub(before) / 300;
    assert!(each <= 24, "{each} kB");
    rig.assert_sound();
}
