//! Names of hosts, and the addresses that they had last.
//!
//! ```text
//!   unknown --asked for--> looked up --> known --older than FRESH_FOR, asked for--> known, looked up beside
//!   known --none of its addresses answers--> looked up anew, and waited for
//! ```
//! Only the first who asks waits for an answer, and who finds that the addresses have ceased to answer:
//! everybody else gets what is known, while it is looked up again beside. A connection that is open says
//! nothing about its name: an answer with other addresses closes none (trap 80).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How old an answer may be before it is asked for again.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// Names that are remembered: they come from the configuration, so there are few.
const NAMES_MAX: usize = 10_000;

/// What is known of all names, in the whole process.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

fn names() -> MutexGuard<'static, Names> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Known {
    addresses: Arc<[IpAddr]>,
    at: Instant,
    /// Somebody is looking it up again.
    refreshing: bool,
}

#[derive(Debug, Default)]
struct Names(HashMap<String, Known>);

impl Names {
    /// What is known of `host`, and whether the caller is to look it up again.
    fn find(&mut self, host: &str, now: Instant) -> Option<(Arc<[IpAddr]>, bool)> {
        let known = self.0.get_mut(host)?;
        let old = now.saturating_duration_since(known.at) >= FRESH_FOR;
        let refresh = old && !known.refreshing;
        known.refreshing |= refresh;
        Some((Arc::clone(&known.addresses), refresh))
    }

    /// The answer to a look-up: what is known stays if there is none.
    fn note(&mut self, host: &str, addresses: Option<Arc<[IpAddr]>>, now: Instant) {
        match addresses {
            Some(addresses) => {
                if self.0.len() >= NAMES_MAX {
                    self.0.clear();
                }
                let known = Known {
                    addresses,
                    at: now,
                    refreshing: false,
                };
                self.0.insert(host.to_owned(), known);
            }
            None => {
                if let Some(known) = self.0.get_mut(host) {
                    known.refreshing = false;
                    known.at = now;
                }
            }
        }
    }
}

/// The addresses of `host`, as far as they are known without waiting.
///
/// # Errors
/// That of the look-up, if nothing was known.
pub(super) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let known = names().find(host, Instant::now());
    let Some((addresses, refresh)) = known else {
        return look_up(host, port).await;
    };
    if refresh {
        let host = host.to_owned();
        tokio::spawn(async move {
            if let Err(e) = look_up(&host, port).await {
                tracing::warn!("cannot look up {host:?} again, its last addresses stay: {e}");
            }
        });
    }
    Ok(with_port(&addresses, port))
}

/// The same from whoever knows best, because none of the known ones answers.
///
/// # Errors
/// That of the look-up.
pub(super) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let answer = tokio::net::lookup_host((host, port)).await;
    match answer {
        Ok(answer) => {
            let all: Vec<SocketAddr> = answer.collect();
            let ips: Arc<[IpAddr]> = all.iter().map(SocketAddr::ip).collect();
            let some = (!ips.is_empty()).then_some(ips);
            names().note(host, some, Instant::now());
            Ok(all)
        }
        Err(e) => {
            names().note(host, None, Instant::now());
            Err(e)
        }
    }
}

fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|ip| SocketAddr::new(*ip, port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(text: &str) -> Arc<[IpAddr]> {
        text.split(' ')
            .map(|ip| ip.parse().expect("an address"))
            .collect()
    }

    #[test]
    fn t80_an_old_answer_serves_while_one_asks_again() {
        let start = Instant::now();
        let mut names = Names::default();
        assert_eq!(names.find("db", start), None);
        names.note("db", Some(ips("10.0.0.1 10.0.0.2")), start);
        assert_eq!(
            names.find("db", start + FRESH_FOR / 2),
            Some((ips("10.0.0.1 10.0.0.2"), false))
        );
        let later = start + FRESH_FOR;
        assert_eq!(
            names.find("db", later),
            Some((ips("10.0.0.1 10.0.0.2"), true))
        );
        assert_eq!(
            names.find("db", later),
            Some((ips("10.0.0.1 10.0.0.2"), false)),
            "one is enough"
        );
        // No answer: the old one stays, and is asked for again later.
        names.note("db", None, later);
        assert_eq!(
            names.find("db", later),
            Some((ips("10.0.0.1 10.0.0.2"), false))
        );
        assert_eq!(
            names.find("db", later + FRESH_FOR),
            Some((ips("10.0.0.1 10.0.0.2"), true))
        );
        names.note("db", Some(ips("10.0.0.3")), later + FRESH_FOR);
        assert_eq!(
            names.find("db", later + FRESH_FOR),
            Some((ips("10.0.0.3"), false))
        );
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up_and_a_name_is_once() {
        assert_eq!(
            addresses("127.0.0.1", 1).await.expect("itself"),
            ["127.0.0.1:1".parse().expect("one")]
        );
        let first = addresses("localhost", 1).await.expect("a name");
        assert_eq!(addresses("localhost", 1).await.expect("known"), first);
        assert!(addresses("no-such-name.invalid", 1).await.is_err());
    }
}
