//! Rules as PostgreSQL's documentation gives them, odd lines, and what is not understood.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Method::{Md5, Peer, Reject, ScramSha256, Trust};
use super::*;

mod documented;

#[derive(Default)]
struct Memory(BTreeMap<PathBuf, String>);

impl Memory {
    fn with(files: &[(&str, &str)]) -> Self {
        let own = |(name, text): &(&str, &str)| (PathBuf::from(name), (*text).to_owned());
        Self(files.iter().map(own).collect())
    }
}

impl Files for Memory {
    fn read(&mut self, path: &Path) -> Result<Option<String>, String> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&mut self, directory: &Path) -> Result<Vec<PathBuf>, String> {
        let inside = self.0.keys().filter(|p| p.parent() == Some(directory));
        Ok(inside.cloned().collect())
    }
}

fn rules(text: &str) -> Result<Rules, Vec<LineError>> {
    Rules::read(
        Path::new("pg_hba.conf"),
        &mut Memory::with(&[("pg_hba.conf", text)]),
    )
}

fn maps(text: &str) -> Result<IdentMaps, Vec<LineError>> {
    IdentMaps::read(
        Path::new("pg_ident.conf"),
        &mut Memory::with(&[("pg_ident.conf", text)]),
    )
}

/// `user database from`, where `from` is an address, one with `+tls`, or `local`; `replication` is no database.
fn asked(text: &str) -> Asked<'_> {
    let mut words = text.split_whitespace();
    let (user, database) = (words.next().unwrap(), words.next().unwrap());
    let from = words.next().unwrap();
    let (address, encrypted) = match from.split_once('+') {
        Some((address, _)) => (address, true),
        None => (from, false),
    };
    Asked {
        user,
        database,
        replication: database == "replication",
        came: match address.parse() {
            Ok(address) => Came::Tcp { address, encrypted },
            Err(_) => Came::Local,
        },
    }
}

fn facts() -> Facts {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    Facts {
        roles: Some(vec![
            "joe".to_owned(),
            "support".to_owned(),
            "db2".to_owned(),
        ]),
        host_name: Some(Some("Client.Example.com".to_owned())),
        networks: Some(vec![
            (address("10.9.0.5"), address("255.255.0.0")),
            (address("fd00::5"), address("ffff:ffff::")),
        ]),
    }
}

/// The line that decides, and its method.
fn decided(rules: &Rules, who: &str) -> Option<(usize, Method)> {
    match rules.decide(&asked(who), &facts()) {
        Decision::Rule(rule) => Some((rule.place.line, rule.method)),
        Decision::None => None,
        Decision::Needs(need) => panic!("{need:?}"),
    }
}

/// A line, and who meets what there.
type Example = (&'static str, &'static [(&'static str, Option<Method>)]);

/// "The pg_hba.conf File", Example 20.1, without what the pooler does not support, and more of the kind.
const EXAMPLES: &[Example] = &[
    (
        "local all all trust",
        &[("a b local", Some(Trust)), ("a b 127.0.0.1", None)],
    ),
    (
        "host all all 127.0.0.1/32 trust",
        &[
            ("a b 127.0.0.1", Some(Trust)),
            ("a b 127.0.0.2", None),
            ("a b local", None),
        ],
    ),
    (
        "host all all 127.0.0.1 255.255.255.255 trust",
        &[("a b 127.0.0.1", Some(Trust)), ("a b 127.0.1.1", None)],
    ),
    (
        "host all all ::1/128 trust",
        &[("a b ::1", Some(Trust)), ("a b 127.0.0.1", None)],
    ),
    ("host all all localhost trust", &[("a b 127.0.0.1", None)]),
    (
        "host \"/^db\\d{2,4}$\" all localhost trust",
        &[("a db12 127.0.0.1", None)],
    ),
    (
        "host \"/^db\\d{2,4}$\" all all trust",
        &[
            ("a db12 1.2.3.4", Some(Trust)),
            ("a db1 1.2.3.4", None),
            ("a db12345 ::1", None),
        ],
    ),
    (
        "host postgres all 192.168.93.0/24 md5",
        &[
            ("a postgres 192.168.93.7", Some(Md5)),
            ("a b 192.168.93.7", None),
            ("a postgres 192.168.94.7", None),
        ],
    ),
    (
        "host postgres all 192.168.12.10/32 scram-sha-256",
        &[("a postgres 192.168.12.10", Some(ScramSha256))],
    ),
    (
        "host all mike .example.com md5",
        &[("mike b 1.2.3.4", Some(Md5)), ("joe b 1.2.3.4", None)],
    ),
    (
        "host all all .example.com scram-sha-256",
        &[("joe b ::2", Some(ScramSha256))],
    ),
    (
        "host all all client.example.COM scram-sha-256",
        &[("joe b ::2", Some(ScramSha256))],
    ),
    (
        "host all all example.com scram-sha-256",
        &[("joe b ::2", None)],
    ),
    (
        "host all all 192.168.54.1/32 reject",
        &[("a b 192.168.54.1", Some(Reject))],
    ),
    (
        "host all all 0.0.0.0/0 trust",
        &[
            ("a b 9.9.9.9", Some(Trust)),
            ("a b ::1", None),
            ("a b ::ffff:9.9.9.9", Some(Trust)),
        ],
    ),
    (
        "host all all ::/0 trust",
        &[("a b ::9", Some(Trust)), ("a b 9.9.9.9", None)],
    ),
    (
        "local sameuser all md5",
        &[("joe joe local", Some(Md5)), ("joe b local", None)],
    ),
    (
        "local all /^.*helpdesk$ md5",
        &[
            ("a-helpdesk b local", Some(Md5)),
            ("helpdesks b local", None),
        ],
    ),
    ("local all @admins md5", &[]),
    ("local all +support md5", &[("joe b local", Some(Md5))]),
    (
        "local all \"+support\" md5",
        &[("joe b local", None), ("+support b local", Some(Md5))],
    ),
    ("local db1,db2,@demodbs all md5", &[]),
    (
        "local samerole all md5",
        &[("joe db2 local", Some(Md5)), ("joe db3 local", None)],
    ),
    ("local samegroup all md5", &[("joe db2 local", Some(Md5))]),
    (
        "host all all samehost trust",
        &[("a b 10.9.0.5", Some(Trust)), ("a b 10.9.0.6", None)],
    ),
    (
        "host all all samenet trust",
        &[
            ("a b 10.9.7.6", Some(Trust)),
            ("a b fd00:0:1::", Some(Trust)),
            ("a b 10.8.0.5", None),
        ],
    ),
    (
        "hostssl all all all trust",
        &[
            ("a b ::1+tls", Some(Trust)),
            ("a b ::1", None),
            ("a b local", None),
        ],
    ),
    (
        "hostnossl all all all trust",
        &[("a b ::1+tls", None), ("a b ::1", Some(Trust))],
    ),
    (
        "hostgssenc all all all trust",
        &[("a b ::1+tls", None), ("a b ::1", None)],
    ),
    (
        "hostnogssenc all all all trust",
        &[("a b ::1+tls", Some(Trust))],
    ),
    (
        "host replication all all trust",
        &[("a replication ::1", Some(Trust)), ("a b ::1", None)],
    ),
    ("host all all all trust", &[("a replication ::1", None)]),
    ("local all all peer map=m", &[("a b local", Some(Peer))]),
    (
        "local all,replication \"all\" peer",
        &[
            ("all b local", Some(Peer)),
            ("a b local", None),
            ("all replication local", Some(Peer)),
        ],
    ),
    (
        "local \"all\" all trust",
        &[("a all local", Some(Trust)), ("a b local", None)],
    ),
];

#[test]
fn the_examples_of_the_documentation() {
    for (line, cases) in EXAMPLES {
        let file = format!("# comment\n\n{line} # end\n");
        let mut files = Memory::with(&[
            ("etc/hba", &file),
            ("etc/admins", "bob\n"),
            ("etc/demodbs", "db3, db4"),
        ]);
        let rules = Rules::read(Path::new("etc/hba"), &mut files);
        let rules = rules.unwrap_or_else(|e| panic!("{line}: {e:?}"));
        for (who, method) in *cases {
            let expected = method.map(|method| (3, method));
            assert_eq!(decided(&rules, who), expected, "{line}: {who}");
        }
    }
}

#[test]
fn t63_the_password_of_a_directory_is_shown_nowhere() {
    let line = "host all all all ldap ldapserver=a ldapbasedn=o=x \"ldapbinddn=cn=p, o=x\" \"ldapbindpasswd=se \"\"cret\"";
    let read = rules(line).unwrap();
    let rule = &read.all()[0];
    assert!(!format!("{rule:?}").contains("cret"), "{rule:?}");
    assert!(
        rule.text
            .ends_with("\"ldapbinddn=cn=p, o=x\" \"ldapbindpasswd=...\""),
        "{}",
        rule.text
    );
    match &rule.ldap.as_ref().unwrap().way {
        LdapWay::Search { bind_password, .. } => assert_eq!(&**bind_password, "se \"cret"),
        way @ LdapWay::Simple { .. } => panic!("{way:?}"),
    }
    let line = "host all all all ldap ldapserver=a ldapbasedn=o=x ldapbindpasswd=se cret";
    let error = rules(line).err().unwrap();
    assert!(!format!("{error:?}").contains("cret"), "{error:?}");
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = rules(
        "host all all 10.0.0.1/32 reject\nhost app,other all 10.0.0.0/8 md5\nhostssl all bob all cert clientcert=verify-full \
         clientname=DN map=m\n\nhost all all 10.0.0.0/8 \\\n trust\n",
    )
    .unwrap();
    for (who, line) in [
        ("a app 10.0.0.1", Some(1)),
        ("a app 10.0.0.2", Some(2)),
        ("a other 10.0.0.2", Some(2)),
        ("a b 10.0.0.2", Some(5)),
        ("bob b 11.0.0.2+tls", Some(3)),
        ("bob b 11.0.0.2", None),
    ] {
        assert_eq!(decided(&rules, who).map(|(line, _)| line), line, "{who}");
    }
    let cert = &rules.all()[2];
    assert_eq!(
        (cert.client_cert, cert.client_name),
        (ClientCert::VerifyFull, ClientName::DistinguishedName)
    );
    assert_eq!(cert.map.as_deref(), Some("m"));
    assert_eq!(rules.all()[3].text, "host all all 10.0.0.0/8 trust");
}

#[test]
fn nothing_is_asked_for_that_decides_nothing() {
    let rules = rules(
        "host all bob,+support 10.0.0.0/8 md5\nhost samerole carol all md5\nhost all all samenet md5\nhost all all x.org md5",
    )
    .unwrap();
    let unknown = Facts::default();
    let decide = |who: &str| match rules.decide(&asked(who), &unknown) {
        Decision::Rule(rule) => format!("line {}", rule.place.line),
        Decision::Needs(need) => format!("{need:?}"),
        Decision::None => "none".to_owned(),
    };
    assert_eq!(decide("bob b 10.1.1.1"), "line 1", "a member by name");
    assert_eq!(decide("joe b 10.1.1.1"), "Roles");
    assert_eq!(
        decide("joe b 11.1.1.1"),
        "Networks",
        "the roles decide nothing"
    );
    assert_eq!(decide("carol b 11.1.1.1"), "Roles");
    assert_eq!(decide("joe b local"), "none");
    assert_eq!(rules.needs_roles().unwrap().place.line, 1);
}

/// A line, and what is said of it.
const NOT_UNDERSTOOD: &[(&str, &str)] = &[
    (
        "hostile all all all reject",
        "invalid connection type \"hostile\"",
    ),
    (
        "host,local all all all reject",
        "more than one connection type",
    ),
    ("local", "ends before the database"),
    ("local all", "ends before the user"),
    ("local all all", "ends before the method"),
    ("host all all", "ends before the address"),
    ("host all all all", "ends before the method"),
    ("host all all 10.0.0.1", "ends before the mask"),
    ("host all all 10.0.0.1 trust", "no mask"),
    ("host all all 10.0.0.1 ffff:: trust", "do not match"),
    ("host all all 10.0.0.0/33 reject", "invalid CIDR mask"),
    ("host all all 10.0.0.0/x reject", "invalid CIDR mask"),
    ("host all all ::/129 reject", "invalid CIDR mask"),
    (
        "host all all host/24 reject",
        "neither an address nor a name",
    ),
    (
        "host all all 10.0.0.300 reject",
        "neither an address nor a name",
    ),
    (
        "host all all 10.0.0.0/8,11.0.0.0/8 reject",
        "more than one address",
    ),
    (
        "host all all all rejct",
        "invalid authentication method \"rejct\"",
    ),
    ("host all all all md5 reject", "not in the form name=value"),
    ("host all all all ldap", "ldap needs ldapserver"),
    (
        "host all all all ldap ldapserver=x",
        "needs ldapbasedn, ldapprefix or ldapsuffix",
    ),
    (
        "host all all all ldap ldapserver=x ldapprefix=a ldapbasedn=b",
        "cannot be mixed",
    ),
    (
        "host all all all ldap ldapserver=x ldapprefix=a ldapsearchfilter=b",
        "cannot be mixed",
    ),
    (
        "host all all all ldap ldapserver=x ldapbasedn=b ldapsearchattribute=a ldapsearchfilter=c",
        "keep one",
    ),
    (
        "host all all all ldap ldapserver=x ldapprefix=a ldapport=0",
        "invalid LDAP port number \"0\"",
    ),
    (
        "host all all all ldap ldapserver=x ldapprefix=a ldapscheme=x",
        "invalid ldapscheme",
    ),
    (
        "host all all all ldap ldapserver=x ldapprefix=a ldaptls=yes",
        "invalid ldaptls",
    ),
    (
        "host all all all ldap ldapserver=x ldapprefix=a ldaptls=1 ldapscheme=ldaps",
        "ldaps is encrypted without it",
    ),
    (
        "host all all all md5 ldapserver=x",
        "ldapserver needs method ldap",
    ),
    (
        "host all all all md5 pamservice=x",
        "pamservice needs method pam",
    ),
    ("host all all all pam pamservice=", "pamservice is empty"),
    ("host all all all pam pamservice=../x", "invalid value"),
    ("host all all all pam pam_use_hostname=yes", "0 or 1"),
    ("host all all all gss", "gss is not supported"),
    ("host all all all oauth", "oauth is not supported"),
    ("host all all all ident", "ident is not supported"),
    ("host all all all peer", "peer needs local"),
    ("host all all all cert", "cert needs hostssl"),
    (
        "hostssl all all all cert clientcert=verify-ca",
        "means clientcert=verify-full",
    ),
    (
        "hostssl all all all md5 clientcert=1",
        "invalid value \"1\"",
    ),
    ("host all all all md5 clientcert=verify-ca", "needs hostssl"),
    (
        "hostssl all all all cert clientname=XX",
        "invalid value \"XX\"",
    ),
    ("host all all all md5 map=m", "needs method cert or peer"),
    ("host all all all md5 what=ever", "unknown option \"what\""),
    ("host \"/(\" all all reject", "invalid regular expression"),
    ("host all /[ all reject", "invalid regular expression"),
    ("host all @gone all reject", "no file gone"),
    ("include gone", "no file gone"),
    ("include", "invalid connection type"),
];

#[test]
fn t60_a_line_that_is_not_understood_makes_the_whole_file_an_error() {
    for (line, says) in NOT_UNDERSTOOD {
        let text = format!("local all all trust\n\n{line}\nhost all all all trust\n");
        let errors = rules(&text)
            .err()
            .unwrap_or_else(|| panic!("{line} was taken"));
        let error = errors[0].to_string();
        assert!(
            error.starts_with("pg_hba.conf:3: ") && error.contains(says),
            "{line}: {error}"
        );
    }
    // All that is wrong is told at once.
    assert_eq!(rules("a\nlocal all all trust\nb\n").err().unwrap().len(), 2);
}

#[test]
fn files_are_included_and_cannot_include_themselves_for_ever() {
    let mut files = Memory::with(&[
        (
            "etc/hba",
            "include more/one\ninclude_if_exists gone\ninclude_dir dir\nhost @names,x all all reject\n",
        ),
        ("etc/more/one", "local @list all md5\n"),
        ("etc/more/list", "a, b # c\n\"d e\"\n"),
        ("etc/dir/2.conf", "local two all md5"),
        ("etc/dir/1.conf", "local one all md5"),
        ("etc/dir/.3.conf", "wrong"),
        ("etc/dir/readme", "wrong"),
        ("etc/names", "y"),
    ]);
    let rules = Rules::read(Path::new("etc/hba"), &mut files).unwrap();
    let shown: Vec<_> = rules
        .all()
        .iter()
        .map(|r| format!("{} {}", r.place, r.text))
        .collect();
    assert_eq!(
        shown,
        [
            "etc/more/one:1 local a,b,\"d e\" all md5",
            "etc/dir/1.conf:1 local one all md5",
            "etc/dir/2.conf:1 local two all md5",
            "etc/hba:4 host y,x all all reject",
        ]
    );
    for text in ["include etc", "local @etc all md5", "include_dir ."] {
        let mut files = Memory::with(&[("etc", text), ("x.conf", "include_dir .")]);
        let read = Rules::read(Path::new("etc"), &mut files);
        assert!(read.is_err() || text.contains('.'), "{text}");
    }
}

#[test]
fn maps_say_who_may_be_whom() {
    // "User Name Maps", Example 20.2, and what regular expressions add.
    let maps = maps(
        "omicron bryanh bryanh\nomicron ann ann\nomicron robert bob\nomicron bryanh guest1\n\
         mymap /^(.*)@mydomain\\.com$ \\1\nmymap /^(.*)@otherdomain\\.com$ guest\n\
         mymap /^root$ all\nmymap x +support\nmymap \"a b\" /^c[de]$\n\
         mymap /^pre(.*)$ db_\\1\nlate /^(.*)$ \"\\1\"\n",
    )
    .unwrap();
    let roles = ["support".to_owned()];
    for (map, name, user, allowed) in [
        (None, "ann", "ann", true),
        (None, "ann", "bob", false),
        (Some(""), "ann", "ann", true),
        (Some("omicron"), "robert", "bob", true),
        (Some("omicron"), "robert", "robert", false),
        (Some("omicron"), "bryanh", "guest1", true),
        (Some("gone"), "ann", "ann", false),
        (Some("mymap"), "ann@mydomain.com", "ann", true),
        (Some("mymap"), "ann@mydomain.com", "bob", false),
        (Some("mymap"), "ann@otherdomain.com", "guest", true),
        (Some("mymap"), "root", "anybody", true),
        (Some("mymap"), "x", "member", true),
        (Some("mymap"), "a b", "cd", true),
        (Some("mymap"), "a b", "cf", false),
        (Some("mymap"), "prex", "db_x", true),
        // What a name puts in is no keyword, no group and no expression.
        (Some("mymap"), "all@mydomain.com", "bob", false),
        (Some("mymap"), "+support@mydomain.com", "bob", false),
        (Some("mymap"), "/.*@mydomain.com", "bob", false),
        (Some("late"), "all", "all", true),
    ] {
        let result = maps.allows(map, name, user, Some(&roles));
        assert_eq!(result, Ok(allowed), "{map:?} {name} {user}");
    }
    assert_eq!(
        maps.allows(Some("mymap"), "x", "member", None),
        Err(Need::Roles)
    );
    assert_eq!(maps.allows(Some("omicron"), "ann", "ann", None), Ok(true));
    assert!(maps.has("late") && !maps.has("gone") && maps.needs_roles());
}

#[test]
fn t60_maps_that_are_not_understood() {
    for (line, says) in [
        ("m", "ends before the name to be mapped"),
        ("m a", "ends before the user"),
        ("m a b c", "more than three columns"),
        ("m a,b c", "more than one name to be mapped"),
        ("m /( b", "invalid regular expression"),
        ("m /^a$ \\1", "has no group"),
    ] {
        let errors = maps(&format!("\n{line}\n")).err().unwrap();
        let error = errors[0].to_string();
        assert!(
            error.starts_with("pg_ident.conf:2: ") && error.contains(says),
            "{line}: {error}"
        );
    }
}

/// A file that names itself is read until its errors are listed, and not once for each way of nesting.
#[test]
fn a_file_that_names_itself_many_times_costs_little() {
    struct Counted(Memory, usize);
    impl Files for Counted {
        fn read(&mut self, path: &Path) -> Result<Option<String>, String> {
            self.1 += 1;
            self.0.read(path)
        }

        fn list(&mut self, directory: &Path) -> Result<Vec<PathBuf>, String> {
            self.0.list(directory)
        }
    }
    for text in ["@b\n@b\n@b\n@b\n", "include b\ninclude b\ninclude b\n"] {
        let mut files = Counted(Memory::with(&[("b", text)]), 0);
        let errors = Rules::read(Path::new("b"), &mut files).expect_err("nested too deeply");
        assert_eq!(errors.len(), 100, "{text}");
        assert!(errors[0].message.contains("nested too deeply"), "{text}");
        assert!(files.1 < 500, "{text}: read {} times", files.1);
    }
}
