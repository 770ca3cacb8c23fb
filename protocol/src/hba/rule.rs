//! One line of `pg_hba.conf`.

use std::sync::Arc;

use super::address::{Addresses, Parsed};
use super::ldap::{self, Ldap};
use super::pattern::{DatabasePattern, UserPattern};
use super::tokens::{Line, Token};
use super::{LineError, Place};

/// How a connection must have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// By a Unix socket.
    Local,
    /// By TCP.
    Host,
    /// By TLS.
    HostTls,
    /// By TCP without TLS.
    HostPlain,
    /// By GSSAPI: nobody does, here.
    HostGss,
}

/// What a client must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Nothing.
    Trust,
    /// Leave.
    Reject,
    /// Say the password in the clear.
    Password,
    /// Answer an md5 challenge, or a SCRAM one where only a verifier is known.
    Md5,
    /// Answer a SCRAM challenge.
    ScramSha256,
    /// Have shown a certificate with its name.
    Cert,
    /// Be the user of the operating system with that name.
    Peer,
    /// Say the password in the clear, which a directory then judges: [`Rule::ldap`].
    Ldap,
    /// Say the password in the clear, which the system's PAM then judges: [`Rule::pam`].
    Pam,
}

/// How PAM is asked. PostgreSQL's documentation: "PAM Authentication".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pam {
    /// The name of the service: `pamservice`.
    pub service: String,
    /// Whether it is told the name of the client's host instead of its address: `pam_use_hostname`.
    pub host_name: bool,
}

/// Whether a client must have shown a certificate, whatever the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCert {
    /// It need not.
    #[default]
    Any,
    /// One that is trusted.
    VerifyCa,
    /// One that is trusted, with the user's name.
    VerifyFull,
}

/// What in a certificate is the user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientName {
    /// The common name.
    #[default]
    CommonName,
    /// The whole subject, as RFC 2253 writes it.
    DistinguishedName,
    /// An alternative name: of a host or a mailbox. PostgreSQL does not have this one.
    AlternativeName,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Where it stands.
    pub place: Place,
    /// How the connection must have come.
    pub transport: Transport,
    pub(super) databases: Vec<DatabasePattern>,
    pub(super) users: Vec<UserPattern>,
    /// Not looked at for Unix sockets.
    pub(super) addresses: Addresses,
    /// What the client must do.
    pub method: Method,
    /// The map for the name that `cert` or `peer` found.
    pub map: Option<String>,
    /// Whether a certificate is needed besides.
    pub client_cert: ClientCert,
    /// What in it is the name.
    pub client_name: ClientName,
    /// The directory that `ldap` asks.
    pub ldap: Option<Arc<Ldap>>,
    /// How `pam` asks.
    pub pam: Option<Pam>,
    /// The line, for whoever asks: without secrets.
    pub text: String,
    /// The line's columns, their tokens without quotes and without secrets.
    pub columns: Vec<Vec<String>>,
}

const UNSUPPORTED: &[&str] = &["gss", "sspi", "bsd", "radius", "ident", "oauth"];

impl Rule {
    /// Reads a line.
    pub(super) fn parse(line: &Line) -> Result<Self, LineError> {
        parse(line).map_err(|message| LineError {
            place: line.place.clone(),
            message,
        })
    }

    /// Whether the roles of a user may decide about it.
    pub(super) fn needs_roles(&self) -> bool {
        let group = |user: &UserPattern| matches!(user, UserPattern::Group(_));
        let same = |database: &DatabasePattern| matches!(database, DatabasePattern::SameRole);
        self.users.iter().any(group) || self.databases.iter().any(same)
    }
}

fn parse(line: &Line) -> Result<Rule, String> {
    let mut fields = line.fields.iter();
    let transport = transport(only(fields.next(), "connection type")?)?;
    let tokens = fields.next().ok_or("the line ends before the database")?;
    let databases = tokens
        .iter()
        .map(DatabasePattern::parse)
        .collect::<Result<_, _>>()?;
    let tokens = fields.next().ok_or("the line ends before the user")?;
    let users = tokens
        .iter()
        .map(UserPattern::parse)
        .collect::<Result<_, _>>()?;
    let addresses = match transport {
        Transport::Local => Addresses::All,
        _ => {
            let token = only(fields.next(), "address")?;
            if token.is_keyword("all") {
                Addresses::All
            } else if token.is_keyword("samehost") {
                Addresses::SameHost
            } else if token.is_keyword("samenet") {
                Addresses::SameNet
            } else {
                match Addresses::parse(&token.text)? {
                    Parsed::Is(addresses) => addresses,
                    Parsed::WantsMask(address) => {
                        let what = "mask (write ADDRESS/BITS, or the mask in the next column)";
                        Addresses::with_mask(address, &only(fields.next(), what)?.text)?
                    }
                }
            }
        }
    };
    let method = method(&only(fields.next(), "method")?.text, transport)?;
    let mut rule = Rule {
        place: line.place.clone(),
        transport,
        databases,
        users,
        addresses,
        method,
        map: None,
        client_cert: match method {
            Method::Cert => ClientCert::VerifyFull,
            _ => ClientCert::Any,
        },
        client_name: ClientName::default(),
        ldap: None,
        pam: (method == Method::Pam).then(|| Pam {
            service: PAM_SERVICE.to_owned(),
            host_name: false,
        }),
        text: shown(line),
        columns: {
            let texts =
                |field: &Vec<Token>| field.iter().map(|t| without_secret(&t.text)).collect();
            line.fields.iter().map(texts).collect()
        },
    };
    let mut options = ldap::Options::default();
    for option in fields.flatten() {
        rule.set(&option.text, &mut options)?;
    }
    if method == Method::Ldap {
        rule.ldap = Some(options.finish()?.into());
    }
    Ok(rule)
}

/// The service, unless `pamservice` names one.
const PAM_SERVICE: &str = "postgresql";

/// The option whose value is a secret.
const SECRET: &str = "ldapbindpasswd=";

fn without_secret(token: &str) -> String {
    match token.starts_with(SECRET) {
        true => format!("{SECRET}..."),
        false => token.to_owned(),
    }
}

fn transport(token: &Token) -> Result<Transport, String> {
    Ok(match &*token.text {
        "local" => Transport::Local,
        "host" | "hostnogssenc" => Transport::Host,
        "hostssl" => Transport::HostTls,
        "hostnossl" => Transport::HostPlain,
        "hostgssenc" => Transport::HostGss,
        other => return Err(format!("invalid connection type {other:?}")),
    })
}

fn method(word: &str, transport: Transport) -> Result<Method, String> {
    Ok(match (word, transport) {
        ("trust", _) => Method::Trust,
        ("reject", _) => Method::Reject,
        ("password", _) => Method::Password,
        ("md5", _) => Method::Md5,
        ("scram-sha-256", _) => Method::ScramSha256,
        ("cert", Transport::HostTls) => Method::Cert,
        ("cert", _) => return Err("cert needs hostssl".to_owned()),
        ("peer" | "ident", Transport::Local) => Method::Peer,
        ("peer", _) => return Err("peer needs local".to_owned()),
        ("ldap", _) => Method::Ldap,
        ("pam", _) => Method::Pam,
        (other, _) if UNSUPPORTED.contains(&other) => {
            return Err(format!("method {other} is not supported by the pooler"));
        }
        (other, _) => return Err(format!("invalid authentication method {other:?}")),
    })
}

impl Rule {
    fn set(&mut self, option: &str, ldap: &mut ldap::Options) -> Result<(), String> {
        let (name, value) = option.split_once('=').ok_or_else(|| match self.method {
            // It could be the second word of a password.
            Method::Ldap => {
                "an option is not in the form name=value; a value with blanks or commas \
                             needs double quotes around the whole option"
                    .to_owned()
            }
            _ => format!("option {option:?} is not in the form name=value"),
        })?;
        if ldap.set(name, value)? {
            return match self.method {
                Method::Ldap => Ok(()),
                _ => Err(format!("{name} needs method ldap")),
            };
        }
        let tls_alone = |rule: &Rule| match rule.transport {
            Transport::HostTls => Ok(()),
            _ => Err(format!("{name} needs hostssl")),
        };
        match name {
            "map" => match self.method {
                Method::Cert | Method::Peer => self.map = Some(value.to_owned()),
                _ => return Err("map needs method cert or peer".to_owned()),
            },
            "pamservice" | "pam_use_hostname" => {
                let pam = self.pam.as_mut();
                let pam = pam.ok_or_else(|| format!("{name} needs method pam"))?;
                match (name, value) {
                    // It is the name of a file.
                    ("pamservice", "") => return Err("pamservice is empty".to_owned()),
                    ("pamservice", value) if value.contains('/') => {
                        return Err(format!("invalid value {value:?} of pamservice"));
                    }
                    ("pamservice", value) => value.clone_into(&mut pam.service),
                    (_, "0" | "1") => pam.host_name = value == "1",
                    _ => return Err(format!("invalid value {value:?} of {name}: 0 or 1")),
                }
            }
            "clientcert" => {
                tls_alone(self)?;
                self.client_cert = match (value, self.method) {
                    ("verify-full", _) => ClientCert::VerifyFull,
                    ("verify-ca", Method::Cert) => {
                        return Err("cert means clientcert=verify-full".to_owned());
                    }
                    ("verify-ca", _) => ClientCert::VerifyCa,
                    _ => return Err(format!("invalid value {value:?} of clientcert")),
                };
            }
            "clientname" => {
                tls_alone(self)?;
                self.client_name = match value {
                    "CN" => ClientName::CommonName,
                    "DN" => ClientName::DistinguishedName,
                    "SAN" => ClientName::AlternativeName,
                    _ => return Err(format!("invalid value {value:?} of clientname")),
                };
            }
            _ => return Err(format!("unknown option {name:?}")),
        }
        Ok(())
    }
}

/// The only token of a field.
pub(super) fn only<'a>(field: Option<&'a Vec<Token>>, what: &str) -> Result<&'a Token, String> {
    match field.map(Vec::as_slice) {
        None | Some([]) => Err(format!("the line ends before the {what}")),
        Some([token]) => Ok(token),
        Some(_) => Err(format!(
            "there is more than one {what}; write a line for each"
        )),
    }
}

/// The line, tidied.
fn shown(line: &Line) -> String {
    let token = |token: &Token| match without_secret(&token.text) {
        text if token.quoted || text.contains([' ', ',', '#']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        text => text,
    };
    let field = |field: &Vec<Token>| field.iter().map(token).collect::<Vec<_>>().join(",");
    line.fields.iter().map(field).collect::<Vec<_>>().join(" ")
}
