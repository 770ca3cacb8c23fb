//! The addresses that a rule is about.

// What an address is, without anything that does I/O.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Addresses {
    /// Any, of both families.
    All,
    /// This machine's own.
    SameHost,
    /// The networks that this machine is in.
    SameNet,
    /// Those that agree with this one where the mask has ones.
    Network(IpAddr, IpAddr),
    /// Those that have this name, in lower case; all below it, if it begins with a dot.
    Name(String),
}

impl Addresses {
    /// What stands in the column, if it needs no mask of its own beside it.
    pub(super) fn parse(text: &str) -> Result<Parsed, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        // PostgreSQL takes a scope, and does not compare it.
        let plain = address.split_once('%').map_or(address, |(plain, _)| plain);
        let Ok(address) = plain.parse::<IpAddr>() else {
            return match bits {
                Some(_) => Err(format!("{text:?} is neither an address nor a name")),
                None if is_name(text) => Ok(Parsed::Is(Self::Name(text.to_ascii_lowercase()))),
                None => Err(format!("{text:?} is neither an address nor a name")),
            };
        };
        let Some(bits) = bits else {
            return Ok(Parsed::WantsMask(address));
        };
        let mask = bits.parse().ok().and_then(|bits| mask(address, bits));
        let mask = mask.ok_or_else(|| format!("invalid CIDR mask in {text:?}"))?;
        Ok(Parsed::Is(Self::Network(address, mask)))
    }

    /// `address` with a mask in a column of its own.
    pub(super) fn with_mask(address: IpAddr, text: &str) -> Result<Self, String> {
        let mask = text.parse::<IpAddr>();
        let mask = mask.map_err(|_| format!("{text:?} is no mask"))?;
        if mask.is_ipv4() != address.is_ipv4() {
            return Err(format!("address {address} and mask {mask} do not match"));
        }
        Ok(Self::Network(address, mask))
    }
}

/// What was made of the column.
pub(super) enum Parsed {
    Is(Addresses),
    WantsMask(IpAddr),
}

/// As ones from the left.
fn mask(address: IpAddr, bits: u32) -> Option<IpAddr> {
    match address {
        IpAddr::V4(_) => {
            let ones = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
            Some(Ipv4Addr::from_bits(ones).into())
        }
        IpAddr::V6(_) => {
            let ones = u128::MAX
                .checked_shl(128_u32.checked_sub(bits)?)
                .unwrap_or(0);
            Some(Ipv6Addr::from_bits(ones).into())
        }
    }
}

/// Whether `address` is in a network.
pub(super) fn is_in(address: IpAddr, network: IpAddr, mask: IpAddr) -> bool {
    match (address, network, mask) {
        (IpAddr::V4(a), IpAddr::V4(n), IpAddr::V4(m)) => {
            (a.to_bits() ^ n.to_bits()) & m.to_bits() == 0
        }
        (IpAddr::V6(a), IpAddr::V6(n), IpAddr::V6(m)) => {
            (a.to_bits() ^ n.to_bits()) & m.to_bits() == 0
        }
        _ => false,
    }
}

/// Whether a host of this name is meant.
pub(super) fn is_named(pattern: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match pattern.starts_with('.') {
        true => name.len() > pattern.len() && name.ends_with(pattern),
        false => name == *pattern,
    }
}

/// An address that is cut, or has a letter too many, is no name: it would never match anything.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let last = text.rsplit('.').next().unwrap_or_default();
    text.chars().all(allowed) && last.contains(|c: char| !c.is_ascii_digit())
}
