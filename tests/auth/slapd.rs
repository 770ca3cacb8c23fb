//! OpenLDAP's slapd with a small directory of its own.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use pooler::demo::{Leashed, free_port, make_dir};

use crate::certs::Authority;
use crate::support::wait_until;

/// A directory with `dc=example,dc=org`. It ends with this value.
pub(crate) struct Slapd {
    /// Where it speaks LDAP.
    pub(crate) port: u16,
    /// Where it speaks LDAPS, if it has a certificate.
    pub(crate) tls_port: u16,
    /// The authority of its certificate, for 127.0.0.1 alone.
    pub(crate) ca: PathBuf,
    log: PathBuf,
    _process: Leashed,
}

/// Everybody's password is the name, and an s.
const PEOPLE: &[(&str, &str)] = &[
    ("cn=reader", "reader"),
    ("uid=bob,ou=people", "bob"),
    ("uid=ann,ou=people", "ann"),
    ("uid=twin,ou=people", "twin"),
    ("uid=twin,ou=more", "twin"),
    ("uid=star*,ou=people", "star*"),
    ("uid=c\\,d,ou=people", "c,d"),
];

const BASE: &str = "dc=example,dc=org";

fn ldif() -> String {
    let mut text = format!(
        "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n\n"
    );
    for unit in ["people", "more"] {
        writeln!(
            text,
            "dn: ou={unit},{BASE}\nobjectClass: organizationalUnit\nou: {unit}\n"
        )
        .unwrap();
    }
    for (dn, name) in PEOPLE {
        writeln!(
            text,
            "dn: {dn},{BASE}\nobjectClass: person\nobjectClass: uidObject\ncn: {name}\nsn: {name}\nuid: {name}\n\
             description: {name}@example.org\nuserPassword: {name}s\n"
        )
        .unwrap();
    }
    text.replace(
        "cn: reader\nsn: reader\nuid: reader\n",
        "cn: reader\nsn: reader\nuid: none\n",
    )
}

impl Slapd {
    /// Starts one, with a certificate or without.
    pub(crate) fn start(name: &str, encrypted: bool) -> Self {
        let dir = make_dir(name).unwrap();
        let authority = Authority::new(&dir);
        let (cert, key) = authority.files("slapd", "slapd", &["127.0.0.1"]);
        let ca = authority.file("ca.crt");
        let tls = match encrypted {
            true => format!(
                "TLSCertificateFile {}\nTLSCertificateKeyFile {}\n",
                cert.display(),
                key.display()
            ),
            false => String::new(),
        };
        let data = dir.join("data");
        std::fs::create_dir(&data).unwrap();
        let (modules, schema) = [
            ("/usr/lib/ldap", "/etc/ldap/schema"),
            ("/usr/lib64/openldap", "/etc/openldap/schema"),
        ]
        .into_iter()
        .find(|(_, schema)| std::path::Path::new(schema).exists())
        .expect("slapd is installed: sh scripts/install-ldap.sh");
        // allow bind_anon_dn: a name without a password lets in, as nobody; what RFC 4513 warns of.
        let config = format!(
            "include {schema}/core.schema\nmodulepath {modules}\nmoduleload back_mdb\n{tls}allow bind_anon_dn\n\
             database mdb\nsuffix \"{BASE}\"\ndirectory {}\nrootdn \"cn=root,{BASE}\"\n\
             access to attrs=userPassword by anonymous auth by * none\naccess to * by * read\n",
            data.display()
        );
        let (file, entries) = (dir.join("slapd.conf"), dir.join("entries.ldif"));
        std::fs::write(&file, config).unwrap();
        std::fs::write(&entries, ldif()).unwrap();
        // A copy: where AppArmor is at work it confines the one in /usr/sbin to the system's own directories.
        let program = dir.join("slapd");
        let installed = ["/usr/sbin/slapd", "/usr/libexec/slapd"];
        let installed = installed
            .into_iter()
            .find(|p| std::path::Path::new(p).exists());
        // By a program: what another thread starts just then would inherit the file open for writing, which cannot be run.
        let copied = Command::new("cp")
            .arg(installed.expect("slapd: sh scripts/install-ldap.sh"))
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
        let added = Command::new(&program)
            .args(["-T", "add", "-f"])
            .arg(&file)
            .arg("-l")
            .arg(&entries)
            .output()
            .unwrap();
        assert!(
            added.status.success(),
            "{}",
            String::from_utf8_lossy(&added.stderr)
        );
        for _ in 0..5 {
            let (port, tls_port) = (free_port().unwrap(), free_port().unwrap());
            let mut urls = format!("ldap://127.0.0.1:{port}/");
            if encrypted {
                write!(urls, " ldaps://127.0.0.1:{tls_port}/").unwrap();
            }
            let log = dir.join(format!("log{port}"));
            let out = std::fs::File::create(&log).unwrap();
            let mut command = Command::new(&program);
            command.args(["-d", "256", "-h", &urls, "-f"]).arg(&file);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(out);
            let mut process = Leashed::start(&mut command).unwrap();
            let mut ended = false;
            wait_until("slapd listens", || {
                ended = process.ended().unwrap().is_some();
                ended || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            if !ended {
                return Self {
                    port,
                    tls_port,
                    ca,
                    log,
                    _process: process,
                };
            }
        }
        panic!("slapd does not start: see {}", dir.display());
    }

    /// The operations of which it has logged the beginning, without their connections: `BIND dn="..." method=128`.
    pub(crate) fn operations(&self) -> Vec<String> {
        let log = std::fs::read(&self.log).unwrap();
        let log = String::from_utf8_lossy(&log);
        let of_line = |line: &str| {
            let at = ["BIND dn=", "SRCH base=", "EXT oid="]
                .iter()
                .find_map(|kind| line.find(kind))?;
            (!line.contains("mech=")).then(|| line[at..].to_owned())
        };
        log.lines().filter_map(of_line).collect()
    }
}
