//! What the endpoint answers to requests, good and bad.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::http::HEAD_MAX;
use super::start;
use super::tests::{ask, ask_by, body, connect, desk, pool, registry, registry_with, served};
use crate::cluster::PrimaryState;
use crate::pool::Locate;
use crate::registry::{Closed, Gates};

#[tokio::test]
async fn each_path_answers() {
    let registry = registry();
    let _pool = pool(&registry, "app");
    let endpoint = served(&registry).await;
    let transcript = [
        ("GET /healthz HTTP/1.1", "200 OK", "alive\n"),
        ("GET /healthz?x=1 HTTP/1.0", "200 OK", "alive\n"),
        ("HEAD /healthz HTTP/1.1", "200 OK", ""),
        ("GET /readyz HTTP/1.1", "200 OK", "ready\n"),
        (
            "GET /metric HTTP/1.1",
            "404 Not Found",
            "Not found. See / for what is here.\n",
        ),
        (
            "POST /metrics HTTP/1.1",
            "405 Method Not Allowed",
            "Only GET and HEAD.\n",
        ),
    ];
    for (request, status, text) in transcript {
        let answer = ask(&endpoint, request).await;
        assert_eq!(&answer[9..9 + status.len()], status, "{request}: {answer}");
        assert_eq!(body(&answer), text, "{request}");
    }
    let front = ask(&endpoint, "GET / HTTP/1.1").await;
    for path in ["metrics", "healthz", "readyz", "status.json"] {
        assert!(front.contains(&format!("href=\"{path}\"")), "{front}");
    }
    let post = ask(&endpoint, "DELETE / HTTP/1.1").await;
    assert!(post.contains("\r\nallow: GET, HEAD\r\n"), "{post}");
    assert!(
        ask(&endpoint, "nonsense")
            .await
            .starts_with("HTTP/1.1 400 ")
    );
}

/// A name that somebody else has given our address gets nothing that says who is served; probes and scrapers go by any.
#[tokio::test]
async fn the_status_is_served_by_our_own_names_alone() {
    let registry = registry_with("[metrics]\nhosts = [\"status.example\"]");
    let endpoint = served(&registry).await;
    for (host, status) in [
        ("\r\nHost: 127.0.0.1:9930", "200 OK"),
        ("\r\nHost: status.example", "200 OK"),
        ("\r\nHost: evil.example:9930", "421 Misdirected Request"),
        ("\r\nHost: localhost\r\nHost: evil.example", "421 "),
    ] {
        for path in ["/", "/status.json"] {
            let answer = ask_by(&endpoint, &format!("GET {path} HTTP/1.1"), host).await;
            assert_eq!(&answer[9..9 + status.len()], status, "{host}: {answer}");
            assert_eq!(answer.contains("[metrics] hosts"), status != "200 OK");
        }
        for path in ["/metrics", "/healthz", "/readyz"] {
            let answer = ask_by(&endpoint, &format!("GET {path} HTTP/1.1"), host).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{host}: {answer}");
        }
    }
    let nameless = ask_by(&endpoint, "GET /status.json HTTP/1.0", "").await;
    assert_eq!(&nameless[9..15], "200 OK");
    let by_proxy = "GET http://evil.example/status.json HTTP/1.1";
    let answer = ask(&endpoint, by_proxy).await;
    assert_eq!(&answer[9..13], "421 ");
}

#[tokio::test]
async fn metrics_come_in_the_format_that_was_asked_for() {
    let registry = registry();
    let endpoint = served(&registry).await;
    let old = ask(&endpoint, "GET /metrics HTTP/1.1").await;
    assert!(old.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(
        old.contains("\n# TYPE pooler_queries_total counter\n"),
        "{old}"
    );
    let new = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.6,\
               text/plain;q=0.3";
    let new = ask(&endpoint, new).await;
    assert!(new.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0"));
    assert!(new.contains("\n# TYPE pooler_queries counter\n") && new.ends_with("# EOF\n"));
}

#[tokio::test]
async fn readiness_says_why_not() {
    let registry = registry();
    let endpoint = served(&registry).await;
    let cluster = Arc::clone(&registry.current().clusters()["main"]);
    let _lost = cluster.nobody(Vec::new());
    let answer = ask(&endpoint, "GET /readyz HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(body(&answer), "no primary in: main\n");
    // If nobody tries any more, nobody knows: a pooler that gets no clients must not stay unready.
    let later = Instant::now() + Duration::from_secs(31);
    assert_eq!(cluster.primary_state_at(later), PrimaryState::Unknown);
    registry.change_gates(|gates| gates.close_everything(Closed::Suspended));
    let answer = ask(&endpoint, "GET /readyz HTTP/1.1").await;
    let suspended = "the pooler is suspended and lets no new clients in\n";
    assert_eq!(body(&answer), suspended);
    registry.change_gates(Gates::resume_everything);
    endpoint.set_accepting(false);
    let answer = ask(&endpoint, "GET /readyz HTTP/1.1").await;
    assert_eq!(
        body(&answer),
        "the pooler is draining and accepts no new clients\n"
    );
    assert!(
        ask(&endpoint, "GET /healthz HTTP/1.1")
            .await
            .ends_with("alive\n")
    );
}

#[tokio::test]
async fn a_port_in_use_names_the_key_to_change() {
    let registry = registry();
    let endpoint = served(&registry).await;
    let again = start(desk(&registry), endpoint.address()).await;
    let error = again.expect_err("taken").to_string();
    let address = endpoint.address().expect("it listens");
    assert!(
        error.starts_with(&format!("cannot serve metrics on {address}: ")),
        "{error}"
    );
    assert!(error.contains("change [metrics] listen"), "{error}");
    assert!(
        start(desk(&registry), None)
            .await
            .expect("nothing to do")
            .address()
            .is_none()
    );
}

#[tokio::test]
async fn clients_that_say_nothing_lock_nobody_out() {
    let registry = registry();
    let endpoint = served(&registry).await;
    let mut slow = connect(&endpoint).await;
    slow.write_all(b"GET /metrics HT").await.expect("sent");
    let began = Instant::now();
    // Trickling does not move the deadline.
    let mut rest = Vec::new();
    let closed = async {
        loop {
            tokio::select! {
                read = slow.read_to_end(&mut rest) => break read,
                () = tokio::time::sleep(HEAD_MAX / 10) => {}
            }
            if slow.write_all(b"x").await.is_err() {
                break Ok(0);
            }
        }
    };
    let closed = tokio::time::timeout(HEAD_MAX * 10, closed).await;
    assert!(closed.is_ok(), "still open after {:?}", began.elapsed());
    // More of them than there is room for: they go, and whoever came behind them is served.
    let mut idle = Vec::new();
    for _ in 0..150 {
        idle.push(connect(&endpoint).await);
    }
    assert!(
        ask(&endpoint, "GET /healthz HTTP/1.1")
            .await
            .ends_with("alive\n")
    );
}

#[tokio::test]
async fn many_at_once_are_all_answered() {
    let registry = registry();
    let endpoint = Arc::new(served(&registry).await);
    let mut asked = Vec::new();
    for _ in 0..100 {
        let endpoint = Arc::clone(&endpoint);
        asked.push(tokio::spawn(async move {
            ask(&endpoint, "GET /metrics HTTP/1.1").await
        }));
    }
    for answer in asked {
        let answer = answer.await.expect("no panic");
        let served = answer.starts_with("HTTP/1.1 200 ") && answer.contains("pooler_build_info{");
        assert!(served || answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    let after = ask(&endpoint, "GET /metrics HTTP/1.1").await;
    assert!(after.starts_with("HTTP/1.1 200 "), "{after}");
}

#[tokio::test]
async fn scrapes_that_nobody_reads_are_few() {
    let registry = registry();
    for n in 0..60 {
        let _pool = pool(&registry, &format!("{n}{}", "x".repeat(400)));
    }
    let endpoint = served(&registry).await;
    let mut unread = Vec::new();
    for _ in 0..20 {
        let address = endpoint.address().expect("it listens");
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small window");
        let mut stream = socket.connect(address).await.expect("it accepts");
        let request = b"GET /metrics HTTP/1.1\r\nHost: pooler\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        // It is rendered then; all but the front of it has yet to be taken.
        stream.readable().await.expect("an answer");
        unread.push(stream);
    }
    let busy = ask(&endpoint, "GET /metrics HTTP/1.1").await;
    assert!(
        busy.ends_with("Too many scrapes are under way.\n"),
        "{}",
        &busy[..200]
    );
    assert!(
        ask(&endpoint, "GET /healthz HTTP/1.1")
            .await
            .ends_with("alive\n")
    );
    drop(unread);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ask(&endpoint, "GET /metrics HTTP/1.1")
        .await
        .starts_with("HTTP/1.1 200 ")
    {
        assert!(Instant::now() < deadline, "their places are not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
