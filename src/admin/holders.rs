//! Who is in the way of a PAUSE or a SUSPEND, in words for the operator.

use std::fmt::Write as _;
use std::time::Instant;

use super::census::{ClientLine, Standing, View};
use crate::net::Peer;
use crate::relay::reasons;

/// Clients that are named; of the others it is said how many they are.
const NAMED_MAX: usize = 5;

/// Clients of the databases that are `meant` which keep a server connection there, those that have had it for longest first.
pub(super) fn who_holds(view: &View, meant: impl Fn(&str) -> bool) -> String {
    let holds = |client: &&ClientLine| {
        // Replication connections have their own.
        let of_a_pool = !client.pool_name.is_empty() && meant(&client.database);
        of_a_pool && (client.standing == Standing::Active || client.listens)
    };
    let mut holders: Vec<_> = view.clients.iter().filter(holds).collect();
    holders.sort_by_key(|client| client.held.unwrap_or(client.since));
    let now = Instant::now();
    sentence(&holders, |client| {
        let held = now.saturating_duration_since(client.held.unwrap_or(client.since));
        let mut kept = reasons(client.pins).map(|kind| kind.reason);
        match kept.next() {
            Some(first) => {
                let all = kept.fold(first.to_owned(), |all, one| all + ", " + one);
                format!("kept on its server by {all} for {held:.1?}")
            }
            None if client.standing == Standing::Active => {
                format!("{} for {held:.1?}", client.doing)
            }
            None => "listening by the connection that all clients of the pool share".to_owned(),
        }
    })
}

/// Clients that have not taken what they were sent, and those whose server has not.
pub(super) fn who_reads_nothing(view: &View) -> String {
    let server_of = |client: &ClientLine| {
        let servers = view.servers.iter();
        servers
            .filter(|s| s.client == Some(client.id))
            .map(|s| s.unsent)
            .sum::<usize>()
    };
    let late = |client: &&ClientLine| client.unsent + server_of(client) > 0;
    let mut late: Vec<_> = view.clients.iter().filter(late).collect();
    late.sort_by_key(|client| std::cmp::Reverse(client.unsent + server_of(client)));
    sentence(&late, |client| match client.unsent {
        0 => format!("whose server has not taken {} bytes", server_of(client)),
        unsent => format!("has not taken {unsent} bytes"),
    })
}

fn sentence(clients: &[&ClientLine], says: impl Fn(&ClientLine) -> String) -> String {
    let mut text = String::new();
    for client in clients.iter().take(NAMED_MAX) {
        let address = match client.peer {
            Peer::Tcp(address) => address.to_string(),
            Peer::Unix => "a Unix socket".to_owned(),
        };
        let name = match &*client.application_name {
            "" => String::new(),
            name => format!(" {name:?}"),
        };
        // Replication connections are of no pool.
        let pool = match &*client.pool_name {
            "" => &client.database,
            name => name,
        };
        let what = says(client);
        // A string takes everything.
        let _written = write!(
            text,
            " Client {}{name} of {pool} at {address}: {what}.",
            client.id
        );
    }
    if clients.len() > NAMED_MAX {
        let _written = write!(text, " And {} more.", clients.len() - NAMED_MAX);
    }
    text
}
