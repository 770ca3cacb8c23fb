//! Frames of a status in terminals of all sizes.

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::{Look, Sort, Wish, draw, lines, text, wish};
use crate::status::{Errors, Held, History, Holding, Host, Point, Pool, Status, Totals, Waiting};

fn status() -> Status {
    let pool = |database: &str, size, active, waiting| Pool {
        database: database.to_owned(),
        user: "ada".to_owned(),
        role: "primary".to_owned(),
        size,
        active,
        waiting,
        clients: active + waiting,
        oldest_wait_seconds: if waiting > 0 { 12.3 } else { 0.0 },
        ..Pool::default()
    };
    Status {
        version: "1.2.3".to_owned(),
        datacenter: "dc1".to_owned(),
        uptime_seconds: 7380.0,
        workers: 2,
        totals: Totals {
            pools: 2,
            clients: 9,
            waiting: 3,
            oldest_wait_seconds: 12.3,
            servers_active: 6,
            servers_idle: 2,
            servers_connecting: 0,
        },
        pools: vec![pool("reports", 2, 2, 3), pool("app", 8, 4, 0)],
        waiting: (1..=3)
            .map(|position| Waiting {
                client: position as u64,
                application_name: format!("web{position}"),
                user: "ada".to_owned(),
                database: "reports".to_owned(),
                position,
                waited_seconds: 12.3 / position as f64,
                holder: Some(Held {
                    client: 7,
                    application_name: "month-end".to_owned(),
                    held_seconds: 45.0,
                }),
                ..Waiting::default()
            })
            .collect(),
        holding: vec![Holding {
            client: 7,
            application_name: "month-end".to_owned(),
            user: "ada".to_owned(),
            database: "reports".to_owned(),
            state: "idle in transaction".to_owned(),
            statement: "UPDATE t SET a = ?".to_owned(),
            held_seconds: 45.0,
            waiting: 3,
            ..Holding::default()
        }],
        hosts: vec![Host {
            host: "db1:5432".to_owned(),
            datacenter: "dc1".to_owned(),
            role: "replica".to_owned(),
            health: "lags".to_owned(),
            lag_seconds: Some(12.0),
            lag_bytes: Some(2048),
            ..Host::default()
        }],
        history: History {
            every_seconds: 5.0,
            points: (0..50)
                .rev()
                .map(|n| Point {
                    ago_seconds: f64::from(n) * 5.0,
                    transactions_per_second: 100.0 + f64::from(n),
                    transaction_p50_seconds: Some(0.001),
                    transaction_p99_seconds: (n % 7 > 0).then_some(0.010 * f64::from(n + 1)),
                    ..Point::default()
                })
                .collect(),
        },
        errors: vec![Errors {
            sqlstate: "23505".to_owned(),
            class: "integrity constraint violation".to_owned(),
            count: 4,
            last_seconds: 3.0,
        }],
        ..Status::default()
    }
}

fn frame(status: &Status, look: &Look, width: u16, height: u16) -> Vec<String> {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(status, look, area, &mut buffer);
    lines(&buffer)
}

#[test]
fn a_usual_terminal_shows_the_queue_first_and_something_of_all() {
    let shown = frame(&status(), &Look::default(), 80, 24);
    assert_eq!(shown.len(), 24);
    assert_eq!(shown[0], "pooler 1.2.3 in dc1  up 2 h 3 min  clients wait");
    assert!(shown[1].starts_with("waiting 3, 12.3 s   clients 9   servers 6 of 8 in use"));
    let at = |what: &str| {
        let found = shown.iter().position(|line| line.starts_with(what));
        found.unwrap_or_else(|| panic!("{what}\n{}", shown.join("\n")))
    };
    let titles = [
        "Who waits",
        "Who holds a server",
        "Pools",
        "Hosts",
        "Latency",
        "Errors",
    ];
    let places = titles.map(at);
    assert!(places.is_sorted(), "{places:?}");
    let waiter = &shown[at("#1")];
    assert!(
        waiter.contains("web1") && waiter.contains("12.3 s"),
        "{waiter}"
    );
    assert!(waiter.contains("behind month-end"), "{waiter}");
    let holder = &shown[at("month-end")];
    assert!(
        holder.contains("idle in tx") && holder.contains("3 wait"),
        "{holder}"
    );
    let pool = &shown[at("reports / ada")];
    assert!(pool.contains("████") && pool.contains("2/2"), "{pool}");
    assert!(
        shown[23].starts_with("q quit   p pause   s sort: wait"),
        "{}",
        shown[23]
    );
}

#[test]
fn a_wide_terminal_has_two_columns_and_everything() {
    let shown = frame(&status(), &Look::default(), 200, 50).join("\n");
    for part in [
        "web3",
        "UPDATE t SET a = ?",
        "app / ada",
        "db1:5432",
        "lag 12.0 s, 2.0 kB",
        "23505",
        "integrity constraint violation",
        "transaction p99",
        "100/s",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let first = shown
        .lines()
        .find(|line| line.starts_with("Pools"))
        .expect("a line");
    assert!(first.contains("Who waits"), "{first}");
    assert!(!shown.contains("more"), "{shown}");
}

/// No size panics, and each frame is as large as it was asked for.
#[test]
fn any_terminal_is_large_enough() {
    let full = status();
    let mut crowd = status();
    for _ in 0..6 {
        crowd.pools.extend(crowd.pools.clone());
        crowd.waiting.extend(crowd.waiting.clone());
    }
    crowd.silent_workers = vec![0, 3];
    crowd.left_out.waiting = 7;
    for status in [&Status::default(), &full, &crowd] {
        for width in [1, 2, 7, 20, 39, 80, 139, 140, 141, 300] {
            for height in [1, 2, 3, 5, 9, 24, 60] {
                let shown = frame(status, &Look::default(), width, height);
                assert_eq!(shown.len(), usize::from(height));
            }
        }
    }
    let shown = frame(&crowd, &Look::default(), 80, 24).join("\n");
    assert!(shown.contains("no answer from worker 0, 3"), "{shown}");
    assert!(shown.contains("... ") && shown.contains(" more"), "{shown}");
}

#[test]
fn names_cannot_move_the_cursor_or_colour_anything() {
    let mut status = status();
    status.waiting[0].application_name = "\u{1b}[2J\u{1b}[31mweb\r\n\u{7}".to_owned();
    status.unready = Some("draining\u{1b}[0m".to_owned());
    for shown in [text(&status, 80), text(&status, 200)] {
        assert!(
            shown.chars().all(|c| c == '\n' || !c.is_control()),
            "{shown:?}"
        );
        assert!(shown.contains("[2J [31m"), "{shown}");
    }
}

#[test]
fn once_is_the_whole_of_it_without_keys() {
    let shown = text(&status(), 80);
    for part in ["web3", "app / ada", "23505", "transactions"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(
        !shown.contains("q quit") && !shown.contains(" more"),
        "{shown}"
    );
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
}

#[test]
fn keys_sort_pause_and_end() {
    let press = |code| wish(KeyEvent::new(code, KeyModifiers::NONE));
    assert_eq!(press(KeyCode::Char('q')), Some(Wish::Quit));
    assert_eq!(press(KeyCode::Char('p')), Some(Wish::Pause));
    assert_eq!(press(KeyCode::Char('s')), Some(Wish::Sort));
    assert_eq!(press(KeyCode::Char('c')), None);
    let end = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(wish(end), Some(Wish::Quit));
    let mut look = Look::default();
    let first = |look: &Look| {
        let shown = frame(&status(), look, 200, 50);
        let title = shown.iter().position(|line| line.starts_with("Pools"));
        shown[title.expect("pools") + 1]
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(first(&look), "reports");
    look.sort = look.sort.next();
    assert_eq!((look.sort, &*first(&look)), (Sort::Active, "app"));
    look.paused = true;
    look.trouble = Some("no answer".to_owned());
    let shown = frame(&status(), &look, 80, 24).join("\n");
    assert!(
        shown.contains("paused") && shown.contains("no answer"),
        "{shown}"
    );
    assert!(shown.contains("p go on   s sort: in use"), "{shown}");
}
