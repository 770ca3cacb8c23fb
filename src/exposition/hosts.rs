//! By which names the status is served.
//!
//! A site that somebody visits can give its own name the pooler's address (DNS rebinding): the visitor's browser then takes
//! what is served here for that site's own, and lets its scripts read it. The request still says the site's name. So what
//! says who is served is given only to those who asked by an address, which is no name, or by a name that is ours.

use std::net::{IpAddr, Ipv6Addr};

use crate::net::host_name;

/// Whether `host`, as in a request's `Host` (RFC 9110, section 7.2), is an address, this machine, or one of `more`.
pub(super) fn is_ours(host: &str, more: &[String]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let literal = rest.split_once(']');
        return literal.is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _port)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut ours = ["localhost", host_name()]
        .into_iter()
        .chain(more.iter().map(String::as_str));
    name.parse::<IpAddr>().is_ok() || ours.any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_of_this_machine_are_ours() {
        let more = ["status.example".to_owned()];
        let own = format!("{}:9930", host_name());
        for host in [
            "127.0.0.1",
            "10.1.2.3:9930",
            "[::1]",
            "[fe80::1]:9930",
            "localhost",
            "LocalHost.:9930",
            "Status.Example:80",
            &own,
        ] {
            assert!(is_ours(host, &more), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9930",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "status.example.evil.example",
            "[evil.example]",
            "[::1",
            "127.0.0.1@evil.example",
        ] {
            assert!(!is_ours(host, &more), "{host}");
        }
    }
}
