//! Before and during login: rows A.

use std::time::{Duration, Instant};

use crate::support::{
    Message, Pooler, Received, Rig, SERVERS, ScriptedServer, Wire, cancel_request, cstr,
    gssenc_request, lying, message, packet, parameters, password, query, sasl_initial, ssl_request,
    startup, version, wait_until,
};

/// The only user that a pooler with passwords knows.
const USERS: &str = "[users.alice]\npassword = \"right\"\n";

fn with_scram(server: u16) -> Pooler {
    let builder = Pooler::builder().host(server);
    let builder = builder.auth("type = \"scram-sha-256\"").section(USERS);
    builder.start()
}

/// The connection ends at once: silently, or with one FATAL of this SQLSTATE.
fn refused(wire: &mut Wire) -> Option<Message> {
    let began = Instant::now();
    let mut got = wire.recv_to_end();
    assert!(began.elapsed() < Duration::from_secs(5), "at once");
    got.retain(|m| m.tag != b'R');
    assert!(got.len() <= 1, "{got:?}");
    let last = got.pop()?;
    assert_eq!((last.tag, &*last.field(b'V')), (b'E', "FATAL"), "{last:?}");
    Some(last)
}

fn refused_with(wire: &mut Wire, sqlstate: &str) -> Message {
    let error = refused(wire).expect("an error before the close");
    assert_eq!(error.sqlstate(), sqlstate, "{error:?}");
    error
}

fn assert_quiet_log(pooler: &Pooler) {
    let log = pooler.log();
    let loud: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("WARN") || l.contains("ERROR"))
        .collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

#[test]
fn a01_seventy_probes_leave_no_log_and_no_descriptor() {
    let rig = Rig::new();
    rig.assert_sound();
    let before = rig.pooler.open_files();
    for n in 0..70 {
        let probe = rig.connect();
        if n % 2 == 0 {
            probe.reset();
        }
    }
    rig.assert_sound();
    wait_until("the descriptors are free again", || {
        rig.pooler.open_files() <= before
    });
    assert_quiet_log(&rig.pooler);
    assert!(rig.pooler.log().lines().count() < 20, "no flood");
}

#[test]
fn a02_a_startup_packet_may_be_cut_anywhere() {
    let rig = Rig::new();
    let packet = startup(&[("user", "postgres"), ("database", &rig.database)]);
    for cut in 0..packet.len() {
        let mut wire = rig.connect();
        wire.send_bytes(&packet[..cut]);
        wire.shut_down_writing();
        wire.expect(".");
    }
    assert_quiet_log(&rig.pooler);
    rig.assert_sound();
}

#[test]
fn a03_a04_t54_a_length_that_lies_closes_at_once() {
    let rig = Rig::new();
    rig.pooler.forget_peak();
    let before = rig.pooler.peak_rss_kb();
    for length in [0, 1, 4, 7, 10_001, i32::MAX, -1, i32::MIN] {
        let mut wire = rig.connect();
        wire.send_bytes(&length.to_be_bytes());
        refused(&mut wire);
        let mut wire = rig.connect();
        wire.send_bytes(&[&length.to_be_bytes()[..], &[0, 3, 0, 0]].concat());
        refused(&mut wire);
    }
    assert!(rig.pooler.peak_rss_kb() < before + 8 * 1024);
    rig.assert_sound();
}

#[test]
fn a05_a_startup_packet_has_at_most_ten_thousand_bytes() {
    let rig = Rig::new();
    let of_size = |bytes: usize| {
        let fixed = [("user", "postgres"), ("database", &*rig.database)];
        let rest = bytes - startup(&[fixed[0], fixed[1], ("application_name", "")]).len();
        startup(&[fixed[0], fixed[1], ("application_name", &"x".repeat(rest))])
    };
    for bytes in [9_000, 10_000] {
        let mut wire = rig.connect();
        wire.send(&[of_size(bytes)]);
        wire.finish_login("postgres", "").expect("a login");
        assert_eq!(wire.one("SELECT 1"), "1");
    }
    for bytes in [10_001, 11_000, 200_000] {
        let mut wire = rig.connect();
        // It may be closed before all is sent.
        drop(wire.try_send_bytes(&of_size(bytes)));
        refused(&mut wire);
    }
    rig.assert_sound();
}

#[test]
fn a06_a07_a08_a_startup_packet_that_nobody_can_serve() {
    let rig = Rig::new();
    let v3 = version(3, 0);
    let user = parameters(&[("user", "postgres")]);
    for (what, packet, sqlstate) in [
        ("no user", startup(&[("database", "x")]), "28000"),
        ("an empty user", startup(&[("user", "")]), "28000"),
        ("no list", packet(v3, b""), "08P01"),
        (
            "no end of the list",
            packet(v3, b"user\0postgres\0"),
            "08P01",
        ),
        ("no end of a name", packet(v3, b"user"), "08P01"),
        (
            "a name without a value",
            packet(v3, b"user\0postgres\0x\0\0"),
            "08P01",
        ),
        ("2.0", packet(version(2, 0), &user), "0A000"),
        ("9.0", packet(version(9, 0), &user), "0A000"),
        ("1234.0", packet(version(1234, 0), &user), "0A000"),
    ] {
        let mut wire = rig.connect();
        wire.send(&[packet]);
        let error = refused(&mut wire).unwrap_or_else(|| panic!("{what}: no error"));
        assert_eq!(error.sqlstate(), sqlstate, "{what}: {error:?}");
    }
    rig.assert_sound();
}

#[test]
fn a09_a_newer_minor_version_is_negotiated() {
    let rig = Rig::new();
    let body = parameters(&[
        ("user", "postgres"),
        ("database", &rig.database),
        ("_pq_.x", "1"),
    ]);
    let mut wire = rig.connect();
    wire.send(&[packet(version(3, 99), &body)]);
    let got = wire.recv();
    assert_eq!(got.tag, b'v', "{got:?}");
    assert_eq!(got.body[4..], *b"\0\0\0\x01_pq_.x\0");
    wire.finish_login("postgres", "").expect("a login");
    assert_eq!(wire.one("SELECT 1"), "1");
    rig.assert_sound();
}

#[test]
fn t18_the_length_of_the_cancel_key_follows_the_version() {
    let rig = Rig::new();
    let body = parameters(&[("user", "postgres"), ("database", &rig.database)]);
    for (minor, len) in [(0, 4), (2, 32)] {
        let mut wire = rig.connect();
        wire.send(&[packet(version(3, minor), &body)]);
        wire.finish_login("postgres", "").expect("a login");
        assert_eq!(wire.key.1.len(), len, "3.{minor}");
        wire.send(&[query("SELECT pg_sleep(60)")]);
        rig.wait_sql(&format!(
            "count(*) = 1 {SERVERS} AND wait_event = 'PgSleep'"
        ));
        wire.cancel();
        wire.expect("T E(57014) Z(I)");
    }
    rig.assert_sound();
}

#[test]
fn a10_encryption_is_declined_and_the_login_goes_on() {
    let rig = Rig::new();
    let mut wire = rig.connect();
    for request in [gssenc_request(), ssl_request()] {
        wire.send(&[request]);
        assert_eq!(wire.recv_bytes(1), b"N");
    }
    wire.send(&[startup(&[
        ("user", "postgres"),
        ("database", &rig.database),
    ])]);
    wire.finish_login("postgres", "").expect("a login");
    assert_eq!(wire.one("SELECT 1"), "1");
    rig.assert_sound();
}

#[test]
fn a11_encryption_is_asked_for_once_only() {
    let rig = Rig::new();
    for request in [ssl_request(), gssenc_request()] {
        let mut wire = rig.connect();
        wire.send(std::slice::from_ref(&request));
        assert_eq!(wire.recv_bytes(1), b"N");
        wire.send(std::slice::from_ref(&request));
        refused(&mut wire);
    }
    let mut wire = rig.connect();
    drop(wire.try_send_bytes(&ssl_request().repeat(10_000)));
    drop(wire.try_send_bytes(&startup(&[("user", "postgres")])));
    wire.shut_down_writing();
    let mut wire = rig.connect();
    wire.send(&[ssl_request(), gssenc_request(), ssl_request()]);
    wire.shut_down_writing();
    rig.assert_sound();
}

/// Bytes behind SSLRequest in the same segment were once taken for encrypted ones. Without TLS they are either refused or
/// read as what they are: plain text behind an 'N'.
#[test]
fn a12_t53_bytes_behind_an_encryption_request() {
    let rig = Rig::new();
    for request in [ssl_request(), gssenc_request()] {
        let mut wire = rig.connect();
        let login = startup(&[("user", "postgres"), ("database", &rig.database)]);
        drop(wire.try_send_bytes(&[request, login].concat()));
        let first = wire.recv_bytes(1);
        if first == b"N" {
            match wire.poll() {
                Received::Message(m) => assert!(matches!(m.tag, b'E' | b'R')),
                other => assert!(matches!(other, Received::Closed)),
            }
        } else {
            assert_eq!(first, b"E", "an error, never 'S'");
        }
    }
    rig.assert_sound();
}

#[test]
fn a13_other_protocols_are_shown_out() {
    let rig = Rig::new();
    let client_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 506]].concat();
    let noise: Vec<u8> = (0..4096_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 1)
        .collect();
    for (what, bytes) in [
        ("HTTP", &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
        ("TLS", &client_hello),
        ("noise", &noise),
        ("zeros", &[0; 4096]),
    ] {
        let mut wire = rig.connect();
        drop(wire.try_send_bytes(bytes));
        let began = Instant::now();
        // What it gets is no business of ours as long as it ends.
        let mut all = wire.writer();
        drop(std::io::copy(&mut all, &mut std::io::sink()));
        assert!(began.elapsed() < Duration::from_secs(5), "{what}");
    }
    assert_quiet_log(&rig.pooler);
    rig.assert_sound();
}

#[test]
fn a14_half_logins_are_closed_in_time_and_disturb_nobody() {
    let rig = Rig::with(|b| b.set("client_login_timeout = \"1s\""));
    let packet = startup(&[("user", "postgres"), ("database", &rig.database)]);
    let mut half: Vec<Wire> = (0..60).map(|_| rig.connect()).collect();
    for (n, wire) in half.iter_mut().enumerate() {
        wire.send_bytes(&packet[..n % 20]);
    }
    rig.assert_sound();
    // Bytes that trickle do not move the deadline.
    let mut trickling = rig.connect();
    let began = Instant::now();
    for byte in &packet[..packet.len() - 1] {
        if trickling.try_send_bytes(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(began.elapsed() < Duration::from_secs(8), "still open");
    }
    drop(trickling.try_send_bytes(&packet[packet.len() - 1..]));
    for wire in half.iter_mut().chain([&mut trickling]) {
        let all = wire.recv_to_end();
        assert!(all.iter().all(|m| m.tag == b'E'), "{all:?}");
    }
    rig.assert_sound();
}

#[test]
fn a15_a_query_before_the_login_goes_nowhere() {
    let server = ScriptedServer::answering("x");
    let pooler = with_scram(server.port());
    let login = startup(&[("user", "alice"), ("database", "a")]);
    for early in [
        query("DROP TABLE t"),
        message(b'S', b""),
        message(b'X', b""),
    ] {
        let mut wire = Wire::connect(pooler.port());
        wire.send(&[login.clone(), early]);
        refused_with(&mut wire, "08P01");
    }
    assert_eq!(server.connections(), 0, "{:?}", server.received());
}

#[test]
fn a16_malformed_sasl_is_refused_at_once() {
    let server = ScriptedServer::answering("x");
    let pooler = with_scram(server.port());
    let login = startup(&[("user", "alice"), ("database", "a")]);
    let first = b"n,,n=,r=abcdefghijklmnopqrstuvwx";
    let lying_inside = |length: i32| {
        let body = [&cstr("SCRAM-SHA-256")[..], &length.to_be_bytes(), first].concat();
        message(b'p', &body)
    };
    for (what, answer) in [
        ("an inner length of 2 GB", lying_inside(i32::MAX)),
        ("a negative inner length", lying_inside(-7)),
        ("an inner length one too long", lying_inside(33)),
        ("an inner length one too short", lying_inside(31)),
        ("no NUL", message(b'p', b"SCRAM-SHA-256")),
        ("no body", message(b'p', b"")),
        ("an unknown mechanism", sasl_initial("SCRAM-MD5", first)),
        (
            "a mechanism for TLS",
            sasl_initial(
                "SCRAM-SHA-256-PLUS",
                b"p=tls-server-end-point,,n=,r=abcdefghijkl",
            ),
        ),
        (
            "a claim that we have no TLS",
            sasl_initial(
                "SCRAM-SHA-256",
                b"p=tls-server-end-point,,n=,r=abcdefghijkl",
            ),
        ),
        (
            "an unknown flag",
            sasl_initial("SCRAM-SHA-256", b"x,,n=,r=abcdefghijkl"),
        ),
        ("no nonce", sasl_initial("SCRAM-SHA-256", b"n,,n=,r=")),
        ("nothing", sasl_initial("SCRAM-SHA-256", b"")),
        ("zeros", sasl_initial("SCRAM-SHA-256", &[0; 100])),
        ("70 kB", message(b'p', &[b'x'; 70_000])),
        ("length 0", lying(b'p', 0, b"")),
        ("length 3", lying(b'p', 3, b"")),
        ("length 2 GB", lying(b'p', i32::MAX, b"")),
        ("a negative length", lying(b'p', -1, b"")),
        ("a password instead", password("right")),
    ] {
        let mut wire = Wire::connect(pooler.port());
        wire.send(std::slice::from_ref(&login));
        wire.expect("R(10)");
        drop(wire.try_send_bytes(&answer));
        let error = refused(&mut wire).unwrap_or_else(|| panic!("{what}: no error"));
        assert!(
            matches!(&*error.sqlstate(), "08P01" | "28P01" | "28000"),
            "{what}: {error:?}"
        );
    }
    let mut wire = Wire::connect(pooler.port());
    wire.send(&[login, sasl_initial("SCRAM-SHA-256", first)]);
    let challenge = wire.expect("R(10) R(11)").pop().expect("a challenge");
    let nonce = String::from_utf8_lossy(&challenge.body[4..]).into_owned();
    let nonce = nonce.split(',').next().expect("r=");
    let last = format!("c=biws,{nonce},p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    wire.send(&[message(b'p', last.as_bytes())]);
    refused_with(&mut wire, "28P01");
    assert_eq!(server.connections(), 0, "{:?}", server.received());
    assert!(pooler.ended().is_none());
    let right = Wire::login_with(
        pooler.port(),
        &[("user", "alice"), ("database", "a")],
        "right",
    );
    right.leave();
}

/// A wrong user looks like a wrong password: the same messages, the same text, salts that stay the same.
#[test]
fn a17_t57_an_unknown_user_looks_like_a_wrong_password() {
    let server = ScriptedServer::answering("x");
    for method in ["password", "md5", "scram-sha-256"] {
        let builder = Pooler::builder().host(server.port()).section(USERS);
        let pooler = builder.auth(&format!("type = \"{method}\"")).start();
        let attempt = |user: &str| {
            let login = [("user", user), ("database", "a")];
            let result = Wire::try_login(pooler.port(), &login, "wrong");
            let error = result.err().expect("a refusal");
            let text = error.text().replace(user, "USER");
            (error.sqlstate(), error.field(b'V'), text, error.field(b'H'))
        };
        let known = attempt("alice");
        assert_eq!(known.0, "28P01", "{method}");
        assert_eq!(known, attempt("mallory"), "{method}");
        if method != "scram-sha-256" {
            continue;
        }
        let salt = |user: &str| {
            let mut wire = Wire::connect(pooler.port());
            wire.send(&[startup(&[("user", user), ("database", "a")])]);
            wire.expect("R(10)");
            wire.send(&[sasl_initial(
                "SCRAM-SHA-256",
                b"n,,n=,r=abcdefghijklmnopqrstuvwx",
            )]);
            let challenge = wire.expect("R(11)").remove(0);
            let text = String::from_utf8(challenge.body[4..].to_vec()).expect("text");
            let (_, rest) = text.split_once(",s=").expect("a salt");
            rest.to_owned()
        };
        assert_eq!(salt("mallory"), salt("mallory"));
        assert_ne!(salt("mallory"), salt("eve"));
        let length = |s: String| s.len();
        assert_eq!(length(salt("mallory")), length(salt("alice")));
    }
    assert_eq!(server.connections(), 0, "{:?}", server.received());
}

#[test]
fn a18_sql_in_startup_parameters_stays_a_value() {
    let rig = Rig::new();
    rig.sql("CREATE TABLE t (a int); CREATE SCHEMA evil; CREATE TABLE evil.pg_class (a int)");
    let sql = "x'; DROP TABLE t; --";
    for name in [
        "client_encoding",
        "DateStyle",
        "TimeZone",
        "application_name",
        "search_path",
        "options",
    ] {
        for value in [
            sql,
            "\\'; DROP TABLE t; --",
            "UTF8\nDROP TABLE t",
            "$$; DROP TABLE t; $$",
        ] {
            let login = [
                ("user", "postgres"),
                ("database", &*rig.database),
                (name, value),
            ];
            match Wire::try_login(rig.pooler.port(), &login, "") {
                Ok(mut wire) => assert_eq!(wire.one("SELECT 1"), "1"),
                Err(error) => assert_eq!(error.field(b'V'), "FATAL", "{name}: {error:?}"),
            }
        }
    }
    let mut wire = rig.login_with(&[("search_path", "evil"), ("application_name", "o'brien")]);
    assert_eq!(wire.one("SHOW search_path"), "evil");
    assert_eq!(wire.one("SHOW application_name"), "o'brien");
    assert_eq!(wire.parameters["application_name"], "o'brien");
    wire.leave();
    assert_eq!(rig.sql("SELECT count(*) FROM t"), "0");
    rig.assert_sound();
}

#[test]
fn a18_names_cannot_forge_lines_of_the_log() {
    let rig = Rig::with(|b| b.log_level("debug"));
    let forged = "x\nERROR the log is forged";
    let login = [
        ("user", forged),
        ("database", forged),
        ("application_name", forged),
    ];
    drop(Wire::try_login(rig.pooler.port(), &login, ""));
    drop(Wire::try_login(
        rig.pooler.port(),
        &[("user", "postgres"), ("database", forged)],
        "",
    ));
    rig.assert_sound();
    let log = rig.pooler.log();
    assert!(!log.lines().any(|l| l.starts_with("ERROR")), "{log}");
}

#[test]
fn a19_strange_names_are_unknown_names() {
    let rig = Rig::new();
    let long_user = "u".repeat(500);
    let long_database = "d".repeat(5_000);
    for (user, database) in [
        (&*long_user, &*rig.database),
        ("postgres", &*long_database),
        ("post'gres", &rig.database),
        ("post\"gres", &rig.database),
        ("../../etc/passwd", &rig.database),
        ("postgres", "../../etc/passwd"),
        ("postgres", "'; --"),
        ("postgres", " "),
    ] {
        let login = [("user", user), ("database", database)];
        let error = Wire::try_login(rig.pooler.port(), &login, "").err();
        let error = error.unwrap_or_else(|| panic!("{user} {database} was let in"));
        let sqlstate = error.sqlstate();
        assert!(
            matches!(&*sqlstate, "3D000" | "28P01" | "28000"),
            "{error:?}"
        );
        assert_eq!(error.field(b'V'), "FATAL");
    }
    let mut wire = rig.connect();
    wire.send(&[packet(version(3, 0), b"user\0\xff\xfe\0database\0\xc3\0\0")]);
    refused(&mut wire);
    // An empty database is that of the user's name.
    let mut wire = Wire::login(rig.pooler.port(), "postgres", "");
    assert_eq!(wire.one("SELECT current_database()"), "postgres");
    wire.leave();
    for n in 0..200 {
        let login = [("user", "postgres"), ("database", &*format!("none{n}"))];
        let error = Wire::try_login(rig.pooler.port(), &login, "").err();
        assert_eq!(error.expect("a refusal").sqlstate(), "3D000");
    }
    rig.assert_sound();
}

#[test]
fn a20_a_cancel_that_names_nobody_does_nothing() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut busy = rig.login();
    busy.send(&[query("SELECT pg_sleep(1)")]);
    let (pid, key) = busy.key.clone();
    let mut wrong = key.clone();
    wrong[0] ^= 1;
    let long = [&key[..], &[0]].concat();
    for (pid, key) in [
        (pid, &*wrong),
        (pid + 1, &key),
        (0, &key),
        (-1, &key),
        (i32::MIN, &key),
        (i32::MAX, &key),
        (pid, &key[..3]),
        (pid, &[]),
        (pid, &long),
        (pid, &[7; 256]),
        (pid, &[7; 300]),
    ] {
        let mut cancel = rig.connect();
        cancel.send(&[cancel_request(pid, key)]);
        cancel.expect(".");
    }
    let mut cut = rig.connect();
    cut.send_bytes(&cancel_request(pid, &key)[..13]);
    drop(cut);
    busy.expect("T D() C(SELECT 1) Z(I)");
    rig.assert_sound();
}

#[test]
fn t05_login_messages_may_come_in_pieces_or_all_at_once() {
    let rig = Rig::new();
    let login = startup(&[("user", "postgres"), ("database", &rig.database)]);
    let mut wire = rig.connect();
    wire.send_byte_by_byte(&login);
    wire.finish_login("postgres", "").expect("a login");
    wire.leave();
    let mut wire = rig.connect();
    wire.send(&[login, query("SELECT 1"), query("SELECT 2")]);
    wire.finish_login("postgres", "").expect("a login");
    wire.expect("T D(1) C(SELECT 1) Z(I) T D(2) C(SELECT 1) Z(I)");
    rig.assert_sound();
}
