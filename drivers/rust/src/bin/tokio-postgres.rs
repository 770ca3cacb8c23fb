//! tokio-postgres: named statements for everything, types looked up by statements of its own, pipelines by polling at once.

use std::pin::pin;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use pooler_drivers::{Outcome, check, run_all};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

struct Session {
    client: Client,
    notifications: mpsc::UnboundedReceiver<(String, String)>,
}

async fn connect() -> Result<Session, Box<dyn std::error::Error>> {
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let mut config = tokio_postgres::Config::new();
    config.host(env("PGHOST")).port(env("PGPORT").parse()?).dbname(env("PGDATABASE"));
    config.user(env("PGUSER")).password(env("PGPASSWORD"));
    let (client, mut connection) = config.connect(NoTls).await?;
    let (sender, notifications) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(n) = message {
                let _ = sender.send((n.channel().to_owned(), n.payload().to_owned()));
            }
        }
    });
    Ok(Session { client, notifications })
}

/// Whether it failed, and with that code.
fn raises<T>(result: Result<T, tokio_postgres::Error>, code: &str) -> Outcome {
    let error = result.err().ok_or_else(|| format!("no error {code}"))?;
    if error.code().is_some_and(|c| c.code() == code) { Ok(()) } else { Err(error.into()) }
}

async fn transactions(session: i32, mut s: Session) -> Outcome {
    let mut kept = 0i64;
    for n in 0..20i32 {
        let t = s.client.transaction().await?;
        t.execute("INSERT INTO items (session, n, value) VALUES ($1, $2, $3)", &[&session, &n, &format!("s{session}")]).await?;
        let row = t.query_one("SELECT count(*), pg_backend_pid() FROM items WHERE session = $1", &[&session]).await?;
        check(row.get::<_, i64>(0), kept + 1)?;
        let again = t.query_one("SELECT pg_backend_pid()", &[]).await?;
        check(again.get::<_, i32>(0), row.get(1))?;
        if n % 4 == 3 {
            t.rollback().await?;
        } else {
            t.commit().await?;
            kept += 1;
        }
    }
    let gone = s.client.execute("DELETE FROM items WHERE session = $1", &[&session]).await?;
    check(i64::try_from(gone)?, kept)
}

async fn prepared(session: i32, s: Session) -> Outcome {
    let shared = s.client.prepare("SELECT $1::int + 1000, $2::mood::text").await;
    check(shared.is_ok(), true)?;
    let shared = s.client.prepare("SELECT $1::int + 1000").await?;
    let own = s.client.prepare(&format!("SELECT $1::int * {}", session + 7)).await?;
    for n in 0..40 {
        check(s.client.query_one(&shared, &[&n]).await?.get(0), n + 1000)?;
        check(s.client.query_one(&own, &[&n]).await?.get(0), n * (session + 7))?;
    }
    raises(s.client.prepare("SELEC 1").await, "42601")?;
    drop(own);
    check(s.client.query_one(&shared, &[&1]).await?.get(0), 1001)
}

async fn pipeline(session: i32, s: Session) -> Outcome {
    let statement = s.client.prepare("SELECT 1 / $1::int, $2::int").await?;
    for _ in 0..5 {
        let numbers: Vec<i32> = (0..30).map(|n| n % 10).collect();
        let all = numbers.iter().map(|n| async { s.client.query_one(&statement, &[n, &session]).await });
        for (n, result) in numbers.iter().zip(future::join_all(all).await) {
            match result {
                Ok(row) => check((*n != 0, row.get(1)), (true, session))?,
                Err(e) => {
                    check(*n, 0)?;
                    raises(Err::<(), _>(e), "22012")?;
                }
            }
        }
    }
    Ok(())
}

async fn error(session: i32, mut s: Session) -> Outcome {
    for _ in 0..5 {
        let t = s.client.transaction().await?;
        t.execute("INSERT INTO items (session, n, value) VALUES ($1, 0, 'lost')", &[&session]).await?;
        raises(t.query("SELECT * FROM nonsense", &[]).await, "42P01")?;
        raises(t.query("SELECT 1", &[]).await, "25P02")?;
        drop(t);
        check(s.client.query_one("SELECT count(*) FROM items WHERE session = $1", &[&session]).await?.get(0), 0i64)?;
    }
    Ok(())
}

async fn cancel(session: i32, s: Session) -> Outcome {
    for _ in 0..2 {
        let token = s.client.cancel_token();
        let canceller = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await
        });
        raises(s.client.batch_execute("SELECT pg_sleep(50)").await, "57014")?;
        canceller.await??;
        check(s.client.query_one("SELECT $1::int", &[&session]).await?.get(0), session)?;
    }
    Ok(())
}

async fn copy(session: i32, s: Session) -> Outcome {
    let text: String = (0..500).map(|n| format!("{session}\t{n}\ts{session}-{n}\n")).collect();
    let sink = s.client.copy_in("COPY items (session, n, value) FROM STDIN").await?;
    let mut sink = pin!(sink);
    sink.send(bytes(&text)).await?;
    check(sink.finish().await?, 500)?;
    let sql = format!("COPY (SELECT session, n, value FROM items WHERE session = {session} ORDER BY n) TO STDOUT");
    let out: Vec<_> = s.client.copy_out(&sql).await?.try_collect().await?;
    check(String::from_utf8(out.concat())?, text)?;
    let sink = s.client.copy_in("COPY items (session, n, value) FROM STDIN").await?;
    let mut sink = pin!(sink);
    sink.send(bytes("not a number\n")).await?;
    raises(sink.finish().await, "22P02")?;
    check(s.client.query_one("SELECT count(*) FROM items WHERE session = $1", &[&session]).await?.get(0), 500i64)
}

fn bytes(text: &str) -> std::io::Cursor<Vec<u8>> {
    std::io::Cursor::new(text.as_bytes().to_vec())
}

async fn cursor(session: i32, mut s: Session) -> Outcome {
    for _ in 0..3 {
        let t = s.client.transaction().await?;
        let portal = t.bind("SELECT $1::int * 1000 + n FROM generate_series(1, 350) AS n", &[&session]).await?;
        let mut got = Vec::new();
        loop {
            let rows = t.query_portal(&portal, 100).await?;
            got.extend(rows.iter().map(|r| r.get::<_, i32>(0)));
            if rows.len() < 100 {
                break;
            }
        }
        check(got, (1..=350).map(|n| session * 1000 + n).collect())?;
        t.commit().await?;
    }
    Ok(())
}

async fn settings(session: i32, mut s: Session) -> Outcome {
    s.client.batch_execute(&format!("SET search_path TO s{session}, public; SET TIME ZONE 'Asia/Tokyo'")).await?;
    s.client.query("SELECT set_config('app.me', $1, false)", &[&format!("s{session}")]).await?;
    for _ in 0..10 {
        let sql = "SELECT session, current_setting('TimeZone'), current_setting('app.me') FROM whoami";
        let row = s.client.query_one(sql, &[]).await?;
        check((row.get(0), row.get(1), row.get(2)), (session, "Asia/Tokyo".to_owned(), format!("s{session}")))?;
        let t = s.client.transaction().await?;
        t.batch_execute("SET app.me = 'nobody'").await?;
        t.rollback().await?;
    }
    Ok(())
}

async fn notify(session: i32, mut s: Session) -> Outcome {
    let channel = format!("c{session}");
    s.client.batch_execute(&format!("LISTEN {channel}")).await?;
    for n in 0..3 {
        s.client.execute("SELECT pg_notify($1, $2)", &[&channel, &n.to_string()]).await?;
        let got = tokio::time::timeout(Duration::from_secs(20), s.notifications.recv()).await?;
        check(got, Some((channel.clone(), n.to_string())))?;
    }
    Ok(s.client.batch_execute("UNLISTEN *").await?)
}

async fn advisory(_session: i32, s: Session) -> Outcome {
    let key = i64::from(std::process::id());
    s.client.execute("SELECT pg_advisory_lock($1)", &[&key]).await?;
    let value: i32 = s.client.query_one("SELECT value FROM counter", &[]).await?.get(0);
    check(s.client.execute("UPDATE counter SET value = $1 WHERE value = $2", &[&(value + 1), &value]).await?, 1)?;
    check(s.client.query_one("SELECT pg_advisory_unlock($1)", &[&key]).await?.get(0), true)
}

async fn temp(session: i32, s: Session) -> Outcome {
    s.client.batch_execute("CREATE TEMPORARY TABLE mine (n int, value text)").await?;
    let statement = s.client.prepare("INSERT INTO mine VALUES ($1, $2)").await?;
    for n in 0..5i32 {
        s.client.execute(&statement, &[&n, &format!("s{session}")]).await?;
    }
    let row = s.client.query_one("SELECT count(*), min(value), max(value) FROM mine", &[]).await?;
    check((row.get(0), row.get(1), row.get(2)), (5i64, format!("s{session}"), format!("s{session}")))?;
    Ok(s.client.batch_execute("DROP TABLE mine").await?)
}

fn main_scenarios() -> Vec<(&'static str, pooler_drivers::Body<Session>)> {
    vec![
        ("transactions", |n, s| Box::pin(transactions(n, s))),
        ("prepared", |n, s| Box::pin(prepared(n, s))),
        ("pipeline", |n, s| Box::pin(pipeline(n, s))),
        ("error", |n, s| Box::pin(error(n, s))),
        ("cancel", |n, s| Box::pin(cancel(n, s))),
        ("copy", |n, s| Box::pin(copy(n, s))),
        ("cursor", |n, s| Box::pin(cursor(n, s))),
        ("settings", |n, s| Box::pin(settings(n, s))),
        ("notify", |n, s| Box::pin(notify(n, s))),
        ("advisory", |n, s| Box::pin(advisory(n, s))),
        ("temp", |n, s| Box::pin(temp(n, s))),
    ]
}

fn main() {
    run_all::<Session, _>("tokio-postgres 0.7", &main_scenarios(), connect);
}
