//! What the programs share: 50 sessions at once, one line a scenario.

use std::future::Future;
use std::pin::Pin;

/// What a session ends with.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A scenario of one session.
pub type Body<C> = fn(i32, C) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// How many.
pub fn sessions() -> i32 {
    let number = std::env::var("SESSIONS").ok().and_then(|n| n.parse().ok());
    number.unwrap_or(50)
}

/// An error unless both are equal.
pub fn check<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Outcome {
    if got == wanted {
        return Ok(());
    }
    Err(format!("is {got:?}, not {wanted:?}").into())
}

/// Runs the scenarios that are named on the command line.
pub fn run_all<C, F>(version: &str, scenarios: &[(&str, Body<C>)], connect: fn() -> F)
where
    C: 'static,
    F: Future<Output = Result<C, Box<dyn std::error::Error>>>,
{
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names == ["--version"] {
        println!("{version}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for name in names {
        let Some((_, body)) = scenarios.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let ended = runtime.block_on(async {
            let connected = futures_util::future::join_all((0..sessions()).map(|_| connect())).await;
            let all = connected.into_iter().zip(0..).map(async |(connection, session)| body(session, connection?).await);
            futures_util::future::join_all(all).await
        });
        let bad: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
        match bad.first() {
            None => println!("ok {name}"),
            Some(first) => {
                let text: String = format!("{first:?}").replace('\n', " ").chars().take(300).collect();
                println!("FAILED {name} {} of {} sessions: {text}", bad.len(), sessions());
            }
        }
    }
}
