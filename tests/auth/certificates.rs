//! auth.type = "cert", and certificates that rules ask for.

use std::path::PathBuf;
use std::process::Command;

use pooler::demo::make_dir;

use crate::certs::Authority;
use crate::support::{Builder, Pooler, postgres};

fn authority(name: &str) -> Authority {
    Authority::new(&make_dir(name).unwrap())
}

fn with_tls(builder: Builder, authority: &Authority) -> Builder {
    let (cert, key) = authority.files("pooler", "localhost", &["localhost"]);
    let ca = authority.file("ca.crt");
    builder.section(&format!(
        "[tls.client]\ncert = {cert:?}\nkey = {key:?}\nca = {ca:?}"
    ))
}

/// The session's user, or what psql says.
fn psql(
    port: u16,
    user: &str,
    shown: Option<&(PathBuf, PathBuf)>,
    password: &str,
) -> Result<String, String> {
    let certificate = match shown {
        Some((cert, key)) => format!("sslcert={} sslkey={}", cert.display(), key.display()),
        None => "sslcert=none sslkey=none".to_owned(),
    };
    let conninfo = format!(
        "host=localhost port={port} user={user} dbname=postgres sslmode=require {certificate}"
    );
    let mut command = Command::new("psql");
    command
        .args(["-XAtqwc", "SELECT current_user", &conninfo])
        .env("PGPASSWORD", password);
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match out.status.success() {
        true => Ok(text(&out.stdout)),
        false => Err(text(&out.stderr)),
    }
}

fn roles() {
    // Another test of this binary may have been first.
    for role in ["cert_ann", "cert_bob"] {
        drop(postgres().psql(&format!("CREATE ROLE {role} LOGIN")));
    }
}

/// The common name is the user, directly or by a map; without a certificate, or with another's, nobody gets in.
#[test]
fn a_certificate_is_a_user() {
    roles();
    let authority = authority("cert1");
    let ann = authority.files("ann", "cert_ann", &[]);
    let mapped = authority.files("mapped", "ann@example.com", &[]);
    let builder = with_tls(
        Pooler::before(postgres()).auth("type = \"cert\""),
        &authority,
    );
    let pooler = builder.clone().start();
    let port = pooler.port();
    assert_eq!(
        psql(port, "cert_ann", Some(&ann), ""),
        Ok("cert_ann".to_owned())
    );
    let error = psql(port, "cert_bob", Some(&ann), "").unwrap_err();
    assert!(
        error.contains("certificate authentication failed for user \"cert_bob\""),
        "{error}"
    );
    let error = psql(port, "cert_ann", None, "").unwrap_err();
    assert!(
        error.contains("connection requires a valid client certificate"),
        "{error}"
    );
    let foreign = self::authority("cert1b").files("eve", "cert_ann", &[]);
    assert!(psql(port, "cert_ann", Some(&foreign), "").is_err());

    let ident = authority.write("pg_ident.conf", "m /^(.*)@example\\.com$ cert_\\1\n");
    let pooler = builder
        .auth("map = \"m\"")
        .auth(&format!("ident_file = {ident:?}"))
        .start();
    assert_eq!(
        psql(pooler.port(), "cert_ann", Some(&mapped), ""),
        Ok("cert_ann".to_owned())
    );
    assert!(psql(pooler.port(), "cert_bob", Some(&mapped), "").is_err());
    assert!(
        psql(pooler.port(), "cert_ann", Some(&ann), "").is_err(),
        "it is not in the map"
    );
}

/// Rules ask for a certificate as the method, or besides a password; for the common name, the subject or another name.
#[test]
fn rules_ask_for_certificates() {
    roles();
    let authority = authority("cert2");
    let ann = authority.files("ann", "cert_ann", &["cert_bob"]);
    let other = authority.files("other", "other", &[]);
    let ident = authority.write("pg_ident.conf", "dn \"CN=cert_ann\" cert_ann\n");
    let cases = [
        ("cert", "cert_ann", "", Some(&ann), true),
        ("cert", "cert_ann", "", Some(&other), false),
        ("cert clientname=SAN", "cert_bob", "", Some(&ann), true),
        ("cert clientname=SAN", "cert_ann", "", Some(&ann), false),
        (
            "cert clientname=DN map=dn",
            "cert_ann",
            "",
            Some(&ann),
            true,
        ),
        ("cert clientname=DN", "cert_ann", "", Some(&ann), false),
        (
            "scram-sha-256 clientcert=verify-ca",
            "cert_ann",
            "anns",
            Some(&other),
            true,
        ),
        (
            "scram-sha-256 clientcert=verify-ca",
            "cert_ann",
            "wrong",
            Some(&other),
            false,
        ),
        (
            "scram-sha-256 clientcert=verify-ca",
            "cert_ann",
            "anns",
            None,
            false,
        ),
        (
            "scram-sha-256 clientcert=verify-full",
            "cert_ann",
            "anns",
            Some(&ann),
            true,
        ),
        (
            "scram-sha-256 clientcert=verify-full",
            "cert_ann",
            "anns",
            Some(&other),
            false,
        ),
        (
            "scram-sha-256 clientcert=verify-full",
            "cert_ann",
            "wrong",
            Some(&ann),
            false,
        ),
        ("scram-sha-256", "cert_ann", "anns", None, true),
    ];
    for (rule, user, password, shown, works) in cases {
        let hba = authority.write("pg_hba.conf", &format!("hostssl all all all {rule}\n"));
        let builder = Pooler::before(postgres())
            .auth("type = \"hba\"")
            .auth(&format!("hba_file = {hba:?}"))
            .auth(&format!("ident_file = {ident:?}"))
            .section("[users.cert_ann]\npassword = \"anns\"");
        let pooler = with_tls(builder, &authority).start();
        let said = psql(pooler.port(), user, shown, password);
        assert_eq!(said.is_ok(), works, "{rule} {user} {password:?}: {said:?}");
    }
}
