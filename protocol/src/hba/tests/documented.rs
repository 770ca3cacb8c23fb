//! "The pg_hba.conf File" of PostgreSQL's documentation (section 21.1), a row for each of its rules. What a server
//! makes of the same is compared in the pooler's own tests.

use super::*;

/// What the documentation says, a file with its neighbours (`name: text`), and which line decides about whom.
struct Row {
    says: &'static str,
    files: &'static [(&'static str, &'static str)],
    who: &'static [(&'static str, Option<(&'static str, usize)>)],
}

const HBA: &str = "etc/hba";

const fn row(
    says: &'static str,
    files: &'static [(&'static str, &'static str)],
    who: &'static [(&'static str, Option<(&'static str, usize)>)],
) -> Row {
    Row { says, files, who }
}

const fn at(line: usize) -> Option<(&'static str, usize)> {
    Some((HBA, line))
}

const ROWS: &[Row] = &[
    row(
        "blank lines are ignored, as is any text after #",
        &[(
            HBA,
            "\n  \t\n# local all all trust\nlocal all all trust # , x\n",
        )],
        &[("a b local", at(4))],
    ),
    row(
        "a record is continued on the next line by a backslash at its end",
        &[(
            HBA,
            "local \\\nall\\\n all \\\ntrust\nhost all all all trust\n",
        )],
        &[("a b local", at(1)), ("a b ::1", at(5))],
    ),
    row(
        "a backslash is special nowhere else",
        &[(HBA, "local a\\b all trust\nlocal all c\\ trust\n")],
        &[("x a\\b local", at(1)), ("c\\ b local", at(2))],
    ),
    row(
        "a backslash continues a comment, too",
        &[(HBA, "# \\\nlocal all all reject\nlocal all all trust\n")],
        &[("a b local", at(3))],
    ),
    row(
        "fields are separated by spaces and tabs, and hold them in double quotes",
        &[(HBA, "local\t\"a b\" \t \"c d\"   trust\n")],
        &[("a b local", None)],
    ),
    row(
        "quoting a keyword of the database makes it a name",
        &[(
            HBA,
            "local \"all\" all trust\nlocal \"sameuser\" all trust\nlocal \"replication\" all trust\nlocal \"samerole\" x trust\n",
        )],
        &[
            ("x b local", None),
            ("x all local", at(1)),
            ("x x local", None),
            ("x sameuser local", at(2)),
            ("x replication local", None),
            ("x samerole local", at(4)),
        ],
    ),
    row(
        "quoting a keyword of the user makes it a name",
        &[(
            HBA,
            "local all \"all\" trust\nlocal all \"+support\" trust\nlocal all \"@x\" trust\n",
        )],
        &[
            ("joe b local", None),
            ("all b local", at(1)),
            ("+support b local", at(2)),
            ("@x b local", at(3)),
        ],
    ),
    row(
        "quoting a keyword of the address makes it a name",
        &[(
            HBA,
            "host all all \"all\" trust\nhost all all \"samehost\" trust\nhost all all \"samenet\" trust\n",
        )],
        &[("a b 10.9.0.5", None)],
    ),
    row(
        "local is for Unix sockets, and nothing else is",
        &[(HBA, "host all all all trust\nlocal all all trust\n")],
        &[("a b local", at(2)), ("a b 1.2.3.4", at(1))],
    ),
    row(
        "host is for TCP with TLS or without, hostssl with, hostnossl without",
        &[(
            HBA,
            "hostssl x all all trust\nhostnossl x all all trust\nhost y all all trust\n",
        )],
        &[
            ("a x ::1+tls", at(1)),
            ("a x ::1", at(2)),
            ("a y ::1+tls", at(3)),
            ("a y ::1", at(3)),
        ],
    ),
    row(
        "hostgssenc is for GSSAPI, which nobody speaks here; hostnogssenc for everything else",
        &[(
            HBA,
            "hostgssenc all all all trust\nhostnogssenc all all all trust\n",
        )],
        &[
            ("a b ::1", at(2)),
            ("a b ::1+tls", at(2)),
            ("a b local", None),
        ],
    ),
    row(
        "all matches every database, but not replication",
        &[(HBA, "local all all trust\nlocal replication all trust\n")],
        &[("a b local", at(1)), ("a replication local", at(2))],
    ),
    row(
        "sameuser is a database with the user's name",
        &[(HBA, "local sameuser all trust\n")],
        &[("joe joe local", at(1)), ("joe b local", None)],
    ),
    row(
        "samerole, once samegroup, is a database with the name of a role that the user is a member of",
        &[(
            HBA,
            "local samerole all trust\nhost samegroup all all trust\n",
        )],
        &[
            ("joe db2 local", at(1)),
            ("joe db2 ::1", at(2)),
            ("joe b local", None),
        ],
    ),
    row(
        "a database that begins with a slash is a regular expression, which finds any part",
        &[(
            HBA,
            "local /b\\d all trust\nlocal \"/^x{1,2}$\" all trust\n",
        )],
        &[
            ("a ab1c local", at(1)),
            ("a b local", None),
            ("a xx local", at(2)),
            ("a xxx local", None),
        ],
    ),
    row(
        "several databases, and several users, are separated by commas",
        &[(HBA, "local a,b, c, d x,y, z trust\n")],
        &[
            ("x a local", at(1)),
            ("z d local", at(1)),
            ("y c local", at(1)),
            ("w a local", None),
        ],
    ),
    row(
        "names, expressions, keywords and files mix",
        &[
            (HBA, "local x,/^y$,sameuser,@list all trust\n"),
            ("etc/list", "z"),
        ],
        &[
            ("a x local", at(1)),
            ("a y local", at(1)),
            ("a a local", at(1)),
            ("a z local", at(1)),
            ("a w local", None),
        ],
    ),
    row(
        "a user that begins with a slash is a regular expression",
        &[(HBA, "local all /^a.*z$ trust\n")],
        &[("abz b local", at(1)), ("abzz. b local", None)],
    ),
    row(
        "a plus sign means any member of the role, direct or not; without it the role itself alone",
        &[(HBA, "local all +support trust\nlocal all support reject\n")],
        &[("joe b local", at(1))],
    ),
    row(
        "an address with a mask length; the bits to its right do not count here",
        &[(
            HBA,
            "host all all 172.20.143.89/32 trust\nhost all all 172.20.0.0/16 trust\nhost all all fe80::7a31:c1ff:0:0/96 trust\n",
        )],
        &[
            ("a b 172.20.143.89", at(1)),
            ("a b 172.20.143.90", at(2)),
            ("a b 172.21.0.0", None),
            ("a b fe80::7a31:c1ff:1:2", at(3)),
            ("a b fe80::7a31:c1fe:1:2", None),
        ],
    ),
    row(
        "0.0.0.0/0 is every address of version 4, ::0/0 of version 6",
        &[(
            HBA,
            "host all all 0.0.0.0/0 trust\nhost all all ::0/0 trust\n",
        )],
        &[
            ("a b 8.8.8.8", at(1)),
            ("a b 2001:db8::1", at(2)),
            ("a b ::ffff:8.8.8.8", at(1)),
        ],
    ),
    row(
        "an address and a mask in two columns",
        &[(
            HBA,
            "host all all 127.0.0.1 255.255.255.255 trust\nhost all all 10.0.0.0 255.0.0.0 trust\nhost all all fd00:: ffff:: trust\n",
        )],
        &[
            ("a b 127.0.0.1", at(1)),
            ("a b 127.0.0.2", None),
            ("a b 10.9.9.9", at(2)),
            ("a b fd00:1::", at(3)),
        ],
    ),
    row(
        "all is any address, samehost this machine's own, samenet those of its networks",
        &[(
            HBA,
            "host x all samehost trust\nhost y all samenet trust\nhost z all all trust\n",
        )],
        &[
            ("a x 10.9.0.5", at(1)),
            ("a x 10.9.0.6", None),
            ("a y 10.9.0.6", at(2)),
            ("a y 10.10.0.6", None),
            ("a z 9.9.9.9", at(3)),
        ],
    ),
    row(
        "a name is compared with that of the client's address, without regard to case",
        &[(
            HBA,
            "host x all client.EXAMPLE.com trust\nhost y all example.com trust\n",
        )],
        &[("a x 1.2.3.4", at(1)), ("a y 1.2.3.4", None)],
    ),
    row(
        "a name that begins with a dot is a suffix: .example.com does not match example.com",
        &[(
            HBA,
            "host x all .example.com trust\nhost y all .client.example.com trust\n",
        )],
        &[("a x 1.2.3.4", at(1)), ("a y 1.2.3.4", None)],
    ),
    row(
        "local has no address",
        &[(HBA, "local all all trust\n")],
        &[("a b local", at(1))],
    ),
    row(
        "options are name=value, and may be in double quotes",
        &[(
            HBA,
            "local all all peer map=m\nhost all all all ldap \"ldapurl=ldap://h/o=a b?uid?sub\"\n",
        )],
        &[("a b local", at(1)), ("a b ::1", at(2))],
    ),
    row(
        "a file of @ holds names separated by blanks, commas or lines, comments, and further @",
        &[
            (HBA, "local all @users trust\n"),
            ("etc/users", "a, b\nc d # e\n@more/users\n"),
            ("etc/more/users", "f @rest\n"),
            ("etc/more/rest", "\"g h\",i"),
        ],
        &[
            ("a x local", at(1)),
            ("b x local", at(1)),
            ("d x local", at(1)),
            ("e x local", None),
            ("f x local", at(1)),
            ("i x local", at(1)),
        ],
    ),
    row(
        "include puts the lines of a file in its place, relative to the file that names it",
        &[
            (HBA, "include more/one\nlocal all all trust\n"),
            ("etc/more/one", "local a all reject\ninclude two\n"),
            ("etc/more/two", "local b all reject\n"),
        ],
        &[
            ("x a local", Some(("etc/more/one", 1))),
            ("x b local", Some(("etc/more/two", 1))),
            ("x c local", at(2)),
        ],
    ),
    row(
        "include_if_exists does nothing without one, include_dir takes visible *.conf files in order",
        &[
            (
                HBA,
                "include_if_exists gone\ninclude_if_exists more\ninclude_dir d\n",
            ),
            ("etc/more", "local a all trust"),
            ("etc/d/2.conf", "local all all trust"),
            ("etc/d/1.conf", "local b all trust"),
            ("etc/d/.0.conf", "local all all reject"),
            ("etc/d/0.conf.bak", "local all all reject"),
        ],
        &[
            ("x a local", Some(("etc/more", 1))),
            ("x b local", Some(("etc/d/1.conf", 1))),
            ("x c local", Some(("etc/d/2.conf", 1))),
        ],
    ),
    row(
        "the first record that fits decides, and no other is looked at; without one nobody gets in",
        &[(
            HBA,
            "host all bob all reject\nhost all bob all trust\nhost b all 10.0.0.0/8 md5\n",
        )],
        &[
            ("bob b 10.0.0.1", at(1)),
            ("ann b 10.0.0.1", at(3)),
            ("ann c 10.0.0.1", None),
        ],
    ),
];

#[test]
fn every_rule_of_the_documentation() {
    for Row { says, files, who } in ROWS {
        let read = Rules::read(Path::new(HBA), &mut Memory::with(files));
        let read = read.unwrap_or_else(|e| panic!("{says}: {e:?}"));
        for (who, expected) in *who {
            let decided = match read.decide(&asked(who), &facts()) {
                Decision::Rule(rule) => Some((rule.place.file.to_str().unwrap(), rule.place.line)),
                Decision::None => None,
                Decision::Needs(need) => panic!("{says}: {who}: {need:?}"),
            };
            assert_eq!(decided, *expected, "{says}: {who}");
        }
    }
}

/// The methods, with each of their options.
#[test]
fn every_method_of_the_documentation() {
    for (line, method) in [
        ("host all all all trust", Ok(Method::Trust)),
        ("host all all all reject", Ok(Method::Reject)),
        ("host all all all scram-sha-256", Ok(Method::ScramSha256)),
        ("host all all all md5", Ok(Method::Md5)),
        ("host all all all password", Ok(Method::Password)),
        ("local all all peer", Ok(Method::Peer)),
        ("local all all peer map=m", Ok(Method::Peer)),
        ("local all all ident map=m", Ok(Method::Peer)),
        (
            "host all all all ldap ldapserver=h ldapport=1 ldaptls=1 ldapprefix=a ldapsuffix=b",
            Ok(Method::Ldap),
        ),
        (
            "host all all all ldap ldapserver=h ldapscheme=ldaps ldapbasedn=a ldapbinddn=b ldapbindpasswd=c ldapsearchattribute=d",
            Ok(Method::Ldap),
        ),
        (
            "host all all all ldap ldapserver=h ldapbasedn=a ldapsearchfilter=(uid=$username)",
            Ok(Method::Ldap),
        ),
        (
            "host all all all ldap ldapurl=ldap://h/o=x?uid?sub",
            Ok(Method::Ldap),
        ),
        ("local all all pam", Ok(Method::Pam)),
        (
            "host all all all pam pamservice=x pam_use_hostname=1",
            Ok(Method::Pam),
        ),
        ("hostssl all all all cert", Ok(Method::Cert)),
        (
            "hostssl all all all cert map=m clientname=DN clientcert=verify-full",
            Ok(Method::Cert),
        ),
        (
            "hostssl all all all md5 clientcert=verify-ca",
            Ok(Method::Md5),
        ),
        (
            "hostssl all all all md5 clientcert=verify-full clientname=CN",
            Ok(Method::Md5),
        ),
        ("host all all all gss include_realm=0", Err("not supported")),
        ("host all all all sspi", Err("not supported")),
        ("host all all all ident", Err("not supported")),
        (
            "host all all all radius radiusservers=h",
            Err("not supported"),
        ),
        ("host all all all bsd", Err("not supported")),
        (
            "host all all all oauth issuer=x scope=y",
            Err("not supported"),
        ),
    ] {
        match (rules(line), method) {
            (Ok(read), Ok(method)) => assert_eq!(read.all()[0].method, method, "{line}"),
            (Err(errors), Err(says)) => {
                assert!(errors[0].message.contains(says), "{line}: {errors:?}");
            }
            (read, _) => panic!("{line}: {read:?}"),
        }
    }
}
