//! Who is let in: users that are looked up, rules by address, certificates.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../tls/certs.rs"]
#[allow(dead_code, reason = "the rest of it is for other tests")]
mod certs;

mod attempts;
mod certificates;
mod ldap;
mod legs;
mod lookup;
#[cfg(all(feature = "pam", target_os = "linux"))]
mod pam;
mod passwords;
mod rules;
mod slapd;
mod timing;

use support::{Message, Wire};

/// A login with a password.
fn try_login(port: u16, user: &str, database: &str, password: &str) -> Result<Wire, Message> {
    Wire::try_login(port, &[("user", user), ("database", database)], password)
}

/// The error of a login that is refused.
fn refused(port: u16, user: &str, database: &str, password: &str) -> Message {
    let refusal = try_login(port, user, database, password).err();
    refusal.unwrap_or_else(|| panic!("{user} got in"))
}
