//! Keys that change in the middle of a stream, and both sides that write at once.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::version::TLS13;

use crate::bridge;
use crate::clients::{authority, section};
use crate::handshakes::log_in;
use crate::scripted::{self, TlsServer, answer_queries, config};
use crate::servers::{before, postgres_with};
use crate::support::{Pooler, ServerWire, query, wait_until};

/// In the middle of a result, and while the connection idles in the pool: it is used again, and hears what is said by new keys.
#[test]
fn t07_a_server_changes_its_keys_in_a_result_and_while_it_idles() {
    let (authority, _dir) = authority();
    let pair = authority.sign("localhost", &["localhost"]);
    let updates = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&updates);
    let server = TlsServer::start(config(&pair, &[&TLS13]), move |mut wire, number| {
        scripted::log_in(&mut wire, number);
        answer_queries(&mut wire, |wire, _| {
            let reply = ServerWire::row_reply("x");
            let row = ServerWire::row(&"y".repeat(2000));
            // T, then rows, then what is left of the reply.
            let head = 1 + u32::from_be_bytes(reply[1..5].try_into().unwrap()) as usize;
            let _sent = wire.write_all(&reply[..head]);
            for n in 0..100 {
                if n % 10 == 0 {
                    wire.conn.refresh_traffic_keys().unwrap();
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                let _sent = wire.write_all(&row);
            }
            let _sent = wire.write_all(&reply[head..]);
            // Nothing but new keys, to whoever has this connection by then.
            wire.conn.refresh_traffic_keys().unwrap();
            let _sent = wire.flush();
            counted.fetch_add(1, Ordering::Relaxed);
        });
    });
    let pooler = before("localhost", server.port, "mode = \"require\"");
    let mut wire = pooler.login("postgres", "there");
    for turn in 1..=5 {
        assert_eq!(wire.rows("SELECT 1").len(), 101, "turn {turn}");
        wait_until("its keys are new", || {
            updates.load(Ordering::Relaxed) == turn * 11
        });
    }
    assert_eq!(server.kinds().len(), 1, "one connection served all");
}

/// A client writes 30 MB of queries and reads nothing, while the server, by TLS too, has as much to say; both change their keys
/// all the time. When the client reads at last everything is there.
#[test]
fn t06_both_sides_write_at_once_through_tls_and_changing_keys() {
    const QUERIES: usize = 3000;
    let (authority, _dir) = authority();
    let pair = authority.sign("localhost", &["localhost"]);
    let postgres = postgres_with(&pair, authority.pem(), &[]);
    let pooler = Pooler::before(&postgres)
        .section(&section(&authority, ""))
        .section("[tls.server]\nmode = \"require\"")
        .start();
    let tls = bridge::rustls_config(&[b"postgresql"]);
    let mut wire = bridge::rustls_connect(pooler.port(), &tls, true).unwrap();
    log_in(&mut wire, "postgres");
    wire.conn.set_buffer_limit(None);
    let asks = query(&format!("SELECT '{}'", "z".repeat(10_000)));
    let mut bytes = Vec::new();
    for n in 0..QUERIES {
        if n % 50 == 0 {
            wire.conn.refresh_traffic_keys().unwrap();
        }
        wire.conn.writer().write_all(&asks).unwrap();
        while wire.conn.wants_write() {
            wire.conn.write_tls(&mut bytes).unwrap();
        }
    }
    let mut writer = wire.sock.try_clone().unwrap();
    let (total, written) = (bytes.len(), Arc::new(AtomicUsize::new(0)));
    let progress = Arc::clone(&written);
    let writes = std::thread::spawn(move || {
        for piece in bytes.chunks(16 * 1024) {
            writer.write_all(piece).unwrap();
            progress.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    // Until nobody takes any more of it.
    let mut last = (usize::MAX, Instant::now());
    wait_until("the client is held up", || {
        let now = written.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(500)
    });
    assert!(last.0 < total, "all of it was taken: {total} bytes");
    assert!(pooler.rss_kb() < 200 * 1024, "{} kB", pooler.rss_kb());
    let mut other = pooler.login("postgres", "postgres");
    assert_eq!(other.one("SELECT 1"), "1");
    let (mut ready, mut rows) = (0, 0);
    while ready < QUERIES {
        let mut header = [0; 5];
        wire.read_exact(&mut header).unwrap();
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; len as usize - 4];
        wire.read_exact(&mut body).unwrap();
        match header[0] {
            b'Z' => ready += 1,
            b'D' => {
                assert!(body[6..].iter().all(|b| *b == b'z') && body.len() == 10_006);
                rows += 1;
            }
            b'E' => panic!("{}", String::from_utf8_lossy(&body)),
            _ => {}
        }
    }
    assert_eq!(rows, QUERIES);
    writes.join().unwrap();
}
