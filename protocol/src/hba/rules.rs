//! All lines of `pg_hba.conf`, and which of them decides about a connection.

// What an address is, without anything that does I/O.
use core::net::IpAddr;
use std::path::Path;

use super::address::{Addresses, is_in, is_named};
use super::pattern::{DatabasePattern, UserPattern, is_member};
use super::rule::{Rule, Transport};
use super::{Files, LineError, tokens};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// Who wants in.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As whom.
    pub user: &'a str,
    /// Whereto.
    pub database: &'a str,
    /// Not to a database at all, but for physical replication.
    pub replication: bool,
    /// From where.
    pub came: Came,
}

/// How somebody came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// By a Unix socket.
    Local,
    /// By TCP.
    Tcp {
        /// From there.
        address: IpAddr,
        /// By TLS.
        encrypted: bool,
    },
}

/// What may have to be known beyond that; nothing is not known yet.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The roles that the user is a member of, itself included.
    pub roles: Option<Vec<String>>,
    /// The name of the client's address, if it has one that has this address.
    pub host_name: Option<Option<String>>,
    /// This machine's addresses, with the masks of their networks.
    pub networks: Option<Vec<(IpAddr, IpAddr)>>,
}

/// A fact that is not known and may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// [`Facts::roles`]
    Roles,
    /// [`Facts::host_name`]
    HostName,
    /// [`Facts::networks`]
    Networks,
}

/// What is decided.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'a> {
    /// This rule fits, and none before it does.
    Rule(&'a Rule),
    /// None does.
    None,
    /// Find this out, and ask again.
    Needs(Need),
}

impl Rules {
    /// Reads a file, and what it includes.
    ///
    /// # Errors
    /// All lines that are wrong.
    pub fn read(path: &Path, files: &mut dyn Files) -> Result<Self, Vec<LineError>> {
        let lines = tokens::read(path, files)?;
        let mut errors = Vec::new();
        let mut rules = Vec::new();
        for line in lines {
            match Rule::parse(&line) {
                Ok(rule) => rules.push(rule),
                Err(e) => errors.push(e),
            }
        }
        match errors.is_empty() {
            true => Ok(Self { rules }),
            false => Err(errors),
        }
    }

    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule for which somebody must be asked what roles a user has.
    #[must_use]
    pub fn needs_roles(&self) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.needs_roles())
    }

    /// Which rule decides. A need is of the first rule that cannot be judged without it, so nothing is
    /// asked for that an earlier rule makes unnecessary.
    #[must_use]
    pub fn decide(&self, asked: &Asked<'_>, facts: &Facts) -> Decision<'_> {
        for rule in &self.rules {
            match rule.fits(asked, facts) {
                Ok(true) => return Decision::Rule(rule),
                Ok(false) => {}
                Err(need) => return Decision::Needs(need),
            }
        }
        Decision::None
    }
}

impl Rule {
    fn fits(&self, asked: &Asked<'_>, facts: &Facts) -> Result<bool, Need> {
        // The cheap ones first: a fact is needed only if all else fits. Whether a rule fits does not
        // depend on the order.
        let (database, user) = (
            self.fits_database(asked, facts),
            self.fits_user(asked, facts),
        );
        if !self.fits_transport(asked) || database == Ok(false) || user == Ok(false) {
            return Ok(false);
        }
        Ok(self.fits_address(asked, facts)? && database? && user?)
    }

    fn fits_transport(&self, asked: &Asked<'_>) -> bool {
        match (self.transport, asked.came) {
            (Transport::Local, Came::Local) | (Transport::Host, Came::Tcp { .. }) => true,
            (Transport::HostTls, Came::Tcp { encrypted, .. }) => encrypted,
            (Transport::HostPlain, Came::Tcp { encrypted, .. }) => !encrypted,
            _ => false,
        }
    }

    fn fits_database(&self, asked: &Asked<'_>, facts: &Facts) -> Result<bool, Need> {
        let mut unknown = false;
        for pattern in &self.databases {
            let fits = match pattern {
                DatabasePattern::Replication => asked.replication,
                _ if asked.replication => false,
                DatabasePattern::All => true,
                DatabasePattern::SameUser => asked.database == asked.user,
                DatabasePattern::SameRole => {
                    match is_member(asked.database, facts.roles.as_deref()) {
                        Some(member) => member,
                        None => {
                            unknown = true;
                            false
                        }
                    }
                }
                DatabasePattern::Name(name) => name == asked.database,
                DatabasePattern::Matches(expression) => expression.0.is_match(asked.database),
            };
            if fits {
                return Ok(true);
            }
        }
        match unknown {
            true => Err(Need::Roles),
            false => Ok(false),
        }
    }

    fn fits_user(&self, asked: &Asked<'_>, facts: &Facts) -> Result<bool, Need> {
        let fits = |pattern: &UserPattern| pattern.fits(asked.user, facts.roles.as_deref());
        let mut unknown = false;
        for pattern in &self.users {
            match fits(pattern) {
                Some(true) => return Ok(true),
                Some(false) => {}
                None => unknown = true,
            }
        }
        match unknown {
            true => Err(Need::Roles),
            false => Ok(false),
        }
    }

    fn fits_address(&self, asked: &Asked<'_>, facts: &Facts) -> Result<bool, Need> {
        let Came::Tcp { address, .. } = asked.came else {
            return Ok(true);
        };
        // A socket of both families shows addresses of version 4 within those of version 6.
        let address = address.to_canonical();
        let networks = || facts.networks.as_deref().ok_or(Need::Networks);
        Ok(match &self.addresses {
            Addresses::All => true,
            Addresses::Network(network, mask) => is_in(address, *network, *mask),
            Addresses::SameHost => networks()?.iter().any(|(own, _)| *own == address),
            Addresses::SameNet => {
                let mut networks = networks()?.iter();
                networks.any(|(own, mask)| is_in(address, *own, *mask))
            }
            Addresses::Name(pattern) => {
                let name = facts.host_name.as_ref().ok_or(Need::HostName)?;
                name.as_deref().is_some_and(|name| is_named(pattern, name))
            }
        })
    }
}
