//! What the commands do that change something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::command::{COMMANDS, Given, usage};
use super::hold::{Hold, Standstill, What, timeout};
use super::{Control, Desk, Errand, Reloaded, Scope, Whom, is_console};
use crate::config::parse_duration;
use crate::error::Refusal;
use crate::shutdown::Ask;
use crate::timer;

/// How often WAIT_CLOSE looks again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// See the table of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Help,
    ShowFds,
    Set,
    Reload,
    Pause,
    Suspend,
    Resume,
    Disable,
    Enable,
    Reconnect,
    Kill,
    KillClient,
    WaitClose,
    Shutdown,
    /// Nothing, and says so by this tag.
    Nothing(&'static str),
}

/// What an operator is told beside that it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) severity: &'static str,
    pub(super) message: String,
    pub(super) detail: String,
}

/// How a command ended well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) notices: Vec<Notice>,
    pub(super) tag: String,
}

/// Does what was asked. Dropped midway, a pause is undone; everything else is done or not.
///
/// # Errors
/// What the operator is told.
pub(super) async fn act(desk: &Desk, verb: Verb, given: &Given) -> Result<Done, Refusal> {
    let mut notices = Vec::new();
    match verb {
        Verb::Nothing(tag) => return Ok(done(tag)),
        Verb::Help => {
            return Ok(Done {
                notices: vec![help()],
                tag: "SHOW".to_owned(),
            });
        }
        Verb::ShowFds => {
            return Err(Refusal::error("0A000", "SHOW FDS is not supported").hint(
                "SIGUSR2 hands over to another process; SHOW SOCKETS lists the connections.",
            ));
        }
        Verb::Set => return set(desk, &given.arguments).await,
        Verb::Reload => notices = reload(desk).await?,
        Verb::Pause => pause(desk, given).await?,
        Verb::Suspend => {
            let limit = given.arguments.first().map(|text| duration(text));
            let limit = limit.transpose()?;
            Standstill::begin(desk)?.settle(limit).await?;
        }
        Verb::Resume => resume(desk, given)?,
        Verb::Disable | Verb::Enable => {
            let name = database(desk, &given.arguments[0])?;
            desk.registry.change_gates(|gates| match verb {
                Verb::Disable => gates.disabled.insert(name),
                _ => gates.disabled.remove(&name),
            });
        }
        Verb::Reconnect => {
            let name = optional_database(desk, given.arguments.first())?;
            for pool in desk.registry.pools_of(name.as_deref()) {
                pool.renew();
            }
        }
        Verb::Kill => kill(desk, given).await?,
        Verb::KillClient => kill_client(desk, &given.arguments[0]).await?,
        Verb::WaitClose => wait_close(desk, given).await?,
        Verb::Shutdown => shutdown(desk, given)?,
    }
    tracing::info!(
        "console: {} {}",
        given.command.name,
        given.arguments.join(" ")
    );
    Ok(Done {
        notices,
        ..done(given.command.name)
    })
}

fn done(tag: &str) -> Done {
    Done {
        notices: Vec::new(),
        tag: tag.to_owned(),
    }
}

pub(super) fn notice(message: impl Into<String>, detail: String) -> Notice {
    Notice {
        severity: "NOTICE",
        message: message.into(),
        detail,
    }
}

fn help() -> Notice {
    let listed = COMMANDS.iter().filter(|c| !c.help.is_empty());
    let line = |c: &super::command::Command| {
        let form = format!("{} {}", c.name, c.takes);
        format!("\n\t{:<45} {}", form.trim_end(), c.help)
    };
    notice("Console usage", listed.map(line).collect())
}

/// The database `name`, if it is configured and no console.
fn database(desk: &Desk, name: &str) -> Result<String, Refusal> {
    if is_console(name) {
        return Err(Refusal::error(
            "0A000",
            format!("\"{name}\" is the console"),
        ));
    }
    match desk.registry.current().config.database(name) {
        Some(_) => Ok(name.to_owned()),
        None => Err(
            Refusal::error("3D000", format!("no such database: \"{name}\""))
                .hint("SHOW DATABASES lists them."),
        ),
    }
}

fn optional_database(desk: &Desk, name: Option<&String>) -> Result<Option<String>, Refusal> {
    name.map(|name| database(desk, name)).transpose()
}

fn duration(text: &str) -> Result<Duration, Refusal> {
    parse_duration(text).map_err(|e| {
        Refusal::error("22023", e).hint("Write a duration with its unit: 30s, 500ms, 2m.")
    })
}

/// `[db] [timeout]`: a single word is the name of a database if there is one of that name.
fn database_and_limit(
    desk: &Desk,
    given: &Given,
) -> Result<(Option<String>, Option<Duration>), Refusal> {
    match given.arguments.as_slice() {
        [] => Ok((None, None)),
        [one] => {
            let configured = desk.registry.current().config.databases.contains_key(one);
            match parse_duration(one) {
                Ok(limit) if !configured => Ok((None, Some(limit))),
                _ => Ok((Some(database(desk, one)?), None)),
            }
        }
        [name, limit, ..] => Ok((Some(database(desk, name)?), Some(duration(limit)?))),
    }
}

async fn pause(desk: &Desk, given: &Given) -> Result<(), Refusal> {
    let (name, limit) = database_and_limit(desk, given)?;
    let what = name.map_or(What::Everything, What::Database);
    Hold::close(&desk.registry, what)?.settle(desk, limit).await
}

fn resume(desk: &Desk, given: &Given) -> Result<(), Refusal> {
    let name = optional_database(desk, given.arguments.first())?;
    let resumed = desk.registry.change_gates(|gates| match &name {
        Some(name) => gates.resume(name),
        None => gates.resume_everything(),
    });
    if name.is_none() {
        desk.tell_all(|| Errand::GoOn);
    }
    if resumed {
        return Ok(());
    }
    Err(match name {
        Some(name) => Refusal::error("55000", format!("database \"{name}\" is not paused"))
            .hint("RESUME without a name ends a pause of everything."),
        None => Refusal::error("55000", "nothing is paused or suspended"),
    })
}

async fn kill(desk: &Desk, given: &Given) -> Result<(), Refusal> {
    let name = optional_database(desk, given.arguments.first())?;
    let what = match &name {
        Some(name) => What::Database(name.clone()),
        None => What::Everything,
    };
    // A pooler that drains lets nobody in, and has to go on to end.
    if !desk.registry.gates_now().is_draining() {
        Hold::close(&desk.registry, what)?.keep();
    }
    let whom = name.map_or(Whom::Everybody, Whom::Database);
    desk.end(&whom, &Refusal::killed()).await;
    Ok(())
}

async fn kill_client(desk: &Desk, id: &str) -> Result<(), Refusal> {
    let no_client = || {
        Refusal::error("22023", format!("there is no client {id}"))
            .hint("SHOW CLIENTS has the numbers in its column id.")
    };
    let number = id.parse().map_err(|_| no_client())?;
    if desk.end_visit(number) {
        return Ok(());
    }
    match desk.end(&Whom::Client(number), &Refusal::killed()).await {
        0 => Err(no_client()),
        _ => Ok(()),
    }
}

async fn wait_close(desk: &Desk, given: &Given) -> Result<(), Refusal> {
    let (name, limit) = database_and_limit(desk, given)?;
    let began = Instant::now();
    loop {
        let view = desk.look(Scope::Busy).await;
        let old = view.servers.iter().filter(|server| server.close_needed);
        let mut old: Vec<String> = old
            .filter(|server| name.as_ref().is_none_or(|name| *name == server.database))
            .map(|server| format!("{}/{}", server.database, server.user))
            .collect();
        old.dedup();
        if old.is_empty() {
            return Ok(());
        }
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            return Err(timeout(limit, &old).detail(format!("Of {}.", old.join(", "))));
        }
        timer::sleep(LOOK_EVERY).await;
    }
}

fn shutdown(desk: &Desk, given: &Given) -> Result<(), Refusal> {
    let how = given.arguments.first().map(|word| word.to_uppercase());
    let ask = match how.as_deref() {
        None => Ask::Stop,
        Some("WAIT_FOR_SERVERS") => Ask::DrainServers,
        Some("WAIT_FOR_CLIENTS") => Ask::DrainClients,
        Some(_) => return Err(usage(given.command)),
    };
    send(desk, Control::Ask(ask))
}

fn send(desk: &Desk, control: Control) -> Result<(), Refusal> {
    desk.control
        .send(control)
        .map_err(|_stopped| Refusal::shutting_down())
}

async fn reload(desk: &Desk) -> Result<Vec<Notice>, Refusal> {
    let (reply, answer) = oneshot::channel();
    send(desk, Control::Reload(reply))?;
    report(answer).await
}

async fn report(
    answer: oneshot::Receiver<Result<Reloaded, String>>,
) -> Result<Vec<Notice>, Refusal> {
    let reloaded = answer.await.map_err(|_stopped| Refusal::shutting_down())?;
    let reloaded = reloaded.map_err(|e| {
        let first = e.lines().next().unwrap_or_default().to_owned();
        Refusal::error("F0000", first)
            .detail(e.lines().skip(1).collect::<Vec<_>>().join("\n"))
            .hint("Nothing has changed: the old configuration stays in force.")
    })?;
    let mut notices = Vec::new();
    let lines = |lines: &[String]| lines.iter().map(|line| format!("\n\t{line}")).collect();
    if reloaded.changes.is_empty() {
        notices.push(notice("nothing has changed", String::new()));
    } else {
        notices.push(notice("changed", lines(&reloaded.changes)));
    }
    if !reloaded.restart.is_empty() {
        notices.push(Notice {
            severity: "WARNING",
            message: format!(
                "in effect only after a restart: {}",
                reloaded.restart.join(", ")
            ),
            detail: String::new(),
        });
    }
    notices.extend(reloaded.warnings.into_iter().map(|message| Notice {
        severity: "WARNING",
        message,
        detail: String::new(),
    }));
    Ok(notices)
}

async fn set(desk: &Desk, arguments: &[String]) -> Result<Done, Refusal> {
    let [key, sign, value] = arguments else {
        return Err(Refusal::error("42601", "usage: SET key = value"));
    };
    if sign != "=" && !sign.eq_ignore_ascii_case("to") {
        return Err(Refusal::error("42601", "usage: SET key = value"));
    }
    let current = Arc::clone(&desk.registry.current());
    let config = current.config.with(key, value).map_err(|e| {
        Refusal::error(e.sqlstate, e.message).hint("SHOW SETTINGS lists the settings.")
    })?;
    let (reply, answer) = oneshot::channel();
    send(desk, Control::Adopt(Box::new(config), reply))?;
    let notices = report(answer).await?;
    tracing::info!("console: SET {key} = {value:?}");
    Ok(Done {
        notices,
        tag: "SET".to_owned(),
    })
}
