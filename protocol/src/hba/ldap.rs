//! The options of method `ldap`: which directory says whether a password is right, and how it is asked.
//!
//! Nothing here talks to a directory. What would be a secret is in no message and in no `Debug`.
//!
//! PostgreSQL's documentation: "LDAP Authentication"; the form of a URL: RFC 4516.

use std::fmt;

use zeroize::Zeroizing;

/// What a filter has in place of the user's name.
const USERNAME: &str = "$username";

/// The attribute that is a user's name, unless something else is said.
const UID: &str = "uid";

/// A directory and how to ask it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ldap {
    /// Names or addresses, tried in this order; at least one.
    pub servers: Vec<String>,
    /// The port of each; that of the scheme, if none is given.
    pub port: Option<u16>,
    /// How the connection is encrypted.
    pub encryption: LdapEncryption,
    /// How a name becomes an entry.
    pub way: LdapWay,
}

/// How a connection to a directory is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LdapEncryption {
    /// Not at all.
    None,
    /// By the operation StartTLS (RFC 4513).
    StartTls,
    /// From the first byte.
    Ldaps,
}

/// How a name becomes an entry, whose password is then tried.
#[derive(Clone, PartialEq, Eq)]
pub enum LdapWay {
    /// The entry's name is the user's between these two.
    Simple {
        /// What stands before it.
        prefix: String,
        /// What stands behind it.
        suffix: String,
    },
    /// The only entry that a search finds.
    Search {
        /// Where it begins.
        base: String,
        /// How far it goes.
        scope: LdapScope,
        /// As whom it is done; as nobody, if the name is empty.
        bind_dn: String,
        /// The password for that.
        bind_password: Zeroizing<String>,
        /// What it looks for.
        filter: LdapFilter,
    },
}

impl fmt::Debug for LdapWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple { prefix, suffix } => write!(f, "Simple({prefix:?}, {suffix:?})"),
            Self::Search {
                base,
                scope,
                bind_dn,
                filter,
                ..
            } => write!(f, "Search({base:?}, {scope:?}, {bind_dn:?}, {filter:?})"),
        }
    }
}

/// How far a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LdapScope {
    /// To the base itself.
    Base,
    /// To what is right below it.
    One,
    /// To everything below it.
    Subtree,
}

/// What a search looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LdapFilter {
    /// An entry that has the user's name as this attribute.
    Attribute(String),
    /// What fits this filter, with the user's name in place of each `$username`.
    Template(String),
}

impl LdapFilter {
    /// The filter for a user whose name is `escaped` as RFC 4515 wants it.
    #[must_use]
    pub fn of(&self, escaped: &str) -> String {
        match self {
            Self::Attribute(attribute) => format!("({attribute}={escaped})"),
            Self::Template(template) => {
                let filter = template.replace(USERNAME, escaped);
                // PostgreSQL's client library takes one without its brackets.
                match filter.starts_with('(') {
                    true => filter,
                    false => format!("({filter})"),
                }
            }
        }
    }
}

/// The options of a line, as they come.
#[derive(Default)]
pub(super) struct Options {
    server: Option<String>,
    port: Option<u16>,
    scheme: Option<String>,
    start_tls: bool,
    prefix: Option<String>,
    suffix: Option<String>,
    base: Option<String>,
    bind_dn: Option<String>,
    bind_password: Option<Zeroizing<String>>,
    attribute: Option<String>,
    filter: Option<String>,
    scope: Option<LdapScope>,
}

impl Options {
    /// Takes an option; false if it is none of these.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let own = || Some(value.to_owned());
        match name {
            "ldapserver" => self.server = own(),
            "ldapport" => self.port = Some(port(value)?),
            "ldapscheme" => match value {
                "ldap" | "ldaps" => self.scheme = own(),
                _ => return Err(format!("invalid ldapscheme {value:?}: ldap or ldaps")),
            },
            "ldaptls" => match value {
                "0" | "1" => self.start_tls = value == "1",
                // PostgreSQL takes anything else for 0, and would not encrypt.
                _ => return Err(format!("invalid ldaptls {value:?}: 0 or 1")),
            },
            "ldapprefix" => self.prefix = own(),
            "ldapsuffix" => self.suffix = own(),
            "ldapbasedn" => self.base = own(),
            "ldapbinddn" => self.bind_dn = own(),
            "ldapbindpasswd" => self.bind_password = Some(Zeroizing::new(value.to_owned())),
            "ldapsearchattribute" => self.attribute = own(),
            "ldapsearchfilter" => self.filter = own(),
            "ldapurl" => self.set_url(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `ldap[s]://host[:port]/basedn[?[attribute][?[scope][?[filter]]]]`
    fn set_url(&mut self, url: &str) -> Result<(), String> {
        let wrong = |what: &str| format!("could not parse LDAP URL {url:?}: {what}");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("no scheme"))?;
        match scheme {
            "ldap" | "ldaps" => self.scheme = Some(scheme.to_owned()),
            _ => return Err(wrong("the scheme is neither ldap nor ldaps")),
        }
        let (host, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port_text) = split_port(host);
        if !host.is_empty() {
            self.server = Some(decode(host).ok_or_else(|| wrong("invalid host"))?);
        }
        if let Some(text) = port_text {
            self.port = Some(port(text)?);
        }
        let mut parts = rest.split('?');
        let mut part = || {
            let decoded = decode(parts.next().unwrap_or_default());
            decoded.ok_or_else(|| wrong("invalid escape"))
        };
        let (base, attributes, scope, filter) = (part()?, part()?, part()?, part()?);
        if !part()?.is_empty() {
            return Err(wrong("extensions are not supported"));
        }
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        self.base = some(base);
        // Several may stand there; PostgreSQL takes the first.
        self.attribute = attributes.split(',').next().map(str::to_owned);
        self.attribute = self.attribute.take().and_then(some);
        self.scope = Some(match &*scope {
            "" | "base" => LdapScope::Base,
            "one" => LdapScope::One,
            "sub" => LdapScope::Subtree,
            _ => return Err(wrong("the scope is none of base, one, sub")),
        });
        self.filter = some(filter);
        Ok(())
    }

    /// What they say together.
    pub(super) fn finish(self) -> Result<Ldap, String> {
        let servers = self.server.as_deref().unwrap_or_default();
        let servers: Vec<_> = servers.split_whitespace().map(str::to_owned).collect();
        if servers.is_empty() {
            return Err("ldap needs ldapserver (the pooler does not look for one in DNS)".into());
        }
        let encryption = match (self.scheme.as_deref(), self.start_tls) {
            (Some("ldaps"), true) => {
                return Err("ldaptls=1 is for scheme ldap: ldaps is encrypted without it".into());
            }
            (Some("ldaps"), false) => LdapEncryption::Ldaps,
            (_, true) => LdapEncryption::StartTls,
            (_, false) => LdapEncryption::None,
        };
        let is_search = self.base.is_some()
            || self.bind_dn.is_some()
            || self.bind_password.is_some()
            || self.attribute.is_some()
            || self.filter.is_some();
        let is_simple = self.prefix.is_some() || self.suffix.is_some();
        let way = match (is_simple, is_search, self.base) {
            (true, true, _) => {
                return Err(
                    "ldapprefix and ldapsuffix (simple bind) cannot be mixed with ldapbasedn, ldapbinddn, \
                     ldapbindpasswd, ldapsearchattribute, ldapsearchfilter or ldapurl (search and bind)"
                        .into(),
                );
            }
            (true, false, _) => LdapWay::Simple {
                prefix: self.prefix.unwrap_or_default(),
                suffix: self.suffix.unwrap_or_default(),
            },
            (false, _, Some(base)) => LdapWay::Search {
                base,
                scope: self.scope.unwrap_or(LdapScope::Subtree),
                bind_dn: self.bind_dn.unwrap_or_default(),
                bind_password: self.bind_password.unwrap_or_default(),
                filter: match (self.attribute, self.filter) {
                    (Some(_), Some(_)) => {
                        return Err(
                            "ldapsearchattribute and ldapsearchfilter are both set; keep one"
                                .into(),
                        );
                    }
                    (None, Some(filter)) => LdapFilter::Template(filter),
                    (attribute, None) => LdapFilter::Attribute(attribute.unwrap_or(UID.to_owned())),
                },
            },
            (false, _, None) => {
                return Err("ldap needs ldapbasedn, ldapprefix or ldapsuffix".into());
            }
        };
        Ok(Ldap {
            servers,
            port: self.port,
            encryption,
            way,
        })
    }
}

/// A host and what stands behind its colon; an address of version 6 is in square brackets.
fn split_port(host: &str) -> (&str, Option<&str>) {
    let after = host.rfind(']').map_or(0, |at| at + 1);
    match host[after..].find(':') {
        Some(at) => (&host[..after + at], Some(&host[after + at + 1..])),
        None => (host, None),
    }
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("invalid LDAP port number {text:?}"))
}

/// `text` without its percent signs; nothing if it is malformed, or no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(bytes.next()?)? << 4 | digit(bytes.next()?)?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Ldap, String> {
        let mut all = Options::default();
        for (name, value) in options {
            assert!(all.set(name, value)?, "{name}");
        }
        all.finish()
    }

    /// RFC 4516 and the examples of the documentation.
    #[test]
    fn a_url_says_the_same_as_options() {
        let url = |url: &str| read(&[("ldapurl", url)]);
        for (text, options) in [
            (
                "ldap://ldap.example.net/dc=example,dc=net?uid?sub",
                &[
                    ("ldapserver", "ldap.example.net"),
                    ("ldapbasedn", "dc=example,dc=net"),
                ][..],
            ),
            (
                "ldap://ldap.example.net:1389/dc=example,dc=net??sub?(cn=$username)",
                &[
                    ("ldapserver", "ldap.example.net"),
                    ("ldapport", "1389"),
                    ("ldapbasedn", "dc=example,dc=net"),
                    ("ldapsearchfilter", "(cn=$username)"),
                ],
            ),
            (
                "ldaps://[::1]:636/o=a%20b%2Cc?cn,sn?sub?",
                &[
                    ("ldapserver", "[::1]"),
                    ("ldapport", "636"),
                    ("ldapscheme", "ldaps"),
                    ("ldapbasedn", "o=a b,c"),
                    ("ldapsearchattribute", "cn"),
                ],
            ),
        ] {
            assert_eq!(url(text), read(options), "{text}");
        }
        let scope = |text: &str| match url(text).unwrap().way {
            LdapWay::Search { scope, .. } => scope,
            LdapWay::Simple { .. } => panic!("{text}"),
        };
        assert_eq!(scope("ldap://h/o=x"), LdapScope::Base, "its default");
        assert_eq!(scope("ldap://h/o=x??one"), LdapScope::One);
        for (text, says) in [
            ("h/o=x", "no scheme"),
            ("http://h/o=x", "neither ldap nor ldaps"),
            ("ldap:///o=x", "needs ldapserver"),
            ("ldap://h", "needs ldapbasedn"),
            ("ldap://h:x/o=x", "invalid LDAP port"),
            ("ldap://h/o=%zz", "invalid escape"),
            ("ldap://h/o=%e", "invalid escape"),
            ("ldap://h/o=x??all", "none of base, one, sub"),
            ("ldap://h/o=x????bindname=cn=x", "extensions"),
            ("ldap://h/o=x?uid?sub?(cn=x)", "keep one"),
        ] {
            let error = url(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn names_stand_where_the_filter_says() {
        let attribute = LdapFilter::Attribute("uid".to_owned());
        assert_eq!(attribute.of("bob"), "(uid=bob)");
        let template = |text: &str| LdapFilter::Template(text.to_owned());
        let both = template("(|(uid=$username)(mail=$username))");
        assert_eq!(both.of("bob"), "(|(uid=bob)(mail=bob))");
        assert_eq!(template("uid=$username").of("bob"), "(uid=bob)");
    }
}
