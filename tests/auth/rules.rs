//! auth.type = "hba": who may connect from where and how.

use std::path::{Path, PathBuf};
use std::process::Command;

use pooler::demo::make_dir;
use pooler::demo::postgres::Postgres;
use pooler_protocol::hba::{Files, Rules};

use crate::support::{Builder, Pooler, Wire, postgres, wait_until};
use crate::{refused, try_login};

fn file(name: &str, text: &str) -> PathBuf {
    let path = make_dir(name).unwrap().join("pg_hba.conf");
    std::fs::write(&path, text).unwrap();
    path
}

fn by_rules(builder: Builder, file: &Path) -> Builder {
    builder
        .auth("type = \"hba\"")
        .auth(&format!("hba_file = {file:?}"))
}

/// One file decides by database, user, address, group and encryption, with PostgreSQL's words where nothing fits.
#[test]
fn rules_decide_who_gets_in_and_how() {
    let postgres = postgres();
    postgres
        .psql(
            "CREATE ROLE gate_looker LOGIN; CREATE ROLE staff; CREATE ROLE team IN ROLE staff; CREATE ROLE ann LOGIN IN ROLE team; \
             CREATE ROLE ben LOGIN; CREATE ROLE gate_super LOGIN SUPERUSER; CREATE DATABASE gated",
        )
        .unwrap();
    let hba = file(
        "hba1",
        "# TYPE DATABASE USER ADDRESS METHOD\n\
         host all banned all reject\n\
         host gated +staff 127.0.0.0/8 trust\n\
         host postgres ben 127.0.0.1 255.255.255.255 md5\n\
         host \"/^post\" \"carol\",\"dave\" samehost password\n\
         host pooler ops all scram-sha-256\n\
         host replication all all trust\n\
         host postgres named localhost trust\n",
    );
    let pooler = by_rules(Pooler::before(postgres), &hba)
        .auth("user = \"gate_looker\"")
        .auth("cache_time = \"1s\"")
        .set("admin_users = [\"ops\"]")
        .section("[users.ben]\npassword = \"bens\"\n[users.dave]\npassword = \"daves\"\n[users.ops]\npassword = \"opss\"")
        .start();
    let port = pooler.port();
    assert_eq!(
        try_login(port, "ann", "gated", "")
            .expect("of the group")
            .one("SELECT current_user"),
        "ann"
    );
    let none = |user: &str, database: &str| {
        format!(
            "no pg_hba.conf entry for host \"127.0.0.1\", user \"{user}\", database \"{database}\", no encryption"
        )
    };
    // A superuser is a member of nothing by that; who does not exist neither.
    for user in ["ben", "gate_super", "nobody"] {
        let error = refused(port, user, "gated", "bens");
        assert_eq!(
            (error.sqlstate(), error.text()),
            ("28000".to_owned(), none(user, "gated"))
        );
    }
    let error = refused(port, "banned", "gated", "");
    let rejected = "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"banned\", database \"gated\", no encryption";
    assert_eq!(
        (error.sqlstate(), &*error.text()),
        ("28000".to_owned(), rejected)
    );
    assert!(try_login(port, "ben", "postgres", "bens").is_ok());
    assert_eq!(
        refused(port, "ben", "postgres", "wrong").sqlstate(),
        "28P01"
    );
    // dave gets past the pooler; PostgreSQL has no such role.
    assert!(
        refused(port, "dave", "postgres", "daves")
            .text()
            .contains("does not exist")
    );
    assert_eq!(refused(port, "dave", "postgres", "x").sqlstate(), "28P01");
    assert!(try_login(port, "ops", "pooler", "opss").is_ok());
    assert_eq!(
        refused(port, "ben", "pooler", "bens").text(),
        none("ben", "pooler")
    );
    let asked = [("user", "postgres"), ("replication", "true")];
    assert!(
        Wire::try_login(port, &asked, "").is_ok(),
        "physical replication"
    );
    let asked = [
        ("user", "ann"),
        ("database", "gated"),
        ("replication", "database"),
    ];
    let logical = Wire::try_login(port, &asked, "");
    assert!(
        logical
            .err()
            .is_none_or(|e| e.sqlstate() != "28000" || !e.text().contains("pg_hba"))
    );
    // Who leaves the group, here by the role in between, stays out from when the answer is old.
    postgres.psql("REVOKE staff FROM team").unwrap();
    wait_until("the answer is old", || {
        try_login(port, "ann", "gated", "").is_err()
    });
    let error = refused(port, "ann", "gated", "");
    assert_eq!(
        (error.sqlstate(), error.text()),
        ("28000".to_owned(), none("ann", "gated"))
    );
    postgres.psql("GRANT staff TO ann").unwrap();
    wait_until("the absence is old", || {
        try_login(port, "ann", "gated", "").is_ok()
    });
}

/// A reload forgets what was said of groups, however long it would have been good for.
#[test]
fn a_reload_asks_for_groups_anew() {
    let postgres = postgres();
    postgres
        .psql(
            "CREATE ROLE club; CREATE ROLE cleo LOGIN IN ROLE club; CREATE ROLE club_looker LOGIN",
        )
        .unwrap();
    let hba = file("hba6", "host all +club all trust\n");
    let pooler = by_rules(Pooler::before(postgres), &hba)
        .auth("user = \"club_looker\"")
        .auth("cache_time = \"1h\"")
        .start();
    let port = pooler.port();
    assert!(try_login(port, "cleo", "postgres", "").is_ok());
    postgres.psql("REVOKE club FROM cleo").unwrap();
    assert!(
        try_login(port, "cleo", "postgres", "").is_ok(),
        "the answer is good for an hour"
    );
    pooler.signal("HUP");
    wait_until("reloaded", || {
        pooler.log().contains("configuration reloaded")
    });
    let error = refused(port, "cleo", "postgres", "");
    assert!(error.text().contains("no pg_hba.conf entry"), "{error:?}");
}

/// A line that is not understood keeps the pooler from starting, and a reload from doing anything.
#[test]
fn t60_a_broken_line_lets_nobody_in() {
    let hba = file("hba2", "host all eve all rejct\nhost all all all trust\n");
    let builder = by_rules(Pooler::before(postgres()), &hba);
    let config = make_dir("hba2b").unwrap().join("pooler.toml");
    std::fs::write(&config, builder.toml(1)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    let out = command.arg("run").arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}");
    let expected = format!(
        "{}:1: invalid authentication method \"rejct\"",
        hba.display()
    );
    assert!(said.contains(&expected), "{said}");

    std::fs::write(&hba, "host all eve all reject\nhost all all all trust\n").unwrap();
    let pooler = builder.start();
    let port = pooler.port();
    assert!(
        refused(port, "eve", "postgres", "")
            .text()
            .contains("rejects")
    );
    assert!(try_login(port, "postgres", "postgres", "").is_ok());
    std::fs::write(&hba, "host all eve all rejct\nhost all all all trust\n").unwrap();
    pooler.signal("HUP");
    wait_until("it is said", || pooler.log().contains("reload failed"));
    assert!(pooler.log().contains("rejct"), "{}", pooler.log());
    assert!(
        refused(port, "eve", "postgres", "")
            .text()
            .contains("rejects")
    );
    assert!(try_login(port, "postgres", "postgres", "").is_ok());
    std::fs::write(
        &hba,
        "host all postgres all reject\nhost all all all trust\n",
    )
    .unwrap();
    pooler.signal("HUP");
    wait_until("new rules", || {
        try_login(port, "postgres", "postgres", "").is_err()
    });
}

/// By a Unix socket it is the operating system that says who somebody is.
#[test]
fn peer_is_who_the_system_says() {
    let dir = make_dir("peer").unwrap();
    let hba = file("hba3", "local all all peer map=m\n");
    let me = Command::new("id").arg("-un").output().unwrap();
    let me = String::from_utf8(me.stdout).unwrap().trim().to_owned();
    let ident = hba.with_file_name("pg_ident.conf");
    std::fs::write(&ident, format!("m {me} postgres\n")).unwrap();
    let pooler = by_rules(Pooler::before(postgres()), &hba)
        .auth(&format!("ident_file = {ident:?}"))
        .listen(dir.to_str().unwrap())
        .start();
    let psql = |user: &str| {
        let conninfo = format!(
            "host={} port={} user={user} dbname=postgres",
            dir.display(),
            pooler.port()
        );
        let out = Command::new("psql")
            .args(["-XAtqc", "SELECT current_user", &conninfo])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if out.status.success() {
            Ok(text(&out.stdout))
        } else {
            Err(text(&out.stderr))
        }
    };
    assert_eq!(psql("postgres"), Ok("postgres".to_owned()));
    let error = psql("ann").expect_err("not mapped");
    assert!(
        error.contains("Peer authentication failed for user \"ann\""),
        "{error}"
    );
    let error = refused(pooler.port(), "postgres", "postgres", "");
    assert_eq!(error.sqlstate(), "28000", "by TCP there is no rule");
}

struct Disk;

impl Files for Disk {
    fn read(&mut self, path: &Path) -> Result<Option<String>, String> {
        std::fs::read_to_string(path)
            .map(Some)
            .map_err(|e| e.to_string())
    }

    fn list(&mut self, _directory: &Path) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }
}

/// Lines as they may be written, right and wrong.
const GOOD_AND_BAD: &str = "local all all trust\n\
        local\tall\t\tall  trust   # end\n\
        \"local\" \"all\" all \"trust\"\n\
        local a,b , c all md5\n\
        local ,, all all trust\n\
        local \"a,b\",\"c d\" \"e\"\"f\",g\"h i\"j trust\n\
        local \"\" all trust\n\
        local all x#y all trust\n\
         trust\n\
        host all all 10.0.0.0/8 scram-sha-256\n\
        host all all 10.1.2.3 255.255.0.0 scram-sha-256\n\
        host all \"+staff\",+staff,\"all\",all samenet reject\n\
        host sameuser,samerole,samegroup,replication all samehost md5\n\
        host all all .example.com md5\n\
        host all all Example.COM md5\n\
        host all all ::1/128 md5\n\
        host all all fe80::1%lo/10 md5\n\
        host all all 0.0.0.0/0 password\n\
        hostnossl all \\\n  all \\\n all trust\n\
        # comment \\\n still a comment\n\
        host all all all trust # \\\n\
        local \"open all trust\n\
        host all all 10.0.0.0/33 trust\n\
        host all all 10.0.0.1 trust\n\
        host all all host/8 trust\n\
        host all all 1.2.3.4 ffff:: trust\n\
        host,local all all all trust\n\
        host all all a,b trust\n\
        hosts all all all trust\n\
        local all all\n\
        local all all trust,md5\n\
        local all all nothing\n\
        host all all all md5 x\n\
        host all all all peer\n\
        host all all all cert\n\
        local all all peer map=m\n\
        local all all ident\n\
        local all all md5 map=m\n\
        host all all all ldap ldapserver=h ldapprefix=a ldapsuffix=b\n\
        host all all all ldap ldapserver=h ldapbasedn=o=x ldapbinddn=b ldapbindpasswd=c ldapsearchattribute=d\n\
        host all all all ldap \"ldapserver=h i\" ldapport=10 ldapbasedn=o=x \"ldapsearchfilter=(|(a=$username)(b=$username))\"\n\
        host all all all ldap ldapurl=ldaps://h:1/o=x?uid?sub\n\
        host all all all ldap ldapserver=h\n\
        host all all all ldap ldapserver=h ldapprefix=a ldapbasedn=b\n\
        host all all all ldap ldapserver=h ldapbasedn=b ldapsearchattribute=c ldapsearchfilter=d\n\
        host all all all ldap ldapserver=h ldapprefix=a ldapport=x\n\
        host all all all ldap ldapurl=http://h/o=x\n\
        host all all all md5 ldapserver=h\n\
        host all all all pam\n\
        host all all all pam pamservice=x pam_use_hostname=1\n\
        host all all all md5 pamservice=x\n\
        local @names all trust\n";

/// PostgreSQL shows how it read a file (pg_hba_file_rules): so did we, whatever the quotes, and what is an error there is one here.
#[test]
fn files_are_read_as_postgresql_reads_them() {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    postgres
        .write_file("names", b"one, \"t w o\"\n# no\nthree # end\n")
        .unwrap();
    postgres
        .write_file("pg_hba.conf", GOOD_AND_BAD.as_bytes())
        .unwrap();
    let dir = make_dir("hba4").unwrap();
    std::fs::write(dir.join("names"), "one, \"t w o\"\n# no\nthree # end\n").unwrap();
    // The view reads the file as it is now; the server still goes by the old one.
    let mut session = Wire::login(postgres.port(), "postgres", "postgres");
    let rows = session.rows(
        "SELECT line_number, CASE WHEN error IS NULL THEN type || ' ' || array_to_string(database, '|') || ' ' || \
         array_to_string(user_name, '|') || ' ' || auth_method ELSE 'error' END FROM pg_hba_file_rules ORDER BY 1",
    );
    assert!(rows.len() > 30, "{rows:?}");
    let lines: Vec<&str> = GOOD_AND_BAD.lines().collect();
    for (at, row) in rows.iter().enumerate() {
        let first: usize = row[0].parse().unwrap();
        let next = rows
            .get(at + 1)
            .map_or(lines.len() + 1, |r| r[0].parse().unwrap());
        let text = lines[first - 1..next - 1].join("\n");
        let path = dir.join("pg_hba.conf");
        std::fs::write(&path, format!("{text}\n")).unwrap();
        let ours = match Rules::read(&path, &mut Disk) {
            Err(_) => "error".to_owned(),
            Ok(rules) => {
                let rule = &rules.all()[0];
                let columns: Vec<String> = rule.columns[..3].iter().map(|c| c.join("|")).collect();
                let method = match rule.transport {
                    pooler_protocol::hba::Transport::Local if text.contains("ident") => {
                        "peer".to_owned()
                    }
                    _ => {
                        let methods = [
                            "trust",
                            "reject",
                            "password",
                            "md5",
                            "scram-sha-256",
                            "cert",
                            "peer",
                            "ldap",
                            "pam",
                        ];
                        let found = rule
                            .columns
                            .iter()
                            .rev()
                            .flatten()
                            .find(|c| methods.contains(&&***c));
                        found.expect("a method").clone()
                    }
                };
                format!("{} {method}", columns.join(" "))
            }
        };
        assert_eq!(ours, row[1], "line {first}: {text:?}");
    }
}
