//! What the system knows of this machine and of who connects to it: addresses, names, users.
//!
//! Each of these can block, and a name server that is down does so for long: they run on blocking
//! threads, few at a time.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::timer;

/// Questions at a time.
const ASKED_MAX: usize = 16;

/// How long the name of an address may take to find.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the name of an address is believed.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// Addresses whose names are remembered.
const NAMES_MAX: usize = 10_000;

static TURNS: Semaphore = Semaphore::const_new(ASKED_MAX);

type Names = HashMap<IpAddr, (Option<String>, Instant)>;

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

/// The name of `address`, if that name has this address: whoever says what the names of its own
/// addresses are could claim any.
pub async fn name_of(address: IpAddr) -> Option<String> {
    let known = || NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((name, at)) = known().get(&address)
        && at.elapsed() < FRESH_FOR
    {
        return name.clone();
    }
    let asked = blocking(move || {
        let name = dns_lookup::lookup_addr(&address).ok()?;
        // An address without a name is given back as it is.
        let is_name = name.parse::<IpAddr>().is_err();
        let mut back = dns_lookup::lookup_host(&name).ok().filter(|_| is_name)?;
        back.any(|a| a == address).then_some(name)
    });
    let name = timer::timeout(PATIENCE, asked).await.ok()??;
    let mut names = known();
    if names.len() >= NAMES_MAX {
        names.clear();
    }
    names.insert(address, (name.clone(), Instant::now()));
    name
}

/// This machine's addresses, with the masks of their networks.
///
/// # Errors
/// What the system says.
pub fn networks() -> io::Result<Vec<(IpAddr, IpAddr)>> {
    let ip = |address: Option<nix::sys::socket::SockaddrStorage>| {
        let address = address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()))
    };
    let all = nix::ifaddrs::getifaddrs()?;
    Ok(all
        .filter_map(|one| Some((ip(one.address)?, ip(one.netmask)?)))
        .collect())
}

/// This machine's name for itself; empty if it has none.
#[must_use]
pub fn host_name() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let name = nix::unistd::gethostname().ok();
        name.and_then(|name| name.into_string().ok())
            .unwrap_or_default()
    });
    &NAME
}

/// The name of a user of this machine.
pub async fn user_name(uid: u32) -> Option<String> {
    let asked = blocking(move || {
        let user = nix::unistd::User::from_uid(uid.into()).ok()?;
        user.map(|user| user.name)
    });
    timer::timeout(PATIENCE, asked).await.ok()??
}

async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let turn = TURNS.acquire().await.ok()?;
    tokio::task::spawn_blocking(move || {
        let answer = ask();
        drop(turn);
        answer
    })
    .await
    .ok()
}
