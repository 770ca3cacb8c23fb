//! What is agreed with servers: versions and ciphers, sessions that are resumed, and to what a login is bound.

use std::io::Write;
use std::sync::mpsc;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::certs::Authority;
use crate::clients::authority;
use crate::scripted::{TlsServer, answer_queries, config, done, log_in, read_message};
use crate::servers::{before, by_database as by, postgres_with, try_by};
use crate::support::{ServerWire, message};

#[test]
fn versions_and_ciphers_toward_servers_are_those_that_are_configured() {
    let (authority, _dir) = authority();
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(&pair, authority.pem(), &[]);
    let agreed =
        |more: &str| {
            let section = format!("mode = \"require\"\n{more}");
            let pooler = before("localhost", postgres.port(), &section);
            try_by(&pooler)?;
            let mut wire = pooler.login("postgres", "there");
            Ok::<_, String>(wire.one(
                "SELECT version || ' ' || cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            ))
        };
    assert!(agreed("").unwrap().starts_with("TLSv1.3 "));
    let new = "min_version = \"TLSv1.3\"\nciphers = [\"TLS_CHACHA20_POLY1305_SHA256\"]";
    assert_eq!(
        agreed(new).as_deref(),
        Ok("TLSv1.3 TLS_CHACHA20_POLY1305_SHA256")
    );
    let old = "ciphers = [\"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]";
    assert_eq!(
        agreed(old).as_deref(),
        Ok("TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256")
    );
    postgres
        .set_conf("ssl_max_protocol_version", "TLSv1.2")
        .unwrap();
    postgres.reload().unwrap();
    assert!(agreed("").unwrap().starts_with("TLSv1.2 "));
    let error = agreed("min_version = \"TLSv1.3\"").unwrap_err();
    assert!(error.contains("no TLS with"), "{error}");
}

/// PostgreSQL resumes no session; another pooler in front of it does.
#[test]
fn connections_to_a_server_after_the_first_resume_its_session() {
    let (authority, _dir) = authority();
    let pair = authority.sign("localhost", &["localhost"]);
    for version in [&TLS13, &TLS12] {
        let server = TlsServer::start(config(&pair, &[version]), |mut wire, number| {
            log_in(&mut wire, number);
            answer_queries(&mut wire, |wire, sql| {
                // Whoever begins keeps the connection.
                let status = if sql == "BEGIN" { b'T' } else { b'I' };
                let _sent = wire.write_all(&done(sql, status));
            });
        });
        let pooler = before("localhost", server.port, "mode = \"require\"");
        let wires: Vec<_> = (0..4)
            .map(|_| {
                let mut wire = pooler.login("postgres", "there");
                wire.try_rows("BEGIN").unwrap();
                wire
            })
            .collect();
        let kinds = server.kinds();
        assert_eq!(kinds.len(), wires.len(), "{kinds:?}");
        assert_ne!(kinds[0], HandshakeKind::Resumed);
        assert!(
            kinds[1..].iter().all(|k| *k == HandshakeKind::Resumed),
            "{version:?}: {kinds:?}"
        );
    }
}

/// Logins that are bound to the certificate, or not, as `channel_binding` has it, with every method that the server may ask for.
#[test]
fn channel_binding_toward_servers_is_what_is_configured() {
    let (_authority, dir) = authority();
    let authority = Authority::of(&rcgen::PKCS_ECDSA_P384_SHA384, &dir);
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(&pair, authority.pem(), &[]);
    postgres
        .psql("CREATE ROLE ann LOGIN PASSWORD 'secret'")
        .unwrap();
    let user = "user = \"ann\"\npassword = \"secret\"";
    let log_in_by = |rule: &str, binding: &str| {
        postgres
            .set_hba(&[&format!("hostssl all ann all {rule}")])
            .unwrap();
        postgres.reload().unwrap();
        let section = format!("mode = \"require\"\nchannel_binding = \"{binding}\"");
        let databases =
            format!("[databases.bound]\ncluster = \"other\"\ndbname = \"postgres\"\n{user}");
        by(
            "localhost",
            postgres.port(),
            "bound",
            &format!("{section}\n{databases}"),
        )
    };
    for (rule, prefers, requires) in [
        ("scram-sha-256", "t", Ok("t")),
        ("trust", "t", Err("asks for no proof")),
        ("password", "t", Err("asks for a cleartext password")),
    ] {
        for binding in ["prefer", "disable"] {
            assert_eq!(log_in_by(rule, binding).as_deref(), Ok(prefers), "{rule}");
        }
        match (log_in_by(rule, "require"), requires) {
            (Ok(got), Ok(wanted)) => assert_eq!(got, wanted, "{rule}"),
            (Err(got), Err(wanted)) => {
                assert!(got.contains(wanted) && got.contains("08001"), "{got}");
            }
            (got, wanted) => panic!("{rule}: {got:?}, not {wanted:?}"),
        }
    }
}

/// What a server hears that offers binding, or does not: RFC 5802, section 6.
#[test]
fn a_server_is_told_whether_the_pooler_could_have_bound_its_login() {
    let (authority, _dir) = authority();
    let pair = authority.sign("localhost", &["localhost"]);
    let both = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let one = b"\0\0\0\x0aSCRAM-SHA-256\0\0";
    for (offered, binding, expected) in [
        (
            &both[..],
            "prefer",
            Some("SCRAM-SHA-256-PLUS p=tls-server-end-point,,"),
        ),
        (
            &both[..],
            "require",
            Some("SCRAM-SHA-256-PLUS p=tls-server-end-point,,"),
        ),
        (&both[..], "disable", Some("SCRAM-SHA-256 n,,")),
        (&one[..], "prefer", Some("SCRAM-SHA-256 y,,")),
        (&one[..], "disable", Some("SCRAM-SHA-256 n,,")),
        (&one[..], "require", None),
    ] {
        let (heard, hears) = mpsc::channel();
        let offered = offered.to_vec();
        let server = TlsServer::start(config(&pair, &[&TLS13]), move |mut wire, _| {
            if read_message(&mut wire, true).is_none() {
                return;
            }
            let _sent = wire.write_all(&message(b'R', &offered));
            let first = read_message(&mut wire, false).map(|(_, body)| {
                let name = body.split(|b| *b == 0).next().unwrap();
                let rest = String::from_utf8_lossy(&body[name.len() + 5..]).into_owned();
                let header = rest.split_once("n=").unwrap().0.to_owned();
                format!("{} {header}", String::from_utf8_lossy(name))
            });
            let _heard = heard.send(first);
            let _sent = wire.write_all(&ServerWire::error("FATAL", "28P01", "no"));
        });
        let section = format!(
            "mode = \"require\"\nchannel_binding = \"{binding}\"\n[users.postgres]\npassword = \"x\""
        );
        let error = by("localhost", server.port, "there", &section).unwrap_err();
        let first = hears.recv_timeout(std::time::Duration::from_secs(10));
        assert_eq!(first.unwrap().as_deref(), expected, "{binding} {error}");
        let unbound = error.contains("offers no SCRAM-SHA-256-PLUS");
        assert_eq!(unbound, expected.is_none(), "{error}");
    }
}
