//! sqlx: named statements kept in a cache of its own, a pool whose connections are pinged.

use futures_util::TryStreamExt;
use pooler_drivers::{Outcome, check, run_all};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolCopyExt, PgPoolOptions};
use sqlx::{Acquire, Connection, PgPool, Row};

async fn connect() -> Result<PgPool, Box<dyn std::error::Error>> {
    // Of PGHOST and its like.
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(std::time::Duration::from_secs(50));
    let pool = pool.connect_with(PgConnectOptions::new()).await?;
    Ok(pool)
}

fn is(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|c| c == code)
}

async fn count(c: &mut PgConnection, session: i32) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM items WHERE session = $1").bind(session).fetch_one(c).await
}

async fn insert(c: &mut PgConnection, session: i32, n: i32) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO items (session, n, value) VALUES ($1, $2, 'x')";
    sqlx::query(sql).bind(session).bind(n).execute(c).await.map(drop)
}

async fn transactions(session: i32, pool: PgPool) -> Outcome {
    let mut kept = 0;
    for n in 0..20 {
        let mut t = pool.begin().await?;
        insert(&mut t, session, n).await?;
        let mut inner = t.begin().await?;
        insert(&mut inner, session, -1).await?;
        inner.rollback().await?;
        check(count(&mut t, session).await?, kept + 1)?;
        if n % 4 == 3 {
            t.rollback().await?;
        } else {
            t.commit().await?;
            kept += 1;
        }
    }
    let gone = sqlx::query("DELETE FROM items WHERE session = $1").bind(session).execute(&pool).await?;
    check(i64::try_from(gone.rows_affected())?, kept)
}

async fn prepared(session: i32, pool: PgPool) -> Outcome {
    for turn in 0..8 {
        for n in 0..20 {
            let text = format!("SELECT $1::int + {n}");
            check(sqlx::query_scalar::<_, i32>(&text).bind(session).fetch_one(&pool).await?, session + n)?;
            let own = 1000 * (session + 1) + n;
            let text = format!("SELECT $1::int * {own}");
            check(sqlx::query_scalar::<_, i32>(&text).bind(turn).fetch_one(&pool).await?, turn * own)?;
        }
    }
    let wrong = sqlx::query("SELEC $1").bind(1).execute(&pool).await.err().ok_or("no error")?;
    check(is(&wrong, "42601"), true)
}

async fn error(session: i32, pool: PgPool) -> Outcome {
    for _ in 0..5 {
        let mut t = pool.begin().await?;
        insert(&mut t, session, 0).await?;
        let wrong = sqlx::query("SELECT 1 / $1::int").bind(0).execute(&mut *t).await.err().ok_or("no error")?;
        check(is(&wrong, "22012"), true)?;
        // Rolled back when it is dropped.
        drop(t);
        let mut c = pool.acquire().await?;
        check(count(&mut c, session).await?, 0)?;
    }
    Ok(())
}

async fn copy(session: i32, pool: PgPool) -> Outcome {
    let text: String = (0..500).map(|n| format!("{session}\t{n}\ts{session}-{n}\n")).collect();
    let mut sink = pool.copy_in_raw("COPY items (session, n, value) FROM STDIN").await?;
    sink.send(text.as_bytes()).await?;
    check(sink.finish().await?, 500)?;
    let sql = format!("COPY (SELECT session, n, value FROM items WHERE session = {session} ORDER BY n) TO STDOUT");
    let out: Vec<_> = pool.copy_out_raw(&sql).await?.try_collect().await?;
    check(String::from_utf8(out.concat())?, text)?;
    let mut sink = pool.copy_in_raw("COPY items (session, n, value) FROM STDIN").await?;
    sink.send(&b"not a number\n"[..]).await?;
    check(is(&sink.finish().await.err().ok_or("no error")?, "22P02"), true)
}

async fn settings(session: i32, pool: PgPool) -> Outcome {
    let mut c = pool.acquire().await?;
    sqlx::raw_sql(&format!("SET search_path TO s{session}, public; SET TIME ZONE 'Asia/Tokyo'")).execute(&mut *c).await?;
    for _ in 0..10 {
        let row = sqlx::query("SELECT session, current_setting('TimeZone') FROM whoami").fetch_one(&mut *c).await?;
        check((row.get(0), row.get(1)), (session, "Asia/Tokyo".to_owned()))?;
        let mut t = c.begin().await?;
        sqlx::query("SET TIME ZONE 'Asia/Kolkata'").execute(&mut *t).await?;
        t.rollback().await?;
        c.ping().await?;
    }
    Ok(())
}

async fn notify(session: i32, pool: PgPool) -> Outcome {
    let channel = format!("c{session}");
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(&channel).await?;
    for n in 0..3 {
        sqlx::query("SELECT pg_notify($1, $2)").bind(&channel).bind(n.to_string()).execute(&pool).await?;
        let got = tokio::time::timeout(std::time::Duration::from_secs(20), listener.recv()).await??;
        check(got.payload(), &n.to_string())?;
    }
    Ok(())
}

async fn advisory(_session: i32, pool: PgPool) -> Outcome {
    let lock = sqlx::postgres::PgAdvisoryLock::new(format!("drivers{}", std::process::id()));
    let mut guard = lock.acquire(pool.acquire().await?).await?;
    let value: i32 = sqlx::query_scalar("SELECT value FROM counter").fetch_one(&mut *guard).await?;
    let done = sqlx::query("UPDATE counter SET value = $1 WHERE value = $2").bind(value + 1).bind(value).execute(&mut *guard).await?;
    check(done.rows_affected(), 1)?;
    guard.release_now().await?;
    Ok(())
}

async fn temp(session: i32, pool: PgPool) -> Outcome {
    let mut c = pool.acquire().await?;
    sqlx::query("CREATE TEMPORARY TABLE mine (n int)").execute(&mut *c).await?;
    for _ in 0..5 {
        sqlx::query("INSERT INTO mine VALUES ($1)").bind(session).execute(&mut *c).await?;
    }
    let row = sqlx::query("SELECT count(*), min(n), max(n) FROM mine").fetch_one(&mut *c).await?;
    check((row.get(0), row.get(1), row.get(2)), (5i64, session, session))?;
    sqlx::query("DROP TABLE mine").execute(&mut *c).await?;
    Ok(())
}

fn main() {
    let scenarios: Vec<(&str, pooler_drivers::Body<PgPool>)> = vec![
        ("transactions", |n, p| Box::pin(transactions(n, p))),
        ("prepared", |n, p| Box::pin(prepared(n, p))),
        ("error", |n, p| Box::pin(error(n, p))),
        ("copy", |n, p| Box::pin(copy(n, p))),
        ("settings", |n, p| Box::pin(settings(n, p))),
        ("notify", |n, p| Box::pin(notify(n, p))),
        ("advisory", |n, p| Box::pin(advisory(n, p))),
        ("temp", |n, p| Box::pin(temp(n, p))),
    ];
    run_all::<PgPool, _>("sqlx 0.8", &scenarios, connect);
}
