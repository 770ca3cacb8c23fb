//! What the status says, to whom, and how often the workers are asked for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pooler_protocol::statement::Marks;

use super::tests::{ask, body, desk_of, pool, registry, registry_with};
use super::{Exposition, start};
use crate::admin::{ClientLine, Desk, Standing, View};
use crate::net::Peer;
use crate::registry::Registry;
use crate::status::{HOLDING_MAX, POOLS_MAX, Status, WAITING_MAX};

fn client(id: u64, name: &str, ago: Duration) -> ClientLine {
    let now = Instant::now();
    let since = now.checked_sub(ago).expect("some time ago");
    let peer = Peer::Tcp(SocketAddr::from(([10, 0, 0, 1], 4000)));
    ClientLine {
        id,
        user: "ada".to_owned(),
        database: "app".to_owned(),
        pool_name: "app/ada".to_owned(),
        standing: Standing::Active,
        since,
        peer,
        local: peer,
        connected: since,
        tls: String::new(),
        replication: "none",
        waiting: None,
        transaction: Some(since),
        query: None,
        text: String::new(),
        application_name: name.to_owned(),
        statements: 0,
        server: Some((1, 4242)),
        listens: false,
        pins: Marks::NONE,
        pinned: None,
        held: Some(since),
        keeps_waiting: Vec::new(),
        doing: "idle in transaction",
        received: 0,
        unsent: 0,
    }
}

fn waiter(id: u64, name: &str, ago: Duration) -> ClientLine {
    let holder = client(id, name, ago);
    ClientLine {
        standing: Standing::Waiting,
        waiting: Some(holder.since),
        transaction: None,
        held: None,
        server: None,
        ..holder
    }
}

async fn serve(desk: Arc<Desk>) -> Exposition {
    let any = "127.0.0.1:0".parse().expect("an address");
    start(desk, Some(any)).await.expect("a free port")
}

async fn status(endpoint: &Exposition) -> (Status, usize) {
    let answer = ask(endpoint, "GET /status.json HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\ncontent-type: application/json\r\n"));
    let text = body(&answer);
    (serde_json::from_str(text).expect("a status"), text.len())
}

/// A desk whose workers have these clients, all on the first.
fn desk_with(registry: &Arc<Registry>, clients: Vec<ClientLine>) -> Arc<Desk> {
    desk_of(registry, move |worker, reply| {
        let clients = if worker == 0 {
            clients.clone()
        } else {
            Vec::new()
        };
        let view = View {
            clients,
            ..View::default()
        };
        // Who asked may have left.
        drop(reply.send(view));
    })
}

#[tokio::test]
async fn waiters_and_holders_are_named_the_oldest_first() {
    let registry = registry();
    let _pool = pool(&registry, "app");
    let ms = Duration::from_millis;
    let mut holder = client(7, "report", ms(9000));
    holder.text = "UPDATE t SET secret = 'hunter2' WHERE id = 5".to_owned();
    let clients = vec![
        waiter(1, "late", ms(100)),
        client(2, "short", ms(50)),
        holder,
        waiter(9, "early", ms(3000)),
    ];
    let endpoint = serve(desk_with(&registry, clients)).await;
    let (status, _) = status(&endpoint).await;
    let waiting: Vec<_> = status
        .waiting
        .iter()
        .map(|w| (&*w.application_name, w.client, w.position))
        .collect();
    assert_eq!(waiting, [("early", 9, 1), ("late", 1, 2)]);
    let behind = status.waiting[1].holder.as_ref().expect("somebody holds");
    assert_eq!((behind.client, &*behind.application_name), (7, "report"));
    assert!(behind.held_seconds >= 9.0 && behind.held_seconds < 60.0);
    let first = &status.holding[0];
    assert_eq!(
        (&*first.application_name, &*first.state, first.waiting),
        ("report", "idle in transaction", 2)
    );
    assert_eq!(first.statement, "UPDATE t SET secret = ? WHERE id = ?");
    assert_eq!(first.address, "10.0.0.1:4000");
    assert_eq!(status.holding.len(), 2);
    assert_eq!((status.workers, &*status.silent_workers), (2, &[][..]));
    assert_eq!(status.totals.pools, 1);
    assert_eq!(status.pools[0].database, "app");
    assert_eq!(status.pools[0].size, 20);
    assert_eq!(
        (&*status.hosts[0].host, &*status.hosts[0].datacenter),
        ("db1:5432", "dc1")
    );
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
}

/// Whatever clients call themselves is text in a document that parses.
#[tokio::test]
async fn hostile_names_are_text() {
    let registry = registry();
    let hostile = "</script><script>alert(1)</script>\"},\\\n\u{0}";
    let clients = vec![waiter(1, hostile, Duration::from_secs(1))];
    let endpoint = serve(desk_with(&registry, clients)).await;
    let (status, _) = status(&endpoint).await;
    let shown = "</script><script>alert(1)</script>\"},\\  ";
    assert_eq!(status.waiting[0].application_name, shown);
}

#[tokio::test]
async fn it_stays_small_with_any_number_of_pools_and_clients() {
    let registry = registry();
    for n in 0..300 {
        let _pool = pool(&registry, &format!("{n}{}", "x".repeat(1000)));
    }
    let mut clients = Vec::new();
    for n in 0..5000 {
        let ago = Duration::from_millis(n);
        let name = "n".repeat(1000);
        clients.push(match n % 2 {
            0 => client(n, &name, ago),
            _ => waiter(n, &name, ago),
        });
    }
    let endpoint = serve(desk_with(&registry, clients)).await;
    let (status, len) = status(&endpoint).await;
    assert_eq!(status.pools.len(), POOLS_MAX);
    assert_eq!(status.waiting.len(), WAITING_MAX);
    assert_eq!(status.holding.len(), HOLDING_MAX);
    assert_eq!(status.left_out.pools, 300 - POOLS_MAX);
    assert_eq!(status.left_out.waiting, 2500 - WAITING_MAX);
    assert_eq!(status.left_out.holding, 2500 - HOLDING_MAX);
    assert_eq!(status.totals.pools, 300);
    assert_eq!(status.waiting[0].client, 4999, "the oldest is not left out");
    assert!(len < 200_000, "{len} bytes");
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_named_and_the_rest_is_there() {
    let registry = registry();
    let kept = Mutex::new(Vec::new());
    let desk = desk_of(&registry, move |worker, reply| {
        if worker == 0 {
            kept.lock().expect("no panic").push(reply);
            return;
        }
        let view = View {
            clients: vec![waiter(3, "web", Duration::from_secs(1))],
            ..View::default()
        };
        drop(reply.send(view));
    });
    let endpoint = serve(desk).await;
    let (status, _) = status(&endpoint).await;
    assert_eq!(status.silent_workers, [0]);
    assert_eq!(status.waiting[0].application_name, "web");
}

/// Many who look, and many who look and leave, cost the workers one look.
#[tokio::test]
async fn one_look_a_second_serves_all_who_ask() {
    let registry = registry();
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let desk = desk_of(&registry, move |_, reply| {
        counted.fetch_add(1, Ordering::Relaxed);
        // A look takes a while: those who come meanwhile wait for it.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(reply.send(View::default()));
        });
    });
    let endpoint = Arc::new(serve(desk).await);
    let began = Instant::now();
    let mut asking = Vec::new();
    for _ in 0..12 {
        let here = Arc::clone(&endpoint);
        asking.push(tokio::spawn(async move { status(&here).await.0 }));
        let leaving = super::tests::connect(&endpoint).await;
        drop(leaving);
    }
    for asked in asking {
        assert_eq!(asked.await.expect("no panic").workers, 2);
    }
    let seen = looks.load(Ordering::Relaxed);
    let most = 2 * (1 + began.elapsed().as_secs() as usize);
    assert!((2..=most).contains(&seen), "{seen}: one for each worker");
    tokio::time::sleep(Duration::from_millis(1050)).await;
    status(&endpoint).await;
    assert_eq!(looks.load(Ordering::Relaxed), seen + 2);
}

#[tokio::test]
async fn the_page_comes_with_a_policy_that_lets_it_do_nothing_else() {
    let registry = registry();
    let endpoint = serve(desk_with(&registry, Vec::new())).await;
    let page = ask(&endpoint, "GET / HTTP/1.1").await;
    let head = page.split("\r\n\r\n").next().expect("a head");
    for header in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "referrer-policy: no-referrer",
        "cross-origin-resource-policy: same-origin",
        "cache-control: no-store",
    ] {
        assert!(head.contains(header), "{header}\n{head}");
    }
    let policy = head.lines().find(|l| l.starts_with("content-security"));
    assert!(!policy.expect("one").contains("unsafe"), "{head}");
}

#[tokio::test]
async fn where_it_is_turned_off_nobody_sees_it() {
    let registry = registry_with("[metrics]\nstatus_page = false");
    let clients = vec![waiter(1, "web", Duration::from_secs(1))];
    let endpoint = serve(desk_with(&registry, clients)).await;
    let answer = ask(&endpoint, "GET /status.json HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(body(&answer).contains("status_page is false"), "{answer}");
    let front = ask(&endpoint, "GET / HTTP/1.1").await;
    assert!(body(&front).contains("/metrics"), "{front}");
    assert!(!front.contains("<html"), "{front}");
}
